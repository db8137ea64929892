"""The dashboard for whoever looks after icewatch: does it work, is it fast enough, what fails."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common

from deploy.grafana.expressions import counted, firing, mean_of, newest_tilt_age, state_code
from deploy.grafana.health_computer import HERE, SILENT, disk, gpu, process
from deploy.grafana.panels import (
    BLUE,
    ONE,
    ORANGE,
    PLAIN,
    SKY,
    STATES,
    VERMILLION,
    Panel,
    Shown,
    bars,
    cell,
    complete,
    counts_in_bars,
    fixed,
    name,
    now,
    number,
    over_time,
    plot,
    rows,
    rows_merged,
    state,
    steps,
    timeline,
    words,
)


def add_panels(page: build.Dashboard) -> build.Dashboard:
    """Put all panels on the page, from top to bottom."""
    sections = (
        ("How it is now", [*_now(), _alerts(), _states()]),
        ("Is it fast enough?", _speed()),
        ("What fails", _failures()),
        ("The disk of the state directory", disk()),
        ("GPU", gpu()),
        ("The process, and how Prometheus reaches it", process()),
    )
    for title, panels in sections:
        page.with_row(build.Row(title))
        for panel in panels:
            page.with_panel(panel)
    return page


def _now() -> list[Panel]:
    return [
        complete(
            state().span(4),
            "State",
            "Ready, starting, degraded (works, but not as it should), stalled (the acquisition "
            "directory cannot be read) or silent; `icewatch status` says why in one sentence.",
            "none",
            "not watched",
            [now(state_code(HERE), "state")],
        ),
        complete(
            number().span(4).thresholds(steps([*PLAIN, (1, ORANGE)])),
            "Alerts firing",
            "Alerts of this microscope that fire now; the table below names them.",
            "none",
            "not watched",
            [now(f"count({firing(ONE)}) or 0 * count(up{{{HERE}}})", "alerts")],
        ),
        complete(
            number().span(4).decimals(0),
            "Since the newest tilt",
            "Time since the newest tilt was read.",
            "s",
            "no tilt yet",
            [now(newest_tilt_age(HERE), "age")],
        ),
        *_what_runs(),
    ]


def _what_runs() -> list[Panel]:
    build_info = f"icewatch_build_info{{{HERE}}}"
    return [
        complete(
            number().span(4).decimals(0),
            "Running for",
            "Time since icewatch was started.",
            "s",
            SILENT,
            [now(f"time() - max(process_start_time_seconds{{{HERE}}})", "since the start")],
        ),
        complete(
            name().span(4),
            "What reads the tilts",
            "The part that computes: onnxruntime or openvino on the CPU, tensorrt on the GPU.",
            "none",
            SILENT,
            [now(build_info, "{{backend}}")],
        ),
        complete(
            name().span(4),
            "Version and network",
            "Version of icewatch, and name and version of the trained network (the bundle).",
            "none",
            SILENT,
            [now(build_info, "{{version}} / {{bundle}} {{bundle_version}}")],
        ),
    ]


def _alerts() -> Panel:
    columns = {"alertname": "Alert", "severity": "Severity", "topic": "About", "Value": "Number"}
    panel = complete(
        rows_merged(columns).span(12).height(6),
        "Alerts that fire now",
        "The name of each alert is a heading in deploy/runbook.md, which says what to do; "
        "Number counts the lamellae or grids it is about.",
        "none",
        "none: all is well",
        [rows(f"count by (alertname, severity, topic) ({firing(ONE)})")],
    )
    return panel.override_by_name("Alert", [cell("custom.width", 300)])


def _states() -> Panel:
    return complete(
        timeline(STATES).span(12).height(6),
        "State in the course of time",
        "The state of icewatch at each time; a gap means that Prometheus did not look.",
        "none",
        "not watched",
        [over_time(state_code(HERE), "{{microscope}}")],
    )


def _speed() -> list[Panel]:
    mean = mean_of("icewatch_stage_seconds", HERE)
    latency = f"icewatch:landed_to_published_seconds:{{}}_15m{{{{{ONE}}}}}"
    return [
        complete(
            plot().decimals(2),
            "From landing to message",
            "Time from the last write of a tilt to its message, over the last quarter of an hour: "
            "half of the tilts are faster than the lower line, 95 of 100 than the upper one.",
            "s",
            "no tilt in the last quarter of an hour",
            [
                over_time(f"{latency.format('p50')} >= 0", "half of the tilts"),
                over_time(f"{latency.format('p95')} >= 0", "95 of 100 tilts"),
            ],
        ),
        complete(
            plot().decimals(3),
            "Where the time goes",
            "Mean time for one tilt: reading the file, measuring the ice (infer), and deciding "
            "and writing down.",
            "s",
            "no tilt in the chosen time",
            [over_time(mean, "{{stage}}")],
        ),
        complete(
            plot().decimals(0).axis_soft_max(10),
            "Files that wait",
            "Files that landed and were not read yet; right after a start on a full directory "
            "there are many.",
            "none",
            SILENT,
            [over_time(f"icewatch_backlog_files{{{HERE}}}", "files")],
        ),
        complete(
            plot().axis_soft_max(30),
            "Waiting time of the oldest file",
            "How long the file that waits longest has waited; over two minutes an alert comes.",
            "s",
            SILENT,
            [over_time(f"icewatch_oldest_unprocessed_seconds{{{HERE}}}", "oldest file")],
        ),
    ]


def _failures() -> list[Panel]:
    errors = f"icewatch_errors_total{{{HERE}}}"
    refused = f"icewatch_files_refused_total{{{HERE}}}"
    taken: Shown = {0: ("refused", VERMILLION), 1: ("in use", BLUE)}
    return [
        complete(
            counts_in_bars().span(8).decimals(0).axis_soft_max(1),
            "Errors by stage",
            "Errors that icewatch survived: while receiving files, processing tilts, or sending "
            "messages.",
            "none",
            SILENT,
            [over_time(f"sum by (stage) (increase({errors}[$__rate_interval]))", "{{stage}}")],
        ),
        complete(
            bars().span(8).color_scheme(fixed(SKY)),
            "Files that gave no tilt, and why",
            "Files that could not be read as tilts in the chosen time, by reason.",
            "none",
            "none: every file gave its tilt",
            [now(f"sum by (reason) ({counted(refused)}) > 0", "{{reason}}")],
        ),
        complete(
            number().span(4).height(8).thresholds(steps([*PLAIN, (1, ORANGE)])),
            "Tilts set aside",
            "Tilts that icewatch died of twice and does not read any more; `icewatch retry` tries "
            "them again.",
            "none",
            SILENT,
            [now(f"sum(icewatch_tilts_set_aside{{{HERE}}})", "tilts")],
        ),
        complete(
            number()
            .span(4)
            .height(8)
            .mappings(words(taken))
            .color_mode(common.BigValueColorMode.BACKGROUND_SOLID),
            "Configuration",
            "Whether the configuration file was right when it was last read (at the start or by "
            "reload); if it was refused, the settings from before hold, and the log says why.",
            "none",
            SILENT,
            [now(f"min(icewatch_config_last_reload_successful{{{HERE}}})", "configuration")],
        ),
    ]
