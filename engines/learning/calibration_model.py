"""From records of tilts to a whole calibration, and what it reads on tilts that it never saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import bool_, float64
from numpy.typing import NDArray

from engines.calibrations import AreaCalibration, EvidenceCalibration, Reach
from engines.learning.calibration_fit import (
    HEADLINE,
    Tilts,
    best_cut,
    fit_area,
    masked_at,
    platt_of,
    with_knots,
)
from engines.learning.calibration_intervals import (
    COVERAGE,
    TERMS,
    Sides,
    err_below,
    fit_reach,
    fit_widening,
    places,
    reaches,
)
from engines.learning.calibration_records import CHANNELS
from engines.percentage import Area, Evidence, area_of, interval_terms, percentage

LEAST_PLAIN = 100
SMALL_PERCENT, LEAST_LARGE = 2.0, 50
_NOTHING = 0.05
"""Percentages under this are read as 0.0."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Cut of the mask, on calibrated probabilities, and everything after it."""

    threshold: float
    calibration: EvidenceCalibration


@dataclass(frozen=True, slots=True)
class Readings:
    """What is read of n tilts, each (n,), percent."""

    percent: NDArray[float64]
    low: NDArray[float64]
    high: NDArray[float64]

    @property
    def lines(self) -> tuple[NDArray[float64], NDArray[float64], NDArray[float64]]:
        """Percent, low and high."""
        return self.percent, self.low, self.high


def fit(tilts: Tilts) -> Fitted:
    """Fit everything; how far readings err is learned on series that were left out each time."""
    fitted = _fit_areas(tilts)
    percent, terms = np.zeros(len(tilts)), np.zeros((len(tilts), len(TERMS)))
    for out in tilts.folds():
        other = _with_other_knots(fitted, tilts.where(~out))
        percent[out], terms[out] = _read(tilts.where(out), other)
    plain = _plain(tilts)
    intervals = _intervals(
        fitted.calibration.areas, tilts.where(plain), percent[plain], terms[plain]
    )
    return Fitted(fitted.threshold, intervals)


def _plain(tilts: Tilts) -> NDArray[bool_]:
    """Tell the tilts (n,) whose intervals no flag widens; all where they are too few.

    Doubtful ones err grossly more often: with them every interval would reach as far as theirs.
    """
    plain = np.array([one.widening_factor <= 1.0 for one in tilts.records], bool_)
    return plain if plain.sum() >= LEAST_PLAIN else np.ones(len(tilts), bool_)


def _with_other_knots(fitted: Fitted, tilts: Tilts) -> Fitted:
    """Fit the knots of the ice percentage to other tilts; the few choices before stay."""
    areas, name = fitted.calibration.areas, CHANNELS[HEADLINE]
    knots = with_knots(tilts, HEADLINE, areas[name], areas[name].raw_cut(fitted.threshold))
    return Fitted(fitted.threshold, _without_intervals({**areas, name: knots}))


def _fit_areas(tilts: Tilts) -> Fitted:
    """Fit probabilities and percentages; intervals that say nothing."""
    platt = [platt_of(tilts, channel) for channel in range(len(CHANNELS))]
    cut = best_cut(tilts.counts[:, HEADLINE].sum(axis=0))
    headline = fit_area(tilts, HEADLINE, platt[HEADLINE], cut)
    threshold = round(float(headline.probability(np.array(cut, np.float32))), 4)
    threshold = min(max(threshold, 0.01), 0.99)
    areas = {
        name: headline
        if channel == HEADLINE
        else fit_area(tilts, channel, platt[channel], platt[channel].raw_cut(threshold))
        for channel, name in enumerate(CHANNELS)
    }
    return Fitted(threshold, _without_intervals(areas))


def _without_intervals(areas: dict[str, AreaCalibration]) -> EvidenceCalibration:
    return EvidenceCalibration(
        areas=areas,
        low=Reach(),
        high=Reach(),
        widening_at_percent=(0.0,),
        widening_low=(0.0,),
        widening_high=(0.0,),
    )


