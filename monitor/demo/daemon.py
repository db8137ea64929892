"""The real daemon of the demo: its configuration, its process, and its restart after a death."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

RESTART_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Places:
    """Where the demo keeps what, and where its daemon answers."""

    root: Path
    zmq_endpoint: str
    metrics_address: str
    web_address: str

    @property
    def acquisition(self) -> Path:
        """What the pretend microscope writes and the daemon only reads."""
        return self.root / "microscope"

    @property
    def state(self) -> Path:
        """Where the daemon keeps journal, overlays and verdicts."""
        return self.root / "state"

    @property
    def config(self) -> Path:
        """The configuration, to look at or to run by hand."""
        return self.root / "icewatch.toml"

    @property
    def log(self) -> Path:
        """What the daemon logged."""
        return self.root / "icewatch.log"


def prepare_places(root: Path, skip_above_ice_percent: float) -> Places:
    """Make the directories and write the configuration, on ports that are free now."""
    ports = _free_ports(3)
    places = Places(
        root,
        f"tcp://127.0.0.1:{ports[0]}",
        f"127.0.0.1:{ports[1]}",
        f"127.0.0.1:{ports[2]}",
    )
    places.acquisition.mkdir(parents=True, exist_ok=True)
    places.config.write_text(
        f"""# Written by `icewatch demo`; `icewatch run --config` takes it too.
microscope = "demo"

[acquisition]
directory = "microscope"

[publish]
zmq_endpoint = "{places.zmq_endpoint}"
metrics_address = "{places.metrics_address}"
web_address = "{places.web_address}"

[verdict]
skip_above_ice_percent = {skip_above_ice_percent}

[state]
directory = "state"
""",
        "utf-8",
    )
    return places


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class WatchedDaemon:
    """`icewatch run` in a process of its own, started again when it dies, as systemd would."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_running, name="systemd", daemon=True)
        self.deaths: list[int] = []
        """Exit statuses of the boots that ended by themselves."""

    def start(self) -> None:
        """Start the daemon."""
        self._thread.start()

    def _keep_running(self) -> None:
        command = [sys.executable, "-m", "monitor", "run", "--config", str(self._places.config)]
        with self._places.log.open("ab") as log:
            while not self._stop.is_set():
                self._process = subprocess.Popen(command, stdout=log, stderr=log)
                status = self._process.wait()
                if not self._stop.is_set():
                    self.deaths.append(status)
                    self._stop.wait(RESTART_AFTER_S)

    def stop(self) -> int:
        """End the daemon in order; returns its exit status."""
        self._stop.set()
        process = self._process
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
