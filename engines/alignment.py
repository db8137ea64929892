"""Bring one tilt of a series onto another, coarsely: a shift, and the stretch between two angles.

Of each tilt a reduced picture is kept in which only structure of 10 to 100 nm is left. Two of them
are laid over each other by phase correlation (Kuglin and Hines 1975), the earlier one stretched
beforehand across each tilt axis that comes into question. What fits no better than two unrelated
tilts do is not aligned at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import bool_, complex64, float32, float64
from numpy.typing import NDArray

REDUCTION = 4
"""Pixels of a picture for each pixel of its reduced picture."""
ACROSS_DEG = (0.0, 90.0)
"""Directions across the tilt axis that are tried where nobody knows it, from columns to rows."""
PRETILTS_DEG = (-10.0, 0.0, 10.0)
"""Inclinations of the specimen at 0 degrees that are tried: lamellae are milled aslant."""
MOST_SHIFT = 0.3
"""Largest shift that is looked for, as a share of each side."""
LEAST_CORRELATION = 0.15
"""Correlation over the common field, under which two tilts are not aligned."""
LEAST_PROMINENCE = 7.0
"""Height of the peak over the rest of the correlation, in its standard deviations."""

_COARSE_PX, _FINE_PX = 6.0, 0.8
"""Widths of the blurs between which structure is kept, in reduced pixels."""
_STRONG, _STRONG_BLUR_PX = 2.5, 1.5
"""Stronger structure is frost or a flash: on a surface, or gone at the next tilt. Left in, the
series would follow one surface of the specimen, up to 80 nm off its middle."""
_CLIPPED_AT = 1.0
_TAPER = 0.2
_WHITENING = 0.25
"""1 counts each frequency alike, 0 by its strength."""
_PEAK_PX = 3
_LEAST_SIDE_PX = 8
_SMALL_STRETCH_PX = 1.5
"""Two stretches that differ by less from edge to edge, in reduced pixels, count as one."""
_LEAST_COMMON = 0.15
_STEEPEST_DEG = 80.0
"""Stages end at 70 degrees, and a lamella may be inclined by 10 more."""

Matrix = NDArray[float64]
"""(2, 3), from the pixels (x, y) of one array to those of another, as `cv2.warpAffine` takes it."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """What of a tilt is needed to lay others over it."""

    shape: tuple[int, int]
    """(rows, columns) of the whole picture."""
    structure: NDArray[float32]
    """(rows / 4, columns / 4): band-passed, about 1 strong, 0 where not valid."""
    valid: NDArray[float32]
    """(rows / 4, columns / 4), 0 to 1."""
    angle_deg: float | None

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.structure.nbytes + self.valid.nbytes


@dataclass(frozen=True, slots=True)
class Alignment:
    """How the pixels of an earlier tilt lie in a later one, and how sure that is."""

    matrix: Matrix
    """From the earlier picture to the later one."""
    correlation: float
    """Of the structure over the common field, -1 to 1."""
    prominence: float
    """Height of the peak over the rest of the correlation, in its standard deviations."""
    tilting: Tilting | None
    """Which stretch fits best; None for no stretch."""

    @property
    def is_sure(self) -> bool:
        """Whether this is more than two unrelated tilts reach."""
        return self.correlation >= LEAST_CORRELATION and self.prominence >= LEAST_PROMINENCE


@dataclass(frozen=True, slots=True)
class Tilting:
    """How a specimen tilts."""

    across_deg: float
    """Direction across the tilt axis, from the columns (x) towards the rows (y)."""
    pretilt_deg: float = 0.0

    def stretch(self, from_deg: float, to_deg: float) -> Matrix:
        """Give the 2 x 2 map from a picture at one angle to another, about their centres."""
        before, after = (self._shortening(angle_deg) for angle_deg in (from_deg, to_deg))
        turn = math.radians(self.across_deg)
        across = np.array([math.cos(turn), math.sin(turn)])
        return np.asarray(np.eye(2) + (after / before - 1.0) * np.outer(across, across))

    def _shortening(self, angle_deg: float) -> float:
        inclined = max(-_STEEPEST_DEG, min(_STEEPEST_DEG, angle_deg - self.pretilt_deg))
        return math.cos(math.radians(inclined))


TILTINGS = tuple(Tilting(across, pre) for across in ACROSS_DEG for pre in PRETILTS_DEG)


def reduced(
    picture: NDArray[float32], valid: NDArray[bool_], angle_deg: float | None = None
) -> Reduced:
    """Reduce a picture (rows, columns) of any scale and its valid area for alignment."""
    rows, columns = (max(1, side // REDUCTION) for side in picture.shape)
    whole = (slice(0, rows * REDUCTION), slice(0, columns * REDUCTION))
    held = valid[whole].astype(float32)
    small, share = (
        np.asarray(cv2.resize(one, (columns, rows), interpolation=cv2.INTER_AREA), float32)
        for one in (picture[whole] * held, held)
    )
    fine, coarse = (_average(small, share, width) for width in (_FINE_PX, _COARSE_PX))
    structure = (fine - coarse) * (share > 0.5)
    inside = structure[share > 0.5]
    scale = 1.4826 * float(np.median(np.abs(inside))) if inside.size else 0.0
    if not scale > 0.0:
        return Reduced(picture.shape, np.zeros((rows, columns), float32), share, angle_deg)
    even = _without_strong(structure / scale).clip(-_CLIPPED_AT, _CLIPPED_AT)
    return Reduced(picture.shape, np.asarray(even, float32), share, angle_deg)


def align(
    earlier: Reduced, later: Reduced, tiltings: Sequence[Tilting] = TILTINGS
) -> Alignment | None:
    """Lay an earlier tilt over a later one; None where they do not fit, or differ in size."""
    best = best_alignment(earlier, later, tiltings)
    return best if best is not None and best.is_sure else None


def best_alignment(
    earlier: Reduced, later: Reduced, tiltings: Sequence[Tilting] = TILTINGS
) -> Alignment | None:
    """Give the best way to lay one tilt over another, however doubtful; None for other sizes.

    Each stretch has its shift from the peak of its own correlation. Between stretches the common
    field decides: heights of peaks hang on what the window cuts off, too, and took a neighbouring
    stretch in one pair of a hundred that were moved far.
    """
    if earlier.shape != later.shape or min(later.structure.shape) < _LEAST_SIDE_PX:
        return None
    window = _window(later.structure.shape)
    target = np.conj(np.fft.rfft2(later.structure * window).astype(complex64))
    found = []
    for tilting, linear in _stretches(earlier, later, tiltings):
        shift, prominence = _peak_of(earlier, target, window, linear)
        small = _about_centre(linear, later.structure.shape)
        small[:, 2] += shift
        correlation = _correlation(earlier, later, small)
        found.append(Alignment(scaled(small, 1.0 / REDUCTION), correlation, prominence, tilting))
    return max(found, key=lambda one: (one.is_sure, one.correlation))


def scaled(matrix: Matrix, pixels: float) -> Matrix:
    """Give the same map for arrays whose pixels are `pixels` of these on a side."""
    offset = (pixels - 1.0) / 2.0
    linear, shift = matrix[:, :2], matrix[:, 2]
    moved = (linear @ np.full(2, offset) + shift - offset) / pixels
    return np.column_stack([linear, moved])


def chained(first: Matrix, second: Matrix) -> Matrix:
    """Give the map that does the first, then the second."""
    linear = second[:, :2] @ first[:, :2]
    return np.column_stack([linear, second[:, :2] @ first[:, 2] + second[:, 2]])


def inverse(matrix: Matrix) -> Matrix:
    """Give the map back."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def _average(small: NDArray[float32], share: NDArray[float32], width: float) -> NDArray[float32]:
    """Blur what is valid; where nothing is near, 0."""
    total = cv2.GaussianBlur(small, (0, 0), width)
    weight = cv2.GaussianBlur(share, (0, 0), width)
    return np.asarray(total / np.maximum(weight, 1e-3), float32)


