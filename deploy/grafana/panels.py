"""What the three dashboards share: colours, queries, and panels with all that a person needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import bargauge, prometheus, stat, statetimeline, table
from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import timeseries as curves
from grafana_foundation_sdk.cog import builder as cogbuilder
from grafana_foundation_sdk.cog import variants as cogvariants
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = dashboard.DataSourceRef("prometheus", "${datasource}")
ONE = 'job="icewatch", microscope="$microscope"'
"""What every selector asks for where one microscope is shown."""

# Okabe and Ito's colours: people who are colour-blind tell them apart. A word stands beside each.
BLUE, SKY, YELLOW, ORANGE = "#0072B2", "#56B4E9", "#F0E442", "#E69F00"
VERMILLION, PURPLE, GREY = "#D55E00", "#CC79A7", "#8E8E8E"

Shown = Mapping[float, tuple[str, str]]
"""Words and colours of numbers."""
VERDICTS: Shown = {0: ("keep", BLUE), 1: ("undecided", GREY), 2: ("skip", VERMILLION)}
STATES: Shown = {
    0: ("ready", BLUE),
    1: ("starting", GREY),
    2: ("degraded", ORANGE),
    3: ("stalled", VERMILLION),
    4: ("silent", PURPLE),
}
Steps = Sequence[tuple[float | None, str]]
"""Colours, and the value from which on each holds; the first step has none."""
PLAIN: Steps = [(None, "text")]
"""As the text around it: colour is for what matters."""
_ICE: Steps = [(0.02, SKY), (0.05, YELLOW), (0.1, ORANGE), (0.2, VERMILLION)]
ICE_BANDS: Steps = [(None, BLUE), *_ICE]
"""Of ice shares, where also little ice is to be seen."""
ICE_CELLS: Steps = [(None, "transparent"), *_ICE]
"""Of ice shares in a table."""


class _Panel(Protocol):
    """What all kinds of panels have in common."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: dashboard.DataSourceRef) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def with_target(self, target: cogbuilder.Builder[cogvariants.Dataquery]) -> Self: ...


P = TypeVar("P", bound=_Panel)
Panel = cogbuilder.Builder[dashboard.Panel]


def complete(
    panel: P,
    title: str,
    sentence: str,
    unit: str,
    empty: str,
    targets: Sequence[prometheus.Dataquery],
) -> P:
    """Give a panel its title, a sentence on what it means, unit, word for nothing, and queries."""
    panel.title(title).description(sentence).datasource(SOURCE).unit(unit).no_value(empty)
    for letter, target in zip("ABCDEFGHIJ", targets, strict=False):
        panel.with_target(target.ref_id(letter))
    return panel


def now(expr: str, legend: str = "") -> prometheus.Dataquery:
    """Ask for the end of the chosen time."""
    return _query(expr).instant().legend_format(legend)


def over_time(expr: str, legend: str = "") -> prometheus.Dataquery:
    """Ask for the whole of the chosen time."""
    return _query(expr).range().legend_format(legend)


def rows(expr: str) -> prometheus.Dataquery:
    """Ask for the end of the chosen time, as rows of a table."""
    return _query(expr).instant().format(PromQueryFormat.TABLE)


def _query(expr: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(" ".join(expr.split())).datasource(SOURCE)


def steps(levels: Steps) -> build.ThresholdsConfig:
    """Change the colour from some values on."""
    return (
        build.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value, colour) for value, colour in levels])
    )


def by_level() -> build.FieldColor:
    """Take colours from the steps."""
    return build.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


def fixed(colour: str) -> build.FieldColor:
    """Take one colour for all."""
    return build.FieldColor().mode(dashboard.FieldColorModeId.FIXED).fixed_color(colour)


def words(shown: Shown) -> list[dashboard.ValueMapping]:
    """Show words in place of numbers."""
    options = {
        f"{value:g}": dashboard.ValueMappingResult(text, colour, index=index)
        for index, (value, (text, colour)) in enumerate(shown.items())
    }
    return [dashboard.ValueMap(options)]


