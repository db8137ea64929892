"""What lies beside a movie: the others of its series, and perhaps a stack of the same exposures."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from monitor.model import Landed
from monitor.sources.naming import MovieName, image_announced

_FOLDERS_KEPT = 16
_SERIES_KEPT = 1000
_SIBLING_FOLDERS = 50
"""So many folders beside that of a movie are searched for a stack."""
_STACK_EXTENSIONS = (".mrc", ".st")

Parse = Callable[[str], MovieName | None]
"""Reads a path below the acquisition directory; None for what is no movie by its name."""


@dataclass(frozen=True, slots=True)
class Announced:
    """How many movies of a series are there, or announced by their metadata."""

    count: int = 0
    first_number: int | None = None
    times: tuple[str, ...] = ()


@dataclass(slots=True)
class _Folder:
    modified_ns: int
    names: frozenset[str]
    announced: dict[str, Announced] = field(default_factory=dict)


class Neighbours:
    """Lists folders, each anew only when it changed; what cannot be listed counts as empty."""

    def __init__(self, directory: Path, parse: Parse, joined_by: str = "_") -> None:
        """Take the acquisition directory, and what reads the names of movies.

        `joined_by` follows the name of a series in each name that has more parts.
        """
        self._directory = directory
        self._parse = parse
        self._joined_by = joined_by
        self._folders: OrderedDict[Path, _Folder] = OrderedDict()
        self._first_numbers: OrderedDict[tuple[Path, str], int] = OrderedDict()
        self._with_stack: OrderedDict[tuple[str, str], None] = OrderedDict()

    def announced(self, landed: Landed, series: str) -> Announced:
        """Count the movies of a series in the folder of one of them."""
        folder = self._listed(landed.path)
        found = folder.announced.get(series)
        if found is None:
            above = landed.relative.rpartition("/")[0]
            prefix = f"{above}/" if above else ""
            found = self._count(prefix, folder.names, series)
            folder.announced[series] = found
        return found

    def order(self, landed: Landed, name: MovieName) -> int | None:
        """Count from the lowest number that the series has; by time where there is no number."""
        found = self.announced(landed, name.series)
        if name.number is None:
            if name.acquired_at is None:
                return None
            return sum(when < name.acquired_at for when in found.times)
        key = (landed.path.parent, name.series)
        numbers = (found.first_number, self._first_numbers.get(key), name.number)
        first = min(number for number in numbers if number is not None)
        self._first_numbers[key] = first
        if len(self._first_numbers) > _SERIES_KEPT:
            self._first_numbers.popitem(last=False)
        return name.number - first

    def has_stack(self, relative: str, series: str) -> bool:
        """Whether a stack of this series lies in the folder of a movie, above it or beside it."""
        key = (relative.rpartition("/")[0], series)
        if key in self._with_stack:
            return True
        names = [stem + end for stem in _stack_stems(series) for end in _STACK_EXTENSIONS]
        for folder in self._near(key[0]):
            if any(_is_file(folder / name) for name in names):
                self._with_stack[key] = None
                if len(self._with_stack) > _SERIES_KEPT:
                    self._with_stack.popitem(last=False)
                return True
        return False

    def has_movies(self, relative: str, series: str) -> bool:
        """Whether a movie of this series lies in the folder of a stack, or one below or beside."""
        folder = relative.rpartition("/")[0]
        places = [self._directory / folder, *_folders_in(self._directory / folder)]
        places += self._near(folder)
        return any(self._has_movie(place, series) for place in dict.fromkeys(places))

    def _has_movie(self, folder: Path, series: str) -> bool:
        return any(
            series in name and (found := self._parse(name)) is not None and found.series == series
            for name in _names(folder)
        )

    def _near(self, folder: str) -> Iterator[Path]:
        """Yield a folder, that above it and those beside it, none outside the directory."""
        yield self._directory / folder
        if folder:
            above = (self._directory / folder).parent
            yield above
            yield from _folders_in(above)

    def _listed(self, path: Path) -> _Folder:
        parent = path.parent
        folder = self._folders.get(parent)
        try:
            modified_ns = parent.stat().st_mtime_ns
        except OSError:
            modified_ns = -1
        # The time of a folder may be coarse, or lag behind on a share.
        if folder is None or folder.modified_ns != modified_ns or path.name not in folder.names:
            folder = self._folders[parent] = _Folder(modified_ns, frozenset(_names(parent)))
        self._folders.move_to_end(parent)
        if len(self._folders) > _FOLDERS_KEPT:
            self._folders.popitem(last=False)
        return folder

    def _count(self, prefix: str, names: frozenset[str], series: str) -> Announced:
        found: dict[str, MovieName] = {}
        # Most files of a large folder are of other series: those are not taken apart.
        mark = series + self._joined_by
        likely = names if series in prefix else [name for name in names if mark in name]
        for name in likely:
            image = image_announced(name)
            parsed = self._parse(prefix + image) if image else None
            if parsed is not None and parsed.series == series and parsed.angle_deg is not None:
                found[image] = parsed
        numbers = [one.number for one in found.values() if one.number is not None]
        times = sorted(one.acquired_at for one in found.values() if one.acquired_at)
        return Announced(len(found), min(numbers, default=None), tuple(times))


def _stack_stems(series: str) -> list[str]:
    """Name the stacks that a series of movies may have: without a Navigator label, too."""
    base, _, label = series.rpartition("_")
    return [series, base] if base and label.isdecimal() else [series]


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except OSError:
        return []  # only the order in the series and its length are at stake


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [Path(one.path) for one in entries if one.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return found[:_SIBLING_FOLDERS]


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False
