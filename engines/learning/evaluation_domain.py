"""Pictures that are out of domain: are they given no opinion, and do they score as unfamiliar?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.icemap import Level
from engines.learning.evaluation import TOGETHER, TiltFigures
from engines.learning.evaluation_statistics import Interval, auroc, auroc_interval
from engines.learning.evaluation_tables import Table, share, with_interval

IN_DOMAIN = "in domain"
AMBER = str(Level.AMBER)
_AMBER_SCORE, _GREEN_SCORE = 1.0, 0.0


@dataclass(frozen=True, slots=True)
class DomainFigures:
    """How one kind of out-of-domain picture is told apart from what is in domain."""

    kind: str
    pictures: int
    refused: float
    """Share without an opinion."""
    amber: float
    """Share measured, but with a wider interval."""
    auroc: float | None
    """Chance that one of this kind is taken for less familiar than a picture in domain."""
    auroc_interval: Interval | None = None


def unfamiliar(tilt: TiltFigures) -> float:
    """Order pictures: refused above all others, then by score; without scores by colour."""
    if tilt.percent is None:
        return np.inf
    if tilt.domain_score is not None:
        return tilt.domain_score
    return _AMBER_SCORE if tilt.level == AMBER else _GREEN_SCORE


def domain_figures(
    inside: Sequence[TiltFigures], outside: Sequence[TiltFigures]
) -> list[DomainFigures]:
    """Compare each kind of out-of-domain pictures with all that are in domain; [] of none."""
    if not outside:
        return []
    kinds = sorted({t.kind for t in outside})
    by_kind = [(kind, [t for t in outside if t.kind == kind]) for kind in kinds]
    rows = [_figures(kind, inside, tilts) for kind, tilts in by_kind]
    rows.append(_figures(TOGETHER, inside, outside))
    if inside:
        refused, amber = _shares(inside)
        rows.append(DomainFigures(IN_DOMAIN, len(inside), refused, amber, None))
    return rows


def _figures(
    kind: str, inside: Sequence[TiltFigures], tilts: Sequence[TiltFigures]
) -> DomainFigures:
    score = np.array([unfamiliar(t) for t in (*tilts, *inside)])
    foreign = np.arange(len(score)) < len(tilts)
    return DomainFigures(
        kind, len(tilts), *_shares(tilts), auroc(score, foreign), auroc_interval(score, foreign)
    )


def _shares(tilts: Sequence[TiltFigures]) -> tuple[float, float]:
    refused = float(np.mean([t.percent is None for t in tilts]))
    return refused, float(np.mean([t.percent is not None and t.level == AMBER for t in tilts]))


def domain_table(figures: Sequence[DomainFigures]) -> Table:
    """Show what is refused, one row for each kind."""
    rows = tuple(
        (
            one.kind,
            f"{one.pictures}",
            share(one.refused, 1),
            share(one.amber, 1),
            with_interval(one.auroc, one.auroc_interval, 3),
        )
        for one in figures
    )
    note = (
        "No opinion: no percentage is given. AUROC: is a picture of this kind less familiar than "
        "one in domain? (Refused ones rank above all others, the rest by score or colour.)"
    )
    columns = ("out of domain", "pictures", "no opinion", "amber", "AUROC")
    return Table("Out of domain", columns, rows, note)
