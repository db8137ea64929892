"""How bright each tilt of a series should be: what a film lets through at its angle."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy import bool_, float32, float64
from numpy.typing import NDArray

FEWEST_TILTS = 5
_LEAST_RANGE_DEG = 12.0
_PRETILTS_DEG = np.arange(-30.0, 30.5, 1.0)
_STEEPEST_DEG = 85.0
_KEPT = 200
_ODD_LOG_RATIO = math.log(1.6)
"""Twice as thick a film takes this much away; grids, shutters and lost beams take more."""
_ODD_ERRORS = 8.0
_BEYOND_DEG = 45.0
"""Beyond the range of the others a film of any depth may take away e times more in so much."""
_COUNTS_PER_SIGMA = 2.0


@dataclass(frozen=True, slots=True)
class Transmission:
    """What a film lets through: `brightness = full exp(-depth / cos(angle - pretilt))`.

    Beer and Lambert's law for a tilted film of `depth` mean free paths.
    """

    log_full: float
    """Natural log of the brightness without specimen, in the unit of what was fitted.

    A film seen at one path alone may have any depth, and this number any size.
    """
    depth: float
    """Thickness over inelastic mean free path, 0 or more."""
    pretilt_deg: float
    scatter: float
    """Standard deviation of the log of the brightness from the law."""

    def log_at(self, angle_deg: float) -> float:
        """Give the natural log of the brightness at an angle."""
        return self.log_full - self.depth * float(_path(angle_deg, self.pretilt_deg))


def fit_transmission(angles_deg: NDArray[float64], brightness: NDArray[float64]) -> Transmission:
    """Fit the law to the tilts of a series, (tilts,) each, brightness above 0.

    The pretilt is searched in steps of a degree; at each, a straight line through the log.
    """
    log = np.log(brightness)
    best: Transmission | None = None
    for pretilt in _PRETILTS_DEG.tolist():
        path = _path(angles_deg, pretilt)
        slope = float(np.cov(path, log)[0, 1] / max(float(np.var(path, ddof=1)), 1e-12))
        depth = max(0.0, -slope)
        rest = log + depth * path
        scatter = float(rest.std(ddof=1))
        if best is None or scatter < best.scatter:
            best = Transmission(float(rest.mean()), depth, pretilt, scatter)
    assert best is not None
    return best


def brightness_of(picture: NDArray[float32], valid: NDArray[bool_]) -> float:
    """Give the mean of the valid part of a picture, (rows, columns); 0 where it counts nothing.

    Values that spread as widely as their mean have no zero that electrons know of.
    """
    inside = picture[valid]
    if inside.size == 0:
        return 0.0
    mean = float(inside.mean(dtype=float64))
    return mean if mean > _COUNTS_PER_SIGMA * float(inside.std(dtype=float64)) else 0.0


class SeriesBrightness:
    """The brightness of the tilts of one series so far; used by one thread."""

    def __init__(self) -> None:
        self._tilts: deque[tuple[float, float]] = deque(maxlen=_KEPT)

    def add(self, angle_deg: float | None, brightness: float) -> None:
        """Take up a tilt; one without angle or without light is passed over."""
        if angle_deg is not None and abs(angle_deg) < _STEEPEST_DEG and brightness > 0.0:
            self._tilts.append((angle_deg, brightness))

    def is_odd(self, angle_deg: float | None, brightness: float) -> bool:
        """Say whether a tilt is much brighter or darker than the others let expect.

        Never with fewer than five others, or where they cover less than 12 degrees and so say
        nothing of the film; a tilt beyond the range of the others is compared with its end.
        """
        if angle_deg is None or len(self._tilts) < FEWEST_TILTS or brightness <= 0.0:
            return False
        angles, values = np.array(self._tilts, float64).T
        low, high = float(angles.min()), float(angles.max())
        if high - low < _LEAST_RANGE_DEG:
            return False
        law = fit_transmission(angles, values)
        expected = law.log_at(min(max(angle_deg, low), high))
        beyond = max(low - angle_deg, angle_deg - high, 0.0) / _BEYOND_DEG
        limit = max(_ODD_LOG_RATIO, _ODD_ERRORS * law.scatter) + beyond
        return abs(math.log(brightness) - expected) > limit


def _path(angle_deg: NDArray[float64] | float, pretilt_deg: float) -> NDArray[float64]:
    """Give the way through a film of thickness 1, steeper angles than 85 degrees as 85."""
    angle = np.minimum(np.abs(np.asarray(angle_deg, float64) - pretilt_deg), _STEEPEST_DEG)
    return np.asarray(1.0 / np.cos(np.deg2rad(angle)))
