"""Images that are not measured: why not, and what is shown of them all the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.icemap import Flag, IceMap
from engines.preprocess import Prepared, prepare, working_shape

MIN_PIXEL_SIZE_ANGSTROM = 0.3
MAX_PIXEL_SIZE_ANGSTROM = 20.0
"""At and beyond this grains are a few pixels, and images are maps."""
MIN_SIDE_PX = 64
MAX_FIELD_PX = 2048 * 2048
"""Working pixels of the widest field, 28 µm square at 13.5 Å; memory grows with it."""
MIN_VALID_SHARE = 0.05
FEWEST_COUNTS = 4.0
"""Mean counts of a working pixel, under which next to no electron came: 0.02 e/Å² at 13.5 Å."""

_SHOWN_PX = 608
"""Longer side of the picture of an image that is not measured."""


def refusal(
    shape: tuple[int, int], pixel_size_angstrom: float | None, working_angstrom: float
) -> Flag | None:
    """Say why the header alone keeps an image (rows, columns) from being measured."""
    if pixel_size_angstrom is None or not math.isfinite(pixel_size_angstrom):
        return Flag.PIXEL_SIZE_UNKNOWN
    if not MIN_PIXEL_SIZE_ANGSTROM <= pixel_size_angstrom < MAX_PIXEL_SIZE_ANGSTROM:
        return Flag.PIXEL_SIZE_OUT_OF_RANGE
    rows, columns = working_shape(shape, pixel_size_angstrom, working_angstrom)
    if min(rows, columns) < MIN_SIDE_PX:
        return Flag.TOO_SMALL
    return Flag.FIELD_TOO_WIDE if rows * columns > MAX_FIELD_PX else None


def emptiness(image: NDArray[Any], prepared: Prepared) -> tuple[Flag, ...]:
    """Say why an image holds next to nothing, if so."""
    native_area = image.size / prepared.picture.size
    counts = float(prepared.picture.mean()) * native_area
    if image.dtype.kind in "iu" and prepared.picture.min() >= 0 and 0 < counts < FEWEST_COUNTS:
        return (Flag.NO_ELECTRONS,)
    if prepared.valid.mean() >= MIN_VALID_SHARE:
        return ()
    if np.mean(np.isfinite(image)) < MIN_VALID_SHARE:
        return (Flag.NOT_FINITE,)
    low, high = np.percentile(prepared.picture, (0.5, 99.5))
    return (Flag.BLANK,) if high - low <= 1e-5 * abs(high) else (Flag.NO_SPECIMEN,)


def only_shown(image: NDArray[Any], flag: Flag, pixel_size_angstrom: float | None) -> IceMap:
    """Reduce an image that is not measured to a size for looking at."""
    prepared = prepare(image, min(1.0, _SHOWN_PX / max(image.shape)), 1.0)
    flags = (flag, *emptiness(image, prepared))
    if pixel_size_angstrom is not None and math.isfinite(pixel_size_angstrom):
        scale = math.sqrt(image.size / prepared.picture.size)
        return unmeasured(prepared.picture, flags, pixel_size_angstrom * scale)
    return unmeasured(prepared.picture, flags, None)


def unmeasured(
    picture: NDArray[float32],
    flags: tuple[Flag, ...],
    pixel_size_angstrom: float | None,
    valid_share: float = 0.0,
    domain_score: float | None = None,
) -> IceMap:
    """Make an ice map without a percentage, whose flags say why."""
    nothing = np.zeros(picture.shape, bool)
    return IceMap(
        picture=picture,
        valid=nothing,
        ice=nothing,
        probability=np.zeros(picture.shape, np.float32),
        pixel_size_angstrom=pixel_size_angstrom,
        valid_area_percent=100.0 * valid_share,
        flags=flags,
        domain_score=domain_score,
    )
