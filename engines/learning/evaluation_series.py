"""Figures of whole series: mean over the tilts, which lamella lies above the limit, occupancy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy import bool_, float64
from numpy.typing import NDArray

from engines.icemap import IceMap
from engines.learning.evaluation import TOGETHER, TiltFigures, family_order
from engines.learning.evaluation_statistics import (
    Interval,
    auroc,
    auroc_interval,
    mean,
    mean_interval,
)
from engines.learning.evaluation_tables import Table, number, share, with_interval
from engines.segmenter import Neighbours

LIMIT_PERCENT = 10.0
"""A lamella whose mean lies above this is one to skip."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the rule of the daemon makes of the readings of one lamella."""

    percent: float | None
    low: float | None
    high: float | None
    """Ends of its 90 % interval."""
    verdict: str
    occupancy_percent: float | None = None
    """Share that was ice at any tilt."""


class Rule(Protocol):
    """What the daemon does with the tilts of one series; one object for each series."""

    def before(self, angle_deg: float | None) -> Neighbours | None:
        """Give the tilts that were read before, for reading the one at this angle; or None."""
        ...

    def add(self, angle_deg: float | None, found: IceMap) -> None:
        """Take up the next tilt, measured or not."""
        ...

    def judged(self) -> Judged:
        """Say what follows from the tilts so far."""
        ...


@dataclass(frozen=True, slots=True)
class LamellaFigures:
    """One series; means over its tilts, percentages 0 to 100."""

    family: str
    series: str
    tilts: int
    measured: int
    true_percent: float
    """Mean over all tilts."""
    percent: float | None
    """Mean over those measured."""
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    """"" where no rule was asked."""
    true_occupancy_percent: float | None = None
    occupancy_percent: float | None = None


def lamella_of(
    tilts: Sequence[TiltFigures], judged: Judged | None, true_occupancy_percent: float | None
) -> LamellaFigures:
    """Sum up the tilts of one series; percent and interval are those of the rule, if any."""
    seen = [t.percent for t in tilts if t.percent is not None]
    return LamellaFigures(
        family=tilts[0].family,
        series=tilts[0].series,
        tilts=len(tilts),
        measured=len(seen),
        true_percent=float(np.mean([t.true_percent for t in tilts])),
        percent=mean(seen) if judged is None else judged.percent,
        low=judged.low if judged else None,
        high=judged.high if judged else None,
        verdict=judged.verdict if judged else "",
        true_occupancy_percent=true_occupancy_percent,
        occupancy_percent=judged.occupancy_percent if judged else None,
    )


@dataclass(frozen=True, slots=True)
class LamellaSummary:
    """Figures of many series."""

    family: str
    series: int
    not_measured: int
    above_limit: int
    """Series whose true mean lies above the limit."""
    mean_absolute_error: float | None
    mean_absolute_error_interval: Interval | None
    bias: float | None
    auroc: float | None
    auroc_interval: Interval | None
    coverage: float | None
    """Share of series whose 90 % interval holds the true mean."""
    mean_width: float | None
    kept_above: int
    """Series above the limit that are to be kept."""
    skipped_below: int
    """Series below the limit that are to be skipped."""
    undecided: int
    occupancy_error: float | None
    """Mean absolute error of the occupancy."""


def summarise_lamellae(
    family: str, lamellae: Sequence[LamellaFigures], limit_percent: float = LIMIT_PERCENT
) -> LamellaSummary:
    """Sum up series."""
    seen = [one for one in lamellae if one.percent is not None]
    true, percent = _column(seen, "true_percent"), _column(seen, "percent")
    above = true > limit_percent
    known = [one for one in seen if one.low is not None and one.high is not None]
    inside, width = _inside(known)
    told = [one for one in seen if None not in (one.occupancy_percent, one.true_occupancy_percent)]
    error = np.abs(percent - true)
    return LamellaSummary(
        family=family,
        series=len(lamellae),
        not_measured=len(lamellae) - len(seen),
        above_limit=int(above.sum()),
        mean_absolute_error=mean(error),
        mean_absolute_error_interval=mean_interval(error, [one.series for one in seen]),
        bias=mean(percent - true),
        auroc=auroc(percent, above),
        auroc_interval=auroc_interval(percent, above),
        coverage=mean(inside.astype(float64)),
        mean_width=mean(width),
        kept_above=_count(seen, above, "keep"),
        skipped_below=_count(seen, ~above, "skip"),
        undecided=sum(one.verdict == "undecided" for one in seen),
        occupancy_error=mean(
            np.abs(_column(told, "occupancy_percent") - _column(told, "true_occupancy_percent"))
        ),
    )


def _inside(known: Sequence[LamellaFigures]) -> tuple[NDArray[bool_], NDArray[float64]]:
    true, low, high = (_column(known, name) for name in ("true_percent", "low", "high"))
    return (low - 1e-6 <= true) & (true <= high + 1e-6), high - low


def _count(seen: Sequence[LamellaFigures], where: NDArray[bool_], verdict: str) -> int:
    return sum(bool(at) and one.verdict == verdict for one, at in zip(seen, where, strict=True))


def _column(lamellae: Sequence[LamellaFigures], name: str) -> NDArray[float64]:
    return np.array([getattr(one, name) for one in lamellae], float64)


def lamellae_by_family(lamellae: Sequence[LamellaFigures]) -> list[LamellaSummary]:
    """Sum up each family by itself, then, if there are several, all of them together."""
    names = sorted({one.family for one in lamellae}, key=family_order)
    found = [
        summarise_lamellae(name, [one for one in lamellae if one.family == name]) for name in names
    ]
    return [*found, summarise_lamellae(TOGETHER, lamellae)] if len(found) > 1 else found


def lamella_tables(summaries: Sequence[LamellaSummary]) -> tuple[Table, Table]:
    """How true the means of the series are, and how well they are judged, by family."""
    means = tuple(
        (
            one.family,
            f"{one.series}",
            with_interval(one.mean_absolute_error, one.mean_absolute_error_interval),
            number(one.bias, sign=True),
            share(one.coverage),
            number(one.mean_width, 1),
            number(one.occupancy_error),
        )
        for one in summaries
    )
    verdicts = tuple(
        (
            one.family,
            f"{one.series}",
            f"{one.above_limit}",
            with_interval(one.auroc, one.auroc_interval, 3),
            f"{one.kept_above}",
            f"{one.skipped_below}",
            f"{one.undecided}",
        )
        for one in summaries
    )
    columns = "family, series, MAE pp, bias pp, in interval, width pp, occupancy MAE pp"
    verdict_columns = (
        *("family", "series", f"over {LIMIT_PERCENT:g} %", "AUROC"),
        *("wrongly kept", "wrongly skipped", "undecided"),
    )
    return (
        Table(
            "Lamellae: mean over the tilts",
            tuple(columns.split(", ")),
            means,
            "Intervals of 90 % are those of the daemon; occupancy: share that was ice at any tilt.",
        ),
        Table(
            f"Lamellae: over {LIMIT_PERCENT:g} % or not",
            verdict_columns,
            verdicts,
            f"AUROC: do series with a true mean over {LIMIT_PERCENT:g} % read higher than others? "
            "Verdicts are those of the daemon's rule.",
        ),
    )
