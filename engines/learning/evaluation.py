"""What a bundle is worth: figures of each tilt, of each family, and of all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import bool_, float64
from numpy.typing import NDArray

from engines.errors import EngineError
from engines.icemap import IceMap
from engines.learning.evaluation_statistics import Interval, mean, mean_interval
from engines.learning.evaluation_tables import Table, number, share, with_interval

FALSE_ALARM_PERCENT = 1.0
TOGETHER = "together"
"""Name of the row that sums up all families."""
DEFINITION = (
    "Ice percent: share of the valid area whose noise-free Bragg contrast exceeds 0.10, dark or "
    "as the bright ghost of a grain beside it."
)


class EvaluationError(EngineError):
    """Raised where there is nothing sound to evaluate: one sentence says what is wrong."""


@dataclass(frozen=True, slots=True)
class TiltFigures:
    """How one tilt was measured, beside its truth; percentages are 0 to 100."""

    family: str
    series: str
    true_percent: float
    angle_deg: float | None = None
    percent: float | None = None
    """None where the tilt was given no opinion."""
    low: float | None = None
    high: float | None = None
    true_px: int = 0
    """Pixels of true ice in the valid area, where the tilt was measured."""
    found_px: int = 0
    intersection_px: int = 0
    valid_percent: float = 0.0
    flags: tuple[str, ...] = ()
    kind: str = ""
    """What an out-of-domain picture shows; "" for one that is in domain."""
    domain_score: float | None = None
    """How strange the picture is."""
    level: str = ""
    """green, amber or red."""


def figures_of(
    found: IceMap, true_ice: NDArray[bool_], true_percent: float, about: TiltFigures
) -> TiltFigures:
    """Compare what was found in one tilt with its true ice, (rows, columns) of the ice map.

    Names are taken from `about`.
    """
    measured = found.percent is not None
    return TiltFigures(
        family=about.family,
        series=about.series,
        true_percent=true_percent,
        angle_deg=about.angle_deg,
        percent=found.percent,
        low=found.percent_low,
        high=found.percent_high,
        true_px=int(np.count_nonzero(true_ice)) if measured else 0,
        found_px=int(np.count_nonzero(found.ice)) if measured else 0,
        intersection_px=int(np.count_nonzero(found.ice & true_ice)) if measured else 0,
        valid_percent=found.valid_area_percent,
        flags=tuple(str(flag) for flag in found.flags),
        kind=about.kind,
        domain_score=found.domain_score,
        level=str(found.domain_level),
    )


@dataclass(frozen=True, slots=True)
class FamilyFigures:
    """Figures of a family; errors of the percentage in percentage points.

    Intervals hold 95 % of what a bootstrap over whole series gives, or over tilts of a single one.
    """

    family: str
    series: int
    tilts: int
    not_measured: int
    mean_true: float | None
    mean_true_interval: Interval | None
    mean_percent: float | None
    mean_percent_interval: Interval | None
    iou: float | None
    """Over all pixels of all measured tilts together; None where none of them is ice."""
    f1: float | None
    mean_absolute_error: float | None
    mean_absolute_error_interval: Interval | None
    bias: float | None
    bias_interval: Interval | None
    coverage: float | None
    """Share of measured tilts whose 90 % interval holds the truth."""
    mean_width: float | None
    """Of the interval."""
    ice_free_tilts: int
    false_percent: float | None
    """Mean percentage on tilts without any ice."""
    false_alarms: float | None
    """Share of tilts without any ice on which more than 1 % is reported."""


def summarise(family: str, tilts: Sequence[TiltFigures]) -> FamilyFigures:
    """Sum up tilts."""
    seen = [t for t in tilts if t.percent is not None]
    groups = _groups(seen)
    true, percent = _column(seen, "true_percent"), _column(seen, "percent")
    low, high = _column(seen, "low"), _column(seen, "high")
    error, free = percent - true, percent[true <= 0.0]
    inside = (low - 1e-6 <= true) & (true <= high + 1e-6)
    overlap = sum(t.intersection_px for t in seen)
    both = sum(t.true_px + t.found_px for t in seen)
    some = any(t.true_px for t in seen)
    return FamilyFigures(
        family=family,
        series=len({t.series for t in tilts}),
        tilts=len(tilts),
        not_measured=len(tilts) - len(seen),
        mean_true=mean(true),
        mean_true_interval=mean_interval(true, groups),
        mean_percent=mean(percent),
        mean_percent_interval=mean_interval(percent, groups),
        iou=overlap / (both - overlap) if some else None,
        f1=2.0 * overlap / both if some else None,
        mean_absolute_error=mean(np.abs(error)),
        mean_absolute_error_interval=mean_interval(np.abs(error), groups),
        bias=mean(error),
        bias_interval=mean_interval(error, groups),
        coverage=mean(inside.astype(float64)),
        mean_width=mean(high - low),
        ice_free_tilts=len(free),
        false_percent=mean(free),
        false_alarms=mean((free > FALSE_ALARM_PERCENT).astype(float64)),
    )


def _groups(tilts: Sequence[TiltFigures]) -> list[str]:
    """Groups to draw by bootstrap: series, or tilts where there is but one series."""
    several = len({t.series for t in tilts}) > 1
    return [t.series if several else str(index) for index, t in enumerate(tilts)]


def _column(tilts: Sequence[TiltFigures], name: str) -> NDArray[float64]:
    return np.array([getattr(tilt, name) for tilt in tilts], float64)


def by_family(tilts: Sequence[TiltFigures]) -> list[FamilyFigures]:
    """Sum up each family by itself, then, if there are several, all of them together."""
    names = sorted({t.family for t in tilts}, key=family_order)
    families = [summarise(name, [t for t in tilts if t.family == name]) for name in names]
    return [*families, summarise(TOGETHER, tilts)] if len(families) > 1 else families


def family_order(family: str) -> tuple[int, int, str]:
    """Sort families: like EMPIAR's, then held-out domains by their number, then others."""
    head = family.split("_", maxsplit=1)[0]
    if head[:1] == "h" and head[1:].isdigit():
        return (1, int(head[1:]), family)
    return (0 if family.startswith("test_") else 2, 0, family)