def _without_strong(structure: NDArray[float32]) -> NDArray[float32]:
    """Leave out strong parts and their rims."""
    strong = np.abs(cv2.GaussianBlur(structure, (0, 0), _STRONG_BLUR_PX)) > _STRONG
    weak = cv2.erode((~strong).astype(float32), np.ones((5, 5), np.uint8))
    return structure * (weak * cv2.GaussianBlur(weak, (0, 0), 1.0))


def _window(shape: tuple[int, ...]) -> NDArray[float32]:
    rows, columns = (_taper(side) for side in shape)
    return np.asarray(np.outer(rows, columns), float32)


def _taper(side: int) -> NDArray[float64]:
    """Give a line of ones with cosine ends."""
    end = max(1, round(_TAPER * side))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(end) + 0.5) / end)
    line = np.ones(side)
    line[:end], line[-end:] = ramp, ramp[::-1]
    return line


def _stretches(
    earlier: Reduced, later: Reduced, tiltings: Sequence[Tilting]
) -> Iterator[tuple[Tilting | None, Matrix]]:
    """Give each different stretch that comes into question, none first."""
    yield None, np.eye(2)
    before, after = earlier.angle_deg, later.angle_deg
    if before is None or after is None:
        return
    seen = [np.eye(2)]
    least = _SMALL_STRETCH_PX / max(later.structure.shape)
    for tilting in tiltings:
        linear = tilting.stretch(before, after)
        if all(np.abs(linear - one).max() > least for one in seen):
            seen.append(linear)
            yield tilting, linear


