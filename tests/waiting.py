"""Waiting in tests: for a condition, up to a deadline, never for a fixed time."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.01
T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], what: str, timeout_s: float = 10.0) -> T:
    """Return the first true value of a condition; fail the test, saying what, at the deadline."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {what}")
        pause.wait(POLL_S)
    return value
