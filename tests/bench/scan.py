"""What a scan of 100,000 files costs against a bare walk, and how a backlog is drained.

Part of `make bench`; alone with `python -m tests.bench.scan`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from monitor.intake import Intake
from monitor.sources import all_sources
from tests.bench.daemon import REPOSITORY

FILES = 100_000
SHAPES = ((100, 1000), (10, 10_000), (1, 100_000))
"""Folders, and files in each."""
TURNS = 3
FULL_AIM_S, IDLE_AIM_S = 2.0, 0.2
DRAINED_FILES = 5000
GROWTH_AIM_BYTES = 8 << 20

Taken = tuple[float, float]
"""Seconds that a scan took, and a bare walk before it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of scan over one tree."""

    name: str
    ours_s: float
    bare_s: float
    """`os.scandir` and a stat of each file, right before it."""
    ratio: float
    aim_s: float


@dataclass(frozen=True, slots=True)
class Scans:
    """All that was measured."""

    rows: tuple[Row, ...]
    drained: dict[str, float]


class _Now:
    """A clock that is put forward, so that a scan is due whenever one is wanted."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


def measure(folder: Path, files: int = FILES, drained: int = DRAINED_FILES) -> Scans:
    """Scan each tree for the first time, as a whole again, and while nothing changes."""
    rows: list[Row] = []
    for folders, share in SHAPES:
        root = folder / "scanned"
        _fill(root, folders, share * files // FILES)
        rows += _measured(root, f"{folders} x {share * files // FILES}")
        shutil.rmtree(root)
    return Scans(tuple(rows), _drained(drained))


def _fill(root: Path, folders: int, files: int) -> None:
    """Make empty files: movies, each with its mdoc."""
    for number in range(folders):
        folder = root / f"session{number % 7}" / f"grid{number:03d}"
        folder.mkdir(parents=True)
        for tilt in range(files // 2):
            name = f"TS_{tilt // 50:03d}_{tilt % 50:03d}_{tilt % 50 * 2 - 50:.1f}.mrc"
            for suffix in ("", ".mdoc"):
                path = f"{folder}/{name}{suffix}"
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def _measured(root: Path, shape: str) -> list[Row]:
    firsts: list[Taken] = []
    fulls: list[Taken] = []
    idles: list[Taken] = []
    others: list[Taken] = []
    for _ in range(TURNS):
        now = _Now()
        intake = Intake(root, all_sources(root), watch="poll", clock=now)
        firsts.append(_timed(root, intake.step))
        _finish(intake)
        for seconds, taken in ((60.0, others), (60.0, fulls), (3.0, others), (3.0, idles)):
            now.ahead_s += seconds
            taken.append(_timed(root, intake.step))
        if intake.status().backlog or intake.status().incomplete:
            raise RuntimeError("the scans offered files in which nothing changed")
    return [
        _row(f"first scan, {shape}", firsts, FULL_AIM_S),
        _row(f"full scan, {shape}", fulls, FULL_AIM_S),
        _row(f"idle scan, {shape}", idles, IDLE_AIM_S),
    ]


def _finish(intake: Intake) -> None:
    while (offer := intake.next(0.0)) is not None:
        intake.done(offer.landed)


def _timed(root: Path, scan: Callable[[], None]) -> Taken:
    bare_s = _bare_walk_s(root)
    start = time.perf_counter()
    scan()
    return time.perf_counter() - start, bare_s


def _bare_walk_s(root: Path) -> float:
    start = time.perf_counter()
    waiting = [str(root)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
    return time.perf_counter() - start


def _row(name: str, taken: list[Taken], aim_s: float) -> Row:
    return Row(
        name=name,
        ours_s=median(ours for ours, _ in taken),
        bare_s=median(bare for _, bare in taken),
        ratio=median(ours / bare for ours, bare in taken),
        aim_s=aim_s,
    )


def _drained(files: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.drain", str(files)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(scans: Scans, console: Console) -> None:
    """Print the tables; plain lines where the output is not a terminal."""
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None)
    for heading in ("scans of 100,000 files", "icewatch", "bare walk", "ratio", "aim"):
        table.add_column(heading, justify="left" if heading.startswith("scans") else "right")
    for row in scans.rows:
        table.add_row(
            row.name,
            f"{row.ours_s * 1000:.0f} ms",
            f"{row.bare_s * 1000:.0f} ms",
            f"{row.ratio:.2f}",
            f"<= {row.aim_s * 1000:.0f} ms",
        )
    console.print(table)
    drained = scans.drained
    console.print(
        f"{drained['published']:.0f} of {drained['files']:.0f} waiting files drained: "
        f"{drained['ms_per_file']:.1f} ms each beside the engine; memory grew by "
        f"{drained['grown_bytes'] / 2**20:.1f} MiB (aim <= {GROWTH_AIM_BYTES / 2**20:.0f} MiB)"
    )


def figures(scans: Scans) -> dict[str, Any]:
    """All of it as it goes into JSON."""
    return asdict(scans)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="icewatch-bench-") as folder:
        show(measure(Path(folder)), Console())


if __name__ == "__main__":
    main()
