"""Simulate a data set: python -m engines.learning.dataset --out DIR --seed S --series N."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import engines.simulation
from engines.learning.shards import is_whole, write_series
from engines.simulation import FAMILIES, HELD_OUT_FAMILIES, simulate_series

FAMILY_SETS = {"train": FAMILIES, "held-out": HELD_OUT_FAMILIES}


@dataclass(frozen=True, slots=True)
class DatasetSettings:
    """What is simulated; two data sets with equal settings are equal."""

    seed: int
    series: int
    families: tuple[str, ...]
    tilts: int = 4
    size_px: int = 320


def series_seed(settings: DatasetSettings, index: int) -> int:
    """Derive the seed of one series, far from those of other series and other data sets."""
    return int(np.random.SeedSequence([settings.seed, index]).generate_state(1, np.uint32)[0])


def simulate_shard(out: Path, settings: DatasetSettings, index: int) -> Path:
    """Simulate series number `index` of a data set, unless it is already there."""
    path = out / f"series_{index:06d}.npz"
    if not is_whole(path):
        seed = series_seed(settings, index)
        family = settings.families[index % len(settings.families)]
        series = simulate_series(seed, family, n_tilts=settings.tilts, size_px=settings.size_px)
        write_series(path, series, seed, family)
    return path


def simulate_dataset(out: Path, settings: DatasetSettings, workers: int = 1) -> Iterator[Path]:
    """Simulate what is missing of a data set, yielding each shard as it is finished.

    With more than one worker, shards come in any order. Raises ValueError where `out` holds a
    data set made with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    _record(out, settings)
    missing = [i for i in range(settings.series) if not is_whole(out / f"series_{i:06d}.npz")]
    work = partial(simulate_shard, out, settings)
    if workers <= 1:
        yield from map(work, missing)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
        pending = {pool.submit(work, index) for index in missing}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _one_thread() -> None:
    """Keep a worker to its own core: threads that wait for each other make it ten times slower."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _record(out: Path, settings: DatasetSettings) -> None:
    """Note what the data set is; a grown number of series continues it, anything else does not."""
    about = {**asdict(settings), "simulator": simulator_version()}
    about["families"] = list(settings.families)
    path = out / "dataset.json"
    if path.exists():
        before = json.loads(path.read_text())
        if {**before, "series": 0} != {**about, "series": 0}:
            raise ValueError(f"{path} was made with other settings: choose another --out.")
    path.write_text(json.dumps(about, indent=1) + "\n")


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
    parser.add_argument("--families", default="train", help="train, held-out, or names with commas")
    parser.add_argument("--tilts", type=int, default=4)
    parser.add_argument("--size-px", type=int, default=320)
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = _parse(arguments)
    families = FAMILY_SETS.get(given.families, tuple(given.families.split(",")))
    settings = DatasetSettings(
        given.seed, given.series, tuple(families), given.tilts, given.size_px
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("simulating series", total=given.series)
        done = sum(is_whole(given.out / f"series_{i:06d}.npz") for i in range(given.series))
        progress.update(task, completed=done)
        for _ in simulate_dataset(given.out, settings, given.workers):
            progress.advance(task)


if __name__ == "__main__":
    main()
