"""The picture of a tilt that a person draws on: 8 bit, reduced, row 0 on top as it is stored."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy import bool_, float32, uint8
from numpy.typing import NDArray

from engines.errors import EngineError
from engines.preprocess import resample

LONGEST_SIDE_PX = 1280
"""Ice of 70 nm is some 20 px wide on a field of 4 um; at full size noise would hide it."""
_PERCENTILES = (0.5, 99.5)
_LARGEST_VALUE = 1e15


def picture_shape(shape: tuple[int, int], longest_px: int = LONGEST_SIDE_PX) -> tuple[int, int]:
    """Tell the (rows, columns) of the picture of a tilt: reduced, never made larger."""
    ratio = min(1.0, longest_px / max(shape))
    return max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))


def picture_of(image: NDArray[Any], valid: NDArray[bool_] | None = None) -> NDArray[uint8]:
    """Average a tilt down and stretch it between robust percentiles of what is valid.

    `valid` may have any shape of the same field of view.
    """
    shape = picture_shape((image.shape[0], image.shape[1]))
    if image.dtype.kind == "f":
        image = np.where(np.abs(image) < _LARGEST_VALUE, image, image.dtype.type(0.0))
    small = resample(image, shape)
    inside = small.ravel()
    if valid is not None and valid.any():
        size = (shape[1], shape[0])
        inside = small[cv2.resize(valid.astype(uint8), size, interpolation=cv2.INTER_NEAREST) > 0]
    low, high = np.percentile(inside, _PERCENTILES) if inside.size else (0.0, 1.0)
    unit = (small - float32(low)) / max(float(high - low), 1e-12)
    return np.asarray((unit.clip(0.0, 1.0) * 255.0).round(), uint8)


def png_of(picture: NDArray[uint8]) -> bytes:
    """Encode a picture."""
    done, content = cv2.imencode(".png", picture)
    if not done:
        raise EngineError("A picture cannot be encoded as PNG; reinstall opencv.")
    return content.tobytes()
