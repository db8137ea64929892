"""Evaluates a bundle on real pictures with a label for each: does crystalline ice read higher?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import bool_, float32
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.icemap import Flag, IceMap
from engines.learning.evaluation import EvaluationError
from engines.learning.evaluation_aims import Aim, aim_table
from engines.learning.evaluation_labels import CRYSTALLINE, Grain
from engines.learning.evaluation_plots import plot_classes
from engines.learning.evaluation_report import Report, model_of
from engines.learning.evaluation_sheets import Overlay, draw_sheet
from engines.learning.evaluation_statistics import Interval, auroc, auroc_interval
from engines.learning.evaluation_tables import NOTHING, Table, number, share, with_interval
from engines.segmenter import Segmenter

HIT_SHARE = 0.2
"""Share of an outlined grain that the mask must cover for a hit."""
CLEAN = frozenset({"vitreous", "great", "decent"})
_CLEAN_PERCENT = 0.5
_HITS = 0.6
_SHEET_PICTURES = 24


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on disk."""

    name: str
    pixel_size_angstrom: float | None
    read: Callable[[], NDArray[Any]]
    """(rows, columns), counts; raises PixelsError."""
    label: str = ""
    """What it shows by its label; "" for none."""
    grains: tuple[Grain, ...] = ()
    """Strong grains, outlined by eye."""
    known_flags: tuple[Flag, ...] = (Flag.DOSE_UNKNOWN, Flag.ANGLE_UNKNOWN)
    """What the file does not tell."""
    rows_run_up: bool = True
    """Whether the last row is displayed at the top, as microscope programs show MRC files."""


@dataclass(frozen=True, slots=True)
class PictureFigures:
    """What was found in one picture."""

    file: str
    label: str
    percent: float | None
    low: float | None
    high: float | None
    marked_percent: float | None
    """Masked share of the valid area, before calibration."""
    valid_area_percent: float
    flags: tuple[str, ...]
    strong_grains: int = 0
    found_grains: int = 0
    """Of which the network marks at least a fifth."""
    counted_grains: int = 0
    """Of which the mask holds at least a fifth once parts under the least area are dropped."""


def evaluate_pictures(
    segmenter: Segmenter,
    pictures: Sequence[Picture],
    out: Path | None,
    threshold: float,
    tracked: Callable[[Iterable[Picture]], Iterable[Picture]] = iter,
    complain: Callable[[str], None] = lambda sentence: None,
) -> Report:
    """Measure pictures; draws into the folder `out`, if any, and returns the report.

    `threshold` is that of the bundle; `tracked` wraps the pictures to show progress. Pictures
    that cannot be read (PixelsError, OSError) are passed over, and `complain` is told why.
    Raises EvaluationError where none could be read.
    """
    figures: list[PictureFigures] = []
    shown: list[tuple[PictureFigures, Overlay]] = []
    for picture in tracked(pictures):
        try:
            image = picture.read()
        except (PixelsError, OSError) as error:
            complain(f"{picture.name}: {error}")
            continue
        flags = picture.known_flags
        found = segmenter.read(image, picture.pixel_size_angstrom, known_flags=flags)
        masks = [ellipse(grain, image.shape, found.ice.shape) for grain in picture.grains]
        figures.append(_figures(picture, found, masks, threshold))
        shown.append((figures[-1], _overlay(figures[-1], picture, found, masks)))
        shown = sorted(shown, key=lambda one: -(one[0].percent or 0.0))[:_SHEET_PICTURES]
    if not figures:
        raise EvaluationError("none of the pictures can be read: look at what was said of each.")
    report = Report("pictures", model_of(segmenter), {"pictures": len(pictures)})
    _fill(report, figures)
    if len(figures) < len(pictures):
        left = len(pictures) - len(figures)
        report.notes.append(f"{left} of {len(pictures)} pictures could not be read")
    if out is not None:
        plot_classes([(f.label or "no label", f.percent, f.low, f.high) for f in figures], out)
        report.pictures.append(("classes.png", "Percentages by class"))
        title = "Real pictures, most ice first"
        overlays = [overlay for _, overlay in shown]
        draw_sheet(overlays, out / "pictures.jpg", title, outlined="grains outlined by eye")
        report.pictures.append(("pictures.jpg", title))
    return report


def _figures(
    picture: Picture, found: IceMap, masks: Sequence[NDArray[bool_]], threshold: float
) -> PictureFigures:
    marked = (found.probability > threshold) & found.valid
    hits = [
        sum(bool(area[mask].mean() >= HIT_SHARE) for mask in masks if mask.any())
        for area in (marked, found.ice)
    ]
    measured = found.percent is not None
    return PictureFigures(
        picture.name,
        picture.label,
        found.percent,
        found.percent_low,
        found.percent_high,
        100.0 * float(found.ice.sum() / max(1, found.valid.sum())) if measured else None,
        found.valid_area_percent,
        tuple(str(flag) for flag in found.flags),
        len(masks),
        *hits,
    )


def _overlay(
    figures: PictureFigures, picture: Picture, found: IceMap, masks: Sequence[NDArray[bool_]]
) -> Overlay:
    read = ", ".join(figures.flags) if found.percent is None else f"{found.percent:.2f} %"
    title = f"{figures.file}\n{figures.label or 'no label'}: {read}"
    valid = found.valid if found.percent is not None else np.ones(found.picture.shape, bool)
    outlined = np.logical_or.reduce(masks) if masks else None
    turn = slice(None, None, -1 if picture.rows_run_up else 1)
    arrays = (found.picture[turn], valid[turn], found.ice[turn])
    truth = None if outlined is None else outlined[turn]
    return Overlay(title, *arrays, truth, found.pixel_size_angstrom)


