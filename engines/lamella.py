"""From the readings of the tilts of one lamella to its mean, and how sure that is: no arrays.

The readings of one lamella err together: the network misreads one specimen alike at all tilts.
With r, the share of the error variance that they have in common, the mean of n readings has the
variance (1 - r) sum(e_i^2) / n^2 + r (sum(e_i) / n)^2, where e_i is the error of one reading from
its own 90 % interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engines.calibrations import NEXT_TO_ZERO

SHARED_SHARE = 0.55
"""Share of a reading's error variance that all tilts of a lamella have in common: a little over
what `python -m engines.learning.calibrate` measures of the shipped bundle, and prints."""
_Z90 = 1.6449
"""Half-width of a two-sided 90 % normal interval, in standard deviations."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A percentage with the ends of its 90 % interval."""

    percent: float
    low: float
    high: float


def mean_of(tilts: Sequence[Measured]) -> Measured:
    """Take the mean over the tilts seen, one at least, each side of its interval by itself."""
    mean = sum(one.percent for one in tilts) / len(tilts)
    below = _together([one.percent - one.low for one in tilts])
    above = _together([one.high - one.percent for one in tilts])
    low = mean - below
    return Measured(mean, low if low >= NEXT_TO_ZERO * mean else 0.0, min(100.0, mean + above))


def probability_above(limit_percent: float, tilts: Sequence[Measured]) -> float:
    """Give the probability that the mean over all tilts of the lamella lies above a limit.

    It weighs the errors on the side that faces the limit, and s^2 / n for the scatter s over the
    tilts (ice blinks), as nobody knows for sure how many are yet to come. A Student t with n - 1
    degrees of freedom judges it.
    """
    count = len(tilts)
    mean = sum(one.percent for one in tilts) / count
    scatter = sum((one.percent - mean) ** 2 for one in tilts) / max(1, count - 1) / count
    together = _together([_error_towards(limit_percent, one) for one in tilts])
    error = math.hypot(together, math.sqrt(scatter))
    if error <= 0.0:
        return 1.0 if mean > limit_percent else 0.0
    return student_cdf((mean - limit_percent) / error, max(1, count - 1))


def _together(errors: Sequence[float]) -> float:
    """Error of the mean of readings that err together, from the error of each."""
    own = sum(error**2 for error in errors) / len(errors) ** 2
    shared = (sum(errors) / len(errors)) ** 2
    return math.sqrt((1.0 - SHARED_SHARE) * own + SHARED_SHARE * shared)


def _error_towards(limit_percent: float, one: Measured) -> float:
    """Standard error of a reading on the side of its interval where the limit lies."""
    above = one.percent > limit_percent
    return (one.percent - one.low if above else one.high - one.percent) / _Z90


def student_cdf(t: float, degrees: int) -> float:
    """Cumulative Student t for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    theta = math.atan(t / math.sqrt(degrees))
    cosine, total, term = math.cos(theta), 0.0, 1.0
    if degrees % 2:
        term = cosine
        for k in range(1, degrees - 1, 2):
            total += term
            term *= cosine**2 * (k + 1) / (k + 2)
        return 0.5 + (theta + (math.sin(theta) * total if degrees > 1 else 0.0)) / math.pi
    for k in range(0, degrees - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    return 0.5 + math.sin(theta) * total / 2.0
