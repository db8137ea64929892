"""The lower half of the Health dashboard: disk, GPU and process."""

from __future__ import annotations

from grafana_foundation_sdk.models import common

from deploy.grafana.expressions import counted, mean_of
from deploy.grafana.panels import (
    BLUE,
    ONE,
    ORANGE,
    PLAIN,
    SKY,
    VERMILLION,
    Panel,
    Shown,
    bars,
    complete,
    fixed,
    now,
    number,
    over_time,
    plot,
    steps,
    timeline,
    words,
)

HERE = f'{ONE}, instance=~"$instance"'
"""What every selector of the Health dashboard asks for, but of recorded series."""
SILENT = "icewatch does not answer"
_NO_GPU = "no GPU"


def disk() -> list[Panel]:
    """Show the disk that holds the state directory, and what icewatch does with it."""
    disk = f"icewatch_state_disk_{{}}_bytes{{{{{HERE}}}}}"
    removed = f"icewatch_state_removed_total{{{HERE}}}"
    return [
        complete(
            number()
            .span(4)
            .height(6)
            .decimals(0)
            .thresholds(steps([(None, VERMILLION), (0.05, ORANGE), (0.1, "text")])),
            "Free on this disk",
            "Share of the disk with the state directory that is free; below 5 % an alert comes.",
            "percentunit",
            SILENT,
            [now(f"min({disk.format('free')} / {disk.format('size')})", "free")],
        ),
        complete(
            bars().span(10).height(6),
            "What icewatch keeps there",
            "What the state directory holds of what is removed one day, by kind.",
            "bytes",
            "known a minute after the start",
            [now(f"sum by (kind) (icewatch_state_kept_bytes{{{HERE}}})", "{{kind}}")],
        ),
        complete(
            bars().span(10).height(6).color_scheme(fixed(SKY)),
            "What icewatch removed there",
            "What was removed in the chosen time for its age or for its size, by kind.",
            "none",
            "nothing",
            [now(f"sum by (kind) ({counted(removed)}) > 0", "{{kind}}")],
        ),
    ]


def gpu() -> list[Panel]:
    """Show the GPU, where there is one."""
    lost = f"icewatch_gpu_lost_total{{{HERE}}}"
    up: Shown = {0: ("lost", VERMILLION), 1: ("answers", BLUE)}
    return [
        complete(
            number()
            .span(3)
            .height(6)
            .mappings(words(up))
            .color_mode(common.BigValueColorMode.BACKGROUND_SOLID),
            "Does the GPU answer?",
            "Whether the GPU answers, where one was found at the start.",
            "none",
            _NO_GPU,
            [now(f"min(icewatch_gpu_up{{{HERE}}})", "GPU")],
        ),
        complete(
            number().span(3).height(6).thresholds(steps([*PLAIN, (1, ORANGE)])),
            "Times that it was lost",
            "How often the GPU stopped answering in the chosen time; the CPU goes on in its place.",
            "none",
            _NO_GPU,
            [now(f"sum({counted(lost)})", "times")],
        ),
        *_gpu_at_work(),
    ]


def _gpu_at_work() -> list[Panel]:
    memory = f"icewatch_gpu_memory_{{}}_bytes{{{{{HERE}}}}}"
    mean = mean_of("icewatch_engine_stage_seconds", HERE)
    return [
        complete(
            plot().span(7).height(6).max(1),
            "Use of the GPU",
            "Share of time in which the GPU computed, and share of its memory in use, by whomever.",
            "percentunit",
            _NO_GPU,
            [
                over_time(f"icewatch_gpu_utilisation_ratio{{{HERE}}}", "computing"),
                over_time(f"{memory.format('used')} / {memory.format('total')}", "memory"),
            ],
        ),
        complete(
            plot().span(4).height(6),
            "Temperature of the GPU",
            "Above some 85 °C a GPU slows itself down.",
            "celsius",
            _NO_GPU,
            [over_time(f"icewatch_gpu_temperature_celsius{{{HERE}}}", "GPU")],
        ),
        complete(
            plot().span(7).height(6).decimals(4),
            "Time of one call of the GPU engine",
            "Mean time that the engine takes in each of its stages.",
            "s",
            _NO_GPU,
            [over_time(mean, "{{stage}}")],
        ),
    ]


def process() -> list[Panel]:
    """Show what the process takes, and whether it answers."""
    return [
        complete(
            plot().span(6).height(7),
            "Memory",
            "Memory that icewatch holds; it should not grow from day to day.",
            "bytes",
            SILENT,
            [over_time(f"process_resident_memory_bytes{{{HERE}}}", "memory")],
        ),
        complete(
            plot().span(6).height(7).decimals(2),
            "CPU",
            "CPU cores that icewatch keeps busy; 1 is one whole core.",
            "none",
            SILENT,
            [over_time(f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval])", "cores")],
        ),
        complete(
            plot().span(6).height(7).max(1),
            "Open files",
            "Share of the files and sockets that icewatch may open at once.",
            "percentunit",
            SILENT,
            [
                over_time(
                    f"process_open_fds{{{HERE}}} / process_max_fds{{{HERE}}}", "of those allowed"
                )
            ],
        ),
        complete(
            timeline({0: ("no answer", VERMILLION), 1: ("answers", BLUE)}).span(6).height(7),
            "Does it answer Prometheus?",
            "Whether icewatch answered when Prometheus asked it for its numbers.",
            "none",
            "not watched",
            [over_time(f"min by (microscope) (up{{{HERE}}})", "{{microscope}}")],
        ),
    ]
