"""What the benchmark found: as a table for people, as JSON for programs."""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

RATIO_AIM = 1.3
CPU_AIM = 0.2
MEMORY_AIM_BYTES = 400 * 1024**2
BUSY_LOAD = 0.7
"""Processes that others keep running, as the kernel counts them over a minute."""


@dataclass(frozen=True, slots=True)
class Found:
    """Raw measurements of one run."""

    latency_s: list[float]
    """From the closed mdoc section to the message at a subscriber, one for each tilt."""
    floor_s: list[float]
    """The floor on the same tilt, right after it."""
    cpu_s_per_tilt: float
    floor_cpu_s_per_tilt: float
    idle_cpu_percent: float
    """Of one core, while nothing lands."""
    peak_memory_bytes: int
    start_up_s: float
    load: float
    """Of the machine before anything was measured."""
    working_px: int
    floor_setting: str
    peer: dict[str, float]


def percentile_ms(values_s: list[float], percent: float) -> float:
    """A percentile in milliseconds."""
    return float(np.percentile(values_s, percent)) * 1000.0


def summary(found: Found) -> dict[str, Any]:
    """The figures and what they mean, with the machine they hold for."""
    p50, p95 = (percentile_ms(found.latency_s, p) for p in (50, 95))
    floor50, floor95 = (percentile_ms(found.floor_s, p) for p in (50, 95))
    return {
        "machine": {**machine(), "load": found.load},
        "tilts": len(found.latency_s),
        "working_px": found.working_px,
        "floor": found.floor_setting,
        "latency_ms": {"p50": p50, "p95": p95},
        "floor_ms": {"p50": floor50, "p95": floor95},
        "latency_to_floor": {"p50": p50 / floor50, "p95": p95 / floor95},
        "cpu_s_per_tilt": found.cpu_s_per_tilt,
        "floor_cpu_s_per_tilt": found.floor_cpu_s_per_tilt,
        "idle_cpu_percent": found.idle_cpu_percent,
        "peak_memory_bytes": found.peak_memory_bytes,
        "start_up_s": found.start_up_s,
        "peer": found.peer,
        "cpu_to_peer": found.cpu_s_per_tilt / found.peer["cpu_s_per_tilt"] if found.peer else None,
        "raw": {key: asdict(found)[key] for key in ("latency_s", "floor_s")},
    }


def machine() -> dict[str, object]:
    """Processor and the cores that this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the table; plain lines where the output is not a terminal."""
    host = figures["machine"]
    console.print(f"{figures['tilts']} tilts of 4096 x 4096 int16 at 1.97 Å on a local disk")
    console.print(
        f"{figures['working_px']} px to a side for the network; floor: {figures['floor']}"
    )
    console.print(f"{host['processor']}, {host['cores']} cores, Python {host['python']}")
    if host["load"] > BUSY_LOAD:
        console.print(
            f"The machine was busy (load {host['load']:.1f}): repeat this on a quiet one."
        )
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None)
    for heading in ("", "icewatch", "compared with", "ratio", "aim"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in rows(figures):
        table.add_row(*row)
    console.print(table)


def rows(figures: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """One line for each figure: name, ours, the other's, ratio, aim."""
    lines = []
    for percent in ("p50", "p95"):
        ours, floor = figures["latency_ms"][percent], figures["floor_ms"][percent]
        aim = f"<= {RATIO_AIM}" if percent == "p50" else ""
        name = f"landed to published, {percent}"
        ratio = f"{figures['latency_to_floor'][percent]:.2f}"
        lines.append((name, f"{ours:.0f} ms", f"floor {floor:.0f} ms", ratio, aim))
    peer = figures["peer"]
    cpu_s, bare_s = figures["cpu_s_per_tilt"], figures["floor_cpu_s_per_tilt"]
    cpu = f"{cpu_s:.2f} s"
    lines.append(("CPU time per tilt", cpu, f"floor {bare_s:.2f} s", f"{cpu_s / bare_s:.2f}", ""))
    if peer:
        other, ratio = f"peer {peer['cpu_s_per_tilt']:.2f} s", f"{figures['cpu_to_peer']:.2f}"
        lines.append(("CPU time per tilt", cpu, other, ratio, f"<= {CPU_AIM}"))
    peak = figures["peak_memory_bytes"] / 1024**2
    other = f"peer {peer['peak_memory_bytes'] / 1024**2:.0f} MiB" if peer else ""
    aim = f"<= {MEMORY_AIM_BYTES / 1024**2:.0f} MiB"
    lines.append(("peak memory", f"{peak:.0f} MiB", other, "", aim))
    lines.append(("start-up to ready", f"{figures['start_up_s']:.2f} s", "", "", ""))
    lines.append(("CPU while idle", f"{figures['idle_cpu_percent']:.1f} % of a core", "", "", ""))
    return lines
