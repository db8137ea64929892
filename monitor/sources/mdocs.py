"""Metadata files that are opened once for each state that they are in."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from pathlib import Path

from monitor.errors import NotReady
from monitor.model import Landed
from monitor.sources.exposure import mdoc_path
from monitor.sources.mdoc import Mdoc, read_mdoc
from monitor.sources.naming import mdoc_of

_KEPT = 256
_OWED_S = 4.0


class Mdocs:
    """Remembers what the newest metadata files said, so that none is opened without need.

    While a stack grows it is looked at far more often than its mdoc changes, and a file that is
    not open cannot be in its writer's way.
    """

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[Path, bool], tuple[tuple[int, int, int], Mdoc]]
        self._read = OrderedDict()
        self._owed_since_s: OrderedDict[str, float] = OrderedDict()

    def of(self, landed: Landed, *, settled: bool = False) -> Mdoc | None:
        """Give what the mdoc of an image says, once it is at rest, too.

        Raises `NotReady` where it may be being written, and as `read_mdoc` does.
        """
        path = mdoc_path(landed.path)
        now = _look(path)
        rests = landed.at_rest or self._is_owed(landed)
        if not rests or _changed_since(landed, now):
            raise NotReady(f"the mdoc of {landed.path.name!r} has only just changed", "settling")
        self._owed_since_s.pop(landed.relative, None)
        return self._read_as(path, now, settled=settled)

    def _is_owed(self, landed: Landed) -> bool:
        """Whether a file was put off for two polls: its tilts come faster than looks can tell.

        Then a moment's rest has to do; what a section says counts only once it is whole.
        """
        now_s = landed.changed_s + landed.quiet_s
        since_s = self._owed_since_s.setdefault(landed.relative, now_s)
        if len(self._owed_since_s) > _KEPT:
            self._owed_since_s.popitem(last=False)
        return now_s - since_s >= _OWED_S

    def read(self, path: Path, *, settled: bool = False) -> Mdoc | None:
        """Give what a metadata file says, as `read_mdoc`, which tells what is raised."""
        return self._read_as(path, _look(path), settled=settled)

    def _read_as(self, path: Path, now: os.stat_result | None, *, settled: bool) -> Mdoc | None:
        if now is None:
            return None
        key, state = (path, settled), _state(now)
        before, mdoc = self._read.get(key, (None, None))
        if mdoc is not None and before == state:
            self._read.move_to_end(key)
            return mdoc
        mdoc = read_mdoc(path, settled=settled)
        # What changed while it was read is read again: the time is that of the file read.
        if mdoc is not None and mdoc.modified_ns == now.st_mtime_ns:
            self._read[key] = (state, mdoc)
            if len(self._read) > _KEPT:
                self._read.popitem(last=False)
        return mdoc


def _look(path: Path) -> os.stat_result | None:
    """Stat a metadata file; None where there is none: a link or a folder is none."""
    try:
        now = os.lstat(path)
    except (OSError, ValueError):
        return None
    return now if stat.S_ISREG(now.st_mode) else None


def _state(now: os.stat_result) -> tuple[int, int, int]:
    return now.st_size, now.st_mtime_ns, now.st_ino


def _changed_since(landed: Landed, now: os.stat_result | None) -> bool:
    """Whether an mdoc is not as it was when the image was looked at."""
    if landed.members is None or now is None:
        return False
    known = landed.members.get(mdoc_of(landed.relative))
    return known is None or (known.size, known.mtime_ns) != (now.st_size, now.st_mtime_ns)
