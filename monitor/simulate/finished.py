"""A finished session on disk: which files it holds, and when each of them came."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from monitor.errors import ConfigError, SourceError
from monitor.sources.mdoc import Mdoc, read_mdoc
from monitor.sources.naming import extension, image_of, mdoc_of, parse_movie_name

MOVIES = (".mrc", ".mrcs", ".st", ".tif", ".tiff", ".eer")
_SECTION = re.compile(rb"^\[ZValue\s*=\s*(\d{1,9})\s*\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Found:
    """One file of the session."""

    path: Path
    relative: str
    size: int
    modified_s: float


@dataclass(frozen=True, slots=True)
class StackText:
    """The mdoc of a stack in its parts, byte for byte."""

    start: bytes
    """What comes before the first section."""
    sections: tuple[bytes, ...]
    """The blank line before each heading belongs to the section."""
    times_s: tuple[float, ...]
    """When each section was taken; where that is not known for all, their numbers."""
    dated: bool


def files_in(directory: Path) -> list[Found]:
    """List the files below a directory; links and whatever is no file are left out."""
    found: list[Found] = []
    for folder, folders, names in os.walk(directory, onerror=_refuse):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            now = path.lstat()
            if stat.S_ISREG(now.st_mode):
                relative = path.relative_to(directory).as_posix()
                found.append(Found(path, relative, now.st_size, now.st_mtime_ns / 1e9))
    return found


def _refuse(error: OSError) -> None:
    raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error


def stack_text(mdoc_path: Path) -> StackText | None:
    """Take the mdoc of a stack apart; None for one that is no such thing."""
    mdoc = _mdoc(mdoc_path)
    if mdoc is None or not any(one.kind == "ZValue" for one in mdoc.sections):
        return None
    raw = mdoc_path.read_bytes()
    starts = [_with_blank_line(raw, match.start()) for match in _SECTION.finditer(raw)]
    parts = tuple(raw[a:b] for a, b in zip(starts, [*starts[1:], len(raw)], strict=True))
    said = {one.z_value: one.acquired_at for one in mdoc.sections if one.kind == "ZValue"}
    times = [said.get(int(match[1])) for match in _SECTION.finditer(raw)]
    dated = all(times)
    seconds = [_seconds(when) if dated and when else float(at) for at, when in enumerate(times)]
    return StackText(raw[: starts[0]], parts, tuple(seconds), dated)


def _with_blank_line(raw: bytes, start: int) -> int:
    for line_end in (b"\r\n", b"\n"):
        if raw[:start].endswith(line_end * 2):
            return start - len(line_end)
    return start


def numbered(section: bytes, number: int) -> bytes:
    """Give a section another number."""
    return _SECTION.sub(b"[ZValue = %d]" % number, section, count=1)


def movie_time_s(found: Found) -> float | None:
    """Say when a movie was taken: by its mdoc, else by its name; None where neither knows."""
    when = parse_movie_name(found.path.name).acquired_at
    said_s = mdoc_time_s(found.path.with_name(mdoc_of(found.path.name)))
    return said_s if said_s is not None or when is None else _seconds(when)


def mdoc_time_s(path: Path) -> float | None:
    """Say when the first exposure of an mdoc was taken; None where it does not tell."""
    mdoc = _mdoc(path)
    times = [one.acquired_at for one in mdoc.sections if one.acquired_at] if mdoc else []
    return _seconds(times[0]) if times else None


def is_image(found: Found) -> bool:
    """Whether a file may hold an exposure."""
    return extension(found.relative) in MOVIES


def image_beside(found: Found) -> str:
    """Name the image that an mdoc tells of; "" for other files, and where there is none."""
    image = image_of(found.relative)
    return image if image != found.relative and image else ""


def _mdoc(path: Path) -> Mdoc | None:
    try:
        return read_mdoc(path, settled=True)
    except SourceError:
        return None


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).replace(tzinfo=UTC).timestamp()


class Clock:
    """Turns times of the file server into those of the microscope's own clock."""

    def __init__(self, known: list[tuple[float, float]]) -> None:
        """Take pairs of when a file was modified, and when its exposure was taken (s)."""
        pairs = sorted(known)
        self._modified = np.array([one[0] for one in pairs])
        self._taken = np.maximum.accumulate(np.array([one[1] for one in pairs]))

    def at(self, modified_s: float) -> float:
        """Say what the microscope's clock showed; without any pair, the server's own time."""
        if not len(self._modified):
            return modified_s
        first, last = float(self._modified[0]), float(self._modified[-1])
        if modified_s <= first:
            return float(self._taken[0]) - (first - modified_s)
        if modified_s >= last:
            return float(self._taken[-1]) + (modified_s - last)
        return float(np.interp(modified_s, self._modified, self._taken))


def shortened(times_s: list[float], longest_gap_s: float | None) -> Iterator[float]:
    """Count times from the first one on, with no pause longer than the limit, if there is one."""
    elapsed = 0.0
    for before, now in zip([times_s[0], *times_s], times_s, strict=False):
        gap = now - before
        elapsed += gap if longest_gap_s is None else min(gap, longest_gap_s)
        yield elapsed
