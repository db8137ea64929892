"""How fast a backlog is drained by all but the engine, and with how much memory.

Run as a program of its own, so that its memory is its own: `python -m tests.bench.drain COUNT`
writes as many movies, drains them with the daemon's own intake, sources, pipeline and journal and
an engine that takes no time, and prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from engines.microscope import write_frame_mdoc_movie
from monitor.intake import Intake
from monitor.sources import all_sources
from tests.pipelines import Parts

PER_SERIES = 50
WARM_UP = 1000
"""Files after which all that is kept for good should be there."""
_GIVE_UP_S = 600.0


def write_backlog(root: Path, count: int) -> None:
    """Write movies with their mdocs, some series in each of some folders."""
    image = np.random.default_rng(0).integers(0, 900, (2, 16, 16)).astype(np.int16)
    when = datetime(2026, 1, 5, 10, 0)
    for number in range(count):
        series, tilt = divmod(number, PER_SERIES)
        folder = root / f"session/grid{series % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"TS_{series:03d}_{tilt:03d}_{1.5 * tilt - 36:.1f}.mrc"
        seconds = timedelta(seconds=26 * number)
        write_frame_mdoc_movie(folder / name, image, 1.5 * tilt - 36, when + seconds, 2.0)


def drain(root: Path, state: Path, count: int) -> dict[str, float]:
    """Read all of them as the daemon does."""
    parts = Parts(state, source=all_sources(root), keeps=False)
    intake = Intake(root, parts.source, poll_interval_s=0.5, on_gone=parts.problems.solved)
    stop = threading.Event()
    thread = threading.Thread(target=intake.run, args=(stop,))
    thread.start()
    began_s = first_s = time.perf_counter()
    warm_bytes = 0
    while parts.published < count and time.perf_counter() - began_s < _GIVE_UP_S:
        offer = intake.next(0.1)
        if offer is None:
            continue
        if not parts.published:
            first_s = time.perf_counter()
        (intake.done if parts.process(offer.landed) else intake.retry)(offer.landed)
        if parts.published == WARM_UP and not warm_bytes:
            warm_bytes = memory_bytes()
    took_s, now_bytes = time.perf_counter() - first_s, memory_bytes()
    stop.set()
    thread.join(10.0)
    found = {
        "files": count,
        "published": parts.published,
        "ms_per_file": took_s / count * 1000.0,
        "memory_bytes": now_bytes,
        "grown_bytes": now_bytes - warm_bytes,
        "journal_bytes_per_tilt": (parts.state / "journal.sqlite3").stat().st_size / count,
    }
    parts.die()
    return found


def memory_bytes() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="icewatch-bench-") as folder:
        root = Path(folder) / "data"
        write_backlog(root, count)
        print(json.dumps(drain(root, Path(folder), count)))


if __name__ == "__main__":
    main()
