"""The intake thread: finds files that changed and queues them; it opens none of them.

The scan is the truth; events only bring it forward, path by path.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from monitor.folders import FolderTree
from monitor.landing import LandedQueue
from monitor.model import FileStat, Landed
from monitor.sources.protocol import Source
from monitor.walk import Seen, Stalled, Walk, stat_now
from monitor.watching import FolderEvents, has_remote_writers

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 2.0
"""Files that are not complete are looked at this often, however rare the scans are."""
_SWEEP_INTERVAL_S = 30.0
NO_ANSWER_S = 10.0
"""A file system that owes an answer for longer counts as stalled."""
_MAX_HINTS = 10_000
_LONGEST_WAIT_S = 0.2
_LEAST_REST_S = 1.0
"""Two looks have to be this far apart to prove that nobody writes, however often they are made."""
_OLD_NS = 10_000_000_000
"""Compared with the newest file, so that only times of one clock meet."""
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class IntakeStatus:
    """How the intake is doing."""

    stalled: bool
    """Whether the acquisition directory cannot be scanned now."""
    reason: str
    """One sentence on why it is stalled ("" otherwise)."""
    watching: Literal["events", "poll"]
    files_seen: int
    files_ignored: int
    """Files that no source claims."""
    backlog: int
    """Files that wait for the worker."""
    incomplete: int
    """Files that whoever writes them has not completed."""
    oldest_unprocessed_s: float
    last_scan_s_ago: float | None
    """Seconds since a scan was last completed; None before the first."""
    unreadable_folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A file for the worker, and the source that knows how to read it."""

    landed: Landed
    source: Source


