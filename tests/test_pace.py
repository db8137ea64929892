"""Reading no faster than agreed, and after everybody else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.microscope import SerialEMStackWriter, write_frame_mdoc_movie
from monitor.errors import NotReady
from monitor.pace import Pace, idle_io, io_priority
from monitor.sources import all_sources
from tests.landings import SETTLED_S, landed

RATE = 200e6
TILT_BYTES = 4096 * 4096 * 2


class Clock:
    """Time that passes by waiting alone."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.waited_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.waited_s += seconds


def pace_at(clock: Clock, bytes_per_s: float = RATE) -> Pace:
    return Pace(bytes_per_s, threading.Event(), clock, clock.wait)


@given(
    pieces=st.lists(st.integers(1, 300 << 20), min_size=30, max_size=80),
    busy_s=st.floats(0.0, 0.05),
    rate=st.sampled_from([20e6, RATE, 3e9]),
)
def test_a_backlog_is_read_at_the_rate(pieces: list[int], busy_s: float, rate: float) -> None:
    clock = Clock()
    pace = pace_at(clock, rate)
    clock.now_s += 100.0
    start_s, done = clock.now_s, 0
    for piece in pieces:
        pace(piece)
        took_s = clock.now_s - start_s
        assert done <= rate * (took_s + 1.0) + 1.0, "a second of credit, and no more"
        done += piece
        clock.now_s += busy_s
    slowest_s = max(sum(pieces) / rate, busy_s * len(pieces))
    assert clock.now_s - start_s <= slowest_s + busy_s * len(pieces) + 1e-6


def test_the_average_over_a_long_backlog_is_the_rate() -> None:
    clock = Clock()
    pace = pace_at(clock)
    start_s = clock.now_s
    for _ in range(500):
        pace(TILT_BYTES)
        clock.now_s += 0.05
    rate = 500 * TILT_BYTES / (clock.now_s - start_s)
    assert rate == pytest.approx(RATE, rel=0.1)


@pytest.mark.parametrize("size", [TILT_BYTES, 64 * TILT_BYTES])
def test_a_tilt_after_a_pause_never_waits(size: int) -> None:
    clock = Clock()
    pace = pace_at(clock)
    for _ in range(20):
        clock.now_s += size / RATE + 1.0
        pace(size)
    assert clock.waited_s == 0.0


def test_a_stop_ends_the_waiting() -> None:
    stop = threading.Event()
    pace = Pace(1.0, stop)
    pace(1000)
    assert pace.asked_s <= time.monotonic()
    waiting = threading.Timer(0.05, stop.set)
    waiting.start()
    start_s = time.monotonic()
    with pytest.raises(NotReady, match="stops"):
        pace(1)
    assert time.monotonic() - start_s < 5.0
    assert pace.asked_s == float("inf")
    waiting.join()


def test_while_it_holds_back_the_file_system_owes_nothing() -> None:
    clock = Clock()
    asked: list[float] = []

    def wait(seconds: float) -> None:
        asked.append(pace.asked_s)
        clock.wait(seconds)

    pace = Pace(10.0, threading.Event(), clock, wait)
    pace(100)
    pace(100)
    assert asked == [float("inf")]
    assert pace.asked_s == clock.now_s == 60.0


def pieces(path: Path, size: int) -> Iterator[int]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(size):
            yield len(piece)


def test_real_reading_keeps_to_the_rate(tmp_path: Path) -> None:
    rate, size = 200e6, 1 << 20
    path = tmp_path / "movie"
    path.write_bytes(bytes(64 * size))
    pace = Pace(rate, threading.Event())
    start_s, done = time.monotonic(), 0
    for _ in range(3):
        for piece in pieces(path, size):
            pace(piece)
            done += piece
    found = done / (time.monotonic() - start_s)
    assert found == pytest.approx(rate, rel=0.1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's I/O classes")
def test_pixels_are_read_in_the_idle_class_and_nothing_else_is() -> None:
    before = io_priority()
    if before < 0:
        pytest.skip("needs ioprio_get(2), which this machine does not offer")
    others: list[int] = []
    with idle_io():
        assert io_priority() >> 13 == 3
        other = threading.Thread(target=lambda: others.append(io_priority()))
        other.start()
        other.join()
    assert io_priority() == before
    assert others[0] >> 13 in (0, 2, 3)
    with pytest.raises(ValueError, match="broken"), idle_io():
        raise ValueError("broken")
    assert io_priority() == before


def test_where_there_are_no_classes_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.pace._LIBC", None)
    with idle_io():
        assert io_priority() == -1


def test_whatever_is_read_is_asked_for_first(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    when = datetime(2026, 2, 1, 10, 0, 0)
    image = np.ones((2, 64, 64), np.int16)
    stack = SerialEMStackWriter(tmp_path / "s/L1.mrc", (64, 64), 2.0)
    stack.add(image[0], 0.0, when)
    write_frame_mdoc_movie(tmp_path / "s/L2_000_3.0.mrc", image, 3.0, when, 2.0)
    asked: list[int] = []
    source = all_sources(tmp_path, pace=asked.append)
    for name, frames in (("s/L1.mrc", 1), ("s/L2_000_3.0.mrc", 2)):
        asked.clear()
        for tilt in source.new_tilts(landed(tmp_path, name, SETTLED_S), lambda tilt_id: False):
            assert sum(asked) < 4096, "no more than headers before the pixels"
            source.pixels(tilt)
        assert sum(asked) >= frames * image[0].nbytes
