"""Reading without getting in the way: not faster than agreed, and after everybody else."""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from monitor.errors import NotReady

_CREDIT_S = 1.0
"""What was not read during this long may be read at once: one tilt after a pause never waits."""
_SYSCALLS = {"x86_64": (251, 252), "aarch64": (30, 31)}
"""Numbers of ioprio_set(2) and ioprio_get(2), for which the C library has no functions."""
_THIS_THREAD = (1, 0)
_IDLE = 3 << 13


class Pace:
    """Called with a number of bytes before they are read, it waits for as long as it takes.

    The average keeps to the rate however unevenly the bytes are asked for.
    """

    def __init__(
        self,
        bytes_per_s: float,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """Take the rate, and what ends all waiting."""
        self._bytes_per_s = bytes_per_s
        self._stop = stop
        self._clock = clock
        self._wait = wait or stop.wait
        self._paid_s = clock()
        """When all that was asked for so far has had its time."""
        self.asked_s = clock()
        """When bytes were last let through; infinite while they are held back."""

    def __call__(self, count: int) -> None:
        """Wait until `count` more bytes may be read; raises `NotReady` if the daemon stops."""
        while (early_s := self._paid_s - self._clock()) > 0.0:
            self.asked_s = float("inf")
            self._wait(early_s)
            if self._stop.is_set():
                raise NotReady("the daemon stops", "stopping")
        now_s = self._clock()
        self._paid_s = max(self._paid_s, now_s - _CREDIT_S) + count / self._bytes_per_s
        self.asked_s = now_s


@contextmanager
def idle_io() -> Iterator[None]:
    """Have the disk serve this thread only while nobody else wants it; nothing where it cannot."""
    before = _syscall(1, *_THIS_THREAD)
    if before < 0 or _syscall(0, *_THIS_THREAD, _IDLE) < 0:
        yield
        return
    try:
        yield
    finally:
        _syscall(0, *_THIS_THREAD, before)


def io_priority() -> int:
    """Give the I/O class and level of this thread as ioprio_get(2) does; -1 where none is known."""
    return _syscall(1, *_THIS_THREAD)


def _syscall(which: int, *values: int) -> int:
    numbers = _SYSCALLS.get(platform.machine())
    if numbers is None or not sys.platform.startswith("linux") or _LIBC is None:
        return -1
    return int(_LIBC.syscall(numbers[which], *values))


def _libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):
        return None


_LIBC = _libc()
