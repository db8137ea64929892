"""The stream of the real daemon: each message fits its schema, the example client misses none."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import numpy as np
import pytest

from engines.microscope import SerialEMStackWriter
from tests.bench.tilts import PIXEL_SIZE_ANGSTROM, SIDE_PX, tilts
from tests.daemon import ROOT, SHAPE, Daemon, Microscope, Subscriber, picture
from tests.schema_check import faults
from tests.stream_crowd import pester
from tests.test_messages import shipped
from tests.waiting import wait_until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(tmp_path)
    yield found
    found.stop()


def test_the_example_client_misses_nothing_of_a_daemon_that_dies(daemon: Daemon) -> None:
    microscope = Microscope(daemon.acquisition)
    command = [sys.executable, "deploy/examples/subscriber.py", daemon.endpoint, "1"]
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as example,
        closing(Subscriber(daemon.endpoint)) as subscriber,
    ):
        lines: list[str] = []
        assert example.stdout is not None
        reader = threading.Thread(target=lines.extend, args=(example.stdout,))
        reader.start()
        daemon.start()
        for index in range(3):
            microscope.add("s/L1", 3.0 * index, picture(20.0, seed=index))
        microscope.add("s/L1", 9.0, np.zeros(SHAPE, np.int16))
        subscriber.wait_for("lamella", 4)
        daemon.signal(signal.SIGKILL)
        for index in range(3):
            microscope.add("s/L2", 3.0 * index, picture(0.0, seed=index))
        daemon.start()
        subscriber.wait_for("lamella", 7)
        beats = len(subscriber.bodies("status"))
        wait_until(lambda: len(subscriber.bodies("status")) > beats + 1, "two heartbeats")
        example.kill()
        reader.join(10.0)
    # Lines come in blocks from a pipe: `lines` holds whole ones alone.
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, 15))
    for topic in ("tilt", "lamella", "status"):
        for body in subscriber.bodies(topic):
            assert faults(json.loads(body), shipped(topic)) == []
    assert None in [one["ice"]["percent"] for one in subscriber.messages("tilt")]


class Junk:
    """Connects to every port of a daemon again and again, with junk, from its own process."""

    def __init__(self, daemon: Daemon, per_s: float) -> None:
        replay = daemon.status()["replay_endpoint"]
        ports = [
            urlsplit(address).port
            for address in (
                *(daemon.endpoint, replay),
                *(f"tcp://{daemon.web_address}", f"tcp://{daemon.metrics_address}"),
            )
        ]
        context = multiprocessing.get_context("spawn")
        self._on, self._end = context.Event(), context.Event()
        self._count = context.Value("i", 0)
        self._process = context.Process(
            target=pester, args=(ports, per_s, self._on, self._end, self._count)
        )
        self._process.start()

    @property
    def connections(self) -> int:
        return int(self._count.value)

    def switch(self, on: bool) -> None:
        (self._on.set if on else self._on.clear)()

    def close(self) -> None:
        self._end.set()
        self._process.join()


def land_stack(path: Path, seed: int) -> Iterator[float]:
    """Land ten full-size tilts, each when asked for the next: the time at which it was there."""
    writer = SerialEMStackWriter(path, (SIDE_PX, SIDE_PX), PIXEL_SIZE_ANGSTROM)
    when = datetime(2026, 1, 1) + timedelta(hours=seed)
    for number, image in enumerate(tilts(10, seed)):
        writer.add(image, 3.0 * number, when + timedelta(seconds=26 * number))
        yield time.monotonic()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_strangers_delay_no_tilt(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, bundle=ROOT / "engines" / "bundles" / "default")
    daemon.acquisition.mkdir()
    daemon.start()
    daemon.wait_for_state("ready")
    waits_s: dict[bool, list[float]] = {False: [], True: []}
    with (
        closing(daemon),
        closing(Subscriber(daemon.endpoint)) as subscriber,
        closing(Junk(daemon, per_s=200.0)) as junk,
    ):
        for series in count():
            junk.switch(on := series % 2 == 1)
            for number, landed_s in enumerate(
                land_stack(tmp_path / "data" / f"L{series}.st", series)
            ):
                subscriber.wait_for("tilt", 10 * series + number + 1)
                waits_s[on].append(time.monotonic() - landed_s)
            if junk.connections > 10_000:
                break
        process = daemon.process
        assert process is not None
        descriptors = sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())
        quiet_s, crowded_s = median(waits_s[False]), median(waits_s[True])
        print(
            f"landed to heard, median: {quiet_s:.3f} s in peace ({len(waits_s[False])} tilts), "
            f"{crowded_s:.3f} s among {junk.connections} strangers ({len(waits_s[True])} tilts), "
            f"{descriptors} descriptors"
        )
        assert crowded_s < 1.1 * quiet_s
        assert descriptors < 900
        status, complaint = daemon.signal(signal.SIGTERM)
        assert status == 0, complaint
