"""Which tilts are most worth labelling, each with a reason that a person understands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engines.icemap import Flag
from monitor.annotate.candidates import Candidate

LIMIT_PERCENT = 10.0
_CLEAN_PERCENT = 2.0
"""A tilt whose interval ends below this is surely clean."""
_MUCH_PERCENT = 3.0
"""A reading below this is no large one."""
_UNSURE_POINTS = 2.0
"""An interval that is narrower than this is no wide one."""
_STEEP_DEG = 30.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A tilt to label, and why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class _Purpose:
    """One thing that labels are wanted for."""

    worth: Callable[[Candidate, float], float]
    """How much a tilt serves it, given the limit; 0 or less: not at all."""
    reason: Callable[[Candidate, float], str]


def propose(
    candidates: Sequence[Candidate],
    count: int,
    limit_percent: float = LIMIT_PERCENT,
    *,
    neighbours: bool = False,
) -> list[Proposal]:
    """Choose tilts in turn for each purpose, those of lamellae and angles not had so far first.

    Neighbouring tilts of a series show the same ice twice: no two of them unless `neighbours`.
    Tilts that could not be measured, and further ones of one name, are never chosen.
    """
    left = [one for one in candidates if one.reading.percent is not None]
    chosen: list[Proposal] = []
    ranks = _ranks(left)
    for purpose in _in_turn():
        if len(chosen) >= count or not left:
            break
        best = _best(left, [one.candidate for one in chosen], purpose, limit_percent)
        if best is None:
            continue
        chosen.append(Proposal(best, purpose.reason(best, limit_percent)))
        left = [
            one
            for one in left
            if one.name != best.name and (neighbours or not _are_neighbours(one, best, ranks))
        ]
    return chosen


def _in_turn() -> Iterator[_Purpose]:
    while True:
        yield from _PURPOSES
        yield _ANY


def _best(
    left: Sequence[Candidate],
    chosen: Sequence[Candidate],
    purpose: _Purpose,
    limit_percent: float,
) -> Candidate | None:
    worths = [purpose.worth(one, limit_percent) * _newness(one, chosen) for one in left]
    best = max(range(len(left)), key=worths.__getitem__)
    return left[best] if worths[best] > 0.0 else None


def _newness(one: Candidate, chosen: Sequence[Candidate]) -> float:
    """How much a tilt adds to those that were chosen: 1 for a new lamella at a new angle."""
    if not chosen:
        return 1.0
    same = sum(other.tilt.lamella == one.tilt.lamella for other in chosen)
    angle = one.tilt.angle_deg
    angles = [other.tilt.angle_deg for other in chosen]
    apart = [abs(angle - other) for other in angles if angle is not None and other is not None]
    spread = min(1.0, min(apart) / 20.0) if apart else 1.0
    return (0.4**same) * (0.6 + 0.4 * spread)


def _ranks(candidates: Sequence[Candidate]) -> dict[str, int]:
    """Number the tilts of each series by their angle."""
    by_series: dict[str, list[Candidate]] = {}
    for one in candidates:
        by_series.setdefault(one.series, []).append(one)
    found: dict[str, int] = {}
    for series in by_series.values():
        series.sort(key=lambda one: (one.tilt.angle_deg or 0.0, one.tilt.section))
        found |= {str(one.tilt.id): rank for rank, one in enumerate(series)}
    return found


def _are_neighbours(one: Candidate, other: Candidate, ranks: dict[str, int]) -> bool:
    if one.series != other.series:
        return False
    return abs(ranks[str(one.tilt.id)] - ranks[str(other.tilt.id)]) <= 1


def _unsure(one: Candidate, limit_percent: float) -> float:
    low, high = one.reading.percent_low or 0.0, one.reading.percent_high or 0.0
    if one.width_percent < _UNSURE_POINTS:
        return 0.0
    outside = max(0.0, low - limit_percent, limit_percent - high)
    return one.width_percent / (1.0 + outside)


def _unsure_reason(one: Candidate, limit_percent: float) -> str:
    low, high = one.reading.percent_low or 0.0, one.reading.percent_high or 0.0
    span = f"unsure: {low:.1f} to {high:.1f} %"
    if low <= limit_percent <= high:
        return f"{span} holds the limit of {limit_percent:g} %"
    return f"{span} is a wide interval"


def _unfamiliar(one: Candidate, limit_percent: float) -> float:
    return 1.0 + one.width_percent if Flag.UNFAMILIAR in one.reading.flags else 0.0


def _much(one: Candidate, limit_percent: float) -> float:
    percent = one.reading.percent or 0.0
    return percent if percent >= _MUCH_PERCENT else 0.0


def _clean(one: Candidate, limit_percent: float) -> float:
    high = one.reading.percent_high
    return 0.0 if high is None else max(0.0, _CLEAN_PERCENT - high)


def _steep(one: Candidate, limit_percent: float) -> float:
    angle = abs(one.tilt.angle_deg or 0.0)
    return angle if angle >= _STEEP_DEG else 0.0


def _any(one: Candidate, limit_percent: float) -> float:
    return 1.0 + one.width_percent


_PURPOSES = (
    _Purpose(_unsure, _unsure_reason),
    _Purpose(_much, lambda one, _: f"much ice: {one.reading.percent:.1f} %"),
    _Purpose(_unfamiliar, lambda one, _: "unfamiliar: unlike what the network learned from"),
    _Purpose(
        _clean,
        lambda one, _: f"clean, for contrast: at most {one.reading.percent_high:.1f} %",
    ),
    _Purpose(_steep, lambda one, _: f"steep: stage at {one.tilt.angle_deg or 0.0:+.0f}°"),
)
_ANY = _Purpose(_any, lambda one, _: "another lamella or stage angle")
