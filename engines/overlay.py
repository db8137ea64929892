"""An ice map for people and other programs: a picture with the ice drawn in, a mask of the tilt."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy import bool_, float32, int8, uint8
from numpy.typing import NDArray

from engines.errors import EngineError
from engines.icemap import IceMap

ICE, NO_ICE, NOT_VALID = 1, 0, -1
"""Values of a mask file."""

_ICE_BGR = (40, 140, 255)
_ICE_SHARE = 0.25
_HATCH_BGR = (110, 90, 90)
_HATCH_STEP_PX = 12
_GREY_STEP = 16
"""Grey values are rounded to this: noise that no eye sees would triple the size of the file."""
_WHITE = (255, 255, 255)
_MIN_BAR_FIELD_PX = 96
_MARGIN_PX = 12


def mask_at_tilt_size(icemap: IceMap, shape: tuple[int, int]) -> NDArray[int8]:
    """Draw the mask at the size of its tilt, (rows, columns): 1 ice, 0 none, -1 not valid.

    Same field of view and row order as the tilt; each pixel takes the value of the nearest one.
    An image that was not measured is -1 all over.
    """
    mask = np.where(icemap.valid, icemap.ice.astype(uint8), uint8(255))
    size = (shape[1], shape[0])
    full = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(full, uint8).view(int8)


def overlay_png(icemap: IceMap, max_px: int = 768) -> bytes:
    """Draw the picture with its ice outlined as a PNG whose longer side is at most `max_px`.

    Row 0 of the tilt is at the bottom, as microscope programs show MRC files. What is not valid
    is hatched; a scale bar says how large things are where the pixel size is known.
    """
    rows, columns = icemap.picture.shape
    scale = min(1.0, max_px / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    picture = cv2.resize(icemap.picture, size, interpolation=cv2.INTER_AREA)[::-1]
    valid, ice = (
        cv2.resize(mask.astype(uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)[::-1] > 0
        for mask in (icemap.valid, icemap.ice)
    )
    grey = _stretched(np.asarray(picture, float32), valid)
    canvas = np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    _hatch(canvas, ~valid)
    _draw_ice(canvas, ice)
    if icemap.pixel_size_angstrom is not None:
        _draw_bar(canvas, icemap.pixel_size_angstrom / 10.0 * columns / size[0])
    done, png = cv2.imencode(".png", canvas)
    if not done:
        raise EngineError("The overlay cannot be encoded as PNG; reinstall opencv.")
    return png.tobytes()


def _stretched(picture: NDArray[float32], valid: NDArray[bool_]) -> NDArray[uint8]:
    """Bring what is valid to 0 to 255, leaving out the darkest and brightest 0.5 %."""
    inside = picture[valid] if valid.any() else picture.ravel()
    low, high = np.percentile(inside[::8], (0.5, 99.5))
    unit = (picture - low) / max(float(high - low), 1e-12)
    return np.asarray((unit.clip(0.0, 1.0) * 255).astype(uint8) // _GREY_STEP * _GREY_STEP)


def _hatch(canvas: NDArray[uint8], invalid: NDArray[bool_]) -> None:
    """Darken what is not valid and draw diagonals over it, in place."""
    canvas[invalid] //= 2
    rows, columns = (np.arange(length) for length in invalid.shape)
    stripes = (rows[:, None] + columns[None, :]) % _HATCH_STEP_PX < 2
    canvas[invalid & stripes] = _HATCH_BGR


def _draw_ice(canvas: NDArray[uint8], ice: NDArray[bool_]) -> None:
    """Tint the ice and outline it, in place."""
    tint = canvas[ice] * (1.0 - _ICE_SHARE) + np.array(_ICE_BGR) * _ICE_SHARE
    canvas[ice] = tint.astype(uint8)
    outlines, _ = cv2.findContours(ice.astype(uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, outlines, -1, _ICE_BGR, 1)


def _draw_bar(canvas: NDArray[uint8], nm_per_px: float) -> None:
    """Draw a bar of a round length, about a fifth of the width, at the bottom left."""
    rows, columns = canvas.shape[:2]
    if min(rows, columns) < _MIN_BAR_FIELD_PX:
        return
    length_nm = bar_length_nm(columns * nm_per_px / 5.0)
    end = _MARGIN_PX + round(length_nm / nm_per_px)
    bottom = rows - _MARGIN_PX
    text = f"{length_nm:g} nm" if length_nm < 1000 else f"{length_nm / 1000:g} um"
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
    frame = np.s_[
        bottom - height - 14 : bottom + 6, _MARGIN_PX - 6 : max(end, _MARGIN_PX + width) + 6
    ]
    canvas[frame] //= 4
    cv2.line(canvas, (_MARGIN_PX, bottom), (end, bottom), _WHITE, 2)
    origin = (_MARGIN_PX, bottom - 8)
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5, _WHITE, 1, cv2.LINE_AA)


def bar_length_nm(at_most_nm: float) -> float:
    """Give the largest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(at_most_nm))
    steps = (0.5, 1.0, 2.0, 5.0)  # the first for a logarithm that was rounded up
    return max(step * power for step in steps if step * power <= at_most_nm)
