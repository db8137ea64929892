"""A candidate that reads the tilts which the active bundle has published, and is never published.

It runs in a process of its own, at the lowest priority. One tilt at a time is offered to it, after
its messages went out and only when no file waits; all others it misses. What crashes or hangs there
is ended, and stays off until somebody asks again.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.icemap import Flag, IceMap
from engines.segmenter import Neighbours
from monitor.journal_records import reading_from
from monitor.messages import TiltMessage
from monitor.model import IceReading
from monitor.pipeline_ports import Outbox, TiltReader
from monitor.shadow_journal import Pair, keep
from monitor.shadow_reader import READY
from monitor.sinks.protocol import Outgoing

logger = logging.getLogger(__name__)

LOAD_MAX_S = 120.0
READ_MAX_S = 60.0
"""At the lowest priority a reading may wait for the processor; after this it hangs."""
_MAX_TEXT = 300


@dataclass(frozen=True, slots=True)
class Job:
    """A tilt that was published, and what it was read from."""

    image: NDArray[Any]
    pixel_size_angstrom: float | None
    flags: tuple[Flag, ...]
    message: TiltMessage

    def head(self) -> bytes:
        """Describe it in one line; the pixels follow."""
        tilt = self.message.tilt
        words = {
            "bytes": self.image.nbytes,
            "dtype": self.image.dtype.str,
            "shape": self.image.shape,
            "pixel_size_angstrom": self.pixel_size_angstrom,
            "flags": [str(flag) for flag in self.flags],
            "series": f"{tilt.lamella}/{tilt.series}",
            "angle_deg": tilt.angle_deg,
            "id": tilt.id,
        }
        return json.dumps(words).encode() + b"\n"


class ShadowFailedError(Exception):
    """Raised where a candidate died, hangs, or cannot be kept; the text says why."""


class Shadow:
    """One candidate at most; `offer` is for the worker, which never waits for it."""

    def __init__(self, store: Path) -> None:
        """Take the store, in which its readings are kept."""
        self._store = store
        self._candidate = ""
        self._run: _Run | None = None

    @property
    def is_on(self) -> bool:
        """Whether a candidate takes tilts."""
        return self._run is not None and not self._run.failed

    @property
    def failed(self) -> str:
        """Why the candidate was switched off; empty where it was not."""
        return self._run.failed if self._run else ""

    def begin(self, ref: str, directory: Path) -> None:
        """Let a candidate read beside the active bundle from now on."""
        self.end()
        self._run = _Run(ref, directory, self._store)

    def end(self) -> None:
        """Send the candidate away; what it reads now is not kept."""
        if self._run is not None:
            self._run.end()
        self._run = None

    def offer(self, job: Job) -> None:
        """Let the candidate read a tilt if it has nothing else to do; never waits."""
        if self._run is not None:
            self._run.offer(job)

    def missed(self) -> None:
        """Count a tilt that came while others waited."""
        if self._run is not None:
            self._run.missed += 1

    def told(self) -> dict[str, Any]:
        """Say what it did since it began."""
        run = self._run
        return {
            "loaded": run is not None and run.is_loaded,
            "tilts": run.tilts if run else 0,
            "missed": run.missed if run else 0,
        }


class _Run:
    """One candidate from its beginning to its end, in a thread and a process of its own."""

    def __init__(self, ref: str, directory: Path, store: Path) -> None:
        self.failed = ""
        self.is_loaded = False
        self.tilts = 0
        self.missed = 0
        self._ref, self._directory, self._store = ref, directory, store
        self._job: Job | None = None
        self._is_busy = True
        """Until it has loaded, and while it reads."""
        self._is_over = False
        self._woken = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._work, name="shadow", daemon=True).start()

    def offer(self, job: Job) -> None:
        with self._woken:
            if self._is_busy or self._job is not None:
                self.missed += 1
                return
            self._job = job
            self._woken.notify()

    def end(self) -> None:
        with self._woken:
            self._is_over = True
            self._woken.notify()
            if self._process is not None:
                self._process.kill()

    def _work(self) -> None:
        complaint = tempfile.TemporaryFile()
        try:
            self._start(complaint)
            while (job := self._next()) is not None:
                self._read(job)
        except (
            ShadowFailedError,
            OSError,
            sqlite3.Error,
            ValueError,
            TypeError,
            KeyError,
        ) as error:
            if not self._is_over:
                self.failed = _why(error, complaint)
                logger.error("the shadow %s is off: %s", self._ref, self.failed)
        finally:
            self._close()
            complaint.close()

    def _start(self, complaint: Any) -> None:
        words = ["-P", "-m", "monitor.shadow_reader", str(self._directory)]
        process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaint,
        )
        with self._woken:
            self._process = process
            if self._is_over:
                process.kill()
        if self._exchange(b"", None, LOAD_MAX_S) != READY:
            raise ShadowFailedError("it could not be loaded")
        self.is_loaded = True
        logger.info("%s reads as a shadow from now on", self._ref)

    def _next(self) -> Job | None:
        with self._woken:
            self._is_busy = False
            self._woken.wait_for(lambda: self._job is not None or self._is_over)
            job, self._job = self._job, None
            self._is_busy = True
            return None if self._is_over else job

    def _read(self, job: Job) -> None:
        pixels = np.ascontiguousarray(job.image).reshape(-1).view(np.uint8).data
        answer = self._exchange(job.head(), pixels, READ_MAX_S)
        shadow = reading_from(answer.decode())
        tilt = job.message.tilt
        pair = Pair(tilt.id, tilt.session, tilt.lamella, published(job.message), shadow)
        keep(self._store, self._ref, pair)
        self.tilts += 1

    def _exchange(self, head: bytes, pixels: memoryview | None, limit_s: float) -> bytes:
        """Ask, and wait for the line of the answer; what takes too long is ended."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(head)
            if pixels is not None:
                process.stdin.write(pixels)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            timer.cancel()
        if late.is_set():
            raise ShadowFailedError(f"it did not answer for {limit_s:g} s")
        if not answer.endswith(b"\n"):
            raise ShadowFailedError(f"it died (status {process.wait()})")
        return answer

    def _close(self) -> None:
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not written any more
                    continue


