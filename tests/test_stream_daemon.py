"""The stream of the real daemon: each message fits its schema, the example client misses none."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.daemon import ROOT, SHAPE, Daemon, Microscope, Subscriber, picture
from tests.schema_check import faults
from tests.stream_crowd import JUNK
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
    """Connects to every port of a daemon again and again, with junk, some of it for long."""

    def __init__(self, daemon: Daemon, per_s: float) -> None:
        replay = daemon.status()["replay_endpoint"]
        self._ports = [
            urlsplit(address).port
            for address in (
                *(daemon.endpoint, replay),
                *(f"tcp://{daemon.web_address}", f"tcp://{daemon.metrics_address}"),
            )
        ]
        self._per_s = per_s
        self.connections = 0
        self._on = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        held: list[socket.socket] = []
        with ExitStack() as stack:
            while not self._end.is_set():
                if not self._on.wait(0.1):
                    continue
                for port in self._ports:
                    for junk in JUNK.values():
                        one = stack.enter_context(socket.socket())
                        one.setblocking(False)
                        one.connect_ex(("127.0.0.1", port))
                        held.append(one)
                        self.connections += 1
                        self._end.wait(1.0 / self._per_s)
                        try:
                            one.send(junk)
                        except OSError:
                            continue
                while len(held) > 1000:
                    held.pop(0).close()

    def switch(self, on: bool) -> None:
        (self._on.set if on else self._on.clear)()

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_strangers_delay_no_tilt(daemon: Daemon) -> None:
    microscope = Microscope(daemon.acquisition)
    daemon.acquisition.mkdir()
    daemon.start()
    daemon.wait_for_state("ready")
    waits_s: dict[bool, list[float]] = {False: [], True: []}
    with (
        closing(Subscriber(daemon.endpoint)) as subscriber,
        closing(Junk(daemon, per_s=500.0)) as junk,
    ):
        count = 0
        while junk.connections < 10_000:
            junk.switch(on := not junk.connections or count // 10 % 2 == 1)
            microscope.add("s/L1", 0.01 * count, picture(20.0, seed=count))
            landed_s = time.monotonic()
            count += 1
            subscriber.wait_for("tilt", count)
            waits_s[on].append(time.monotonic() - landed_s)
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
