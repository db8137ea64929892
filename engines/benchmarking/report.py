"""The comparison as tables, as files and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.benchmarking.figures import Row
from engines.learning.evaluation_tables import NOTHING, Table, as_markdown, number
from engines.learning.plots import BLUE, GREEN, GREY, ORANGE, Drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOO_FAR_APART = 20.0
MARKDOWN, FIGURES, PICTURE = "benchmark.md", "benchmark.json", "benchmark.png"


@dataclass(frozen=True, slots=True)
class Report:
    """All rows and what they were measured on."""

    about: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def content(self) -> dict[str, Any]:
        """Give all of it as it goes into JSON."""
        return {"about": self.about, "backends": [asdict(row) for row in self.rows]}

    def tables(self) -> list[Table]:
        """Lay out speed, agreement and memory, and who did not take part."""
        there = [row for row in self.rows if row.why_not is None]
        tables = (
            [self._speed(there), _cpu(there), self._batches(there), _agreement(there)]
            if there
            else []
        )
        return tables + _absent([row for row in self.rows if row.why_not is not None])

    @property
    def _where(self) -> str:
        """Say what was run, and on what."""
        about = self.about
        return (
            f"{about['rounds']} rounds on {about['size_px']} x {about['size_px']} pixels of "
            f"{about['pixel_size_angstrom']:g} Å in memory, {about['network_px']} to the network; "
            f"{about['processor']}, load {about['load']:g}"
        )

    def _speed(self, rows: Sequence[Row]) -> Table:
        columns = (
            *("backend", "network p50", "p99", "pixels to percentage p50", "p99"),
            *("bare call p50", "network / bare", "whole / bare"),
            *("eager / network", "eager / whole"),
        )
        note = f"Milliseconds, and medians of ratios within a round; {self._where}."
        lines = tuple(_speed_line(row) for row in rows)
        return Table("Latency of one tilt", columns, lines, note)

    def _batches(self, rows: Sequence[Row]) -> Table:
        sizes = self.about["batches"]
        lines = tuple(
            (row.title, *(number((row.tilts_per_s or {}).get(size), 1) for size in sizes))
            for row in rows
        )
        columns = ("backend", *(f"batch {size}" for size in sizes))
        return Table("Tilts per second", columns, lines, "Of the network, from memory.")

    def write(self, out: Path) -> None:
        """Write Markdown and JSON into a folder; raises OSError."""
        out.mkdir(parents=True, exist_ok=True)
        text = "\n".join(as_markdown(table) for table in self.tables())
        (out / MARKDOWN).write_text(f"# Backends compared\n\n{text}", "utf-8")
        (out / FIGURES).write_text(json.dumps(self.content, indent=1, allow_nan=False) + "\n")

    def draw(self, out: Path) -> None:
        """Draw latency, throughput and memory into a folder; needs matplotlib."""
        rows = [row for row in self.rows if row.why_not is None]
        if not rows:
            return
        height = 1.5 + 0.55 * len(rows)
        with Drawing(out / PICTURE, (11.5, height), columns=3) as drawing:
            latency, batches, memory = drawing.panels
            _draw_latency(latency, rows)
            _draw_batches(batches, rows)
            _draw_memory(memory, rows)
            drawing.figure.suptitle(self._where, fontsize=9, color=GREY)


def _speed_line(row: Row) -> tuple[str, ...]:
    times = (row.network_p50_ms, row.network_p99_ms, row.whole_p50_ms, row.whole_p99_ms)
    ratios = (row.network_to_bare, row.whole_to_bare, row.times_eager, row.times_eager_whole)
    return (
        row.title,
        *(_ms(value) for value in (*times, row.bare_p50_ms)),
        *(number(value) for value in ratios),
    )


def _cpu(rows: Sequence[Row]) -> Table:
    lines = tuple(
        (
            row.title,
            *(_ms(value) for value in (row.network_cpu_ms, row.whole_cpu_ms, row.bare_cpu_ms)),
            *(number(value) for value in (row.network_to_bare_cpu, row.whole_to_bare_cpu)),
            *(number(value) for value in (row.times_eager_cpu, row.times_eager_whole_cpu)),
        )
        for row in rows
    )
    columns = (
        *("backend", "network", "pixels to percentage", "bare call"),
        *("network / bare", "whole / bare", "eager / network", "eager / whole"),
    )
    note = "Milliseconds of all threads together, p50: what a busy machine changes least."
    return Table("CPU time of one tilt", columns, lines, note)


def _ms(value: float | None) -> str:
    """Write milliseconds with three digits that count."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if value >= 100.0 else f"{value:.3g}"


