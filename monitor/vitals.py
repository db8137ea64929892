"""Who of the daemon's threads gets on: systemd is told that the daemon lives only while all do.

No timer speaks for the others. The publisher asks once a second, and hangs itself if it hangs;
intake and worker have to have moved since the last word to systemd, or to be excused.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from monitor.health import notify_systemd

logger = logging.getLogger(__name__)

COMPUTE_MAX_S = 300.0
"""A file may take so long to decode, and a walk over many folders, before it counts as a hang."""
TELL_AFTER_S = 10.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
Patience = Literal["none", "while computing", "unbounded"]
"""How long a thread may go without a step now; unbounded where something else sets a limit."""
_FILE_CALLS = {
    # read, open, close, stat, fstat, lstat, lseek, pread64, readv, access, getdents, readlink,
    # statfs, fstatfs, getdents64, inotify_add_watch, openat, newfstatat, readlinkat, faccessat,
    # preadv, preadv2, statx, openat2, faccessat2
    "x86_64": frozenset(
        "0 2 3 4 5 6 8 17 19 21 78 89 137 138 217 254 257 262 267 269 295 327 332 437 439".split()
    ),
    "aarch64": frozenset("27 43 44 48 56 57 61 62 63 65 67 69 78 79 80 286 291 437 439".split()),
}
"""Numbers of the system calls that ask a file system for something and change nothing."""


class Seen(Protocol):
    """What can be seen of a thread from outside."""

    def waits_for_files(self) -> bool:
        """Whether a file system owes it an answer right now."""
        ...

    def cpu_s(self) -> float:
        """Seconds that it has computed for so far."""
        ...


class SeenByKernel:
    """Looks at a thread of this process as the kernel does (proc(5))."""

    def __init__(self, thread: threading.Thread) -> None:
        """Take a thread that was started."""
        self._calls = _FILE_CALLS.get(platform.machine(), frozenset())
        self._task = Path(f"/proc/self/task/{thread.native_id}")

    def waits_for_files(self) -> bool:
        """Whether it is inside a system call that reads or looks; a lock is none."""
        try:
            return (self._task / "syscall").read_bytes().split()[0].decode() in self._calls
        except (OSError, IndexError):  # kernels may be built without it
            return self._stat()[0] == b"D"

    def cpu_s(self) -> float:
        """Seconds that it has computed for so far, to some 0.01 s."""
        user, system = self._stat()[11:13]
        return (int(user) + int(system)) / _TICKS_PER_S

    def _stat(self) -> list[bytes]:
        """What proc(5) lists behind the name of the thread, its state first."""
        try:
            return (self._task / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:  # it has ended
            return [b"X", *[b"0"] * 12]


@dataclass(slots=True)
class _Watched:
    name: str
    seen: Seen
    marks: Callable[[], object]
    patience: Callable[[], Patience]
    last: object
    moved_s: float
    """When its marks last changed."""
    cpu_s: float
    is_well: bool = False
    """Whether it moved or was excused since the last word to systemd."""
    told: bool = False


class Vitals:
    """Feeds systemd's watchdog from what the threads get done."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str], None] = notify_systemd,
    ) -> None:
        """Take a monotonic clock (s), and what passes a line on to systemd."""
        self._clock = clock
        self._tell = tell
        self._watched: list[_Watched] = []
        self._status = ""

    def watch(
        self,
        name: str,
        seen: Seen,
        marks: Callable[[], object],
        patience: Callable[[], Patience] = lambda: "while computing",
    ) -> None:
        """Hold the daemon for alive only while this thread gets on.

        `marks` gives what is another value after each step of its work.
        """
        now_s = self._clock()
        self._watched.append(_Watched(name, seen, marks, patience, marks(), now_s, seen.cpu_s()))

    def beat(self) -> bool:
        """Tell systemd that the daemon lives, if all threads got on since it was last told so."""
        for one in self._watched:
            one.is_well |= self._gets_on(one)
            self._complain(one)
        if not all(one.is_well for one in self._watched):
            return False
        for one in self._watched:
            one.is_well = False
        self._tell("WATCHDOG=1")
        return True

    def _gets_on(self, one: _Watched) -> bool:
        marks, cpu_s = one.marks(), one.seen.cpu_s()
        computed, one.cpu_s = cpu_s > one.cpu_s, cpu_s
        if marks != one.last:
            one.last, one.moved_s, one.told = marks, self._clock(), False
            return True
        patience = one.patience()
        if patience == "unbounded" or one.seen.waits_for_files():
            return True
        return (
            patience == "while computing"
            and computed
            and self._clock() - one.moved_s < COMPUTE_MAX_S
        )

    def _complain(self, one: _Watched) -> None:
        waited_s = self._clock() - one.moved_s
        if one.is_well or one.told or waited_s < TELL_AFTER_S:
            return
        one.told = True
        logger.critical("the %s has done nothing for %.0f s: it hangs", one.name, waited_s)

    def status(self, line: str) -> None:
        """Show one line in `systemctl status`; said again only when it changes."""
        line = " ".join(line.split())
        if line != self._status:
            self._status = line
            self._tell(f"STATUS={line}")


class Passing(threading.Event):
    """A stop event for one thread that counts how often it is asked: once in each pass."""

    def __init__(self, stop: threading.Event) -> None:
        """Take the event that all threads share."""
        super().__init__()
        self._stop = stop
        self.passes = 0

    def is_set(self) -> bool:
        """Whether to stop."""
        self.passes += 1
        return self._stop.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is time to stop."""
        return self._stop.wait(timeout)
