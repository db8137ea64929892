"""Simulated data sets on disk; `icewatch simulate dataset` and this module make the same ones.

python -m engines.learning.dataset --out DIR --seed S --series N
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import engines.simulation
from engines.learning.contact_sheet import CONTACT_SHEET, write_contact_sheet
from engines.learning.shards import (
    DamagedShardError,
    is_whole,
    list_shards,
    read_about,
    write_series,
)
from engines.simulation import FAMILIES, HELD_OUT_FAMILIES, SimulatedSeries, simulate_series
from engines.simulation.foreign import (
    FOREIGN_FAMILIES,
    FOREIGN_TEST_FAMILIES,
    simulate_foreign,
)

FAMILY_SETS = {
    "train": FAMILIES,
    "held-out": HELD_OUT_FAMILIES,
    "foreign": FOREIGN_FAMILIES,
    "foreign-test": FOREIGN_TEST_FAMILIES,
}
ABOUT = "dataset.json"
_FOREIGN = frozenset((*FOREIGN_FAMILIES, *FOREIGN_TEST_FAMILIES))
_KNOWN = (*FAMILIES, *HELD_OUT_FAMILIES, *FOREIGN_FAMILIES, *FOREIGN_TEST_FAMILIES)


class OtherDatasetError(ValueError):
    """Raised when a directory cannot hold the data set, or holds another or a damaged one."""


@dataclass(frozen=True, slots=True)
class DatasetSettings:
    """What is simulated; two data sets with equal settings are equal, byte for byte."""

    seed: int
    series: int
    families: tuple[str, ...]
    """Taken in turn; a family may be named more than once to be drawn more often."""
    tilts: int = 4
    """Of each series; pictures of no tilt (`foreign`) come one by one."""
    size_px: int = 320


def families_named(text: str) -> tuple[str, ...]:
    """Return the families that a set (train, held-out...) or a list with commas names.

    Raises ValueError for one that is not there.
    """
    if not text.strip(" ,"):
        raise ValueError(f"none is named: choose {', '.join(FAMILY_SETS)}, or names by comma.")
    names: list[str] = []
    for word in text.split(","):
        names += FAMILY_SETS.get(word.strip(), (word.strip(),))
    for name in names:
        if name not in _KNOWN:
            sets = ", ".join(FAMILY_SETS)
            raise ValueError(f"there is no family {name!r}: choose {sets}, or from {_listed()}.")
    return tuple(names)


def _listed() -> str:
    return ", ".join(sorted(_KNOWN))


def series_seed(settings: DatasetSettings, index: int) -> int:
    """Derive the seed of one series, far from those of other series and other data sets."""
    return int(np.random.SeedSequence([settings.seed, index]).generate_state(1, np.uint32)[0])


def simulate_shard(out: Path, settings: DatasetSettings, index: int) -> Path:
    """Simulate series number `index` of a data set, unless it is already there."""
    path = out / f"series_{index:06d}.npz"
    if not is_whole(path):
        seed = series_seed(settings, index)
        family = settings.families[index % len(settings.families)]
        write_series(path, _simulate(seed, family, settings), seed, family)
    return path


def _simulate(seed: int, family: str, settings: DatasetSettings) -> SimulatedSeries:
    if family in _FOREIGN:
        return simulate_foreign(seed, family, settings.size_px)
    return simulate_series(seed, family, n_tilts=settings.tilts, size_px=settings.size_px)


def simulate_dataset(out: Path, settings: DatasetSettings, workers: int = 1) -> Generator[Path]:
    """Simulate what is missing of a data set, yielding each shard as it is finished.

    With more than one worker, shards come in any order.
    Raises OtherDatasetError where `out` holds a data set made with other settings.
    """
    _record(out, settings)
    missing = [i for i in range(settings.series) if not is_whole(out / f"series_{i:06d}.npz")]
    work = partial(simulate_shard, out, settings)
    if workers <= 1:
        with _single_thread():
            yield from map(work, missing)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (os.getpid(),)) as pool:
        try:
            pending = {pool.submit(work, index) for index in missing}
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            # Left to the pool, what is pending would be simulated before it ends.
            pool.shutdown(wait=True, cancel_futures=True)


def make_dataset(out: Path, settings: DatasetSettings, workers: int = 1) -> dict[str, Any]:
    """Simulate a data set with progress, sum it up, draw its contact sheet; returns the summary.

    Raises OtherDatasetError as `simulate_dataset` does.
    """
    _record(out, settings)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("simulating series", total=settings.series)
        done = sum(is_whole(out / f"series_{i:06d}.npz") for i in range(settings.series))
        progress.update(task, completed=done)
        # Closed at once where it is interrupted: its workers would go on while the error is told.
        with closing(simulate_dataset(out, settings, workers)) as shards:
            for _ in shards:
                progress.advance(task)
        try:
            return _finished(out, list_shards(out)[: settings.series], progress)
        except DamagedShardError as error:
            raise OtherDatasetError(str(error)) from error


def _finished(out: Path, shards: Sequence[Path], progress: Progress) -> dict[str, Any]:
    """Sum up a data set whose shards are all there, and draw its contact sheet."""
    tilts = []
    for path in progress.track(shards, description="summing up"):
        tilts += read_about(path)
    summary = summed_up(tilts)
    _replace(out / ABOUT, {**_recorded(out / ABOUT), "summary": summary})
    write_contact_sheet(out / CONTACT_SHEET, shards)
    return summary


def summed_up(tilts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Say of each family how many tilts it has, their mean ice percent and share without ice."""
    families: dict[str, dict[str, float | int]] = {}
    for name in sorted({str(tilt["family"]) for tilt in tilts}):
        own = [tilt for tilt in tilts if tilt["family"] == name]
        percents = np.array([tilt["ice_percent"] for tilt in own])
        occupancy = np.array([tilt["occupancy_percent"] for tilt in own])
        families[name] = {
            "series": len({tilt["seed"] for tilt in own}),
            "tilts": len(own),
            "mean_ice_percent": round(float(percents.mean()), 3),
            "mean_occupancy_percent": round(float(occupancy.mean()), 3),
            "ice_free_tilts": round(float((percents == 0.0).mean()), 4),
        }
    return {"tilts": len(tilts), "families": families}


