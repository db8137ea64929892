"""The daemon ends in order, wherever in it the signal arrives and however many come."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.stop_bell import StopBell
from tests.daemon import Daemon
from tests.waiting import wait_until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(tmp_path)
    found.acquisition.mkdir()
    yield found
    found.stop()


def threads_that_take(number: int, pid: int) -> list[int]:
    """List the threads of a process, its main one left out, that do not block a signal."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it has ended since
            continue
        blocked = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk"))
        if int(task.name) != pid and not blocked & 1 << (number - 1):
            found.append(int(task.name))
    return found


def send_to_another_thread(number: int, pid: int) -> bool:
    """Send a signal to a thread other than the main one: False when none of them took it."""
    tgkill = ctypes.CDLL(None).tgkill
    # threads that answer the state page come and go: then the next in line is asked
    return any(tgkill(pid, thread, number) == 0 for thread in threads_that_take(number, pid))


def test_a_signal_that_another_thread_takes_ends_the_daemon(daemon: Daemon) -> None:
    """The system may give a signal of a process to any of its threads that does not block it."""
    daemon.start().wait_for_state("ready")
    assert daemon.process is not None
    assert send_to_another_thread(signal.SIGTERM, daemon.process.pid)
    assert daemon.wait()[0] == 0


def test_signals_that_come_while_it_ends_change_nothing(daemon: Daemon) -> None:
    daemon.start().wait_for_state("ready")
    process = daemon.process
    assert process is not None
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    assert daemon.wait()[0] == 0


def test_a_bell_that_was_rung_before_ends_the_wait_at_once() -> None:
    with StopBell() as bell:
        bell.ring()
        bell.wait()
        bell.wait()


def test_a_bell_may_be_rung_by_any_thread_any_number_of_times() -> None:
    with StopBell() as bell:
        waited = threading.Event()

        def wait() -> None:
            bell.wait()
            waited.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not waited.is_set()
        for _ in range(100_000):  # more than the bell holds
            bell.ring()
        wait_until(waited.is_set, "the bell to be heard")
        thread.join()


def open_files() -> list[str]:
    return sorted(one.name for one in Path("/proc/self/fd").iterdir())


def test_a_bell_that_was_put_away_rings_no_other_file() -> None:
    open_before, handler_before = open_files(), signal.getsignal(signal.SIGUSR1)
    try:
        with StopBell() as bell:
            bell.listen(signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)
            bell.wait()
        bell.ring()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert open_files() == open_before
    finally:
        signal.signal(signal.SIGUSR1, handler_before)