def number() -> stat.Panel:
    """A number in large letters."""
    return (
        stat.Panel()
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .text_mode(common.BigValueTextMode.VALUE)
        .reduce_options(shared.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .color_scheme(by_level())
        .thresholds(steps(PLAIN))
        .height(4)
    )


def name() -> stat.Panel:
    """A name in large letters: the legend of what is found, not its number."""
    return number().text_mode(common.BigValueTextMode.NAME)


def state() -> stat.Panel:
    """The state of icewatch: a word on its colour."""
    return number().mappings(words(STATES)).color_mode(common.BigValueColorMode.BACKGROUND_SOLID)


def legend(placement: common.LegendPlacement) -> shared.VizLegendOptions:
    """A legend that says the last and the highest value of each curve."""
    return (
        shared.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(placement)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )


def plot() -> curves.Panel:
    """Curves over time, with their legend below."""
    tooltip = shared.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    return (
        curves.Panel()
        .legend(legend(common.LegendPlacement.BOTTOM))
        .tooltip(tooltip.sort(common.SortOrder.DESCENDING))
        .line_width(2)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.AUTO)
        .span_nulls(False)
        .min(0)
        .span(12)
        .height(8)
    )


def counts_in_bars() -> curves.Panel:
    """Bars over time, one on top of the other."""
    return (
        plot()
        .draw_style(common.GraphDrawStyle.BARS)
        .stacking(shared.StackingConfig().mode(common.StackingMode.NORMAL))
        .fill_opacity(80)
        .line_width(0)
    )


def bars() -> bargauge.Panel:
    """Horizontal bars, one for each name."""
    return (
        bargauge.Panel()
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .reduce_options(shared.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .value_mode(common.BarGaugeValueMode.TEXT)
        .show_unfilled(True)
        .color_scheme(fixed(BLUE))
        .min(0)
        .height(8)
    )


def timeline(shown: Shown) -> statetimeline.Panel:
    """Coloured bands over time."""
    return (
        statetimeline.Panel()
        .mappings(words(shown))
        .color_scheme(by_level())
        .thresholds(steps([(None, GREY)]))
        .merge_values(True)
        .show_value(common.VisibilityMode.AUTO)
        .row_height(0.8)
        .per_page(20)
        .fill_opacity(90)
        .line_width(0)
        .legend(
            shared.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
    )


def rows_merged(columns: Mapping[str, str], hidden: Sequence[str] = ()) -> table.Panel:
    """A table of queries that are joined by their labels, sorted by the first column.

    `columns` gives the title of each, in their order.
    """
    first = next(iter(columns.values()))
    return (
        table.Panel()
        .with_transformation(dashboard.DataTransformerConfig("merge", options={}))
        .with_transformation(
            dashboard.DataTransformerConfig(
                "organize",
                options={
                    "excludeByName": dict.fromkeys(("Time", *hidden), True),
                    "indexByName": {column: index for index, column in enumerate(columns)},
                    "renameByName": dict(columns),
                },
            )
        )
        .cell_height(common.TableCellHeight.SM)
        .sort_by([shared.TableSortByFieldState().display_name(first).desc(False)])
        .filterable(True)
        .height(9)
    )


def cell(id_val: str, value: object) -> dashboard.DynamicConfigValue:
    """A setting of one column."""
    return dashboard.DynamicConfigValue(id_val, value)


def coloured(shown: Shown) -> list[dashboard.DynamicConfigValue]:
    """Settings of a column whose numbers are shown as words on their colours."""
    return [
        cell("mappings", words(shown)),
        cell("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
        cell("unit", "none"),
    ]


def levels_of(levels: Steps) -> list[dashboard.DynamicConfigValue]:
    """Settings of a column whose numbers lie on the colour of their step."""
    return [
        cell("thresholds", steps(levels).build()),
        cell("color", {"mode": "thresholds"}),
        cell("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
    ]
