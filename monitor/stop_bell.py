"""What the main thread waits at until the daemon is to stop."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from types import TracebackType


class StopBell:
    """Ends one wait for good, rung by a signal or by any thread.

    The system may hand a signal to any thread; Python runs its handler in the main one alone, and
    only once that wakes up. A main thread that waits for a lock is not woken by it (seen under a
    tracer that held the main thread at that moment). What Python writes to a file as the signal
    arrives (`signal.set_wakeup_fd`) wakes it from whichever thread. Nor does a handler have to
    take a lock, which the code that it interrupts may hold.
    """

    def __init__(self) -> None:
        self._heard, self._rung = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._closed = False
        self._listens_to: tuple[int, ...] = ()

    def __enter__(self) -> StopBell:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def listen(self, *signals: int) -> None:
        """Let these signals ring, and do nothing else; only the main thread may call it."""
        signal.set_wakeup_fd(self._rung, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: None)
        self._listens_to = signals

    def ring(self) -> None:
        """End the wait, also one that is still to come; any thread may call it."""
        with self._lock, contextlib.suppress(BlockingIOError):  # full: it rings already
            if not self._closed:
                os.write(self._rung, b"\0")

    def wait(self) -> None:
        """Wait until it has been rung."""
        select.select([self._heard], [], [])

    def close(self) -> None:
        """Let go of it; what it listened to is ignored from then on, since the end has begun."""
        if self._listens_to:
            for number in self._listens_to:
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)
        with self._lock:
            self._closed = True
            os.close(self._heard)
            os.close(self._rung)
