"""Fits how far a reading may err, so that 90 % of all intervals hold the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float64, int64
from numpy.typing import NDArray

from engines.calibrations import NEXT_TO_ZERO, Reach
from engines.learning.calibration_descent import descend

COVERAGE = 0.90
TERMS = tuple(Reach.model_fields)
BELOW = (0.93, 0.94, 0.95, 0.96)
"""Shares of the tilts whose truth the lower end may hold; all, where no other will do."""
TILTS_OF_A_CLASS = 80
MOST_CLASSES = 8
"""Readings over 0 are put into two or more classes of equal size, each with a widening."""
MOST = 100.0
_ASKED = 0.7
_ROUND_SHARE = 0.02


def fit_reach(terms: NDArray[float64], over: NDArray[float64], level: NDArray[float64]) -> Reach:
    """Fit the quantile `level` (n,) of how far the truth lies beyond readings on one side (n,).

    `terms` are (n, TERMS). Linear quantile regression (Koenker and Bassett 1978) with
    coefficients that are not negative, but for the base.
    """
    size = np.sqrt((terms**2).mean(axis=0))
    told = size > 1e-6
    scale = np.where(told, size, 1.0)
    # the base counts twice, once to each side, as it alone may be negative
    design = np.concatenate([terms / scale, -terms[:, :1] / scale[:1]], axis=1)
    rounded = _ROUND_SHARE * (np.abs(over).mean() + 0.05)

    def gradient(values: NDArray[float64]) -> NDArray[float64]:
        off = over - design @ values
        pull = 0.5 * off / np.sqrt(off**2 + rounded**2) + (level - 0.5)
        return np.asarray(-(design.T @ pull) / len(over))

    values = descend(gradient, np.full(design.shape[1], 0.1), 0.2)
    found = values[:-1] / scale
    found[0] -= values[-1] / scale[0]
    found[~told] = 0.0
    return Reach(**dict(zip(TERMS, found.round(4).tolist(), strict=True)))


def err_below(percent: NDArray[float64], truth: NDArray[float64]) -> NDArray[float64]:
    """Say how far an interval must reach down to hold the truth, all (n,).

    Next to zero less will do, as the end then is 0; what is asked for is a little more than that,
    since tilts without ice would all lie on the very edge.
    """
    return np.minimum(percent - truth, (1.0 - _ASKED * NEXT_TO_ZERO) * percent)


def reaches(reach: Reach, terms: NDArray[float64]) -> NDArray[float64]:
    """Give how far each tilt (n, TERMS) may err: (n,)."""
    return np.asarray(terms @ np.array([getattr(reach, name) for name in TERMS]))


def places(percent: NDArray[float64]) -> tuple[float, ...]:
    """Choose the readings at which the widening is told: 0, and the middle of each class."""
    some = np.sort(percent[percent > 0.0])
    classes = int(np.clip(len(some) // TILTS_OF_A_CLASS, 2, MOST_CLASSES))
    parts = [part for part in np.array_split(some, classes) if len(part)]
    middles = sorted({round(float(np.median(part)), 3) for part in parts} - {0.0})
    return (0.0, *middles)


@dataclass(frozen=True, slots=True)
class Sides:
    """Of n tilts, each (n,): how far they may err, and how far they do, to either side."""

    percent: NDArray[float64]
    truth: NDArray[float64]
    below: NDArray[float64]
    """How far the interval reaches down, before it is widened."""
    above: NDArray[float64]
    series: NDArray[int64]
    """Number of the series."""


def fit_widening(sides: Sides, at: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Find by how much intervals must widen to cover, at each of the readings `at`: low, high.

    `sides` come from tilts that had no say in the reach; the widening is the quantile that
    split-conformal prediction adds, with one more series beyond all others in place of one more
    tilt, as tilts of one series err alike (Dunn, Wasserman and Ramdas 2023). The misses are shared
    out about evenly between the two sides, as verdicts go by either end: of the ways in BELOW
    the one with the narrowest intervals is taken. Each tilt counts at the knots around its
    reading, so that the widening has no steps.
    """
    found = []
    for number, _ in enumerate(at):
        weights = np.interp(sides.percent, at, np.eye(len(at))[number])
        if at[number] == 0.0:
            weights = (sides.percent <= 0.0).astype(float64)
        found.append(_narrowest(sides, weights))
    low, high = zip(*found, strict=True)
    return tuple(low), tuple(high)


def _narrowest(sides: Sides, weights: NDArray[float64]) -> tuple[float, float]:
    """Find the widening at one knot, for tilts that count by `weights` (n,)."""
    kept = weights > 0.0
    if not kept.any():
        return 0.0, 0.0
    percent, truth = sides.percent[kept], sides.truth[kept]
    low, high, weights = sides.below[kept], sides.above[kept], weights[kept]
    one_more = weights.sum() / len(np.unique(sides.series[kept]))
    # a truth on the reading itself is held by any interval, however far it is drawn in
    missed_below = np.where(truth >= percent, -MOST, err_below(percent, truth) - low)
    missed_above = np.where(truth <= percent, -MOST, truth - percent - high)
    wanted = COVERAGE * (weights.sum() + one_more)
    choices: list[tuple[float, float, float]] = []
    for share in (*BELOW, 1.0):
        if choices and share == 1.0:
            break
        down = _quantile(missed_below, weights, share * (weights.sum() + one_more))
        held = weights * (missed_below <= down)
        up = _quantile(missed_above, held, wanted)
        if (held * (missed_above <= up)).sum() >= min(wanted, weights.sum()) - 1e-9:
            below = np.minimum(percent, (low + down).clip(0.0, None))
            width = float(weights @ (below + (high + up).clip(0.0, None)))
            choices.append((width, down, up))
    _, down, up = min(choices)
    return round(down, 4), round(max(up, -MOST), 4)


def _quantile(values: NDArray[float64], weights: NDArray[float64], wanted: float) -> float:
    """Find the value below which, itself included, lies this much weight; at most the largest."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(reached, wanted)), len(values) - 1)])
