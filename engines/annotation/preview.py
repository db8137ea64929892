"""Annotations drawn over their picture, to see whether they came back as they were meant."""

from __future__ import annotations

import cv2
import numpy as np
from numpy import bool_, uint8
from numpy.typing import NDArray

from engines.annotation.labels import Meanings
from engines.annotation.model import AnnotatedImage
from engines.annotation.raster import rasterise
from engines.errors import EngineError

Color = tuple[int, int, int]
ICE_BGR: Color = (40, 140, 255)
NOT_ICE_BGR: Color = (255, 180, 60)
IGNORED_BGR: Color = (170, 170, 170)
_TINT = 0.25
_HATCH_STEP_PX = 12
_QUALITY = 88


def preview_of(
    picture: NDArray[uint8], image: AnnotatedImage, meanings: Meanings
) -> NDArray[uint8]:
    """Draw ice (orange), what is no ice (blue) and what is left out (hatched) over a picture.

    `picture` is grey and of any size of the same field of view, row 0 on top.
    """
    canvas = np.repeat(picture[:, :, None], 3, axis=2)
    shape = (picture.shape[0], picture.shape[1])
    width = max(1, round(max(shape) / 800))
    for labels, color in ((meanings.ice, ICE_BGR), (meanings.not_ice, NOT_ICE_BGR)):
        mask = rasterise(image, shape, labels)
        tinted = canvas[mask] * (1.0 - _TINT) + np.array(color) * _TINT
        canvas[mask] = tinted.astype(uint8)
        _outline(canvas, mask, color, width)
    ignored = rasterise(image, shape, meanings.ignore)
    rows, columns = (np.arange(length) for length in shape)
    stripes = (rows[:, None] + columns[None, :]) % _HATCH_STEP_PX < width + 1
    canvas[ignored & stripes] = IGNORED_BGR
    _outline(canvas, ignored, IGNORED_BGR, width)
    return canvas


def _outline(canvas: NDArray[uint8], mask: NDArray[bool_], color: Color, width: int) -> None:
    lines, _ = cv2.findContours(mask.astype(uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, lines, -1, color, width)


def jpeg_of(picture: NDArray[uint8]) -> bytes:
    """Encode a picture."""
    done, content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise EngineError("A picture cannot be encoded as JPEG; reinstall opencv.")
    return content.tobytes()