def ellipse(grain: Grain, native: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[bool_]:
    """Draw an outlined grain in the rows and columns of an ice map: (rows, columns).

    Outlines count rows from the top of what is displayed, the last row of the picture.
    """
    x, y, rx, ry = grain
    rows, columns = np.indices(shape[:2], float32)
    native_row = (rows + 0.5) * native[0] / shape[0] - 0.5
    native_column = (columns + 0.5) * native[1] / shape[1] - 0.5
    displayed_y = native[0] - 1 - native_row
    return np.asarray(((native_column - x) / rx) ** 2 + ((displayed_y - y) / ry) ** 2 <= 1.0)


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Pictures of one class."""

    label: str
    pictures: int
    no_opinion: int
    mean_percent: float | None
    largest_percent: float | None
    largest_marked_percent: float | None


def _fill(report: Report, figures: Sequence[PictureFigures]) -> None:
    labels = sorted(
        {f.label for f in figures}, key=lambda one: (one != CRYSTALLINE, one == "", one)
    )
    classes = [_class(label, [f for f in figures if f.label == label]) for label in labels]
    value, interval = crystalline_auroc(figures)
    reached = _aims(figures)
    report.figures |= {
        "classes": classes,
        "auroc": value,
        "auroc_interval": interval,
        "aims": reached,
        "pictures": list(figures),
    }
    report.tables = [aim_table(reached)] if any(aim.met is not None for aim in reached) else []
    report.tables += [_class_table(classes, value, interval), picture_table(figures)]


def crystalline_auroc(
    figures: Sequence[PictureFigures],
) -> tuple[float | None, Interval | None]:
    """AUROC of the percentage, crystalline against every other label, with its interval."""
    seen = [f for f in figures if f.label and f.percent is not None]
    percent = np.array([f.percent for f in seen], float)
    crystalline = np.array([f.label == CRYSTALLINE for f in seen], bool)
    return auroc(percent, crystalline), auroc_interval(percent, crystalline)


def _class(label: str, figures: Sequence[PictureFigures]) -> ClassFigures:
    percents = [f.percent for f in figures if f.percent is not None]
    marked = [f.marked_percent for f in figures if f.marked_percent is not None]
    return ClassFigures(
        label or "no label",
        len(figures),
        len(figures) - len(percents),
        float(np.mean(percents)) if percents else None,
        max(percents, default=None),
        max(marked, default=None),
    )


def _class_table(
    classes: Sequence[ClassFigures], value: float | None, interval: Interval | None
) -> Table:
    rows = tuple(
        (
            one.label,
            f"{one.pictures}",
            f"{one.no_opinion}",
            number(one.mean_percent),
            number(one.largest_percent),
            number(one.largest_marked_percent),
        )
        for one in classes
    )
    told = with_interval(value, interval, 3)
    note = f"AUROC of the percentage, crystalline against all other labels: {told}."
    columns = ("class", "pictures", "no opinion", "mean ice %", "largest ice %", "largest marked %")
    return Table("Classes", columns, rows, note)


def picture_table(figures: Sequence[PictureFigures]) -> Table:
    """Show every picture in a row."""
    rows = tuple(
        (
            f.file,
            f.label or NOTHING,
            number(f.percent),
            NOTHING if f.low is None or f.high is None else f"{f.low:.1f} to {f.high:.1f}",
            number(f.marked_percent),
            f"{f.valid_area_percent:.0f}",
            f"{f.found_grains} of {f.strong_grains}" if f.strong_grains else NOTHING,
            f"{f.counted_grains}" if f.strong_grains else NOTHING,
            ", ".join(f.flags) or NOTHING,
        )
        for f in figures
    )
    columns = (
        "picture, class, ice %, interval, marked %, valid %, strong grains hit, counted, flags"
    )
    note = (
        "Marked: masked share before calibration. Grains: strong ones outlined by eye; hit: at "
        "least a fifth is marked; counted: and lies in parts that are large enough to count."
    )
    return Table("Pictures", tuple(columns.split(", ")), rows, note)


def _aims(figures: Sequence[PictureFigures]) -> list[Aim]:
    seen = [f for f in figures if f.label and f.percent is not None]
    ours = [f.percent or 0.0 for f in seen if f.label == CRYSTALLINE]
    others = [f.percent or 0.0 for f in seen if f.label != CRYSTALLINE]
    clean = [f.marked_percent or 0.0 for f in seen if f.label in CLEAN]
    grains = sum(f.strong_grains for f in figures)
    hits = sum(f.found_grains for f in figures)
    both = bool(ours and others)
    least, most = min(ours, default=0.0), max(others, default=0.0)
    found = Aim(
        "strong grains hit",
        f"at least {share(_HITS)}",
        f"{hits} of {grains}" if grains else NOTHING,
        hits >= _HITS * grains if grains else None,
    )
    return [
        Aim(
            "crystalline above every other picture",
            "all",
            f"least {least:.2f} %, others up to {most:.2f} %" if both else NOTHING,
            least > most if both else None,
        ),
        found,
        Aim(
            "marked on vitreous, great and decent",
            f"at most {_CLEAN_PERCENT:g} %",
            f"up to {max(clean):.2f} %" if clean else NOTHING,
            max(clean) <= _CLEAN_PERCENT if clean else None,
        ),
    ]
