"""Small files that the intake does not follow: whether they are at rest, and their bytes."""

from __future__ import annotations

import errno
import math
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monitor.model import FileStat

AT_REST_S = 1.5
"""As long as two looks of the intake are apart, or nearly."""
_KEPT = 2000


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a file found."""

    stat: FileStat | None
    """None where there is no such file, or something else than a regular file."""
    quiet_s: float = 0.0
    """For how long looks have found it like this."""

    @property
    def at_rest(self) -> bool:
        """Whether it has not changed for so long that it may be opened."""
        return self.quiet_s >= AT_REST_S


class AtRest:
    """Remembers since when files look as they do, by our own clock."""

    def __init__(
        self, *, at_once: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take a monotonic clock (s); `at_once`: nobody writes here, so all is at rest."""
        self._at_once = at_once
        self._clock = clock
        self._seen: OrderedDict[Path, tuple[FileStat, float]] = OrderedDict()

    def look(self, path: Path) -> Look:
        """Look at a file again; never raises."""
        try:
            found = os.lstat(path)
        except (OSError, ValueError):
            return Look(None)
        if not stat.S_ISREG(found.st_mode):
            return Look(None)
        now = FileStat(found.st_size, found.st_mtime_ns, found.st_ino)
        now_s = self._clock()
        before, since_s = self._seen.get(path, (None, now_s))
        if before != now:
            since_s = now_s
        self._seen[path] = (now, since_s)
        self._seen.move_to_end(path)
        if len(self._seen) > _KEPT:
            self._seen.popitem(last=False)
        return Look(now, math.inf if self._at_once else now_s - since_s)


def read_small_file(path: Path, most_bytes: int, *, through_links: bool = False) -> bytes:
    """Read a whole regular file; raises `OSError`, also where it is larger than `most_bytes`."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if through_links else os.O_NOFOLLOW)
    file = os.open(path, flags)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if found.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"it has {found.st_size} bytes")
        with open(file, "rb", closefd=False) as stream:
            return stream.read(most_bytes)
    finally:
        os.close(file)