def _why(error: Exception, complaint: Any) -> str:
    complaint.seek(0)
    said = complaint.read().decode(errors="replace").strip().rpartition("\n")[2][:_MAX_TEXT]
    if isinstance(error, sqlite3.Error):
        return f"its readings cannot be kept ({error})"
    return said.rstrip(".") if said and "died" in str(error) else str(error)


class ShadowTap:
    """Stands on both sides of a pipeline: sees what is read, and when its messages went out.

    Implements `TiltReader` and `Outbox` of `monitor.pipeline_ports`.
    """

    def __init__(
        self, engine: TiltReader, outbox: Outbox, shadow: Shadow, waiting: Callable[[], int]
    ) -> None:
        """Take what reads, what sends, the shadow, and what tells how many files wait."""
        self._engine = engine
        self._outbox = outbox
        self._shadow = shadow
        self._waiting = waiting
        self._read: tuple[NDArray[Any], float | None, tuple[Flag, ...]] | None = None

    @property
    def bundle_name(self) -> str:
        return self._engine.bundle_name

    @property
    def bundle_version(self) -> str:
        return self._engine.bundle_version

    @property
    def backend_name(self) -> str:
        return self._engine.backend_name

    def read(
        self,
        image: NDArray[Any],
        pixel_size_angstrom: float | None,
        neighbours: Neighbours | None = None,
        known_flags: tuple[Flag, ...] = (),
    ) -> IceMap:
        """Let the active bundle read, and keep the pixels until its messages went out."""
        self._read = None
        found = self._engine.read(image, pixel_size_angstrom, neighbours, known_flags)
        if self._shadow.is_on:
            self._read = (image, pixel_size_angstrom, known_flags)
        return found

    def put(self, messages: Sequence[Outgoing]) -> None:
        """Send, then offer what was sent to the shadow."""
        self._outbox.put(messages)
        read, self._read = self._read, None
        message = messages[0].message if messages else None
        if read is None or not isinstance(message, TiltMessage):
            return
        if self._waiting():
            self._shadow.missed()
        else:
            self._shadow.offer(Job(*read, message))


def published(message: TiltMessage) -> IceReading:
    """Take from a message what the policy weighs."""
    ice, quality, model = message.ice, message.quality, message.model
    return IceReading(
        ice.percent,
        ice.percent_low,
        ice.percent_high,
        dict(ice.phases),
        ice.valid_area_percent,
        quality.flags,
        quality.in_domain,
        model.name,
        model.version,
        model.backend,
        quality.used_neighbours,
    )
