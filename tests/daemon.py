"""The real daemon in a process of its own, and a pretend microscope beside it."""

from __future__ import annotations

import datetime
import hashlib
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy import int16
from numpy.typing import NDArray

from engines.microscope import SerialEMStackWriter
from tests import tiny_bundle
from tests.ports import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
PIXEL_SIZE_ANGSTROM = 13.5
SHAPE = (192, 224)
ANGLES_DEG = (0.0, 3.0, -3.0, 6.0, -6.0)
PATIENCE_S = 50.0
"""A daemon on a busy computer may take long to start or to end; a test takes 120 s at most."""


def picture(percent: float, seed: int = 0) -> NDArray[int16]:
    """Counts with noise, of which a dark rectangle covers the given share."""
    generator = np.random.default_rng(seed)
    rows, columns = SHAPE
    # A specimen has some structure; nothing but noise counts as a beam without specimen.
    electrons = 200.0 * (1.0 + 0.05 * np.sin(np.arange(columns) / 9.0)) * np.ones(SHAPE)
    if percent > 0:
        height = int(rows * 0.8)
        width = round(rows * columns * percent / 100.0 / height)
        electrons[10 : 10 + height, 10 : 10 + width] *= 0.4
    counts: NDArray[int16] = generator.poisson(electrons).astype(int16)
    return counts


class Microscope:
    """Writes tilt series into one directory as SerialEM does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stacks: dict[str, SerialEMStackWriter] = {}
        self._clock = datetime.datetime(2026, 1, 1, 10, 0, 0)

    def add(self, series: str, angle_deg: float, image: NDArray[Any], **extra: Any) -> None:
        """Add one tilt to a series such as `session/L1`."""
        path = self.directory / f"{series}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        if series not in self._stacks:
            self._stacks[series] = SerialEMStackWriter(path, SHAPE, PIXEL_SIZE_ANGSTROM, **extra)
        self._clock += datetime.timedelta(seconds=26)
        self._stacks[series].add(image, angle_deg, self._clock)

    def digest(self) -> str:
        """What would change if anybody but the microscope wrote here (access times left out)."""
        digest = hashlib.sha256()
        for path in sorted(self.directory.rglob("*")):
            stat = path.stat()
            facts = (path.name, stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns)
            digest.update(repr(facts).encode())
        return digest.hexdigest()


class Daemon:
    """`icewatch run` on a configuration of its own."""

    def __init__(self, folder: Path, *, bundle: Path | None = None, more: str = "") -> None:
        self.folder = folder
        self.acquisition = folder / "data"
        self.state = folder / "state"
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        self.web_address = f"127.0.0.1:{free_port()}"
        bundle = bundle or tiny_bundle.write(folder / "bundle")
        self.config = folder / "icewatch.toml"
        self.config.write_text(
            f"""microscope = "test"
[acquisition]
directory = "{self.acquisition}"
poll_interval_s = 0.2
[model]
bundle = "{bundle}"
[publish]
zmq_endpoint = "{self.endpoint}"
metrics_address = "{self.metrics_address}"
web_address = "{self.web_address}"
[state]
directory = "{self.state}"
{more}"""
        )
        self.process: subprocess.Popen[str] | None = None

    def start(self, *under: str) -> Daemon:
        """Start the process, under another program; it may still load when this returns."""
        words = [sys.executable, "-m", "monitor", "run", "--config", str(self.config)]
        command = [*under, *words]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        return self

    def signal(self, number: int) -> tuple[int, str]:
        """Send a signal; returns the exit status and standard error."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
        """Wait for the end; returns the exit status and standard error."""
        assert self.process is not None
        try:
            _, complaint = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # it then says what each of its threads does
            _, complaint = self.process.communicate(timeout=timeout_s)
            raise AssertionError(
                f"waited {timeout_s:g} s in vain for the end:\n{complaint}"
            ) from None
        status = self.process.returncode
        self.process = None
        return status, complaint

    def close(self) -> None:
        """Kill it, for `closing`."""
        self.stop()

    def stop(self) -> None:
        """End the process if it still runs, and close its pipes."""
        if self.process is not None:
            self.signal(signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        """What `/status` says; {} while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://{self.web_address}/status", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (OSError, HTTPException):  # it may die while it answers
            return {}

    def wait_for_state(self, state: str) -> dict[str, Any]:
        """Wait until the daemon says that it is in a state."""
        return wait_until(
            lambda: found if (found := self.status()).get("state") == state else None,
            f"state {state}",
            PATIENCE_S,
        )

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text


class Subscriber:
    """An independent subscriber: plain ZeroMQ and JSON, nothing of icewatch."""

    def __init__(self, endpoint: str) -> None:
        self.received: list[tuple[str, bytes]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(endpoint,), daemon=True)
        self._thread.start()

    def _listen(self, endpoint: str) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.connect(endpoint)
            while not self._stop.is_set():
                if socket.poll(50):
                    topic, body = socket.recv_multipart()
                    self.received.append((topic.decode(), body))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def bodies(self, topic: str) -> list[bytes]:
        """Everything received on a topic, repetitions included."""
        return [body for found, body in list(self.received) if found == topic]

    def messages(self, topic: str) -> list[dict[str, Any]]:
        """What was received on a topic, each seq once."""
        parsed = [json.loads(body) for body in self.bodies(topic)]
        if topic == "status":
            return parsed
        return list({message["seq"]: message for message in parsed}.values())

    def wait_for(self, topic: str, count: int, timeout_s: float = 30.0) -> list[dict[str, Any]]:
        """Wait for a number of messages on a topic."""
        return wait_until(
            lambda: found if len(found := self.messages(topic)) >= count else None,
            f"{count} messages on '{topic}'",
            timeout_s,
        )