def percent_table(
    families: Iterable[FamilyFigures], title: str = "Percentage", definition: str = DEFINITION
) -> Table:
    """How true the percentages are, one row for each family."""
    rows = [
        (
            f.family,
            f"{f.series}",
            f"{f.tilts}",
            with_interval(f.mean_true, f.mean_true_interval),
            with_interval(f.mean_percent, f.mean_percent_interval),
            with_interval(f.mean_absolute_error, f.mean_absolute_error_interval),
            with_interval(f.bias, f.bias_interval, sign=True),
        )
        for f in families
    ]
    columns = ("family", "series", "tilts", "true %", "measured %", "MAE pp", "bias pp")
    note = f"{definition} pp: percentage points; in brackets 95 % intervals by bootstrap."
    return Table(title, columns, tuple(rows), note)


def mask_table(
    families: Iterable[FamilyFigures], title: str = "Intervals, masks, ice-free tilts"
) -> Table:
    """How often intervals hold, how well ice is outlined, and what is read where there is none."""
    rows = [
        (
            f.family,
            share(f.not_measured / f.tilts if f.tilts else None, 1),
            share(f.coverage),
            number(f.mean_width, 1),
            number(f.iou, 3),
            number(f.f1, 3),
            f"{f.ice_free_tilts}",
            number(f.false_percent),
            share(f.false_alarms),
        )
        for f in families
    ]
    columns = "family, no opinion, in interval, width pp, IoU, F1, ice-free tilts, false ice %"
    note = (
        "In interval: share of tilts whose 90 % interval holds the truth; IoU and F1 over all "
        "pixels together; false ice: mean percentage of the tilts without ice."
    )
    return Table(title, (*columns.split(", "), "over 1 %"), tuple(rows), note)
