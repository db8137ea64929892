"""The real daemon as a process of its own, watched from outside."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import zmq

from tests.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 60.0
PUBLISHED_WITHIN_S = 30.0
_QUIET_S = 0.08
_QUIET_WITHIN_S = 3.0
_CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Daemon:
    """`icewatch run` on a directory, and a subscriber to its tilts; a context manager."""

    def __init__(self, acquisition: Path, state: Path) -> None:
        """Start it and wait until it says that it is ready."""
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        state.mkdir()
        config = state / "bench.toml"
        config.write_text(
            f'[acquisition]\ndirectory = "{acquisition}"\n'
            f'[state]\ndirectory = "{state}"\n'
            f'[publish]\nzmq_endpoint = "{endpoint}"\n'
            f'metrics_address = "{self.metrics_address}"\n'
            f'web_address = "127.0.0.1:{free_port()}"\n'
        )
        self._context = zmq.Context()
        self._tilts = self._context.socket(zmq.SUB)
        self._tilts.setsockopt(zmq.SUBSCRIBE, b"tilt")
        self._tilts.connect(endpoint)
        self._log = (state / "log").open("wb")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(state / "notify"))
            ready.settimeout(0.5)
            start = time.perf_counter()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "monitor", "run", "--config", str(config)],
                cwd=REPOSITORY,
                env={**os.environ, "NOTIFY_SOCKET": str(state / "notify")},
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
            )
            self._await_ready(ready, state / "log")
            self.start_up_s = time.perf_counter() - start

    def _await_ready(self, ready: socket.socket, log: Path) -> None:
        deadline = time.perf_counter() + READY_WITHIN_S
        while time.perf_counter() < deadline and self._process.poll() is None:
            try:
                if b"READY=1" in ready.recv(4096).splitlines():
                    return
            except TimeoutError:
                continue
        self._process.kill()
        raise RuntimeError(f"the daemon did not become ready: {log.read_text()[-2000:]}")

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._tilts.close(0)
        self._context.term()
        self._log.close()
        if status and error is None:
            raise RuntimeError(f"the daemon ended with status {status}")

    def await_tilt(self) -> float:
        """Wait for the next tilt message; returns when it came (`time.perf_counter`)."""
        if not self._tilts.poll(int(PUBLISHED_WITHIN_S * 1000)):
            raise RuntimeError(f"no tilt was published within {PUBLISHED_WITHIN_S:g} s")
        came = time.perf_counter()
        self._tilts.recv_multipart()
        return came

    def take_tilt(self, within_s: float) -> bytes | None:
        """Give the next tilt message; None where none comes within the time."""
        if not self._tilts.poll(int(within_s * 1000)):
            return None
        return bytes(self._tilts.recv_multipart()[1])

    def await_quiet(self) -> None:
        """Wait until the daemon computes no more, so that what is measured next runs alone."""
        deadline = time.perf_counter() + _QUIET_WITHIN_S
        before = -1.0
        while (now := self.cpu_s()) != before and time.perf_counter() < deadline:
            before = now
            time.sleep(_QUIET_S)

    def cpu_s(self) -> float:
        """CPU time since its start, all threads, in steps of the kernel's clock tick."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / _CLOCK_TICKS_PER_S

    def held(self) -> tuple[int, int, int]:
        """Resident set in bytes, open files, threads."""
        process = Path(f"/proc/{self._process.pid}")
        lines = (process / "status").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        resident = int(facts["VmRSS"].split()[0]) * 1024
        return resident, len(list((process / "fd").iterdir())), int(facts["Threads"])

    def peak_memory_bytes(self) -> int:
        """Largest resident set so far."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
