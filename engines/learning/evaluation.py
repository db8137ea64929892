"""What a bundle is worth: figures by family of simulated tilts, and on real pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy import bool_, float32, float64
from numpy.typing import NDArray

from engines.icemap import IceMap
from engines.learning.measuring import Measured, overlap
from engines.readers.mrc import read_header, read_section
from engines.segmenter import Segmenter

ICE_FREE_PERCENT = 0.0
FALSE_ALARM_PERCENT = 1.0
HIT_SHARE = 0.2
"""Share of an outlined grain that the mask must cover for a hit."""


@dataclass(frozen=True, slots=True)
class TiltFigures:
    """How one simulated tilt was measured."""

    family: str
    measured: bool
    true_percent: float
    percent: float = 0.0
    low: float = 0.0
    high: float = 0.0
    intersection: int = 0
    union: int = 0


def figures_of(measured: Measured) -> TiltFigures:
    """Compare what was found in one exposure with the truth."""
    found, scene = measured.found, measured.scene
    family, true = str(scene.about["family"]), measured.true_percent
    if found.percent is None or found.percent_low is None or found.percent_high is None:
        return TiltFigures(family, False, true)
    return TiltFigures(
        family,
        True,
        true,
        found.percent,
        found.percent_low,
        found.percent_high,
        *overlap(found.ice, scene.label("0.10") & scene.valid),
    )


@dataclass(frozen=True, slots=True)
class FamilyFigures:
    """Figures of a family; percentages of ice in percentage points."""

    family: str
    tilts: int
    not_measured: int
    mean_true: float
    iou: float
    """Over all pixels of all tilts together."""
    mean_absolute_error: float
    bias: float
    coverage: float
    """Share of tilts whose interval holds the truth."""
    ice_free_tilts: int
    false_percent: float
    """Mean percentage on tilts without any ice."""
    false_alarms: float
    """Share of tilts without any ice on which more than 1 % is reported."""


def summarise(family: str, tilts: Sequence[TiltFigures]) -> FamilyFigures:
    """Sum up the tilts of a family."""
    seen = [t for t in tilts if t.measured]
    true = np.array([t.true_percent for t in seen])
    percent = np.array([t.percent for t in seen])
    inside = [t.low - 1e-6 <= t.true_percent <= t.high + 1e-6 for t in seen]
    free = percent[true <= ICE_FREE_PERCENT]
    return FamilyFigures(
        family=family,
        tilts=len(tilts),
        not_measured=len(tilts) - len(seen),
        mean_true=_mean(true),
        iou=sum(t.intersection for t in seen) / max(1, sum(t.union for t in seen)),
        mean_absolute_error=_mean(np.abs(percent - true)),
        bias=_mean(percent - true),
        coverage=_mean(np.array(inside, float)),
        ice_free_tilts=len(free),
        false_percent=_mean(free),
        false_alarms=_mean((free > FALSE_ALARM_PERCENT).astype(float)),
    )


def by_family(tilts: Sequence[TiltFigures]) -> list[FamilyFigures]:
    """Sum up each family by itself."""
    names = sorted({t.family for t in tilts})
    return [summarise(name, [t for t in tilts if t.family == name]) for name in names]


def table(families: Iterable[FamilyFigures]) -> str:
    """Write figures as a Markdown table."""
    lines = [
        "| family | tilts | true ice, % | IoU | MAE, pp | bias, pp | in interval "
        "| ice-free tilts | false ice, % | over 1 % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for f in families:
        lines.append(
            f"| {f.family} | {f.tilts} | {f.mean_true:.2f} | {f.iou:.3f} "
            f"| {f.mean_absolute_error:.2f} | {f.bias:+.2f} | {100 * f.coverage:.0f} % "
            f"| {f.ice_free_tilts} | {f.false_percent:.2f} | {100 * f.false_alarms:.0f} % |"
        )
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class RealFigures:
    """What was found in one real picture."""

    file: str
    percent: float | None
    low: float | None
    high: float | None
    valid_area_percent: float
    flags: tuple[str, ...]
    strong_grains: int = 0
    """Outlined by eye."""
    found_grains: int = 0
    """Of which the network marks at least a fifth."""
    counted_grains: int = 0
    """Of which the mask holds at least a fifth once parts under the least area are dropped."""


def measure_real(
    segmenter: Segmenter, path: Path, pixel_size_angstrom: float | None, threshold: float
) -> tuple[RealFigures, IceMap]:
    """Measure a real picture; the pixel size of its header holds where none is given."""
    header = read_header(path)
    image = read_section(path, 0, header)
    found = segmenter.read(image, pixel_size_angstrom or header.pixel_size_angstrom)
    ellipses = strong_grains(path)
    masks = [ellipse(e, image.shape, found.ice.shape) for e in ellipses]
    marked = found.probability > threshold
    found_grains, counted_grains = (
        sum(bool(area[mask].mean() >= HIT_SHARE) for mask in masks if mask.any())
        for area in (marked, found.ice)
    )
    figures = RealFigures(
        path.name,
        found.percent,
        found.percent_low,
        found.percent_high,
        found.valid_area_percent,
        tuple(str(flag) for flag in found.flags),
        len(ellipses),
        found_grains,
        counted_grains,
    )
    return figures, found


def strong_grains(path: Path) -> list[tuple[float, float, float, float]]:
    """Read the outlines of strong grains from a `marks.json` beside a picture, if there is one.

    Each is x, y, rx, ry of an ellipse in pixels, counted from the upper left of the picture as
    displayed, its last row up.
    """
    marks = path.parent / "marks.json"
    if not marks.exists():
        return []
    outlines: list[tuple[float, float, float, float]] = []
    for image in json.loads(marks.read_text())["images"]:
        if image["file"] == path.name:
            outlines += [(x, y, rx, ry) for x, y, rx, ry in image["strong"]]
    return outlines


def ellipse(
    mark: tuple[float, float, float, float], native: tuple[int, ...], shape: tuple[int, ...]
) -> NDArray[bool_]:
    """Draw an outlined grain in the rows and columns of an ice map: (rows, columns)."""
    x, y, rx, ry = mark
    rows, columns = np.indices(shape[:2], float32)
    native_row = (rows + 0.5) * native[0] / shape[0] - 0.5
    native_column = (columns + 0.5) * native[1] / shape[1] - 0.5
    displayed_y = native[0] - 1 - native_row
    return np.asarray(((native_column - x) / rx) ** 2 + ((displayed_y - y) / ry) ** 2 <= 1.0)


def write_report(
    out: Path, tilts: Sequence[TiltFigures], real: Sequence[RealFigures]
) -> list[FamilyFigures]:
    """Write `report.json` and `report.md` to a folder: the figures by family."""
    families = by_family(tilts)
    content = {
        "families": [asdict(f) for f in families],
        "real": [asdict(r) for r in real],
    }
    (out / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    (out / "report.md").write_text(table(families) + "\n" + real_table(real))
    return families


def real_table(real: Sequence[RealFigures]) -> str:
    """Write the figures of real pictures as a Markdown table."""
    lines = [
        "| picture | ice, % | interval | valid, % | strong grains | found | counted | flags |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in real:
        percent = "-" if r.percent is None else f"{r.percent:.2f}"
        interval = "-" if r.low is None or r.high is None else f"{r.low:.1f} to {r.high:.1f}"
        lines.append(
            f"| {r.file} | {percent} | {interval} | {r.valid_area_percent:.0f} "
            f"| {r.strong_grains} | {r.found_grains} | {r.counted_grains} "
            f"| {', '.join(r.flags) or '-'} |"
        )
    return "\n".join(lines) + "\n"


def _mean(values: NDArray[float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
