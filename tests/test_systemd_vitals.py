"""The watchdog is fed by what threads get done: real threads, seen as the kernel sees them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.vitals import COMPUTE_MAX_S, TELL_AFTER_S, Passing, Patience, SeenByKernel, Vitals
from tests.waiting import wait_until


@contextmanager
def thread_that(works: Callable[[], object]) -> Iterator[SeenByKernel]:
    thread = threading.Thread(target=works, daemon=True)
    thread.start()
    yield SeenByKernel(thread)
    thread.join(10.0)
    assert not thread.is_alive()


def test_who_waits_for_a_file_is_told_from_who_waits_for_a_lock(tmp_path: Path) -> None:
    lock = threading.Lock()
    lock.acquire()
    with thread_that(lambda: lock.acquire(timeout=60.0)) as seen:
        wait_until(lambda: not seen.waits_for_files(), "the wait for the lock")
        before_s = seen.cpu_s()
        assert not seen.waits_for_files()
        assert seen.cpu_s() == before_s
        lock.release()
    assert not seen.waits_for_files(), "it has ended"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Opening a pipe that nobody writes to waits as a share does that does not answer.
    with thread_that(fifo.read_bytes) as seen:
        wait_until(seen.waits_for_files, "the wait for the file")
        fifo.write_bytes(b"x")


def test_computing_shows() -> None:
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(range(10_000))

    with thread_that(compute) as seen:
        before_s = seen.cpu_s()
        wait_until(lambda: seen.cpu_s() > before_s, "some computing")
        assert not seen.waits_for_files()
        stop.set()


def test_a_stop_event_counts_the_passes_of_its_thread() -> None:
    stop = threading.Event()
    passing = Passing(stop)
    assert not passing.is_set()
    assert not passing.wait(0.0)
    assert passing.passes == 1
    stop.set()
    assert passing.is_set()
    assert passing.wait(0.0)
    assert passing.passes == 2


@dataclass
class Pretended:
    """A thread of which everything can be said."""

    steps: int = 0
    waits: bool = False
    computed_s: float = 0.0
    patience: Patience = "none"

    def waits_for_files(self) -> bool:
        return self.waits

    def cpu_s(self) -> float:
        return self.computed_s


@dataclass
class World:
    now_s: float = 0.0
    told: list[str] = field(default_factory=list)
    threads: tuple[Pretended, Pretended] = field(default_factory=lambda: (Pretended(), Pretended()))

    def vitals(self) -> Vitals:
        vitals = Vitals(lambda: self.now_s, self.told.append)
        for name, thread in zip(("intake", "worker"), self.threads, strict=True):
            vitals.watch(name, thread, lambda t=thread: t.steps, lambda t=thread: t.patience)  # type: ignore[misc]
        return vitals


def test_all_have_to_get_on_since_the_last_word() -> None:
    world = World()
    vitals, (intake, worker) = world.vitals(), world.threads
    intake.steps += 1
    assert not vitals.beat()
    worker.steps += 1
    assert vitals.beat(), "each in its own time"
    assert not vitals.beat()
    intake.steps = worker.steps = 7
    assert vitals.beat()
    assert world.told == ["WATCHDOG=1", "WATCHDOG=1"]


Step = tuple[str, float]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["steps", "waits", "computes", "loads", "hangs"]),
            st.floats(0.5, COMPUTE_MAX_S),
        ),
        max_size=30,
    )
)
def test_only_a_hang_keeps_systemd_waiting(doings: list[Step]) -> None:
    """The worker does one thing after the other; a second passes between two looks at it."""
    world = World()
    vitals, (intake, worker) = world.vitals(), world.threads
    still_s = 0.0
    for what, seconds in doings:
        worker.waits = what == "waits"
        worker.patience = {"computes": "while computing", "loads": "unbounded"}.get(what, "none")  # type: ignore[assignment]
        intake.steps += 1
        world.now_s += seconds
        still_s += seconds
        if what in ("steps", "hangs"):
            worker.steps += what == "steps"
        worker.computed_s += seconds
        lives = what in ("waits", "loads", "steps") or (
            what == "computes" and still_s < COMPUTE_MAX_S
        )
        if what == "steps":
            still_s = 0.0
        assert vitals.beat() == lives


def test_an_endless_loop_is_a_hang_once_no_file_takes_so_long() -> None:
    world = World()
    vitals, (intake, worker) = world.vitals(), world.threads
    worker.patience = "while computing"
    worker.steps = 1
    lived_s = 0.0
    while world.now_s < 2 * COMPUTE_MAX_S:
        world.now_s += 1.0
        worker.computed_s += 1.0
        intake.steps += 1
        if vitals.beat():
            lived_s = world.now_s
    assert lived_s == COMPUTE_MAX_S


def test_a_hang_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    vitals, (intake, worker) = world.vitals(), world.threads
    worker.steps = 1
    for _ in range(100):
        world.now_s += TELL_AFTER_S / 4
        intake.steps += 1
        vitals.beat()
    (record,) = caplog.records
    assert record.getMessage() == "the worker has done nothing for 10 s: it hangs"


def test_the_status_line_is_told_when_it_changes() -> None:
    told: list[str] = []
    vitals = Vitals(tell=told.append)
    for line in ("ready", "ready", "stalled: a\nb", "ready"):
        vitals.status(line)
    assert told == ["STATUS=ready", "STATUS=stalled: a b", "STATUS=ready"]
