"""Work on files that a share may hold up for ever, done where it holds up nobody else."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

WAIT_S = 1.0
"""The publisher speaks every second; subscribers give up on it after many of them."""


class HeldUpError(Exception):
    """Raised when work is not done in time; it may be done yet, or never."""


class Patience:
    """Runs one piece of work after another in its own thread, and waits for each only so long."""

    def __init__(self, name: str, wait_s: float = WAIT_S) -> None:
        """Name the thread."""
        self._name = name
        self._wait_s = wait_s
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: _Order | None = None

    def run(self, work: Callable[[threading.Event], None]) -> None:
        """Do the work; raises its OSError, and HeldUpError when it takes too long.

        Work that was given up is told so by its event: it must change nothing any more. While it
        is held up, nothing else is begun, and nobody waits.
        """
        if self._last and not self._last.done.is_set():
            raise HeldUpError
        if not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        self._last = order = _Order(work)
        self._orders.put(order)
        if not order.done.wait(self._wait_s):
            order.given_up.set()
            raise HeldUpError
        if order.is_broken:
            raise RuntimeError(f"{self._name}: broken off; the log says why")
        if order.error:
            raise order.error

    def _serve(self) -> None:
        while True:
            self._orders.get().carry_out()


class _Order:
    def __init__(self, work: Callable[[threading.Event], None]) -> None:
        self._work = work
        self.given_up = threading.Event()
        self.done = threading.Event()
        self.error: OSError | None = None
        self.is_broken = True
        """Until the work came to an end that was foreseen."""

    def carry_out(self) -> None:
        try:
            self._work(self.given_up)
            self.is_broken = False
        except OSError as error:
            self.error, self.is_broken = error, False
        finally:
            self.done.set()
