"""Which files wait for the worker: a queue of paths, each at most once, and what is known of them.

The intake thread tells what it saw, the worker takes a file, and says whether to look at it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from monitor.model import FileStat, Landed

_RECENT_S = 3600.0


class _State(Enum):
    QUIET = auto()
    """Nothing to do until it changes."""
    WAITING = auto()
    """In the queue."""
    WORKING = auto()
    """With the worker."""
    CHANGED = auto()
    """With the worker, and changed since: goes back into the queue afterwards."""
    INCOMPLETE = auto()
    """The worker wants to see it again: at its next change, or after the next scan."""


@dataclass(slots=True)
class _File:
    """An image and the files that announce it (its mdoc)."""

    members: dict[str, FileStat] = field(default_factory=dict)
    changed_s: float = 0.0
    unchanged_scans: int = 0
    state: _State = _State.QUIET
    changed_here: bool = False
    """Whether it was seen to change, not only found."""


class LandedQueue:
    """Hands changed files to the worker, in the order in which they changed.

    Holds paths and stats only, and no path twice: its size is bounded by the number of files.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the acquisition directory and a monotonic clock (s)."""
        self._directory = directory
        self._clock = clock
        self._files: dict[str, _File] = {}
        self._waiting: dict[str, None] = {}
        self._newest_ns = 0
        self._condition = threading.Condition()

    def get(self, timeout_s: float) -> Landed | None:
        """Take the file that waits longest; None if none came within `timeout_s`."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._waiting, timeout_s):
                return None
            relative = next(iter(self._waiting))
            del self._waiting[relative]
            file = self._files[relative]
            file.state = _State.WORKING
            return Landed(
                path=self._directory / relative,
                relative=relative,
                stat=file.members[relative],
                unchanged_scans=file.unchanged_scans,
                quiet_s=self._clock() - file.changed_s,
                changed_s=file.changed_s,
            )

    def done(self, relative: str) -> bool:
        """Say that a file was dealt with as it was when taken; False if it is gone by now."""
        return self._give_back(relative, _State.QUIET)

    def retry(self, relative: str) -> bool:
        """Say that a file is not complete: it comes again when it changed or was scanned.

        False if it is gone by now.
        """
        return self._give_back(relative, _State.INCOMPLETE)

    def _give_back(self, relative: str, state: _State) -> bool:
        with self._condition:
            file = self._files.get(relative)
            if file is None:
                return False
            is_there = relative in file.members
            if file.state not in (_State.WORKING, _State.CHANGED):
                return is_there
            changed = file.state is _State.CHANGED
            file.state = state if is_there else _State.QUIET
            if changed:
                self._offer(relative, file)
            elif not file.members:
                del self._files[relative]
            return is_there

    def saw(self, relative: str, member: str, stat: FileStat) -> None:
        """Note what a look found: `member` belongs to the image `relative` (or is that image)."""
        with self._condition:
            file = self._files.setdefault(relative, _File())
            if file.members.get(member) == stat:
                return
            file.changed_here = bool(file.members)
            file.members[member] = stat
            file.changed_s = self._clock()
            file.unchanged_scans = 0
            self._newest_ns = max(self._newest_ns, stat.mtime_ns)
            self._offer(relative, file)

    def gone(self, relative: str, member: str) -> None:
        """Note that a file is no longer there."""
        with self._condition:
            file = self._files.get(relative)
            if file is None:
                return
            file.members.pop(member, None)
            if member == relative:
                self._waiting.pop(relative, None)
                if file.state is not _State.WORKING:
                    file.state = _State.QUIET
            if not file.members and file.state is _State.QUIET:
                del self._files[relative]

    def scanned(self, started_s: float, apart_s: float) -> None:
        """Note that a scan that began at `started_s` saw every file that is not quiet.

        It proves that a file is at rest if the change was at least `apart_s` earlier.
        """
        with self._condition:
            for relative, file in self._files.items():
                if file.state is _State.QUIET:
                    continue
                if started_s - file.changed_s >= apart_s:
                    file.unchanged_scans += 1
                if file.state is _State.INCOMPLETE:
                    self._offer(relative, file)

    def _offer(self, relative: str, file: _File) -> None:
        if relative not in file.members:
            return  # an mdoc whose image has not come yet
        if file.state in (_State.WORKING, _State.CHANGED):
            file.state = _State.CHANGED
            return
        file.state = _State.WAITING
        self._waiting[relative] = None
        self._condition.notify()

    def unsettled(self) -> list[tuple[str, str]]:
        """List what every look has to stat, as (image, member): files that are not quiet."""
        with self._condition:
            return [
                (relative, member)
                for relative, file in self._files.items()
                if file.state is not _State.QUIET
                for member in file.members
            ]

    def lively(self) -> list[tuple[str, str]]:
        """List what every scan has to stat: files not quiet, or changed within the last hour.

        An hour by our own clock where the change was seen, else by the newest of all times of
        modification: the file server's clock is only ever compared with itself.
        """
        with self._condition:
            now_s = self._clock()
            newest_ns = self._newest_ns - int(_RECENT_S * 1e9)
            return [
                (relative, member)
                for relative, file in self._files.items()
                if file.state is not _State.QUIET
                or (file.changed_here and now_s - file.changed_s < _RECENT_S)
                or any(stat.mtime_ns > newest_ns for stat in file.members.values())
                for member in file.members
            ]

    def __len__(self) -> int:
        """How many files wait."""
        return len(self._waiting)

    @property
    def incomplete(self) -> int:
        """How many files wait to be completed by whoever writes them."""
        with self._condition:
            return sum(file.state is _State.INCOMPLETE for file in self._files.values())

    @property
    def oldest_unprocessed_s(self) -> float:
        """For how many seconds the oldest change has not been dealt with (0 if there is none)."""
        busy = (_State.WAITING, _State.WORKING, _State.CHANGED)
        with self._condition:
            oldest = [file.changed_s for file in self._files.values() if file.state in busy]
            return max(0.0, self._clock() - min(oldest)) if oldest else 0.0
