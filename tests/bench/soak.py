"""`make soak`: the daemon for a long time at many times the real rate, on full-size tilts.

Options go through make: `make soak SOAK_ARGS="--minutes 60 --picture soak.png"`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from engines.microscope import SerialEMStackWriter
from tests.bench.daemon import Daemon
from tests.bench.tilts import PIXEL_SIZE_ANGSTROM, SIDE_PX, angles_deg, tilts

REAL_TILTS_PER_S = 455.0 / 3600.0
"""Of a microscope that is well used: 532 series of 41 tilts in 48 hours."""
TILTS_OF_A_SERIES = 41
MOST_WAITING = 20
"""Tilts that may wait to be published before the microscope slows down."""
LOOK_EVERY_S = 1.0
SETTLED_AFTER_SHARE = 1 / 6
"""Share of the time after which memory is taken as settled: ten minutes of an hour."""
LAST_ONES_WITHIN_S = 60.0


@dataclass(slots=True)
class Seen:
    """What was noted while it ran."""

    started: float = field(default_factory=time.perf_counter)
    landed: dict[str, float] = field(default_factory=dict)
    """When a tilt was written, by series and angle."""
    latency_s: list[float] = field(default_factory=list)
    doubled: int = 0
    looks: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Seconds, resident bytes, open files, threads."""
    scrapes: list[tuple[float, float, int]] = field(default_factory=list)
    """Seconds, duration, samples."""


def listen(daemon: Daemon, seen: Seen, stop: threading.Event) -> None:
    """Note each tilt that is published, until told to stop."""
    published: set[str] = set()
    while not stop.is_set():
        body = daemon.take_tilt(0.2)
        if body is None:
            continue
        tilt = json.loads(body)["tilt"]
        name = f"{tilt['series']} {tilt['angle_deg']:g}"
        seen.doubled += name in published
        published.add(name)
        seen.latency_s.append(time.perf_counter() - seen.landed[name])


def look(daemon: Daemon, seen: Seen, stop: threading.Event) -> None:
    """Scrape the metrics and look at the process every second, until told to stop."""
    while not stop.wait(LOOK_EVERY_S):
        start = time.perf_counter()
        with urllib.request.urlopen(f"http://{daemon.metrics_address}/metrics", timeout=10) as page:
            text = page.read()
        at = start - seen.started
        samples = sum(not line.startswith(b"#") for line in text.splitlines())
        seen.scrapes.append((at, time.perf_counter() - start, samples))
        seen.looks.append((at, *daemon.held()))


def acquire(folder: Path, seen: Seen, per_s: float, minutes: float, progress: Progress) -> None:
    """Write tilt series at a rate, as far as the daemon keeps up; old stacks are removed."""
    task = progress.add_task("soak", total=60.0 * minutes)
    stacks: deque[Path] = deque()
    when, due = datetime(2026, 1, 5, 10, 0), time.perf_counter()
    end = due + 60.0 * minutes
    for number in count(1):
        stack = folder / "session" / f"TS_{number:04d}.mrc"
        stack.parent.mkdir(exist_ok=True)
        writer = SerialEMStackWriter(stack, (SIDE_PX, SIDE_PX), PIXEL_SIZE_ANGSTROM)
        stacks.append(stack)
        if len(stacks) > 3:
            _remove(stacks.popleft())
        images = tilts(TILTS_OF_A_SERIES, seed=number)
        for angle_deg, image in zip(angles_deg(TILTS_OF_A_SERIES), images, strict=True):
            while time.perf_counter() < due or _waiting(seen) >= MOST_WAITING:
                time.sleep(0.01)
            if time.perf_counter() >= end:
                return
            due = max(due + 1.0 / per_s, time.perf_counter() - 1.0 / per_s)
            when += timedelta(seconds=26)
            # Noted before it is written: it may be published before this thread goes on.
            seen.landed[f"{stack.stem} {angle_deg:g}"] = time.perf_counter()
            writer.add(image, angle_deg, when)
            progress.update(task, completed=time.perf_counter() - end + 60.0 * minutes)


