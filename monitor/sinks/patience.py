"""Work on files that a share may hold up for ever, done where it holds up nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable

WAIT_S = 1.0
"""The publisher speaks every second; subscribers give up on it after many of them."""


class HeldUpError(Exception):
    """Raised when work is not done in time; it may be done yet, or never."""


class Patience:
    """Does each piece of work in a thread of its own, and waits for it only so long."""

    def __init__(self, name: str, wait_s: float = WAIT_S) -> None:
        """Name the threads."""
        self._name = name
        self._wait_s = wait_s
        self._last: _Order | None = None

    def run(self, work: Callable[[threading.Event], None]) -> None:
        """Do the work; raises its OSError, and HeldUpError when it takes too long.

        Work that was given up is told so by its event: it must change nothing any more. While it
        is held up, nothing else is begun, and nobody waits.
        """
        if self._last and self._last.is_alive():
            raise HeldUpError
        self._last = order = _Order(self._name, work)
        order.start()
        order.join(self._wait_s)
        if order.is_alive():
            order.given_up.set()
            raise HeldUpError
        if order.is_broken:
            raise RuntimeError(f"{self._name}: broken off; the log says why")
        if order.error:
            raise order.error


class _Order(threading.Thread):
    def __init__(self, name: str, work: Callable[[threading.Event], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self.given_up = threading.Event()
        self.error: OSError | None = None
        self.is_broken = True
        """Until the work came to an end that was foreseen."""

    def run(self) -> None:
        try:
            self._work(self.given_up)
        except OSError as error:
            self.error = error
        self.is_broken = False
