"""Fits of the calibration by evidence: probabilities, percentages, and how far they may err."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import bool_, float64, int64
from numpy.typing import NDArray

from engines.calibrations import AreaCalibration
from engines.learning.calibration_descent import STEPS, descend
from engines.learning.calibration_records import CHANNELS, CUTS, TiltRecord
from engines.percentage import BINS, bin_means

HEADLINE = CHANNELS.index("ice_0.10")
MASK_SHARES = (0.0, 0.5, 1.0)
FOLDS = 5
TOLERATED_BIAS = 0.1
"""Percentage points; more counts twice beside the mean absolute error."""
_KNOTS = 6
_STIFFNESS = 0.03
"""How much lines are pulled towards leaving the mixture as it is: few tilts must not bend them."""
_ROUND = 0.05
"""Percentage points under which an absolute error is rounded off, so that it has a slope."""
_PRIOR = 1e-4
"""Strength of no change, as a share of all pixels."""
_PLATT_STEPS = 30
_STEPS_TO_CHOOSE = 150


@dataclass(frozen=True, slots=True)
class Tilts:
    """Records as arrays; n tilts, T thresholds."""

    records: tuple[TiltRecord, ...]
    series: NDArray[int64]
    """(n,): number of the series; tilts of one series stay together in all that is left out."""
    true_percent: NDArray[float64]
    """(n, T)."""
    masked_percent: NDArray[float64]
    """(n, T, CUTS)."""
    counts: NDArray[int64]
    """(n, T, 2, BINS)."""

    @classmethod
    def of(cls, records: Sequence[TiltRecord]) -> Tilts:
        """Stack records."""
        names = [(one.data, one.series) for one in records]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return cls(
            tuple(records),
            np.array([numbers[name] for name in names], int64),
            np.array([one.true_percent for one in records], float64),
            np.array([one.masked_percent for one in records], float64),
            np.array([one.counts for one in records], int64),
        )

    def __len__(self) -> int:
        return len(self.records)

    def where(self, chosen: NDArray[bool_]) -> Tilts:
        """Keep some tilts."""
        kept = tuple(one for one, keep in zip(self.records, chosen, strict=True) if keep)
        return Tilts(
            kept,
            self.series[chosen],
            self.true_percent[chosen],
            self.masked_percent[chosen],
            self.counts[chosen],
        )

    def halves(self, share: float) -> tuple[Tilts, Tilts]:
        """Cut into what is fitted to and what is checked on, which gets a `share` of the series.

        Series stay whole, and each family gives its share.
        """
        numbers, first = np.unique(self.series, return_index=True)
        shaken = np.random.default_rng(0).permutation(len(numbers))
        family = np.array([self.records[at].family for at in first])[shaken]
        order = numbers[shaken[np.argsort(family, kind="stable")]]
        steps = np.floor(np.arange(len(order) + 1) * share + 0.5)
        checked = np.isin(self.series, order[np.diff(steps) > 0.0])
        return self.where(~checked), self.where(checked)

    def folds(self, count: int = FOLDS) -> list[NDArray[bool_]]:
        """Share the series out: (n,) of each fold, true where a tilt is left out; none is empty."""
        numbers, place = np.unique(self.series, return_inverse=True)
        fold_of = np.random.default_rng(0).permutation(len(numbers))[place] % count
        return [fold_of == fold for fold in np.unique(fold_of)]


def fit_platt(counts: NDArray[int64]) -> tuple[float, float]:
    """Fit slope and offset of the logit (Platt 1999) to pixels (no ice or ice, BINS).

    By Newton's method on the log likelihood, held back a little towards no change.
    """
    means = bin_means().astype(float64)
    logit = np.log(means / (1.0 - means))
    whole, ice = counts.sum(axis=0) / max(1, counts.sum()), counts[1] / max(1, counts.sum())
    design = np.stack([logit, np.ones_like(logit)])
    weights, prior = np.array([1.0, 0.0]), _PRIOR
    for _ in range(_PLATT_STEPS):
        found = 1.0 / (1.0 + np.exp(-(weights @ design)))
        slope = design @ (ice - whole * found) - prior * (weights - [1.0, 0.0])
        curve = (design * (whole * found * (1.0 - found))) @ design.T + prior * np.eye(2)
        weights = weights + np.clip(np.linalg.solve(curve, slope), -1.0, 1.0)
        weights = np.clip(weights, (0.1, -8.0), (10.0, 8.0))
    return float(weights[0]), float(weights[1])


def expected_error(counts: NDArray[int64], probability: NDArray[float64], bins: int = 15) -> float:
    """Expected calibration error of pixels (no ice or ice, BINS): mean gap over equal bins.

    `probability` (BINS,) is what is said of each bin of the histogram (Naeini et al. 2015).
    """
    place = np.minimum((probability * bins).astype(int64), bins - 1)
    whole, ice = (np.bincount(place, one, bins) for one in (counts.sum(axis=0), counts[1]))
    said = np.bincount(place, counts.sum(axis=0) * probability, bins)
    return float(np.abs(said - ice).sum() / max(1.0, whole.sum()))


def masked_at(masked_percent: NDArray[float64], cut: float) -> NDArray[float64]:
    """Give the masked percentage (n,) at any cut between CUTS, from (n, CUTS)."""
    at = np.interp(cut, CUTS, np.arange(len(CUTS)))
    below = min(int(at), len(CUTS) - 2)
    share = at - below
    return np.asarray(masked_percent[:, below] * (1 - share) + masked_percent[:, below + 1] * share)


def expected_percent(tilts: Tilts, channel: int, platt: AreaCalibration) -> NDArray[float64]:
    """Sum the calibrated probabilities of each tilt: percent of the valid area (n,)."""
    counts = tilts.counts[:, channel].sum(axis=1)
    found = platt.probability(bin_means())
    return np.asarray(100.0 * (counts @ found) / counts.sum(axis=1).clip(1))


def platt_of(tilts: Tilts, channel: int) -> AreaCalibration:
    """Calibrate the probabilities of a channel alone; areas stay as they are."""
    slope, offset = fit_platt(tilts.counts[:, channel].sum(axis=0))
    return AreaCalibration(
        slope=round(slope, 4),
        offset=round(offset, 4),
        mask_share=1.0,
        mixed_percent=(0.0, 100.0),
        percent=(0.0, 100.0),
    )


@dataclass(frozen=True, slots=True)
class Knots:
    """Monotone straight lines from 0 to 100 for each of C candidates."""

    at: NDArray[float64]
    """(C, knots)."""
    rises: NDArray[float64]
    """(C, knots - 1): how much each line rises."""

    def __call__(self, mixed: NDArray[float64]) -> NDArray[float64]:
        """Read (C, n)."""
        return np.asarray(np.einsum("cnk,ck->cn", _parts(mixed, self.at), self.rises))


def _parts(mixed: NDArray[float64], at: NDArray[float64]) -> NDArray[float64]:
    """Say which part of each line between knots (C, knots) lies below mixed (C, n)."""
    start, width = at[:, None, :-1], np.diff(at, axis=1)[:, None]
    return np.asarray(((mixed[:, :, None] - start) / width).clip(0.0, 1.0))


def fit_knots(mixed: NDArray[float64], truth: NDArray[float64], steps: int = STEPS) -> Knots:
    """Fit knots of C candidates (C, n) to the truth (n,), 0 to 100.

    The loss is the mean absolute error plus the absolute bias: the first alone would settle for
    half of what it cannot see.
    """
    at = np.array([_places(one) for one in mixed])
    parts, widths = _parts(mixed, at), np.diff(at, axis=1)

    def gradient(rises: NDArray[float64]) -> NDArray[float64]:
        error = np.einsum("cnk,ck->cn", parts, rises) - truth
        bias = error.mean(axis=1)
        beyond = np.sign(bias) * np.maximum(0.0, np.abs(bias) - TOLERATED_BIAS)
        pull = error / np.sqrt(error**2 + _ROUND**2) + 2.0 * np.tanh(beyond / _ROUND)[:, None]
        off = rises / widths - 1.0
        off[:, 0] = 0.0  # the first line may lie on the ground: what is found where there is none
        return np.asarray(
            np.einsum("cnk,cn->ck", parts, pull) / len(truth) + _STIFFNESS * off / widths
        )

    rises = descend(gradient, np.diff(at, axis=1), 0.1, steps)
    over = np.cumsum(rises, axis=1)
    return Knots(at, np.diff(over.clip(0.0, 100.0), axis=1, prepend=0.0))


def _places(mixed: NDArray[float64]) -> NDArray[float64]:
    """Place knots so that each line has its share of the readings that are not next to nothing."""
    some = mixed[mixed > 2 * _ROUND]
    inner = np.quantile(some, np.linspace(0.1, 0.93, _KNOTS)) if len(some) > 10 else np.empty(0)
    kept = [0.0]
    for place in inner:
        if place - kept[-1] > 2 * _ROUND and place < 99.0:
            kept.append(float(place))
    while len(kept) < _KNOTS + 1:
        kept.append(kept[-1] + (100.0 - kept[-1]) / 2.0)
    return np.array([*kept, 100.0])


def best_cut(counts: NDArray[int64]) -> float:
    """Find the cut before calibration at which masks overlap the truth best (Dice 1945).

    Of pixels (no ice or ice, BINS), all tilts together. The error of percentages would favour a cut
    that finds next to nothing, since most tilts hold nothing.
    """
    marked = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    overlap = 2.0 * marked[1] / (marked.sum(axis=0) + counts[1].sum()).clip(1)
    if not overlap.any():
        return 0.5
    lower_edges = (np.arange(BINS) / BINS) ** 2
    return float(np.clip(lower_edges[overlap.argmax()], CUTS[0], CUTS[-1]))


def fit_area(tilts: Tilts, channel: int, platt: AreaCalibration, cut: float) -> AreaCalibration:
    """Choose the share of the mask, cut before calibration, by series left out; fit the knots."""
    truth = tilts.true_percent[:, channel]
    mixed = np.array([mixed_percent(tilts, channel, platt, cut, one) for one in MASK_SHARES])
    read = np.empty_like(mixed)
    for out in tilts.folds():
        knots = fit_knots(mixed[:, ~out], truth[~out], _STEPS_TO_CHOOSE)
        read[:, out] = knots(mixed[:, out])
    share = MASK_SHARES[int(badness(read, truth).argmin())]
    return with_knots(tilts, channel, platt.model_copy(update={"mask_share": share}), cut)


def with_knots(tilts: Tilts, channel: int, area: AreaCalibration, cut: float) -> AreaCalibration:
    """Fit the knots alone, for a mask cut at `cut` before calibration."""
    mixed = mixed_percent(tilts, channel, area, cut, area.mask_share)
    knots = fit_knots(mixed[None], tilts.true_percent[:, channel])
    percent = np.concatenate([[0.0], np.cumsum(knots.rises[0])]).clip(0.0, 100.0)
    return AreaCalibration(
        slope=area.slope,
        offset=area.offset,
        mask_share=area.mask_share,
        mixed_percent=tuple(knots.at[0].round(4).tolist()),
        percent=tuple(np.maximum.accumulate(percent.round(4)).tolist()),
    )


def mixed_percent(
    tilts: Tilts, channel: int, area: AreaCalibration, cut: float, share: float
) -> NDArray[float64]:
    """Mix the area under a mask and the sum of the probabilities: (n,)."""
    masked = masked_at(tilts.masked_percent[:, channel], cut)
    return np.asarray(share * masked + (1.0 - share) * expected_percent(tilts, channel, area))


def badness(read: NDArray[float64], truth: NDArray[float64]) -> NDArray[float64]:
    """Mean absolute error plus absolute bias of candidates (C, n): (C,)."""
    error = read - truth
    beyond = np.maximum(0.0, np.abs(error.mean(axis=1)) - TOLERATED_BIAS)
    return np.asarray(np.abs(error).mean(axis=1) + 2.0 * beyond)