def _peak_of(
    earlier: Reduced, target: NDArray[complex64], window: NDArray[float32], linear: Matrix
) -> tuple[NDArray[float64], float]:
    """Correlate a stretched tilt with the conjugate spectrum of another: shift and prominence."""
    moved = _warped(earlier.structure, _about_centre(linear, window.shape))
    cross = target * np.fft.rfft2(moved * window)
    strength = np.abs(cross)
    floor = 1e-6 * max(float(strength.max()), 1e-12)
    cross /= np.maximum(strength, floor) ** _WHITENING
    return _peak(np.fft.irfft2(np.conj(cross), s=window.shape))


def _about_centre(linear: Matrix, shape: tuple[int, ...]) -> Matrix:
    centre = (np.array(shape[::-1]) - 1.0) / 2.0
    return np.column_stack([linear, centre - linear @ centre])


def _warped(array: NDArray[float32], matrix: Matrix) -> NDArray[float32]:
    rows, columns = array.shape
    return np.asarray(cv2.warpAffine(array, matrix, (columns, rows)), float32)


def _peak(surface: NDArray[float64]) -> tuple[NDArray[float64], float]:
    """Find the highest place within the largest shift, (x, y), and how far it stands out."""
    rows, columns = surface.shape
    reach = [max(2, int(MOST_SHIFT * side)) for side in surface.shape]
    near = surface[np.ix_(*(np.arange(-most, most + 1) for most in reach))]
    row, column = divmod(int(near.argmax()), near.shape[1])
    top = float(near[row, column])
    around = (slice(max(0, at - _PEAK_PX), at + _PEAK_PX + 1) for at in (row, column))
    peak = near[tuple(around)]
    number = near.size - peak.size
    mean = float(near.sum() - peak.sum()) / number
    variance = float(np.square(near).sum() - np.square(peak).sum()) / number - mean**2
    prominence = (top - mean) / math.sqrt(variance) if variance > 0 else 0.0
    down, right = row - reach[0], column - reach[1]
    steps = np.arange(-1, 2)
    below = _between(*surface[(down + steps) % rows, right % columns].tolist())
    aside = _between(*surface[down % rows, (right + steps) % columns].tolist())
    return np.array([right + aside, down + below]), prominence


def _between(before: float, top: float, after: float) -> float:
    """Give the place of the peak of a parabola through three points, from the middle one."""
    curvature = before - 2.0 * top + after
    return 0.0 if curvature >= 0 else max(-0.5, min(0.5, 0.5 * (before - after) / curvature))


def _correlation(earlier: Reduced, later: Reduced, matrix: Matrix) -> float:
    """Correlate two structures over the field that they have in common."""
    common = (_warped(earlier.valid, matrix) > 0.5) & (later.valid > 0.5)
    if common.mean() < _LEAST_COMMON:
        return 0.0
    one, other = _warped(earlier.structure, matrix)[common], later.structure[common]
    one, other = one - one.mean(), other - other.mean()
    strength = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / strength if strength > 0 else 0.0
