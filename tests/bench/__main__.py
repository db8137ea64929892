"""`make bench`: latency, CPU time, memory and start-up of the daemon on full-size tilts.

Options go through make: `make bench BENCH_ARGS="--tilts 60 --json bench.json"`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engines.microscope import SerialEMStackWriter
from tests.bench import readers, scan
from tests.bench.daemon import REPOSITORY, Daemon
from tests.bench.floor import Floor
from tests.bench.report import Found, show, summary
from tests.bench.tilts import PIXEL_SIZE_ANGSTROM, SIDE_PX, angles_deg, tilts

WARM_UP_TILTS = 2
IDLE_S = 3.0
TILT_TAKES = timedelta(seconds=26)
"""What the microscope's clock says between tilts; the tilts themselves land as fast as they can."""


def measure_daemon(folder: Path, count: int, progress: Progress) -> tuple[Found, Path]:
    """Let tilts land one by one, each followed by the floor on the very same bytes."""
    acquisition = folder / "acquisition"
    acquisition.mkdir()
    load = os.getloadavg()[0]
    floor = Floor()
    latency_s, cpu_s, floor_s, floor_cpu_s = [], [], [], []
    total = count + WARM_UP_TILTS
    when = datetime(2026, 1, 5, 10, 0)
    task = progress.add_task("daemon and floor", total=total)
    with Daemon(acquisition, folder / "state") as daemon:
        stack = acquisition / "session" / "TS_001.mrc"
        stack.parent.mkdir()
        writer = SerialEMStackWriter(stack, (SIDE_PX, SIDE_PX), PIXEL_SIZE_ANGSTROM)
        idle_start = daemon.cpu_s()
        time.sleep(IDLE_S)
        idle_percent = (daemon.cpu_s() - idle_start) / IDLE_S * 100.0
        for angle_deg, image in zip(angles_deg(total), tilts(total), strict=True):
            cpu_start = daemon.cpu_s()
            when += TILT_TAKES
            writer.add(image, angle_deg, when)
            landed = time.perf_counter()
            published = daemon.await_tilt()
            daemon.await_quiet()
            cpu_tilt_s = daemon.cpu_s() - cpu_start
            bare_s, bare_cpu_s = floor.time_s(stack, stack.stat().st_size - image.nbytes)
            latency_s.append(published - landed)
            cpu_s.append(cpu_tilt_s)
            floor_s.append(bare_s)
            floor_cpu_s.append(bare_cpu_s)
            progress.advance(task)
        found = Found(
            latency_s=latency_s[WARM_UP_TILTS:],
            floor_s=floor_s[WARM_UP_TILTS:],
            cpu_s_per_tilt=mean(cpu_s[WARM_UP_TILTS:]),
            floor_cpu_s_per_tilt=mean(floor_cpu_s[WARM_UP_TILTS:]),
            idle_cpu_percent=idle_percent,
            peak_memory_bytes=daemon.peak_memory_bytes(),
            start_up_s=daemon.start_up_s,
            load=load,
            working_px=floor.working_px,
            floor_setting=floor.setting,
            peer={},
        )
    return found, stack


def measure_peer(stack: Path, count: int) -> dict[str, float]:
    """Run the peer on the same stack in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.peer", str(stack), str(count)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--tilts", type=int, default=40, help="tilts that land (default 40)")
    parser.add_argument(
        "--peer-tilts", type=int, default=10, help="tilts the peer takes; 0: no peer (default 10)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    parser.add_argument(
        "--directory", type=Path, help="local disk to work on, 34 MB a tilt (default: temporary)"
    )
    return parser.parse_args()


def main() -> int:
    """Measure, print, and remove what was written."""
    options = arguments()
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        tempfile.TemporaryDirectory(prefix="icewatch-bench-", dir=options.directory) as folder,
        Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress,
    ):
        found, stack = measure_daemon(Path(folder), options.tilts, progress)
        if options.peer_tilts:
            task = progress.add_task("peer", total=None)
            peer = measure_peer(stack, min(options.peer_tilts, options.tilts))
            found = replace(found, peer=peer)
            progress.update(task, total=1, completed=1)
        task = progress.add_task("readers", total=None)
        rows = readers.measure(Path(folder))
        progress.update(task, total=1, completed=1)
        task = progress.add_task("scans", total=None)
        scans = scan.measure(Path(folder))
        progress.update(task, total=1, completed=1)
    figures = {
        **summary(found),
        "readers": readers.figures(rows),
        "scans": scan.figures(scans),
    }
    show(figures, console)
    readers.show(rows, console)
    scan.show(scans, console)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