class Intake:
    """Finds files below the acquisition directory and offers those that changed to the worker."""

    def __init__(
        self,
        directory: Path,
        source: Source,
        *,
        poll_interval_s: float = 2.0,
        watch: Literal["auto", "events", "poll"] = "auto",
        clock: Callable[[], float] = time.monotonic,
        on_gone: Callable[[str], None] = lambda relative: None,
        no_answer_s: float = NO_ANSWER_S,
    ) -> None:
        """Take the directory, and the source that says which files matter and reads them.

        `on_gone` is called with the relative path of each image that is no longer there, by the
        thread that finds that out (this one, or the worker).
        """
        self._directory = directory
        self._source = source
        self._queue = LandedQueue(directory, clock)
        self._poll_interval_s = poll_interval_s
        self._watch = watch
        self._clock = clock
        self._on_gone = on_gone
        self._no_answer_s = no_answer_s
        self._worker_asked_s: float | None = None
        self._has_remote_writers = True
        self._tree = FolderTree(directory, source.claims, clock)
        self._hints: dict[str, int | None] = {}
        """Paths that events told of; where the last told of the end of writing, when (ns)."""
        self._woken = threading.Condition()
        self._events = FolderEvents(self._hint)
        self._watching: Literal["events", "poll"] = "poll"
        self._watched: tuple[int, int] | None = None
        self._stalled = ""
        self._last_scan_s: float | None = None
        self._look_interval_s = min(poll_interval_s, LOOK_INTERVAL_S)
        self._apart_s = max(self._look_interval_s / 2, _LEAST_REST_S)
        self._next_scan_s = self._next_look_s = self._next_sweep_s = clock()
        self._sweep_wanted = True

    def run(self, stop: threading.Event) -> None:
        """Scan and follow events until `stop` is set: the body of the intake thread."""
        try:
            while not stop.is_set():
                self.step()
                self._wait()
        finally:
            self._events.stop()

    def step(self) -> None:
        """Do once what is due now: follow events, look at files, or scan."""
        self._follow_hints()
        now_s = self._clock()
        if now_s >= self._next_scan_s:
            self._scan(now_s)
        elif now_s >= self._next_look_s and not self._stalled:
            self._look(self._queue.unsettled(), now_s)

    def next(self, timeout_s: float) -> Offer | None:
        """Give the file whose turn it is, as it is now; None if none came within `timeout_s`.

        What is given must be given back with `done` or `retry`. A file that cannot be looked at
        now is not given, but left to the next scan.
        """
        while (landed := self._queue.get(timeout_s)) is not None:
            as_it_is = self._as_it_is(landed.relative)
            if as_it_is is not None:
                return Offer(as_it_is, self._source)
            self.retry(landed)
            timeout_s = 0.0
        return None

    def _as_it_is(self, relative: str) -> Landed | None:
        """Look at a file right before it is worked on, since it may have waited for long."""
        found = {}
        for member in self._queue.members(relative):
            stat = self._stat(member)
            if stat is not None:
                found[member] = stat
        if relative not in found:
            return None
        apart_s = self._apart_s
        return self._queue.looked(relative, found, apart_s, any_inode=self._has_remote_writers)

    def _stat(self, member: str) -> FileStat | None:
        self._worker_asked_s = self._clock()
        try:
            return stat_now(self._directory, member)
        finally:
            self._worker_asked_s = None

    def make_way(self, landed: Landed) -> bool:
        """Whether work on a file is to pause, until its `retry`, between two of its tilts.

        So it is for a file that landed since, and where somebody writes to this one.
        """
        if self._queue.make_way(landed.relative):
            return True
        now, then = self._stat(landed.relative), landed.stat
        return now is None or (now.size, now.mtime_ns) != (then.size, then.mtime_ns)

    def again(self, relative: str) -> None:
        """Offer a file again that was dealt with."""
        self._queue.again(relative)

    @property
    def waiting(self) -> int:
        """How many files wait for the worker."""
        return len(self._queue)

    def done(self, landed: Landed) -> None:
        """Say that a file was dealt with: it comes again only when it changes."""
        if not self._queue.done(landed.relative):
            self._on_gone(landed.relative)

    def retry(self, landed: Landed) -> None:
        """Say that a file is not complete yet: it comes again when it changed or was scanned."""
        if not self._queue.retry(landed.relative):
            self._on_gone(landed.relative)

    def status(self) -> IntakeStatus:
        """Tell how things are; safe to call from any thread, also while the share hangs."""
        now_s = self._clock()
        reason = self._stalled
        asked_s = [one for one in (self._tree.asked_s, self._worker_asked_s) if one is not None]
        if asked_s and now_s - min(asked_s) > self._no_answer_s:
            waited = int(now_s - min(asked_s))
            reason = f"'{self._directory}' has not answered for {waited} s; see to its share"
        return IntakeStatus(
            stalled=bool(reason),
            reason=reason,
            watching=self._watching,
            files_seen=self._tree.files_seen,
            files_ignored=self._tree.files_ignored,
            backlog=len(self._queue),
            incomplete=self._queue.incomplete,
            oldest_unprocessed_s=self._queue.oldest_unprocessed_s,
            last_scan_s_ago=None if self._last_scan_s is None else now_s - self._last_scan_s,
            unreadable_folders=self._tree.unreadable_folders,
        )

    def _scan(self, started_s: float) -> None:
        sweep = self._sweep_wanted or bool(self._stalled) or started_s >= self._next_sweep_s
        self._sweep_wanted = False
        try:
            walk = self._tree.walk(every_file=sweep)
        except Stalled as stalled:
            self._take(stalled.walk)
            self._stall(str(stalled))
        else:
            self._resume()
            self._watch_directory()
            self._take(walk)
            self._look(() if sweep else self._queue.lively(), started_s)
            self._last_scan_s = self._clock()
        took_s = self._clock() - started_s
        # A slow share is left alone for at least as long as a scan of it takes.
        self._next_scan_s = started_s + max(self._poll_interval_s, 2 * took_s)
        if sweep:
            self._next_sweep_s = started_s + max(_SWEEP_INTERVAL_S, 10 * took_s)

    def _take(self, walk: Walk) -> None:
        """Tell the queue what a walk found."""
        for image, member in walk.gone:
            self._queue.gone(image, member)
            if member == image:
                self._on_gone(image)
        news = self._queue.news(walk.seen)
        news.sort(key=lambda seen: (seen.stat.mtime_ns, seen.member))
        # What lay there at start is at rest if others were written long after it.
        old_ns = news[-1].stat.mtime_ns - _OLD_NS if walk.is_first and news else 0
        old = bisect_left(news, old_ns, key=lambda seen: seen.stat.mtime_ns)
        self._saw(news[:old], lay_there=walk.is_first, closed=True)
        self._saw(news[old:], lay_there=walk.is_first)

    def _look(self, files: Iterable[tuple[str, str]], started_s: float) -> None:
        """Stat single files, then let those come again that were not complete."""
        self._saw(self._tree.stat_all(files))
        self._queue.scanned(started_s, self._apart_s)
        self._next_look_s = started_s + self._look_interval_s

    def _saw(self, files: Iterable[Seen], *, lay_there: bool = False, closed: bool = False) -> None:
        # In parts, so that neither the worker nor the status waits for long.
        for part in _batched(files, _AT_ONCE):
            any_inode = self._has_remote_writers
            self._queue.saw_all(part, lay_there=lay_there, any_inode=any_inode, closed=closed)

    def _stall(self, reason: str) -> None:
        if reason != self._stalled:
            logger.warning("stalled: %s", reason)
        self._stalled = reason

    def _resume(self) -> None:
        if self._stalled:
            logger.info("the acquisition directory can be scanned again")
        self._stalled = ""

    def _watch_directory(self) -> None:
        """Ask for events where they can be trusted to help, again after a new mount."""
        if self._watched == self._tree.identity:
            return
        self._watched = self._tree.identity
        self._events.stop()
        self._tree.asked_s = self._clock()
        self._has_remote_writers = has_remote_writers(self._directory)
        self._tree.asked_s = None
        wanted = self._watch == "events" or (self._watch == "auto" and not self._has_remote_writers)
        self._watching = "events" if wanted and self._events.start(self._directory) else "poll"
        self._sweep_wanted = True  # for what came between the scan and the first event

    def _hint(self, relative: str, closed: bool) -> None:
        with self._woken:
            if len(self._hints) < _MAX_HINTS:
                self._hints[relative] = time.time_ns() if closed else None
            else:
                self._sweep_wanted = True
            self._woken.notify()

    def _follow_hints(self) -> None:
        with self._woken:
            hints, self._hints = self._hints, {}
        for relative, closed_ns in hints.items():
            found = self._tree.look(relative)
            # The stack itself stays open: what closes with a tilt is its mdoc.
            images = dict.fromkeys(one.image for one in found)
            others = [
                (image, other)
                for image in images
                for other in dict.fromkeys((image, *self._queue.members(image)))
            ]
            seen = [*self._tree.stat_all(others), *found]
            # Whoever closed it may have begun to write again before it could be looked at.
            closed = closed_ns is not None and all(one.stat.mtime_ns <= closed_ns for one in seen)
            self._saw(seen, closed=closed)

    def _wait(self) -> None:
        due_s = min(self._next_scan_s, self._next_look_s) - self._clock()
        with self._woken:
            if not self._hints:
                self._woken.wait(min(max(due_s, 0.0), _LONGEST_WAIT_S))


def _batched(files: Iterable[Seen], size: int) -> Iterator[list[Seen]]:
    """Give files in lists of at most `size`, each as soon as it is full."""
    rest = iter(files)
    while part := list(islice(rest, size)):
        yield part