def evidence_of(
    tilts: Tilts, threshold: float, areas: dict[str, AreaCalibration]
) -> list[Evidence]:
    """Rebuild what the segmenter gathers, were the maps calibrated like this."""
    found: list[dict[str, Area]] = [{} for _ in range(len(tilts))]
    for channel, (name, area) in enumerate(areas.items()):
        masked = masked_at(tilts.masked_percent[:, channel], area.raw_cut(threshold))
        for one, percent, counts in zip(found, masked, tilts.counts[:, channel], strict=True):
            one[name] = area_of(float(percent), counts.sum(axis=0), area)
    return [
        Evidence(CHANNELS[HEADLINE], one, record.circumstances, record.widening_factor)
        for one, record in zip(found, tilts.records, strict=True)
    ]


def read(tilts: Tilts, fitted: Fitted) -> Readings:
    """Read tilts as the segmenter would."""
    evidence = evidence_of(tilts, fitted.threshold, fitted.calibration.areas)
    found = [percentage(one, fitted.calibration) for one in evidence]
    return Readings(*np.array(found, float64).reshape(-1, 3).T)


def read_left_out(tilts: Tilts) -> Readings:
    """Read each series with a calibration that was fitted to the others, intervals and all."""
    found = np.zeros((3, len(tilts)))
    for out in tilts.folds():
        one = read(tilts.where(out), fit(tilts.where(~out)))
        found[:, out] = one.percent, one.low, one.high
    return Readings(*found)


def _read(tilts: Tilts, fitted: Fitted) -> tuple[NDArray[float64], NDArray[float64]]:
    """Read percentages (n,) and what their errors may depend on (n, TERMS)."""
    evidence = evidence_of(tilts, fitted.threshold, fitted.calibration.areas)
    percent = [percentage(one, fitted.calibration)[0] for one in evidence]
    terms = [interval_terms(one, at) for one, at in zip(evidence, percent, strict=True)]
    table = np.array([[one[name] for name in TERMS] for one in terms], float64)
    return np.array(percent, float64), table.reshape(-1, len(TERMS))


def _intervals(
    areas: dict[str, AreaCalibration],
    tilts: Tilts,
    percent: NDArray[float64],
    terms: NDArray[float64],
) -> EvidenceCalibration:
    """Fit the reach on some series, and in turn widen it by what it misses on the others."""
    truth = tilts.true_percent[:, HEADLINE]
    below, above = np.zeros(len(percent)), np.zeros(len(percent))
    for out in tilts.folds():
        low, high = _reaches(percent[~out], truth[~out], terms[~out])
        below[out], above[out] = reaches(low, terms[out]), reaches(high, terms[out])
    low, high = _reaches(percent, truth, terms)
    at = places(percent)
    down, up = fit_widening(Sides(percent, truth, below, above, tilts.series), at)
    return EvidenceCalibration(
        areas=areas,
        low=low,
        high=high,
        widening_at_percent=at,
        # below a reading of 0 nothing lies: the next knot holds down to there
        widening_low=(down[min(1, len(down) - 1)], *down[1:]),
        # doubt about a reading of 0 is not drawn in, even where nine in ten are free of ice
        widening_high=(max(0.0, up[0]), *up[1:]),
    )


def _reaches(
    percent: NDArray[float64], truth: NDArray[float64], terms: NDArray[float64]
) -> tuple[Reach, Reach]:
    """Fit both sides; nothing can lie below a reading of 0, so all of it is above.

    Small readings have no say below, where they are enough without: what they stand for may always
    be nothing, and large readings would then reach down to nothing too.
    """
    some = percent > 0.0
    sides = np.where(some, (1.0 + COVERAGE) / 2.0, COVERAGE)
    large = percent > SMALL_PERCENT
    lower = large if large.sum() >= LEAST_LARGE else some
    low = (
        fit_reach(terms[lower], err_below(percent, truth)[lower], sides[lower])
        if lower.any()
        else Reach()
    )
    return low, fit_reach(terms, truth - percent, sides)
