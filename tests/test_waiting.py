import threading
import time

import pytest

from tests.waiting import wait_until


def test_returns_as_soon_as_the_condition_holds() -> None:
    happened = threading.Event()
    timer = threading.Timer(0.05, happened.set)
    timer.start()
    start = time.monotonic()
    assert wait_until(happened.is_set, "the timer")
    assert time.monotonic() - start < 5.0
    timer.join()


def test_fails_at_the_deadline_and_says_what_was_awaited() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.05 s in vain for the moon"):
        wait_until(lambda: False, "the moon", timeout_s=0.05)
