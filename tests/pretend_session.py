"""A pretend file server on which a pretend microscope writes, one write at a time.

All times of modification are those of the server's own clock, which may jump. Each exposure shows
one code in all its pixels, so that whoever reads them can tell which exposure was read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from engines.microscope import dose_symmetric

ROWS, COLUMNS = 4, 6
IMAGE_BYTES = 2 * ROWS * COLUMNS
FIRST_DAY = datetime(2026, 2, 1, 10, 0, 0)
_FIRST_S = FIRST_DAY.timestamp()
BETWEEN_EXPOSURES_S = 5.0


class Clocks:
    """Our monotonic clock, our wall clock, and the server's; only the first never jumps."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.server_jump_s = 0.0
        self.wall_jump_s = 0.0
        self.is_coarse = False
        """Whether the server keeps times to the second only."""
        self._writes = 0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return _FIRST_S + self.now_s + self.wall_jump_s

    def server(self) -> datetime:
        return FIRST_DAY + timedelta(seconds=int(self.now_s + self.server_jump_s))

    def stamp(self, path: Path) -> None:
        """Let a file or folder be modified now; no two are in the same nanosecond."""
        self._writes += 1
        now_ns = int(_FIRST_S + self.now_s + self.server_jump_s) * 1_000_000_000
        now_ns += 0 if self.is_coarse else self._writes
        os.utime(path, ns=(now_ns, now_ns))


@dataclass(slots=True)
class Exposure:
    """One exposure as the microscope took it."""

    code: int
    """What all its pixels show."""
    angle_deg: float
    when: datetime
    paths: list[str] = field(default_factory=list)
    """Relative to the root: the stack, the movie, or both that hold it."""
    was_complete: bool = False
    """Whether one of them ever held all of it."""

    @property
    def is_movie(self) -> bool:
        """Whether it lies in a file of its own alone."""
        return len(self.paths) == 1 and "_" in self.paths[0]


class Series(Protocol):
    """One tilt series and the operation of the microscope that runs on it."""

    relative: str
    """Path of its stack, or the start of that of each movie."""
    operation: Iterator[None] | None
    swift: bool
    """Whether the operation replaces what was there, which no microscope pauses within."""
    frozen: bool
    """Whether somebody else has the files in hands."""
    touched_s: float
    """When anybody last changed it, in the daemon's attended time."""

    def begin(self, what: str, where: int = 0) -> None: ...
    def files(self) -> list[Path]: ...
    def folders(self) -> list[Path]: ...
    def there(self) -> set[int]: ...


@dataclass(slots=True)
class Server:
    """The disk: single writes, each with its time of modification."""

    root: Path
    clocks: Clocks
    exposures: dict[int, Exposure] = field(default_factory=dict)

    def expose(self, angle_deg: float) -> Exposure:
        """Take an image, some seconds after the one before; no two have the same time."""
        self.clocks.now_s += BETWEEN_EXPOSURES_S
        taken = {one.when for one in self.exposures.values()}
        when = self.clocks.server()
        while when in taken:
            when += timedelta(seconds=1)
        code = len(self.exposures) + 1
        self.exposures[code] = one = Exposure(code, angle_deg, when)
        return one

    def make_folder(self, path: Path) -> None:
        if not path.is_dir():
            self.make_folder(path.parent)
            path.mkdir()
            self.clocks.stamp(path)
            self.clocks.stamp(path.parent)

    def create(self, path: Path, content: bytes) -> None:
        is_new = not path.exists()
        path.write_bytes(content)
        self.clocks.stamp(path)
        if is_new:
            self.clocks.stamp(path.parent)

    def patch(self, path: Path, start: int, content: bytes) -> None:
        with path.open("r+b", buffering=0) as file:
            file.seek(start)
            file.write(content)
        self.clocks.stamp(path)

    def append(self, path: Path, content: bytes) -> None:
        with path.open("ab", buffering=0) as file:
            file.write(content)
        self.clocks.stamp(path)

    def rename(self, path: Path, to: Path) -> None:
        path.rename(to)
        self.clocks.stamp(path.parent)
        self.clocks.stamp(to.parent)

    def delete(self, path: Path) -> None:
        if path.exists():
            path.unlink()
            self.clocks.stamp(path.parent)


def advance(series: Series, steps: int) -> None:
    """Do so many single writes of the operation that runs."""
    for _ in range(steps):
        if series.operation is None or series.frozen:
            return
        if next(series.operation, _OVER) is _OVER:
            series.operation = None
            series.swift = False


_OVER = object()
_ANGLES_DEG = [angle + 0.01 for angle in dose_symmetric(0.0, 3.0, 60.0)]


def angle_of(number: int) -> float:
    """Give the angle of the n-th tilt of a series."""
    return _ANGLES_DEG[number % len(_ANGLES_DEG)]


def pixels(code: int) -> bytes:
    """Make the image of one exposure, as it lies in a file."""
    return struct.pack("<h", code) * (ROWS * COLUMNS)


def code_of(image: bytes) -> int | None:
    """Tell the exposure whose image this is; None for anything else."""
    if len(image) != IMAGE_BYTES or image != image[:2] * (ROWS * COLUMNS):
        return None
    return int(struct.unpack_from("<h", image)[0])