def _agreement(rows: Sequence[Row]) -> Table:
    lines = tuple(
        (
            row.title,
            number(row.largest_difference_percent, 4),
            number(row.smallest_iou, 4),
            number(row.memory_mib, 0),
            number(row.device_memory_mib, 0),
            number(row.start_s, 1),
            row.device,
            NOTHING if row.threads is None else str(row.threads),
            row.version,
        )
        for row in rows
    )
    columns = (
        *("backend", "largest difference", "smallest mask IoU", "memory, MiB", "of the GPU, MiB"),
        *("start, s", "device", "threads", "version"),
    )
    note = "Differences in percentage points, and masks, against ONNX Runtime on the same tilts."
    return Table("Agreement, memory, start", columns, lines, note)


def _absent(rows: Sequence[Row]) -> list[Table]:
    lines = tuple((row.title, row.why_not or "") for row in rows)
    return [Table("Not measured", ("backend", "why"), lines)] if lines else []


def _draw_latency(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw p50 as bars and p99 as whiskers, for the network and for all there is to do."""
    at = np.arange(len(rows))[::-1].astype(float)
    pairs = (
        ("network alone", BLUE, 0.2, [(r.network_p50_ms, r.network_p99_ms) for r in rows]),
        ("pixels to percentage", ORANGE, -0.2, [(r.whole_p50_ms, r.whole_p99_ms) for r in rows]),
    )
    for label, colour, shift, values in pairs:
        middle = [p50 or 0.0 for p50, _ in values]
        axes.barh(at + shift, middle, 0.36, color=colour, label=label)
        for place, (p50, p99) in zip(at + shift, values, strict=True):
            if p50 is not None and p99 is not None:
                axes.plot([p50, p99], [place, place], color=GREY, linewidth=1.2)
                _beside(axes, p99, place, _ms(p50))
    axes.set_yticks(at, [row.title for row in rows])
    bare = [(row.bare_p50_ms, place) for row, place in zip(rows, at, strict=True)]
    there = [one for one in bare if one[0] is not None]
    axes.plot(*zip(*there, strict=True), "k|", markersize=22, label="bare call") if there else None
    _scale(axes, [p50 for row in rows if (p50 := row.network_p50_ms) is not None])
    axes.margins(x=0.14)
    axes.set(title="Latency of one tilt", xlabel="ms; bar p50, line to p99")
    _finish(axes)


def _draw_batches(axes: Axes, rows: Sequence[Row]) -> None:
    sizes = sorted({size for row in rows for size in row.tilts_per_s or {}})
    shades = [0.35 + 0.65 * (k + 1) / len(sizes) for k in range(len(sizes))]
    colours = [_tinted(GREEN, shade) for shade in shades]
    at = np.arange(len(rows))[::-1].astype(float)
    width = 0.8 / max(1, len(sizes))
    for k, (size, colour) in enumerate(zip(sizes, colours, strict=True)):
        values = [(row.tilts_per_s or {}).get(size, 0.0) for row in rows]
        place = at + 0.4 - width * (k + 0.5)
        axes.barh(place, values, width * 0.9, color=colour, label=f"batch {size}")
    axes.set_yticks(at, [])
    _scale(axes, [rate for row in rows for rate in (row.tilts_per_s or {}).values()])
    axes.set(title="Throughput of the network", xlabel="tilts per second")
    _finish(axes)


def _draw_memory(axes: Axes, rows: Sequence[Row]) -> None:
    at = np.arange(len(rows))[::-1].astype(float)
    values = [row.memory_mib or 0.0 for row in rows]
    axes.barh(at, values, 0.5, color=BLUE)
    for place, value in zip(at, values, strict=True):
        axes.annotate(
            f"{value:.0f}", (value, place), (4, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(at, [])
    axes.margins(x=0.14)
    axes.set(title="Memory of the process", xlabel="MiB above Python and the tilt")
    _finish(axes)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Take a logarithmic axis where a GPU stands beside a CPU."""
    if values and max(values) > _TOO_FAR_APART * min(values):
        axes.set_xscale("log")


def _tinted(colour: str, shade: float) -> tuple[float, ...]:
    """Mix a colour with white: a translucent bar would show the grid."""
    parts = (int(colour[at : at + 2], 16) / 255.0 for at in (1, 3, 5))
    return tuple(1.0 - shade * (1.0 - part) for part in parts)


def _finish(axes: Axes) -> None:
    """Leave out lines between the backends; put the legend, if any, below."""
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 4}
        axes.legend(handles, labels, markerscale=0.45, **place)


def _beside(axes: Axes, value: float, place: float, words: str) -> None:
    axes.annotate(words, (value, place), (4, 0), textcoords="offset points", va="center")
