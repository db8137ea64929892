"""To which lamella a series belongs where PACEtomo takes several targets on one.

PACEtomo calls the stacks of one targets file `<root>_tgts.txt` `<root>_ts_001.mrc` and so on, and
one targets file is made for each lamella (PACEtomo_selectTargets.py). A name alone is no proof:
stacks that somebody numbered by hand may be of different lamellae, and would share a verdict.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from monitor.sources.navigator import roots_in_navigator

_TARGET = re.compile(r"(.+)_ts_\d{3}(?:_.*)?", re.ASCII | re.DOTALL)
_SETTING = re.compile(r"_set (startTilt|minTilt|maxTilt|step) = ([-+]?\d{1,3}(?:\.\d{1,6})?)\s*$")
_RUNS = range(9, 0, -1)
_MAX_BYTES = 4 << 20
_AT_REST_S = 1.0
_LOOK_AGAIN_S = 2.0
_MOST_TILTS = 1000
_KEPT = 10_000
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Lamella:
    """Which lamella a series is of, and how many tilts are planned for the series."""

    key: str
    """Unique within the microscope: folder of its targets file, or of the series, and name."""
    tilts_planned: int | None = None
    """None where no file tells."""


def target_root(series: str) -> str | None:
    """Give the root that PACEtomo would have made a series' name from; None for other names."""
    match = _TARGET.fullmatch(series)
    return match[1] if match else None


class Lamellae:
    """Finds the lamella of each series from targets files, Navigator files and mdocs.

    Nothing is opened that changed within the last second, and no failure is more than a lack of
    evidence: then a series is a lamella of its own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        forced: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the acquisition directory; `forced`: names alone are believed."""
        self._directory = directory
        self._forced = forced
        self._files = _RestingFiles(clock)
        self._clock = clock
        self._planned: dict[str, int] = {}
        self._asked_s: dict[str, float] = {}
        self._homes: dict[str, str] = {}

    def of(self, relative: str, series: str, *, from_pacetomo: bool = False) -> Lamella | None:
        """Say of which lamella the series of a file is; None where each series is one of its own.

        `relative` has forward slashes; `from_pacetomo`: an mdoc bears PACEtomo's own keys.
        """
        root = target_root(series)
        if root is None:
            return None
        folder = relative.rpartition("/")[0]
        key = f"{folder}/{root}"
        home = self._homes.get(key)
        if home is None and self._due(key):
            home = self._home_of_targets(folder, root)
            if home is not None:
                _remember(self._homes, key, home)
        if home is None and not (from_pacetomo or self._forced):
            return None
        home = folder if home is None else home
        lamella = f"{home}/{root}" if home else root
        return Lamella(lamella, self._tilts_planned(home, root))

    def _home_of_targets(self, folder: str, root: str) -> str | None:
        """Find the folder of a targets file, from the series' own up to the acquisition one."""
        for above in _upwards(folder):
            if _is_file(self._directory / above / f"{root}_tgts.txt"):
                return above
        for above in _upwards(folder):
            for path in _navigators(self._directory / above):
                text = self._files.read(path)
                if text is not None and root in roots_in_navigator(text):
                    return above
        return None

    def _tilts_planned(self, home: str, root: str) -> int | None:
        key = f"{home}/{root}"
        if key not in self._planned and self._due(f"plan of {key}"):
            names = [f"{root}_tgts_run{number:02d}.txt" for number in _RUNS]
            for name in (*names, f"{root}_tgts.txt"):
                text = self._files.read(self._directory / home / name)
                tilts = tilts_in_plan(text) if text is not None else None
                if tilts is not None:
                    _remember(self._planned, key, tilts)
                    break
        return self._planned.get(key)

    def _due(self, what: str) -> bool:
        """Whether it is time to ask the file system for something again."""
        now_s = self._clock()
        asked_s = self._asked_s.get(what)
        if asked_s is not None and now_s - asked_s < _LOOK_AGAIN_S:
            return False
        _remember(self._asked_s, what, now_s)
        return True


def tilts_in_plan(text: str) -> int | None:
    """Count the tilts of each series from the settings in a targets or run file.

    PACEtomo counts `(maxTilt - minTilt) / step + 1` itself (PACEtomo.py, "Tilt step 1 out of").
    None where the settings are not in it, or make no sense.
    """
    found = {}
    for line in text.splitlines():
        match = _SETTING.match(line)
        if match:
            found[match[1]] = float(match[2])
    if not {"minTilt", "maxTilt", "step"} <= found.keys() or found["step"] <= 0.0:
        return None
    tilts = int((found["maxTilt"] - found["minTilt"]) / found["step"] + 1e-6) + 1
    return tilts if 1 <= tilts <= _MOST_TILTS else None


class _RestingFiles:
    """Reads small text files of other programs, once they have been at rest."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[Path, tuple[tuple[int, int, int], float]] = {}

    def read(self, path: Path) -> str | None:
        """Give the text of a file; None where there is none, or it is too soon or too large."""
        try:
            found = path.lstat()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_BYTES:
            return None
        now_s = self._clock()
        state = (found.st_size, found.st_mtime_ns, found.st_ino)
        before, since_s = self._seen.get(path, (None, now_s))
        if before != state:
            _remember(self._seen, path, (state, now_s))
            return None
        if now_s - since_s < _AT_REST_S:
            return None
        return _read_text(path)


def _read_text(path: Path) -> str | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.read(file, _MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(file)


def _upwards(folder: str) -> Iterator[str]:
    """Yield a folder and those above it, up to the acquisition directory ("")."""
    yield folder
    while folder:
        folder = folder.rpartition("/")[0]
        yield folder


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _navigators(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(one.path) for one in entries if one.name.lower().endswith(".nav")]
    except OSError:
        return []


def _remember(memory: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Keep a value, and forget the oldest where there are too many."""
    memory[key] = value
    if len(memory) > _KEPT:
        del memory[next(iter(memory))]
