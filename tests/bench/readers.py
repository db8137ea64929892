"""How fast the readers are against the bare libraries, on the same bytes and in turns.

Part of `make bench`; alone with `python -m tests.bench.readers`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from engines.microscope_eer import encode_electrons, encoded_eer_steps
from engines.microscope_frames import write_tiff_movie
from engines.readers.movie import sum_of_frames
from engines.readers.mrc import read_section, write_mrc
from engines.readers.mrc_header import HEADER_BYTES
from tests.bench.daemon import REPOSITORY

SIDE_PX = 4096
K3_SHAPE = (4092, 5760)
K3_FRAMES, K3_ELECTRONS_PER_PX = 10, 0.7
EER_FRAMES, EER_ELECTRONS_PER_PX = 250, 0.035
DISTINCT_FRAMES = 5
"""Frames that are drawn; they are written over and over."""
MEMORY_AIM_BYTES = 100_000_000

Read = Callable[[Path], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One reader against its floor."""

    name: str
    ours_s: float
    floor_s: float
    ratio: float
    """Median of the ratios of neighbours in time, so that a busy moment hits both."""
    aim: float
    peak_bytes: int
    """Of a process that reads this file, beside what it had before."""
    peak_aim_bytes: int


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    file_name: str
    make: Callable[[Path], None]
    ours: Read
    floor: Read
    aim: float
    turns: int


def _frames(count: int, shape: tuple[int, int], mean: float) -> Iterator[NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    drawn = [generator.poisson(mean, shape).astype(np.uint8) for _ in range(DISTINCT_FRAMES)]
    for frame in range(count):
        yield drawn[frame % DISTINCT_FRAMES]


def _make_mrc(path: Path) -> None:
    image = np.random.default_rng(0).poisson(500, (SIDE_PX, SIDE_PX)).astype(np.int16)
    write_mrc(path, np.stack([image, image]), 1.97)


def _make_tiff(path: Path) -> None:
    write_tiff_movie(path, _frames(K3_FRAMES, K3_SHAPE, K3_ELECTRONS_PER_PX), 1.0)


def _make_eer(path: Path) -> None:
    generator = np.random.default_rng(0)
    shape = (SIDE_PX, SIDE_PX)
    stored = [
        encode_electrons(generator.random(shape) < EER_ELECTRONS_PER_PX, generator=generator)
        for _ in range(DISTINCT_FRAMES)
    ]
    frames = ((shape, stored[frame % DISTINCT_FRAMES]) for frame in range(EER_FRAMES))
    for _ in encoded_eer_steps(path, frames, 1.97):
        pass


def _bare_fromfile(path: Path) -> NDArray[Any]:
    pixels = SIDE_PX * SIDE_PX
    image = np.fromfile(path, "<i2", pixels, offset=HEADER_BYTES + 2 * pixels)
    return image.reshape(SIDE_PX, SIDE_PX)


def _bare_tifffile(path: Path) -> NDArray[Any]:
    total = np.zeros(K3_SHAPE, np.uint16)
    with tifffile.TiffFile(path) as movie:
        for page in movie.pages:
            total += page.asarray()
    return total


def _bare_eer_decode(path: Path) -> NDArray[Any]:
    total = np.zeros((SIDE_PX, SIDE_PX), np.uint16)
    with tifffile.TiffFile(path) as movie, path.open("rb") as file:
        for page in movie.pages:
            file.seek(page.dataoffsets[0])
            stored = file.read(page.databytecounts[0])
            imagecodecs.eer_decode(stored, total.shape, 7, 2, 2, out=total)
    return total


CASES = (
    _Case(
        "MRC section / np.fromfile",
        "stack.mrc",
        _make_mrc,
        lambda path: read_section(path, 1),
        _bare_fromfile,
        1.3,
        15,
    ),
    _Case(
        f"LZW TIFF, {K3_FRAMES} K3 frames / tifffile",
        "movie.tif",
        _make_tiff,
        sum_of_frames,
        _bare_tifffile,
        1.15,
        5,
    ),
    _Case(
        f"EER, {EER_FRAMES} frames / imagecodecs",
        "movie.eer",
        _make_eer,
        sum_of_frames,
        _bare_eer_decode,
        1.15,
        5,
    ),
)


def measure(folder: Path) -> list[Row]:
    """Read each file by turns with icewatch and with the bare library."""
    return [_measured(case, folder / case.file_name) for case in CASES]


def _measured(case: _Case, path: Path) -> Row:
    case.make(path)
    image = case.ours(path)
    if not np.array_equal(image, case.floor(path)):
        raise RuntimeError(f"{case.name}: the readers disagree")
    ours_s: list[float] = []
    floor_s: list[float] = []
    for turn in range(case.turns):
        # Who goes first changes, so that neither always finds what the other left in caches.
        first_ours = turn % 2 == 0
        for is_ours in (first_ours, not first_ours):
            started = time.perf_counter()
            (case.ours if is_ours else case.floor)(path)
            (ours_s if is_ours else floor_s).append(time.perf_counter() - started)
    row = Row(
        name=case.name,
        ours_s=median(ours_s),
        floor_s=median(floor_s),
        ratio=median(ours / floor for ours, floor in zip(ours_s, floor_s, strict=True)),
        aim=case.aim,
        peak_bytes=_peak_bytes(path),
        peak_aim_bytes=2 * image.nbytes + MEMORY_AIM_BYTES,
    )
    path.unlink()
    return row


def _peak_bytes(path: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bad_file_reader"],
        input=json.dumps([str(path)]),
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    return int(answer["peak_bytes"])


def show(rows: list[Row], console: Console) -> None:
    """Print the table; plain lines where the output is not a terminal."""
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None)
    for heading in ("readers", "icewatch", "bare", "ratio", "aim", "peak memory", "aim "):
        table.add_column(heading, justify="left" if heading == "readers" else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.ours_s * 1000:.1f} ms",
            f"{row.floor_s * 1000:.1f} ms",
            f"{row.ratio:.2f}",
            f"<= {row.aim}",
            f"{row.peak_bytes / 1e6:.0f} MB",
            f"<= {row.peak_aim_bytes / 1e6:.0f} MB",
        )
    console.print(table)


def figures(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows as they go into JSON."""
    return [asdict(row) for row in rows]


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="icewatch-bench-") as folder:
        show(measure(Path(folder)), Console())


if __name__ == "__main__":
    main()
