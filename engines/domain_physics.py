"""What a prepared picture is like, in numbers that no network has a part in."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy import bool_, float32, float64
from numpy.typing import NDArray

from engines.domain import blocks_of, detail_of, without_trend

PHYSICS = (
    "slope_2",
    "slope_4",
    "slope_8",
    "slope_16",
    "slope_32",
    "noise_tails",
    "middle_tails",
    "coarse_tails",
    "middle_skew",
    "coarse_skew",
    "two_levels",
    "invalid",
    "uneven_noise",
    "noise_with_mean",
    "structure_with_mean",
    "noise_to_mean",
    "coarse_to_mean",
    "trend",
    "round",
    "sharpness",
    "one_direction",
    "periodic",
)
"""Names of what `physics_of` gives, in order."""

_SIDES_PX = (1, 2, 4, 8, 16, 32)
_FEWEST = 32
_PATCH_PX = 16
_TINY = 1e-12
_LARGEST = 20.0


def physics_of(picture: NDArray[float32], valid: NDArray[bool_]) -> NDArray[float32]:
    """Describe a prepared picture: (len(PHYSICS),), finite, the same for any gain.

    Spectrum: how the variance falls from scale to scale, in octaves. Tails, skewness and two
    levels of the values; noise against brightness (electrons are noisier where more come: photon
    transfer, Janesick 2007); contrast of noise and of structure; and the looks of what is not a
    specimen: a smooth or round field, sharp straight edges, a lattice. What cannot be told of a
    picture is 0.
    """
    told = dict.fromkeys(PHYSICS, 0.0)
    told["invalid"] = 1.0 - float(valid.mean())
    inside = picture[valid]
    if inside.size < _FEWEST:
        return _in_order(told)
    unit = float(inside.std(dtype=float64))
    if unit <= 0.0:
        return _in_order(told)
    offset = float(inside.mean(dtype=float64))
    level = max(abs(offset) / unit, _TINY)
    picture = np.asarray((picture - float32(offset)) / float32(unit), float32)
    scales = {side: blocks_of(picture, valid, side) for side in _SIDES_PX}
    told |= _spectrum(scales)
    for name, side in (("middle", 4), ("coarse", 16)):
        values = scales[side][0][scales[side][1]]
        told[f"{name}_tails"], told[f"{name}_skew"] = _shape(values)
    told["two_levels"] = _two_levels(scales[4][0][scales[4][1]])
    noise = detail_of(picture, valid)
    told["noise_tails"] = _shape(noise)[0]
    told["noise_to_mean"] = _log_ratio(_deviation(noise), level)
    told["coarse_to_mean"] = _log_ratio(_deviation(scales[16][0][scales[16][1]]), level)
    told |= _patches(picture, valid)
    told |= _layout(*scales[4])
    return _in_order(told)


def _in_order(told: dict[str, float]) -> NDArray[float32]:
    values = np.array([told[name] for name in PHYSICS], float64)
    return np.asarray(np.nan_to_num(values.clip(-_LARGEST, _LARGEST)), float32)


def _spectrum(scales: dict[int, tuple[NDArray[float32], NDArray[bool_]]]) -> dict[str, float]:
    """Octaves that the power of detail rises from each scale to the next; 0 for white noise."""
    powers: list[float] = []
    told = {}
    for side, (means, whole) in scales.items():
        detail = detail_of(means, whole)
        if detail.size < 4:
            break
        powers.append(math.log2(max(float(np.var(detail)) * side**2, _TINY)))
        if len(powers) > 1:
            told[f"slope_{side}"] = powers[-1] - powers[-2]
    return told


def _shape(values: NDArray[Any]) -> tuple[float, float]:
    """Say how heavy the tails are (log of their spread over the middle's) and how skewed."""
    if values.size < _FEWEST:
        return 0.0, 0.0
    low, first, middle, third, high = np.percentile(values, (1, 25, 50, 75, 99)).tolist()
    skew = (high + low - 2.0 * middle) / max(high - low, _TINY)
    return _log_ratio(high - low, third - first), skew


def _two_levels(values: NDArray[Any]) -> float:
    """Give the share of the variance that lies between the two best classes (Otsu 1979)."""
    if values.size < _FEWEST:
        return 0.0
    ordered = np.sort(values.astype(float64))[:: max(1, values.size // 2048)]
    total = ordered.sum()
    count = np.arange(1, ordered.size)
    below = np.cumsum(ordered)[:-1]
    gap = below / count - (total - below) / (ordered.size - count)
    between = (count * (ordered.size - count) / ordered.size**2 * gap**2).max()
    return float(between / max(float(ordered.var()), _TINY))


def _patches(picture: NDArray[float32], valid: NDArray[bool_]) -> dict[str, float]:
    """Compare the noise and the structure of patches with their brightness."""
    rows, columns = (side // _PATCH_PX for side in picture.shape)
    if rows * columns < _FEWEST:
        return {}
    crop = np.s_[: rows * _PATCH_PX, : columns * _PATCH_PX]
    whole = _by_patch(valid[crop], rows, columns).all(axis=(2, 3))
    if np.count_nonzero(whole) < _FEWEST:
        return {}
    patches = _by_patch(picture[crop], rows, columns)[whole].astype(float64)
    mean = patches.mean(axis=(1, 2))
    corners = [patches[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    detail = corners[0] - corners[1] - corners[2] + corners[3]
    noise = np.log(np.square(detail).mean(axis=(1, 2)) + _TINY)
    quarter = patches.reshape(len(patches), 4, 4, 4, 4).mean(axis=(2, 4))
    structure = np.log(quarter.var(axis=(1, 2)) + _TINY)
    return {
        "uneven_noise": float(np.std(noise)),
        "noise_with_mean": _rank_correlation(mean, noise),
        "structure_with_mean": _rank_correlation(mean, structure),
    }


def _by_patch(picture: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    return picture.reshape(rows, _PATCH_PX, columns, _PATCH_PX).swapaxes(1, 2)


def _rank_correlation(a: NDArray[float64], b: NDArray[float64]) -> float:
    """Spearman's correlation: outliers weigh no more than others."""
    ranks = [np.argsort(np.argsort(values)).astype(float64) for values in (a, b)]
    first, second = (one - one.mean() for one in ranks)
    return float(first @ second / max(math.sqrt((first @ first) * (second @ second)), _TINY))


def _layout(picture: NDArray[float32], valid: NDArray[bool_]) -> dict[str, float]:
    """Describe a picture at a quarter of its resolution by the shapes in it."""
    if np.count_nonzero(valid) < _FEWEST or min(picture.shape) < 8:
        return {}
    values = picture[valid].astype(float64)
    variance = max(float(values.var()), _TINY)
    left = without_trend(picture, valid)
    filled = np.where(valid, picture, values.mean()).astype(float32)
    smooth = cv2.GaussianBlur(filled, (0, 0), 1.0)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, 1 - i, i) for i in (0, 1))
    steep = np.hypot(across, down)[cv2.erode(valid.astype(np.uint8), np.ones((5, 5))) > 0]
    steep = steep if steep.size >= _FEWEST else np.ones(_FEWEST, float32)
    middle, top = np.percentile(steep, (50, 99.5)).tolist()
    return {
        "trend": 1.0 - float(np.var(left)) / variance,
        "round": _roundness(picture, valid, variance),
        "sharpness": _log_ratio(top, middle),
        "one_direction": _one_direction(across, down),
        "periodic": _periodicity(filled, valid),
    }


def _roundness(picture: NDArray[float32], valid: NDArray[bool_], variance: float) -> float:
    """Give the share of the variance that rings around the brightest place explain."""
    blurred = cv2.GaussianBlur(np.where(valid, picture, picture[valid].min()), (0, 0), 4.0)
    row, column = np.unravel_index(int(blurred.argmax()), blurred.shape)
    y, x = np.nonzero(valid)
    ring = np.hypot(y - row, x - column).astype(np.int64) // 2
    values = picture[valid].astype(float64)
    count = np.bincount(ring)
    mean = np.bincount(ring, values) / np.maximum(count, 1)
    return 1.0 - float(np.var(values - mean[ring])) / variance


def _one_direction(across: NDArray[Any], down: NDArray[Any]) -> float:
    """Say how much the edges run one way, 0 to 1, by the structure tensor of the field."""
    xx, yy = (float(np.square(one, dtype=float64).sum()) for one in (across, down))
    xy = float(np.multiply(across, down, dtype=float64).sum())
    return math.hypot(xx - yy, 2.0 * xy) / max(xx + yy, _TINY)


def _periodicity(picture: NDArray[float32], valid: NDArray[bool_]) -> float:
    """Compare the strongest wave with its ring in the spectrum: log, large for a lattice."""
    window = np.outer(*(np.hanning(side) for side in picture.shape))
    flat = np.where(valid, picture - picture[valid].mean(), 0.0) * window
    power = np.abs(np.fft.rfft2(flat)) ** 2
    rows, columns = picture.shape
    y, x = np.fft.fftfreq(rows)[:, None] * 64, np.fft.rfftfreq(columns)[None] * 64
    ring = np.rint(np.hypot(y, x)).astype(np.int64)
    used = (ring >= 3) & (ring <= 28)
    mean = np.bincount(ring[used], power[used]) / np.maximum(np.bincount(ring[used]), 1)
    return _log_ratio(float((power[used] / np.maximum(mean[ring[used]], _TINY)).max()), 1.0)


def _deviation(values: NDArray[Any]) -> float:
    return float(np.std(values)) if values.size else 0.0


def _log_ratio(a: float, b: float) -> float:
    return math.log(max(a, _TINY) / max(b, _TINY))
