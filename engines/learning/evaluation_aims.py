"""What a bundle should reach on simulated tilts of the test generator, and what it did reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engines.learning.evaluation import FamilyFigures, TiltFigures, summarise
from engines.learning.evaluation_domain import DomainFigures
from engines.learning.evaluation_series import LamellaSummary
from engines.learning.evaluation_tables import NOTHING, Table

ICE_FREE_FAMILY = "h6_ice_free"
_COVERAGE = (0.87, 0.93)
_FEWEST_LAMELLAE = 300


@dataclass(frozen=True, slots=True)
class Aim:
    """One figure, and where it should lie."""

    what: str
    aim: str
    reached: str
    met: bool | None
    """None where the data do not tell."""


def aims(
    tilts: Sequence[TiltFigures],
    together: FamilyFigures,
    lamellae: LamellaSummary,
    domain: Sequence[DomainFigures],
) -> list[Aim]:
    """Compare figures with what a bundle should reach."""
    free = summarise("", [t for t in tilts if t.family == ICE_FREE_FAMILY])
    foreign = next((one.auroc for one in domain if one.kind == together.family), None)
    foreign = foreign if foreign is not None else (domain[0].auroc if domain else None)
    bias = None if together.bias is None else abs(together.bias)
    silent = together.not_measured / together.tilts if together.tilts else None
    found = [
        _at_most("mean absolute error", together.mean_absolute_error, 1.0, "pp"),
        _at_most("bias, either way", bias, 0.25, "pp"),
        _at_most("false ice on ice-free tilts", free.false_percent, 0.2, "%"),
        _at_most("no opinion in domain", None if silent is None else 100.0 * silent, 2.0, "%"),
        _at_least("AUROC of lamellae", lamellae.auroc, 0.97),
        _at_least("AUROC of out of domain", foreign, 0.95),
        _covered("tilts in their 90 % interval", together.coverage, together.series),
        _covered("lamellae in their 90 % interval", lamellae.coverage, lamellae.series),
    ]
    return found


def _at_most(what: str, value: float | None, most: float, unit: str) -> Aim:
    reached = NOTHING if value is None else f"{value:.2f} {unit}"
    return Aim(what, f"at most {most:g} {unit}", reached, None if value is None else value <= most)


def _at_least(what: str, value: float | None, least: float) -> Aim:
    reached = NOTHING if value is None else f"{value:.3f}"
    return Aim(what, f"at least {least:g}", reached, None if value is None else value >= least)


def _covered(what: str, value: float | None, lamellae: int) -> Aim:
    low, high = _COVERAGE
    aim = f"{100 * low:.0f} to {100 * high:.0f} %, over {_FEWEST_LAMELLAE} lamellae or more"
    if value is None:
        return Aim(what, aim, NOTHING, None)
    reached = f"{100 * value:.1f} % over {lamellae}"
    return Aim(what, aim, reached, low <= value <= high if lamellae >= _FEWEST_LAMELLAE else None)


def aim_table(found: Sequence[Aim]) -> Table:
    """Show aims, one row for each."""
    words = {True: "yes", False: "no", None: "cannot tell"}
    rows = tuple((one.what, one.aim, one.reached, words[one.met]) for one in found)
    return Table("Aims", ("figure", "aim", "reached", "met"), rows)
