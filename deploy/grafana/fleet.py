"""The dashboard for the facility: all microscopes at once, one row each."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table

from deploy.grafana.expressions import firing, newest, state_code
from deploy.grafana.panels import (
    ICE_CELLS,
    ORANGE,
    PLAIN,
    STATES,
    VERMILLION,
    Panel,
    Steps,
    cell,
    coloured,
    complete,
    levels_of,
    now,
    number,
    over_time,
    plot,
    rows,
    rows_merged,
    steps,
    timeline,
)

ALL = 'job="icewatch", microscope=~"$microscope"'
NAMED = f'{ALL}, microscope!=""'
"""An alert that nobody is watched belongs to no microscope."""
_TO_SESSION = [
    {
        "title": "Show the session of ${__value.text}",
        "url": "/d/icewatch-session?var-microscope=${__value.text}&${datasource:queryparam}",
    }
]
_COLUMNS = {
    "microscope": "Microscope",
    "Value #A": "State",
    "session": "Session",
    "Value #C": "Since the newest tilt",
    "Value #D": "Ice, last 2 hours",
    "Value #E": "Keep",
    "Value #F": "Undecided",
    "Value #G": "Skip",
    "Value #H": "Alerts firing",
}
_NOBODY = "no microscope is watched"


def add_panels(page: build.Dashboard) -> build.Dashboard:
    """Put all panels on the page, from top to bottom."""
    for panel in (*_headline(), _microscopes(), _states(), _alerts(), *_courses()):
        page.with_panel(panel)
    return page


def _headline() -> list[Panel]:
    up = f"up{{{ALL}}}"
    acquiring = f"time() - icewatch_newest_tilt_timestamp_seconds{{{ALL}}} < 600"
    return [
        complete(
            number().span(6),
            "Microscopes watched",
            "Microscopes whose icewatch Prometheus asks.",
            "none",
            _NOBODY,
            [now(f"count(count by (microscope) ({up}))", "microscopes")],
        ),
        complete(
            number().span(6),
            "Acquiring now",
            "Microscopes of which a tilt came in the last ten minutes.",
            "none",
            _NOBODY,
            [now(f"count({acquiring}) or 0 * count({up})", "microscopes")],
        ),
        complete(
            number().span(6).thresholds(steps([*PLAIN, (1, VERMILLION)])),
            "Not as they should be",
            "Microscopes whose icewatch is degraded, stalled or silent.",
            "none",
            _NOBODY,
            [now(f"count({state_code(ALL)} >= 2) or 0 * count({up})", "microscopes")],
        ),
        complete(
            number().span(6).thresholds(steps([*PLAIN, (1, ORANGE)])),
            "Alerts firing",
            "Alerts of all microscopes that fire now.",
            "none",
            _NOBODY,
            [now(f"count({firing(ALL)}) or 0 * count({up})", "alerts")],
        ),
    ]


def _microscopes() -> table.Panel:
    verdicts = 'sum by (microscope) (icewatch_grid_lamellae{{{}, verdict="{}"}})'
    age = f"time() - {newest(f'icewatch_newest_tilt_timestamp_seconds{{{ALL}}}')}"
    ice = f"icewatch_measured_tilts_ice_ratio_{{}}{{{{{ALL}}}}}"
    mean = f"increase({ice.format('sum')}[2h]) / (increase({ice.format('count')}[2h]) > 0)"
    panel = complete(
        rows_merged(_COLUMNS, hidden=["Value #B"]).span(24).height(8),
        "Microscopes",
        "One row for each microscope: how icewatch is, the running session, its newest tilt, the "
        "mean ice of the tilts of the last two hours, and its lamellae by verdict.",
        "none",
        _NOBODY,
        [
            rows(state_code(ALL)),
            rows(f"max by (microscope, session) (icewatch:session:newest{{{ALL}}})"),
            rows(f"max by (microscope) ({age})"),
            rows(f"max by (microscope) ({mean})"),
            *(rows(verdicts.format(ALL, word)) for word in ("keep", "undecided", "skip")),
            rows(
                f"count by (microscope) ({firing(ALL)}) or 0 * count by (microscope) (up{{{ALL}}})"
            ),
        ],
    )
    alerts: Steps = [(None, "transparent"), (1, ORANGE)]
    return (
        panel.override_by_name(
            "Microscope", [cell("links", _TO_SESSION), cell("custom.width", 160)]
        )
        .override_by_name("Session", [cell("custom.width", 330)])
        .override_by_name("State", coloured(STATES))
        .override_by_name("Since the newest tilt", [cell("unit", "s"), cell("decimals", 0)])
        .override_by_name(
            "Ice, last 2 hours",
            [cell("unit", "percentunit"), cell("decimals", 1), *levels_of(ICE_CELLS)],
        )
        .override_by_name("Alerts firing", levels_of(alerts))
    )


def _states() -> Panel:
    return complete(
        timeline(STATES).span(14).height(8),
        "State in the course of time",
        "The state of each icewatch at each time; a gap means that Prometheus did not look.",
        "none",
        _NOBODY,
        [over_time(state_code(ALL), "{{microscope}}")],
    )


def _alerts() -> Panel:
    columns = {"microscope": "Microscope", "alertname": "Alert", "severity": "Severity"}
    panel = complete(
        rows_merged({**columns, "Value": "Number"}).span(10).height(8),
        "Alerts that fire now",
        "The name of each alert is a heading in deploy/runbook.md, which says what to do; "
        "Number counts the lamellae or grids it is about.",
        "none",
        "none: all is well",
        [rows(f"count by (microscope, alertname, severity) ({firing(ALL)})")],
    )
    return panel.override_by_name("Alert", [cell("custom.width", 270)])


def _courses() -> list[Panel]:
    tilts = f"increase(icewatch_tilts_published_total{{{ALL}}}[1h])"
    return [
        complete(
            plot().decimals(1),
            "Ice of the last two hours",
            "Mean ice of the tilts of the last two hours on each microscope (once 30 came).",
            "percentunit",
            "too few tilts yet",
            [
                over_time(
                    f"max by (microscope) (icewatch:tilt_ice_ratio:mean2h{{{ALL}}})",
                    "{{microscope}}",
                )
            ],
        ),
        complete(
            plot().decimals(0),
            "Tilts in one hour",
            "Tilts that were read in the hour before each time: how busy each microscope is.",
            "none",
            "no tilt yet",
            [over_time(f"sum by (microscope) ({tilts})", "{{microscope}}")],
        ),
    ]
