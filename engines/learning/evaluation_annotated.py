"""Evaluates a bundle on tilts that people annotated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy import bool_
from numpy.typing import NDArray

from engines.annotation.truth import TiltTruth
from engines.icemap import Flag, IceMap
from engines.learning.evaluation import (
    TiltFigures,
    by_family,
    figures_of,
    mask_table,
    percent_table,
)
from engines.learning.evaluation_pixels import (
    calibration_error,
    probability_counts,
    reliability,
)
from engines.learning.evaluation_plots import (
    plot_angles,
    plot_families,
    plot_lamellae,
    plot_percent,
    plot_reliability,
)
from engines.learning.evaluation_report import Report, model_of
from engines.learning.evaluation_series import (
    LamellaFigures,
    Rule,
    lamella_of,
    lamella_tables,
    summarise_lamellae,
)
from engines.learning.evaluation_sheets import Gallery, draw_sheet, overlay_of
from engines.learning.evaluation_tables import NOTHING, Table, number
from engines.segmenter import Segmenter

AS_ANNOTATED = (
    "True: share of the valid area that is annotated as ice. Valid area: as the mask says, else as "
    "the bundle finds it."
)
SHEETS = {
    "worst": "The largest errors",
    "random": "Drawn at random",
    "unmeasured": "Given no opinion",
}
_LARGEST_PLOT_SERIES = 40


@dataclass(frozen=True, slots=True)
class AnnotatedTilt:
    """A tilt on disk and what is annotated on it."""

    name: str
    series: str
    angle_deg: float | None
    pixel_size_angstrom: float | None
    image: NDArray[Any]
    """(rows, columns), counts."""
    truth: TiltTruth
    known_flags: tuple[Flag, ...] = ()
    """What the microscope did not tell."""


def evaluate_annotated(
    segmenter: Segmenter,
    tilts: Iterable[AnnotatedTilt],
    out: Path | None,
    begin: Callable[[], Rule] | None = None,
    seed: int = 1,
) -> Report:
    """Measure annotated tilts, series by series; draws into the folder `out`, if any.

    Raises AnnotationError where an annotation does not fit its tilt.
    """
    figures: list[TiltFigures] = []
    names: list[str] = []
    lamellae: list[LamellaFigures] = []
    galleries = {name: Gallery(seed + place) for place, name in enumerate(SHEETS)}
    counts = probability_counts()
    for series, of_series in groupby(tilts, lambda one: one.series):
        rule = begin() if begin else None
        read: list[TiltFigures] = []
        for tilt in of_series:
            before = rule.before(tilt.angle_deg) if rule else None
            size, flags = tilt.pixel_size_angstrom, tilt.known_flags
            found = segmenter.read(tilt.image, size, before, flags)
            if rule:
                rule.add(tilt.angle_deg, found)
            shape, native = (_two(found.picture.shape), _two(tilt.image.shape))
            ice, told = tilt.truth.at(shape, native)
            valid = _valid(told, found)
            if (left_out := tilt.truth.left_out(shape)) is not None:
                valid, found = valid & ~left_out, replace(found, ice=found.ice & ~left_out)
            about = TiltFigures(series, series, 0.0, tilt.angle_deg)
            percent = 100.0 * float((ice & valid).sum()) / max(1, int(valid.sum()))
            one = figures_of(found, ice & valid, percent, about)
            if one.percent is not None:
                both = found.valid & valid
                counts += probability_counts(found.probability[both], ice[both])
            _offer(galleries, one, found, ice & valid)
            read.append(one)
            names.append(tilt.name)
        figures += read
        lamellae.append(lamella_of(read, rule.judged() if rule else None, None))
    report = Report("annotated", model_of(segmenter), {"tilts": len(figures)})
    _fill(report, figures, names, lamellae, counts)
    if out is not None:
        _draw(report, figures, lamellae, galleries, out)
    return report


def _two(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[1]


def _valid(told: NDArray[bool_] | None, found: IceMap) -> NDArray[bool_]:
    """Where the share of ice is taken: as annotated, else as found, else everywhere."""
    if told is not None:
        return told
    everywhere = np.ones(found.picture.shape, bool)
    return found.valid if found.percent is not None else everywhere


def _offer(
    galleries: dict[str, Gallery], one: TiltFigures, found: IceMap, ice: NDArray[bool_]
) -> None:
    error = abs((one.percent or 0.0) - one.true_percent)
    for name in ("unmeasured",) if one.percent is None else ("worst", "random"):
        galleries[name].offer(error, lambda: overlay_of(one, found, ice))


def _fill(
    report: Report,
    figures: Sequence[TiltFigures],
    names: Sequence[str],
    lamellae: Sequence[LamellaFigures],
    counts: NDArray[np.int64],
) -> None:
    families = by_family(figures)
    summary = summarise_lamellae("together", lamellae)
    bins = reliability(counts)
    report.figures |= {
        "families": families,
        "lamella_families": [summary],
        "reliability": {"bins": bins, "mean_distance": calibration_error(bins)},
        "lamellae": list(lamellae),
        "tilts": [{"tilt": name, "figures": one} for name, one in zip(names, figures, strict=True)],
    }
    report.tables = [
        percent_table(families, "Percentage of tilts by series", AS_ANNOTATED),
        mask_table(families),
        *lamella_tables([summary]),
        _tilt_table(figures, names),
    ]


def _tilt_table(figures: Sequence[TiltFigures], names: Sequence[str]) -> Table:
    rows = tuple(
        (
            name,
            number(one.angle_deg, 1, sign=True),
            number(one.true_percent),
            number(one.percent),
            NOTHING if one.low is None or one.high is None else f"{one.low:.1f} to {one.high:.1f}",
            number(_iou(one), 3),
            ", ".join(one.flags) or NOTHING,
        )
        for name, one in zip(names, figures, strict=True)
    )
    columns = ("tilt", "angle °", "annotated %", "measured %", "interval", "IoU", "flags")
    return Table("Tilts", columns, rows)


def _iou(one: TiltFigures) -> float | None:
    union = one.true_px + one.found_px - one.intersection_px
    return one.intersection_px / union if one.true_px else None


def _draw(
    report: Report,
    figures: Sequence[TiltFigures],
    lamellae: Sequence[LamellaFigures],
    galleries: dict[str, Gallery],
    out: Path,
) -> None:
    if any(one.percent is not None for one in figures):
        plot_percent(figures, out / "percent.png")
        plot_angles(figures, out / "angles.png")
        plot_reliability(**report.figures["reliability"], out=out / "reliability.png")
        report.pictures += [
            ("percent.png", "Measured against annotated percentages"),
            ("reliability.png", "Reliability of the probability of pixels"),
        ]
        if any(one.angle_deg is not None for one in figures):
            report.pictures.append(("angles.png", "Error against tilt angle"))
    if 1 < len(lamellae) <= _LARGEST_PLOT_SERIES:
        plot_families(report.figures["families"], out / "series.png")
        plot_lamellae(lamellae, out / "lamellae.png")
        report.pictures += [
            ("series.png", "Series side by side"),
            ("lamellae.png", "Means of lamellae"),
        ]
    for name, gallery in galleries.items():
        overlays = gallery.random if name == "random" else gallery.worst
        if overlays:
            draw_sheet(overlays, out / f"{name}.jpg", SHEETS[name], outlined="annotated ice")
            report.pictures.append((f"{name}.jpg", SHEETS[name]))