def _waiting(seen: Seen) -> int:
    return len(seen.landed) - len(seen.latency_s)


def _remove(stack: Path) -> None:
    stack.unlink()
    stack.with_name(f"{stack.name}.mdoc").unlink()


def soak(folder: Path, per_s: float, minutes: float, progress: Progress) -> Seen:
    """Run it all; raises where the daemon ends or fails."""
    acquisition = folder / "acquisition"
    acquisition.mkdir()
    with Daemon(acquisition, folder / "state") as daemon:
        seen, stop = Seen(), threading.Event()
        helpers = [
            threading.Thread(target=one, args=(daemon, seen, stop)) for one in (listen, look)
        ]
        for one in helpers:
            one.start()
        try:
            acquire(acquisition, seen, per_s, minutes, progress)
            until = time.perf_counter() + LAST_ONES_WITHIN_S
            while _waiting(seen) and time.perf_counter() < until:
                time.sleep(0.1)
        finally:
            stop.set()
            for one in helpers:
                one.join()
    return seen


def figures(seen: Seen) -> dict[str, float]:
    """Sum up; growth of memory is from the tenth of the time after settling to the last tenth."""
    at, resident, files, threads = np.array(seen.looks, float).T
    length_s = float(at[-1])
    settled = at > SETTLED_AFTER_SHARE * length_s
    first = settled & (at <= (SETTLED_AFTER_SHARE + 0.1) * length_s)
    before, after = (float(np.median(resident[one])) for one in (first, at > 0.9 * length_s))
    scrape_s = np.array([one[1] for one in seen.scrapes])
    return {
        "minutes": length_s / 60.0,
        "tilts_landed": len(seen.landed),
        "tilts_published": len(seen.latency_s),
        "tilts_doubled": seen.doubled,
        "tilts_per_s": len(seen.landed) / length_s,
        "times_the_real_rate": len(seen.landed) / length_s / REAL_TILTS_PER_S,
        "landed_to_published_p50_s": float(np.quantile(seen.latency_s, 0.5)),
        "landed_to_published_p99_s": float(np.quantile(seen.latency_s, 0.99)),
        "memory_settled_mib": before / 2**20,
        "memory_last_mib": after / 2**20,
        "memory_growth_percent": 100.0 * (after / before - 1.0),
        "open_files_first": float(files[settled][0]),
        "open_files_last": float(files[-1]),
        "threads_first": float(threads[settled][0]),
        "threads_last": float(threads[-1]),
        "scrape_p50_ms": 1e3 * float(np.quantile(scrape_s, 0.5)),
        "scrape_p99_ms": 1e3 * float(np.quantile(scrape_s, 0.99)),
        "most_samples": max(one[2] for one in seen.scrapes),
    }


def draw(seen: Seen, path: Path) -> None:
    """Draw memory and the duration of scrapes over time."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True, layout="tight")
    looks = np.array(seen.looks, float)
    upper.plot(looks[:, 0] / 60.0, looks[:, 1] / 2**20)
    upper.set(ylabel="resident memory (MiB)", ylim=(0.0, None))
    scrapes = np.array(seen.scrapes, float)
    lower.plot(scrapes[:, 0] / 60.0, 1e3 * scrapes[:, 1], ".", markersize=2)
    lower.set(xlabel="minutes", ylabel="scrape (ms)", yscale="log")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> int:
    """Run, print, and remove what was written."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument(
        "--times", type=float, default=10.0, help="how many times the real rate (default 10)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="PNG of memory and scrapes")
    parser.add_argument("--directory", type=Path, help="disk to work on, 6 GB (default: temporary)")
    options = parser.parse_args()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with (
        tempfile.TemporaryDirectory(prefix="icewatch-soak-", dir=options.directory) as folder,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        per_s = options.times * REAL_TILTS_PER_S
        seen = soak(Path(folder), per_s, options.minutes, progress)
    found = figures(seen)
    table = Table("figure", "found", title="soak on tilts of 4096 x 4096 int16")
    for name, value in found.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.picture:
        draw(seen, options.picture)
    kept = found["tilts_landed"] == found["tilts_published"] and not found["tilts_doubled"]
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
