"""From what was timed to the figures of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.benchmarking.contenders import EAGER, REFERENCE, title
from engines.benchmarking.race import Lap


@dataclass(frozen=True, slots=True)
class Row:
    """One contender in figures; None where there is none."""

    name: str
    title: str
    why_not: str | None
    """Why there are no figures, in a few words."""
    device: str = ""
    version: str = ""
    threads: int | None = None
    start_s: float | None = None
    """From the bundle to the first answer."""
    bare_p50_ms: float | None = None
    """The call of the library alone, with nothing checked or copied."""
    network_p50_ms: float | None = None
    network_p99_ms: float | None = None
    whole_p50_ms: float | None = None
    """From pixels in memory to the percentage."""
    whole_p99_ms: float | None = None
    tilts_per_s: dict[int, float] | None = None
    """Of the network, by size of the batch."""
    memory_mib: float | None = None
    """By which the process grew at its peak, libraries included, on single tilts."""
    device_memory_mib: float | None = None
    largest_difference_percent: float | None = None
    """Between its percentages and those of the reference, in percentage points."""
    smallest_iou: float | None = None
    """Of its masks with those of the reference."""
    network_to_bare: float | None = None
    whole_to_bare: float | None = None
    times_eager: float | None = None
    """How many times faster its network is than PyTorch eager on the same kind of device."""
    times_eager_whole: float | None = None
    bare_cpu_ms: float | None = None
    """CPU time of all threads together, p50; as above for the rest."""
    network_cpu_ms: float | None = None
    whole_cpu_ms: float | None = None
    network_to_bare_cpu: float | None = None
    whole_to_bare_cpu: float | None = None
    times_eager_cpu: float | None = None
    times_eager_whole_cpu: float | None = None


def rows_of(laps: Sequence[Lap]) -> list[Row]:
    """Work out the figures of each contender."""
    by_name = {lap.name: lap for lap in laps if lap.why_not is None}
    return [_row(lap, by_name) if lap.why_not is None else _absent(lap) for lap in laps]


def _absent(lap: Lap) -> Row:
    return Row(lap.name, title(lap.name), lap.why_not)


def _row(lap: Lap, by_name: dict[str, Lap]) -> Row:
    reference = by_name.get(REFERENCE)
    eager = by_name.get(EAGER if lap.hello["device"] == "CPU" else f"{EAGER}-cuda", Lap(EAGER))
    wall, cpu = lap.wall_s, lap.cpu_s
    held = lap.device_memory_bytes
    return Row(
        name=lap.name,
        title=title(lap.name),
        why_not=None,
        device=lap.hello["device"],
        version=lap.hello["version"],
        threads=lap.hello["threads"],
        start_s=lap.hello["start_s"],
        bare_p50_ms=_quantile_ms(wall.get("bare"), 50),
        network_p50_ms=_quantile_ms(wall.get("network"), 50),
        network_p99_ms=_quantile_ms(wall.get("network"), 99),
        whole_p50_ms=_quantile_ms(wall.get("whole"), 50),
        whole_p99_ms=_quantile_ms(wall.get("whole"), 99),
        bare_cpu_ms=_quantile_ms(cpu.get("bare"), 50),
        network_cpu_ms=_quantile_ms(cpu.get("network"), 50),
        whole_cpu_ms=_quantile_ms(cpu.get("whole"), 50),
        tilts_per_s={size: size / float(np.median(s)) for size, s in lap.batch_s.items()},
        memory_mib=lap.hello["memory_bytes"] / 2**20,
        device_memory_mib=None if held is None else held / 2**20,
        largest_difference_percent=_difference(lap, reference) if reference else None,
        smallest_iou=_iou(lap, reference) if reference else None,
        network_to_bare=_ratio(wall.get("network"), wall.get("bare")),
        whole_to_bare=_ratio(wall.get("whole"), wall.get("bare")),
        times_eager=_ratio(eager.wall_s.get("network"), wall.get("network")),
        times_eager_whole=_ratio(eager.wall_s.get("whole"), wall.get("whole")),
        network_to_bare_cpu=_ratio(cpu.get("network"), cpu.get("bare")),
        whole_to_bare_cpu=_ratio(cpu.get("whole"), cpu.get("bare")),
        times_eager_cpu=_ratio(eager.cpu_s.get("network"), cpu.get("network")),
        times_eager_whole_cpu=_ratio(eager.cpu_s.get("whole"), cpu.get("whole")),
    )


def _quantile_ms(seconds: Sequence[float] | None, percent: float) -> float | None:
    return float(np.percentile(seconds, percent)) * 1000.0 if seconds else None


def _ratio(above: Sequence[float] | None, below: Sequence[float] | None) -> float | None:
    """Take the median over rounds of a ratio within each: what slows a round down cancels."""
    if not above or not below or len(above) != len(below) or min(below) <= 0.0:
        return None
    return float(np.median(np.divide(above, below)))


def _difference(lap: Lap, reference: Lap) -> float:
    """Find the largest difference of a percentage; measured or not counts as all there is."""
    worst = 0.0
    for number, percent in lap.percents.items():
        expected = reference.percents[number]
        if percent is None or expected is None:
            worst = max(worst, 0.0 if percent is expected else 100.0)
        else:
            worst = max(worst, abs(percent - expected))
    return worst


def _iou(lap: Lap, reference: Lap) -> float:
    """Find the smallest intersection over union of a mask; two empty ones agree."""
    worst = 1.0
    for number, mask in lap.masks.items():
        other = reference.masks[number]
        union = int((mask | other).sum())
        worst = min(worst, int((mask & other).sum()) / union if union else 1.0)
    return worst
