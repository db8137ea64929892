"""Is this an image that the network was made for? Physical checks of the prepared picture."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import cv2
import numpy as np
from numpy import bool_, float32, float64
from numpy.typing import NDArray

from engines.icemap import Flag

_PARTLY, _MOSTLY = 0.05, 0.5
_SATURATED_BAND = 0.002
"""Share of the range of values below the largest that counts as the largest."""
_LEAST_NOISE = 1e-4
"""Least size of the noise as a share of the range of values."""
_SCALES_PX = (1, 2, 4, 8)
_TREND_PX = 16
_FEWEST_BLOCKS = 64
_SIGMAS = 4.0


def domain_flags(
    picture: NDArray[float32], valid: NDArray[bool_], native: tuple[int, int]
) -> tuple[Flag, ...]:
    """Say what is wrong with a prepared picture, if anything.

    `picture` and `valid` are (rows, columns); `native` is the shape of the image they were
    prepared from.
    """
    inside = picture[valid]
    if inside.size == 0:
        return ()
    low, high = float(picture.min()), float(picture.max())
    flags = []
    saturated = float(np.mean(picture >= high - _SATURATED_BAND * (high - low)))
    if saturated > _PARTLY:
        flags.append(Flag.MOSTLY_SATURATED if saturated > _MOSTLY else Flag.PARTLY_SATURATED)
    detail = np.abs(detail_of(picture, valid))
    bottom, top = np.percentile(inside[::8], (0.1, 99.9))
    if detail.size and float(np.median(detail)) < _LEAST_NOISE * (top - bottom):
        flags.append(Flag.NO_NOISE)
    elif not _has_structure(picture, valid, native):
        flags.append(Flag.NO_STRUCTURE)
    return tuple(flags)


def _has_structure(
    picture: NDArray[float32], valid: NDArray[bool_], native: tuple[int, int]
) -> bool:
    """Tell a specimen from pure noise by how the variance falls where pixels are averaged.

    For independent electrons it falls with the number of native pixels, from any scale to any
    other; the structure of any specimen, or the noise of a scintillator, makes it fall more or
    less than that. The last scale is the variation over the field without a surface of second
    order, as a beam is not even. Too few pixels to judge count as structure.
    """
    steps = [whole / count for whole, count in zip(native, picture.shape, strict=True)]
    if min(steps) < 1.0:
        return True
    variances, counts = [], []
    for side in _SCALES_PX:
        detail = detail_of(*blocks_of(picture, valid, side))
        gains = [_gain(n, step, side) for n, step in zip(picture.shape, steps, strict=True)]
        variances.append(_variance(detail) * side**2 / math.prod(gains))
        counts.append(detail.size)
    coarse = without_trend(*blocks_of(picture, valid, _TREND_PX))
    variances.append(_variance(coarse) * _TREND_PX**2)
    counts.append(coarse.size)
    if min(counts) < _FEWEST_BLOCKS or min(variances) <= 0.0:
        return True
    for first, second in combinations(range(len(counts)), 2):
        error = _SIGMAS * math.sqrt(2.0 / counts[first] + 2.0 / counts[second])
        if abs(variances[second] / variances[first] - 1.0) > error:
            return True
    return False


def _gain(count: int, step: float, side: int) -> float:
    """Give what area averaging leaves of the difference between neighbours, along one axis.

    `count` working pixels of `step` native ones each, in blocks of `side`. A native pixel of which
    neighbours have the shares f and 1 - f takes f (1 - f) / step from each one's variance and
    gives as much to their covariance.
    """
    shared = np.arange(0, count + 1, side) * step % 1.0
    shared *= 1.0 - shared
    pairs = (shared.size - 1) // 2
    if pairs == 0:
        return 1.0
    between, around = shared[1 : 2 * pairs : 2], shared[0 : 2 * pairs + 1 : 2]
    lost = 2.0 * between + (around[:-1] + around[1:]) / 2.0
    return 1.0 - float(lost.mean()) / (side * step)


def _variance(values: NDArray[Any]) -> float:
    return float(np.var(values)) if values.size else 0.0


def blocks_of(
    picture: NDArray[float32], valid: NDArray[bool_], side: int
) -> tuple[NDArray[float32], NDArray[bool_]]:
    """Average square blocks; second: those whose pixels are all valid."""
    if side == 1:
        return picture, valid
    rows, columns = (length // side for length in picture.shape)
    if rows == 0 or columns == 0:
        return np.empty((0, 0), np.float32), np.empty((0, 0), bool)
    crop = np.s_[: rows * side, : columns * side]
    mean, share = (
        cv2.resize(one[crop], (columns, rows), interpolation=cv2.INTER_AREA)
        for one in (picture, valid.astype(np.float32))
    )
    return np.asarray(mean, np.float32), np.asarray(share > 0.999)


def detail_of(picture: NDArray[float32], valid: NDArray[bool_]) -> NDArray[float32]:
    """Diagonal Haar detail of 2 x 2 blocks, flat: the variance of independent pixels."""
    rows, columns = (length // 2 * 2 for length in picture.shape)
    corners = [np.s_[i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]
    a, b, c, d = (picture[corner] for corner in corners)
    whole = np.logical_and.reduce([valid[corner] for corner in corners])
    return np.asarray(((a - b - c + d) / 2)[whole], np.float32)


def without_trend(picture: NDArray[float32], valid: NDArray[bool_]) -> NDArray[float64]:
    """Subtract the surface of second order that fits the valid pixels best; flat."""
    rows, columns = np.nonzero(valid)
    y, x = (
        2.0 * i / max(n - 1, 1) - 1.0 for i, n in zip((rows, columns), valid.shape, strict=True)
    )
    values = picture[valid].astype(np.float64)
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    factors = np.linalg.lstsq(surface, values, rcond=None)[0]
    return np.asarray(values - surface @ factors)
