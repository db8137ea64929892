"""Draw the dashboards about as Grafana would: `python -m tests.dashboard_pictures FOLDER`.

No Grafana can be installed where the tests run. These pictures show the real grid, titles, units,
words and colours of the JSON files with what the real Prometheus answers, so that a person can see
whether they are understood; fonts and finer points are Grafana's own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from tests.dashboard_numbers import colour_of, shown
from tests.dashboard_panels import CHOSEN, NAMES, Dashboard, Panel, Times
from tests.dashboard_prometheus import WHOLE, Filled, Series, filled_from
from tests.dashboard_recording import Recording
from tests.dashboard_tables import table_of

PAGE, BACK, LINE, INK, DIM = "#111217", "#181b1f", "#2c3235", "#d8d9da", "#8e8e8e"
# Grafana's classic palette.
PALETTE = ("#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#1F78C1", "#BA43A9", "#705DA0")
_LIGHT = {"#56B4E9", "#F0E442", "#E69F00"}
_COLUMNS, _ROW_PX, _GAP_PX, _WIDE_PX, _TOP_PX = 24, 30, 8, 1600, 34


@dataclass(frozen=True, slots=True)
class Found:
    """What one panel shows: series with their legend."""

    panel: Panel
    series: tuple[tuple[str, Series], ...]
    by_query: Mapping[str, list[Series]]
    times: Times


def draw(name: str, prometheus: Filled, into: Path, chosen: Mapping[str, str] = CHOSEN) -> None:
    """Draw one dashboard."""
    page = Dashboard(name)
    bottom = max(raw["gridPos"]["y"] + raw["gridPos"]["h"] for raw in page.raw["panels"])
    high_px = bottom * (_ROW_PX + _GAP_PX) + _TOP_PX
    figure = plt.figure(figsize=(_WIDE_PX / 100, high_px / 100), dpi=100, facecolor=PAGE)
    variables = "     ".join(
        f"{raw.get('label') or key}: {chosen.get(key, 'icewatch Prometheus').replace('.*', 'All')}"
        for key, raw in page.variables.items()
    )
    say = f"{page.raw['title']}          {variables}"
    figure.text(0.006, 1 - 20 / high_px, say, color=INK, fontsize=10, va="center")
    for raw in page.raw["panels"]:
        box = _box(figure, raw["gridPos"], high_px)
        if raw["type"] == "row":
            box.text(0.004, 0.4, f"⌄ {raw['title']}", color=INK, fontsize=11, va="center")
            continue
        _draw_panel(figure, box, find(Panel(name, raw), prometheus, chosen), high_px)
    path = into / f"{name}.png"
    figure.savefig(path, facecolor=PAGE)
    plt.close(figure)
    with Image.open(path) as picture:
        few_colours = picture.convert("RGB").quantize(
            200, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    few_colours.save(path, optimize=True)


def find(panel: Panel, prometheus: Filled, chosen: Mapping[str, str]) -> Found:
    """Ask what a panel asks."""
    by_query = {
        str(target.raw["refId"]): prometheus.ask_as_grafana(panel, target, WHOLE, chosen)
        for target in panel.targets
    }
    series = [
        (target.legend(one.labels), one)
        for target in panel.targets
        for one in by_query[str(target.raw["refId"])]
    ]
    return Found(panel, tuple(series), by_query, WHOLE)


def _box(figure: Figure, grid: Mapping[str, int], high_px: float) -> Axes:
    column = 1 / _COLUMNS
    gap = _GAP_PX / _WIDE_PX / 2
    high = (grid["h"] * (_ROW_PX + _GAP_PX) - _GAP_PX) / high_px
    top = 1 - (_TOP_PX + grid["y"] * (_ROW_PX + _GAP_PX)) / high_px
    box = figure.add_axes(
        (grid["x"] * column + gap, top - high, grid["w"] * column - 2 * gap, high)
    )
    box.set_axis_off()
    box.set(xlim=(0, 1), ylim=(0, 1))
    return box


def _draw_panel(figure: Figure, box: Axes, found: Found, high_px: float) -> None:
    box.add_patch(Rectangle((0, 0), 1, 1, facecolor=BACK, edgecolor=LINE))
    frame = box.get_position()
    title_high = 26 / high_px
    box.text(
        8 / _WIDE_PX / frame.width,
        1 - 13 / high_px / frame.height,
        found.panel.title,
        color=INK,
        fontsize=9.5,
        va="center",
        weight="bold",
    )
    inner = figure.add_axes(
        (frame.x0, frame.y0, frame.width, frame.height - title_high), facecolor=BACK
    )
    inner.set_axis_off()
    inner.set(xlim=(0, 1), ylim=(0, 1))
    if not found.series:
        empty = str(found.panel.defaults["noValue"])
        inner.text(0.5, 0.5, empty, color=DIM, fontsize=11, ha="center", va="center")
        return
    kinds = {
        "stat": _draw_stat,
        "table": _draw_table,
        "bargauge": _draw_bars,
        "timeseries": _draw_curves,
        "state-timeline": _draw_bands,
    }
    kinds[found.panel.kind](inner, found)


def _draw_stat(axes: Axes, found: Found) -> None:
    defaults, options = found.panel.defaults, found.panel.raw["options"]
    ((legend, one),) = found.series
    text = legend if options["textMode"] == "name" else shown(one.last, defaults)
    colour = _ink(colour_of(one.last, defaults))
    if options["colorMode"] == "background_solid":
        axes.add_patch(Rectangle((0, 0), 1, 1, facecolor=colour))
        colour = "white"
    size = min(24.0, axes.get_position().width * _WIDE_PX / max(1, len(text)) * 1.25)
    axes.text(0.5, 0.5, text, color=colour, fontsize=size, ha="center", va="center")


def _whole(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _ink(colour: str) -> str:
    return {"text": INK, "transparent": BACK}.get(colour, colour)


def _draw_table(axes: Axes, found: Found) -> None:
    table = table_of(found.panel, found.by_query)
    wide_px = axes.get_position().width * _WIDE_PX
    high_px = axes.get_position().height * _whole(axes).get_size_inches()[1] * 100
    given_px = [float(column.fields.get("custom.width", 0)) for column in table.columns]
    rest_px = (wide_px - sum(given_px)) / max(1, given_px.count(0.0))
    step, left = 26 / high_px, 0.0
    for column, own_px in zip(table.columns, given_px, strict=True):
        wide = (own_px or rest_px) / wide_px
        title = column.title
        axes.text(left + 0.006, 1 - step / 2, title, color="#6e9fff", fontsize=9, va="center")
        for row, cell in enumerate(column.cells, start=2):
            y = 1 - step * (row - 0.5)
            if y > 0 and cell is not None:
                _draw_cell(axes, column.fields, cell, (left, y, wide, step))
        left += wide


def _draw_cell(
    axes: Axes,
    fields: Mapping[str, Any],
    cell: float | str,
    place: tuple[float, float, float, float],
) -> None:
    x, y, wide, high = place
    if isinstance(cell, str):
        axes.text(x + 0.008, y, cell, color=INK, fontsize=9, va="center")
        return
    kind = fields.get("custom.cellOptions", {}).get("type", "auto")
    colour = _ink(colour_of(cell, fields))
    box_high, low = high * 0.84, y - high * 0.42
    ink = INK
    if kind == "color-background":
        axes.add_patch(Rectangle((x, low), wide * 0.97, box_high, facecolor=colour))
        ink = "black" if colour in _LIGHT else "white"
    if kind == "gauge":
        span = wide * 0.6
        axes.add_patch(Rectangle((x, low), span, box_high, facecolor=LINE))
        axes.add_patch(Rectangle((x, low), span * min(1.0, cell), box_high, facecolor=colour))
        x += span
    axes.text(x + 0.006, y, shown(cell, fields), color=ink, fontsize=9, va="center")


def _draw_bars(axes: Axes, found: Found) -> None:
    defaults = found.panel.defaults
    top = defaults.get("max") or max(one.last for _, one in found.series) or 1.0
    step = 1 / max(3, len(found.series))
    wide_px = axes.get_position().width * _WIDE_PX
    left = min(0.6, 0.03 + max(len(legend) for legend, _ in found.series) * 8 / wide_px)
    span = 0.88 - left
    for row, (legend, one) in enumerate(found.series):
        y = 1 - step * (row + 0.5)
        low, high = y - step * 0.3, step * 0.6
        colour = _ink(colour_of(one.last, defaults))
        axes.text(0.015, y, legend, color=INK, fontsize=9.5, va="center")
        axes.add_patch(Rectangle((left, low), span, high, facecolor=LINE))
        axes.add_patch(Rectangle((left, low), span * one.last / top, high, facecolor=colour))
        axes.text(0.9, y, shown(one.last, defaults), color=INK, fontsize=11, va="center")


def _plot_area(
    axes: Axes, found: Found, low: float, right: float = 0.98, left_px: float = 68
) -> Axes:
    frame = axes.get_position()
    left = left_px / (frame.width * _WIDE_PX)
    figure = _whole(axes)
    area = figure.add_axes(
        (
            frame.x0 + frame.width * left,
            frame.y0 + frame.height * low,
            frame.width * (right - left),
            frame.height * (0.96 - low),
        ),
        facecolor=BACK,
    )
    area.set_xlim(found.times.begin_s, found.times.end_s)
    parts = 6 if frame.width > 0.3 else 3
    marks = [found.times.begin_s + found.times.range_s * (n + 0.5) / parts for n in range(parts)]
    area.set_xticks(marks, [datetime.fromtimestamp(one, UTC).strftime("%H:%M") for one in marks])
    area.tick_params(colors=DIM, labelsize=8, length=0)
    for side in area.spines.values():
        side.set_visible(False)
    return area


def _draw_curves(axes: Axes, found: Found) -> None:
    defaults = found.panel.defaults
    aside = found.panel.raw["options"]["legend"]["placement"] == "right"
    lines = len(found.series)
    area = _plot_area(axes, found, *((0.12, 0.58) if aside else (0.17 + 0.085 * lines, 0.98)))
    area.grid(color=LINE, linewidth=0.6)
    bars = defaults["custom"].get("drawStyle") == "bars"
    for index, (legend, one) in enumerate(found.series):
        colour = PALETTE[index % len(PALETTE)]
        at_s, values = zip(*_with_gaps(one, found), strict=True)
        if bars:
            area.bar(at_s, values, width=found.times.step_s, color=colour)
        else:
            area.plot(at_s, values, color=colour, linewidth=1.6)
            area.fill_between(at_s, values, color=colour, alpha=0.08)
        x, y = (0.6, 0.95 - index * 0.085) if aside else (0.02, (lines - index - 0.4) * 0.085)
        highest = max(value for _, value in one.points)
        text = f"━ {legend}   last {shown(one.last, defaults)}"
        text += "" if aside else f", max {shown(highest, defaults)}"
        axes.text(x, y, text, color=colour, fontsize=8 if aside else 8.5, va="center")
    top = max(area.get_ylim()[1], defaults["custom"].get("axisSoftMax") or 0)
    area.set_ylim(defaults.get("min", 0), defaults.get("max") or top)
    for level in defaults.get("thresholds", {"steps": ()})["steps"][1:]:
        if defaults["custom"].get("thresholdsStyle", {}).get("mode") == "dashed":
            area.axhline(level["value"], color=level["color"], linestyle="--", linewidth=1)
    if defaults.get("decimals") == 0 and defaults["unit"] == "none":
        area.yaxis.set_major_locator(MaxNLocator(integer=True))
    marks = [mark for mark in area.get_yticks() if mark <= area.get_ylim()[1] * 1.001]
    area.set_yticks(marks, [shown(mark, defaults) for mark in marks])


def _with_gaps(one: Series, found: Found) -> list[tuple[float, float]]:
    step_s = max(found.panel.step_s, found.times.step_s)
    points: list[tuple[float, float]] = []
    for at_s, value in one.points:
        if points and at_s - points[-1][0] > 1.5 * step_s:
            points.append((at_s, float("nan")))
        points.append((at_s, value))
    return points


def _draw_bands(axes: Axes, found: Found) -> None:
    defaults = found.panel.defaults
    longest = max(len(legend) for legend, _ in found.series)
    area = _plot_area(axes, found, 0.2, left_px=20 + longest * 7)
    step_s = max(found.panel.step_s, found.times.step_s)
    names = [legend for legend, _ in found.series]
    for row, (_, one) in enumerate(found.series):
        for at_s, value in one.points:
            colour = colour_of(value, defaults)
            area.add_patch(Rectangle((at_s, row - 0.4), step_s, 0.8, facecolor=colour, linewidth=0))
    area.set_ylim(len(names) - 0.5, -0.5)
    area.set_yticks(range(len(names)), names)
    legend = [(shown(value, defaults), colour_of(value, defaults)) for value in _levels(defaults)]
    apart = 110 / (axes.get_position().width * _WIDE_PX)
    for index, (text, colour) in enumerate(legend):
        axes.text(0.02 + index * apart, 0.05, f"■ {text}", color=colour, fontsize=9, va="center")


def _levels(defaults: Mapping[str, Any]) -> list[float]:
    for mapping in defaults.get("mappings", ()):
        return [float(value) for value in mapping["options"]]
    return [step["value"] or 0.0 for step in defaults["thresholds"]["steps"]]


def main(into: Path, recorded: Path | None) -> None:
    """Draw all three."""
    into.mkdir(parents=True, exist_ok=True)
    plt.rcParams["font.family"] = "DejaVu Sans"
    recording = Recording.read(recorded) if recorded else Recording.read()
    with tempfile.TemporaryDirectory() as folder, filled_from(Path(folder), recording) as found:
        for name in NAMES:
            everyone = {"microscope": ".*"} if name == "fleet" else {}
            draw(name, found, into, {**CHOSEN, **everyone})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None)
