"""Sums up what was found in simulated data sets: figures, tables, plots, sheets of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.learning.evaluation import (
    FamilyFigures,
    TiltFigures,
    by_family,
    mask_table,
    percent_table,
    summarise,
)
from engines.learning.evaluation_aims import aim_table, aims
from engines.learning.evaluation_domain import domain_figures, domain_table
from engines.learning.evaluation_pixels import (
    BUNDLE,
    AreaError,
    PixelSums,
    area_errors,
    area_table,
    calibration_error,
    recall_table,
    recalls,
    reliability,
    taken_for_ice,
    taken_table,
)
from engines.learning.evaluation_plots import (
    plot_angles,
    plot_area,
    plot_families,
    plot_lamellae,
    plot_percent,
    plot_recall,
    plot_reliability,
    plot_scores,
)
from engines.learning.evaluation_report import Report
from engines.learning.evaluation_series import LamellaFigures, lamella_tables, lamellae_by_family
from engines.learning.evaluation_sheets import Gallery, draw_sheet
from engines.simulation import Distractor

SHEETS = {
    "worst": "The largest errors",
    "random": "Drawn at random",
    "unmeasured": "In domain, but given no opinion",
    "foreign": "Out of domain, but given a percentage",
}


@dataclass(slots=True)
class Found:
    """All that is kept of the tilts."""

    galleries: Mapping[str, Gallery]
    """One for each of SHEETS."""
    tilts: list[TiltFigures] = field(default_factory=list)
    lamellae: list[LamellaFigures] = field(default_factory=list)
    pixels: PixelSums = field(default_factory=PixelSums)

    @classmethod
    def empty(cls, seed: int) -> Found:
        """Begin; the seed draws the tilts to show."""
        return cls({name: Gallery(seed + place) for place, name in enumerate(SHEETS)})

    @property
    def inside(self) -> list[TiltFigures]:
        return [t for t in self.tilts if not t.kind]

    @property
    def outside(self) -> list[TiltFigures]:
        return [t for t in self.tilts if t.kind]


def fill(report: Report, found: Found, out: Path | None) -> None:
    """Write figures and tables into a report, and draw into a folder, if any."""
    inside = found.inside
    families, lamellae = by_family(inside), lamellae_by_family(found.lamellae)
    domain = domain_figures(inside, found.outside)
    areas = {source: area_errors(one) for source, one in found.pixels.areas.items()}
    recalled = recalls(found.pixels.by_contrast)
    bins = reliability(found.pixels.by_probability)
    names = {kind.value.bit_length() - 1: _spoken(kind) for kind in Distractor}
    taken = taken_for_ice(found.pixels.by_object, names)
    report.figures |= {
        "families": families,
        "lamella_families": lamellae,
        "out_of_domain": domain,
        "areas": areas,
        "recall": recalled,
        "reliability": {"bins": bins, "mean_distance": calibration_error(bins)},
        "taken_for_ice": taken,
        "lamellae": found.lamellae,
        "tilts": found.tilts,
    }
    if inside:
        reached = aims(inside, families[-1], lamellae[-1], domain)
        report.figures["aims"] = reached
        report.tables += [
            aim_table(reached),
            percent_table(families, "Percentage of single tilts"),
            mask_table(families),
            *lamella_tables(lamellae),
            recall_table(recalled),
            *(area_table(errors, source) for source, errors in areas.items()),
            taken_table(taken),
        ]
    if domain:
        report.tables.append(domain_table(domain))
    if out is not None:
        _draw(report, found, families, out)


def _spoken(kind: Distractor) -> str:
    return (kind.name or "").lower().replace("_", " ")


def _draw(report: Report, found: Found, families: Sequence[FamilyFigures], out: Path) -> None:
    """Draw what there is to draw, and name it in the report."""
    figures, inside = report.figures, found.inside
    plots: list[tuple[str, str, Any]] = []
    if any(t.percent is not None for t in inside):
        curve, areas = _true_curve(figures["areas"]), figures["areas"]
        measured = summarise("", inside)
        count = measured.tilts - measured.not_measured
        bins = figures["reliability"]
        plots += [
            ("percent.png", "Measured against true percentages", lambda p: plot_percent(inside, p)),
            ("families.png", "Families side by side", lambda p: plot_families(families, p)),
            ("lamellae.png", "Means of lamellae", lambda p: plot_lamellae(found.lamellae, p)),
            ("angles.png", "Error against angle", lambda p: plot_angles(inside, p)),
            ("area.png", "Area against threshold", lambda p: plot_area(curve, areas, count, p)),
            ("reliability.png", "Reliability", lambda p: plot_reliability(**bins, out=p)),
        ]
    if figures["recall"]:
        plots.append(("recall.png", "Recall", lambda p: plot_recall(figures["recall"], p)))
    if found.outside:
        scored = (found.inside, found.outside)
        plots.append(("domain.png", "Out of domain", lambda p: plot_scores(*scored, p)))
    for name, shows, draw in plots:
        draw(out / name)
        report.pictures.append((name, shows))
    for name, gallery in found.galleries.items():
        overlays = gallery.random if name == "random" else gallery.worst
        if overlays:
            draw_sheet(overlays, out / f"{name}.jpg", SHEETS[name])
            report.pictures.append((f"{name}.jpg", SHEETS[name]))


def _true_curve(areas: Mapping[str, Sequence[AreaError]]) -> dict[float, float]:
    """Mean true area by threshold, wherever it was compared."""
    longest = max(areas.values(), key=len, default=areas.get(BUNDLE, []))
    return {one.threshold: one.true_percent for one in longest}
