"""Metadata files that are opened once for each state that they are in."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from monitor.errors import NotReady
from monitor.model import Landed
from monitor.sources.exposure import mdoc_path
from monitor.sources.mdoc import Mdoc, read_mdoc
from monitor.sources.naming import mdoc_of

_KEPT = 256


class Mdocs:
    """Remembers what the newest metadata files said, so that none is opened without need.

    While a stack grows it is looked at far more often than its mdoc changes, and a file that is
    not open cannot be in its writer's way.
    """

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[Path, bool], tuple[tuple[int, int, int], Mdoc]]
        self._read = OrderedDict()

    def of(self, landed: Landed, *, settled: bool = False) -> Mdoc | None:
        """Give what the mdoc of an image says, once it is at rest, too.

        Raises `NotReady` where it may be being written, and as `read_mdoc` does.
        """
        if not landed.at_rest or self._changed_since(landed):
            raise NotReady(f"the mdoc of {landed.path.name!r} has only just changed", "settling")
        return self.read(mdoc_path(landed.path), settled=settled)

    def _changed_since(self, landed: Landed) -> bool:
        """Whether an mdoc is not as it was when the image was looked at."""
        if landed.members is None:
            return False
        known = landed.members.get(mdoc_of(landed.relative))
        try:
            now = os.lstat(mdoc_path(landed.path))
        except (OSError, ValueError):
            return False
        return known is None or (known.size, known.mtime_ns) != (now.st_size, now.st_mtime_ns)

    def read(self, path: Path, *, settled: bool = False) -> Mdoc | None:
        """Give what a metadata file says, as `read_mdoc`, which tells what is raised."""
        try:
            now = os.lstat(path)
        except (OSError, ValueError):
            return read_mdoc(path, settled=settled)  # knows what to say
        key, state = (path, settled), (now.st_size, now.st_mtime_ns, now.st_ino)
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