@contextmanager
def _single_thread() -> Iterator[None]:
    """Compute on one thread meanwhile: sums in a fixed order, and no slower on small pictures."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    _one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _one_thread() -> None:
    """Keep a worker to its own core: threads that wait for each other make it ten times slower."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _start_worker(parent_pid: int) -> None:
    """Prepare a worker; an interrupt is for its parent, which ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent_pid,), daemon=True).start()
    _one_thread()


def _end_with(parent_pid: int) -> None:
    """End this process once its parent was killed: it would wait for work for ever."""
    while os.getppid() == parent_pid:
        time.sleep(1.0)
    os._exit(1)


def _record(out: Path, settings: DatasetSettings) -> None:
    """Note what the data set is; a grown number of series continues it, anything else does not."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OtherDatasetError(
            f"{out} cannot be made ({error.strerror}): choose another directory."
        ) from error
    about = {**asdict(settings), "simulator": simulator_version()}
    about["families"] = list(settings.families)
    path = out / ABOUT
    if path.exists():
        before = {k: v for k, v in _recorded(path).items() if k in about}
        if {**before, "series": 0} != {**about, "series": 0}:
            raise OtherDatasetError(
                f"{path} was made with other settings: choose another directory."
            )
        if before.get("series") == about["series"]:
            return
    _replace(path, about)


def _recorded(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text())
    except (ValueError, RecursionError):
        about = None
    if not isinstance(about, dict):
        raise OtherDatasetError(
            f"{path} does not describe a data set: put it right, or choose another directory."
        )
    return about


def _replace(path: Path, about: dict[str, Any]) -> None:
    partial_path = path.with_suffix(".partial")
    partial_path.write_text(json.dumps(about, indent=1) + "\n")
    partial_path.replace(path)


def simulator_version() -> str:
    """Say which simulator makes the data: the start of the hash of its source."""
    digest = hashlib.sha256()
    for path in sorted(Path(engines.simulation.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engines.learning.dataset", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--series", type=int, required=True)
    parser.add_argument("--families", default="train", help=f"{', '.join(FAMILY_SETS)}, or names")
    parser.add_argument("--tilts", type=int, default=4)
    parser.add_argument("--size-px", type=int, default=320)
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = _parse(arguments)
    families = families_named(given.families)
    settings = DatasetSettings(given.seed, given.series, families, given.tilts, given.size_px)
    make_dataset(given.out, settings, given.workers)


if __name__ == "__main__":
    main()
