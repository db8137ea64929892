"""Which files wait for the worker: a queue of paths, each at most once, and what is known of them.

The intake thread tells what it saw, the worker takes a file, and says whether to look at it again.
What landed while the daemon runs comes first, then what lay there at its start.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from monitor.landed_file import LandedFile, Recent, State
from monitor.model import FileStat, Landed
from monitor.walk import Seen

_TURN_S = 10.0
"""What lay there at start has a turn this often, also while new files keep the worker busy."""


class LandedQueue:
    """Hands changed files to the worker, in the order in which they changed.

    Holds paths and stats only, and no path twice: its size is bounded by the number of files.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the acquisition directory and a monotonic clock (s)."""
        self._directory = directory
        self._clock = clock
        self._files: dict[str, LandedFile] = {}
        self._live: OrderedDict[str, None] = OrderedDict()
        self._backlog: OrderedDict[str, None] = OrderedDict()
        self._open: dict[str, None] = {}
        """Files that are with the worker or incomplete."""
        self._recent = Recent(self._files, clock)
        self._turn_s = clock() + _TURN_S
        """When the backlog has its next turn."""
        self._condition = threading.Condition()

    def get(self, timeout_s: float) -> Landed | None:
        """Take the file whose turn it is; None if none came within `timeout_s`."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._live or self._backlog, timeout_s):
                return None
            file = self._files[self._next()]
            file.made_way = False
            self._enter(file, State.WORKING)
            return self._landed(file)

    def _next(self) -> str:
        now_s = self._clock()
        backlogs_turn = self._backlog and (not self._live or now_s >= self._turn_s)
        if backlogs_turn or not self._backlog:
            self._turn_s = now_s + _TURN_S
        return next(iter(self._backlog if backlogs_turn else self._live))

    def _landed(self, file: LandedFile) -> Landed:
        now_s = self._clock()
        return Landed(
            path=self._directory / file.relative,
            relative=file.relative,
            stat=file.members[file.relative],
            unchanged_scans=file.unchanged_scans,
            quiet_s=now_s - file.changed_s,
            changed_s=file.changed_s,
            image_quiet_s=now_s - file.image_changed_s,
            closed=file.closed,
            members=dict(file.members),
        )

    def members(self, relative: str) -> list[str]:
        """List the files that are known of an image."""
        with self._condition:
            file = self._files.get(relative)
            return list(file.members) if file else []

    def looked(
        self,
        relative: str,
        found: Mapping[str, FileStat],
        apart_s: float,
        *,
        any_inode: bool = False,
    ) -> Landed | None:
        """Take in what a look at a file found that the worker just took; None if it is gone.

        It proves that a file is at rest if the change was at least `apart_s` earlier.
        """
        with self._condition:
            file = self._files.get(relative)
            if file is None or not file.is_there:
                return None
            for member, stat in found.items():
                self._note(file, member, stat, any_inode=any_inode)
            file.prove(self._clock(), apart_s)
            return self._landed(file)

    def done(self, relative: str) -> bool:
        """Say that a file was dealt with as it was when taken; False if it is gone by now."""
        return self._give_back(relative, State.QUIET)

    def retry(self, relative: str) -> bool:
        """Say that a file is not complete: it comes again when it changed or was scanned.

        One that made way comes again at once. False if it is gone by now.
        """
        return self._give_back(relative, State.INCOMPLETE)

    def _give_back(self, relative: str, state: State) -> bool:
        with self._condition:
            file = self._files.get(relative)
            if file is None:
                return False
            if file.state not in (State.WORKING, State.CHANGED):
                return file.is_there
            changed = file.state is State.CHANGED
            self._enter(file, state if file.is_there else State.QUIET)
            if state is State.QUIET:
                file.lay_there = False
            if changed:
                self._offer(file)
            elif file.made_way and state is State.INCOMPLETE:
                self._offer(file, first=True)
            if not file.members:
                self._forget(file)
            return file.is_there

    def make_way(self, relative: str) -> bool:
        """Whether work on a file that lay there at start is to pause for one that landed since.

        Its `retry` then brings it back at once, before the others that lay there.
        """
        with self._condition:
            file = self._files.get(relative)
            if file is None or not file.lay_there or not self._live:
                return False
            file.made_way = True
            return True

    def saw(
        self,
        relative: str,
        member: str,
        stat: FileStat,
        *,
        lay_there: bool = False,
        any_inode: bool = False,
        closed: bool = False,
    ) -> None:
        """Note what a look found: `member` belongs to the image `relative` (or is that image).

        `lay_there`: nobody knows when it landed, for this was the first look. `any_inode`: a new
        inode alone is no change, since shares may give out new ones at any time. `closed`: who
        wrote it is done with it.
        """
        found = [(relative, member, stat)]
        self.saw_all(found, lay_there=lay_there, any_inode=any_inode, closed=closed)

    def saw_all(
        self,
        found: Iterable[tuple[str, str, FileStat]],
        *,
        lay_there: bool = False,
        any_inode: bool = False,
        closed: bool = False,
    ) -> None:
        """Note what a scan found, as `saw` does for each (image, member, stat)."""
        with self._condition:
            for relative, member, stat in found:
                file = self._files.get(relative)
                if file is None:
                    file = self._files[relative] = LandedFile(relative)
                was_known = bool(file.members)
                if self._note(file, member, stat, any_inode=any_inode, closed=closed):
                    self._changed(file, was_known=was_known, lay_there=lay_there)
                elif closed and not file.closed:
                    self._closed(file)

    def news(self, found: Iterable[Seen]) -> list[Seen]:
        """Give those that are not known to be as they were found."""
        files = self._files
        with self._condition:
            return [
                one
                for one in found
                if (file := files.get(one.image)) is None
                or file.members.get(one.member) != one.stat
            ]

    def _closed(self, file: LandedFile) -> None:
        """Note that the last change was the end of the writing, which nobody knew before."""
        file.closed = True
        if file.state is not State.QUIET:
            self._offer(file)

    def _changed(self, file: LandedFile, *, was_known: bool, lay_there: bool) -> None:
        file.changed_here = was_known
        if not lay_there:
            self._backlog.pop(file.relative, None)
            file.lay_there = False
        elif not was_known:
            file.lay_there = True
        self._offer(file)

    def _note(
        self,
        file: LandedFile,
        member: str,
        stat: FileStat,
        *,
        any_inode: bool,
        closed: bool = False,
    ) -> bool:
        changed = file.note(member, stat, self._clock(), any_inode=any_inode, closed=closed)
        if changed:
            self._recent.changed(file.relative, stat)
        return changed

    def gone(self, relative: str, member: str) -> None:
        """Note that a file is no longer there."""
        with self._condition:
            file = self._files.get(relative)
            if file is None:
                return
            file.members.pop(member, None)
            if member == relative and file.state is not State.WORKING:
                self._enter(file, State.QUIET)
            if not file.members and file.state is State.QUIET:
                self._forget(file)

    def _forget(self, file: LandedFile) -> None:
        del self._files[file.relative]
        self._recent.forget(file.relative)

    def scanned(self, started_s: float, apart_s: float) -> None:
        """Note that a look that began at `started_s` saw every file that `unsettled` lists.

        It proves that a file is at rest if the change was at least `apart_s` earlier.
        """
        with self._condition:
            for relative in list(self._open):
                file = self._files[relative]
                file.prove(started_s, apart_s)
                if file.state is State.INCOMPLETE:
                    self._offer(file)

    def again(self, relative: str) -> None:
        """Offer a file again although nothing happened to it."""
        with self._condition:
            file = self._files.get(relative)
            if file is not None:
                self._offer(file)

    def _offer(self, file: LandedFile, *, first: bool = False) -> None:
        if not file.is_there:
            return  # an mdoc whose image has not come yet
        if file.state not in (State.WAITING, State.CHANGED):
            file.undone_since_s = file.changed_s
        if file.state in (State.WORKING, State.CHANGED):
            self._enter(file, State.CHANGED)
            return
        self._enter(file, State.WAITING)
        lane = self._backlog if file.lay_there else self._live
        lane[file.relative] = None
        if first:
            lane.move_to_end(file.relative, last=False)
        self._condition.notify()

    def _enter(self, file: LandedFile, state: State) -> None:
        file.state = state
        if state is not State.WAITING:
            self._live.pop(file.relative, None)
            self._backlog.pop(file.relative, None)
        if state in (State.QUIET, State.WAITING):
            self._open.pop(file.relative, None)
        else:
            self._open[file.relative] = None

    def unsettled(self) -> list[tuple[str, str]]:
        """List what every look has to stat, as (image, member): what is not quiet nor waits.

        What waits is looked at when its turn comes.
        """
        with self._condition:
            return self._with_members(self._open)

    def lively(self) -> list[tuple[str, str]]:
        """List what every scan has to stat: `unsettled`, and what changed within the last hour."""
        with self._condition:
            return self._with_members(dict.fromkeys([*self._open, *self._recent]))

    def _with_members(self, names: Iterable[str]) -> list[tuple[str, str]]:
        return [(name, member) for name in names for member in self._files[name].members]

    def __len__(self) -> int:
        """How many files wait."""
        return len(self._live) + len(self._backlog)

    @property
    def incomplete(self) -> int:
        """How many files wait to be completed by whoever writes them."""
        with self._condition:
            return sum(self._files[one].state is State.INCOMPLETE for one in self._open)

    @property
    def oldest_unprocessed_s(self) -> float:
        """For how many seconds the oldest change has not been dealt with (0 if there is none)."""
        with self._condition:
            busy = [one for one in self._open if self._files[one].state is not State.INCOMPLETE]
            waiting = (*busy, *self._live, *self._backlog)
            oldest = min((self._files[one].undone_since_s for one in waiting), default=None)
            return 0.0 if oldest is None else max(0.0, self._clock() - oldest)
