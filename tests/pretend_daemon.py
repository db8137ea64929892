"""The daemon's own parts, driven step by step in one thread, with clocks that only tests move.

What is real: intake, sources, pipeline, journal. What is not: the engine (it tells the code that
the pixels show), the sinks (a list), time. A daemon can be killed at every file that it opens and
around every commit; whatever else is to happen at such a moment can happen there too.
"""

from __future__ import annotations

import os
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.icemap import Flag, IceMap
from engines.segmenter import Neighbours
from monitor.intake import Intake
from monitor.journal import Committed, Draft, Journal
from monitor.messages import parse
from monitor.model import Decision, IceReading, LamellaHistory, Reason, Tilt, Verdict
from monitor.pipeline import Pipeline
from monitor.problems import Problems
from monitor.sessions import LooseSessions
from monitor.set_aside import SetAside
from monitor.sinks.metrics import Metrics
from monitor.sinks.protocol import Outgoing
from monitor.sources import all_sources
from tests.pretend_session import Clocks

CODES_PER_PERCENT = 64.0
_NOTHING = np.zeros((1, 1), np.float32)
_NOWHERE = np.zeros((1, 1), np.bool_)


class Killed(BaseException):
    """The daemon's process ends here."""


class Moments:
    """Calls something at the n-th moment of a kind: a file opened, a folder listed, a commit."""

    def __init__(self) -> None:
        self.armed: list[tuple[str, int, Callable[[], None]]] = []
        self._busy = False

    def arm(self, kind: str, count: int, action: Callable[[], None]) -> None:
        """Have something happen at the n-th moment of a kind from now on."""
        self.armed.append((kind, count, action))

    def pass_by(self, kind: str) -> None:
        """Let happen what is due now."""
        if self._busy or not self.armed:
            return
        due = []
        left = []
        for wanted, count, action in self.armed:
            if wanted not in (kind, "any"):
                left.append((wanted, count, action))
            elif count > 1:
                left.append((wanted, count - 1, action))
            else:
                due.append(action)
        self.armed = left
        self._busy = True
        try:
            for action in due:
                action()
        finally:
            self._busy = False


class _Audit:
    """Tells one listener of every file below one folder that this process opens."""

    listener: Callable[[str, str, int], None] | None = None
    installed = False

    @classmethod
    def listen(cls, listener: Callable[[str, str, int], None] | None) -> None:
        cls.listener = listener
        if not cls.installed:
            cls.installed = True
            sys.addaudithook(cls._heard)

    @classmethod
    def _heard(cls, event: str, arguments: tuple[Any, ...]) -> None:
        listener = cls.listener
        if listener is None:
            return
        if event == "open":
            listener(event, str(arguments[0]), arguments[2] or 0)
        elif event == "os.scandir":
            listener(event, str(arguments[0]), 0)


class CodeReader:
    """Stands for the engine: its percentage is the code that all pixels show."""

    bundle_name, bundle_version, backend_name = "codes", "1", "test"

    def __init__(self, moments: Moments) -> None:
        self._moments = moments

    def read(
        self,
        image: NDArray[Any],
        pixel_size_angstrom: float | None,
        neighbours: Neighbours | None = None,
        known_flags: tuple[Flag, ...] = (),
    ) -> IceMap:
        low, high = int(image.min()), int(image.max())
        percent = low / CODES_PER_PERCENT if low == high else 100.0
        self._moments.pass_by("inference")
        return IceMap(_NOTHING, _NOWHERE, _NOWHERE, _NOTHING, None, percent, percent, percent)


class KeepAll:
    """The shortest policy."""

    def decide(self, history: LamellaHistory) -> Verdict:
        seen = len(history.readings)
        return Verdict(
            Decision.KEEP, Reason.ICE_BELOW_LIMIT, "", None, None, None, None, seen, None
        )


class Counts(Metrics):
    """Counts only what must never happen."""

    def __init__(self) -> None:
        self.unexpected = 0

    def time_stage(self, stage: str, seconds: float) -> None:
        pass

    def count_refused(self, reason: str) -> None:
        self.unexpected += reason == "unexpected"

    def count_error(self, stage: str) -> None:
        self.unexpected += 1


class MortalJournal(Journal):
    """The journal, with moments to die around each commit."""

    moments: Moments

    def add(
        self,
        tilt: Tilt,
        reading: IceReading,
        decision: Decision,
        draft: Callable[[int], Sequence[Draft]],
    ) -> list[Committed]:
        def drafted(first: int) -> Sequence[Draft]:
            messages = draft(first)
            self.moments.pass_by("draft")
            return messages

        self.moments.pass_by("pixels")
        committed = super().add(tilt, reading, decision, drafted)
        self.moments.pass_by("committed")
        return committed


class Daemon:
    """One life of the daemon, from its start to its death."""

    def __init__(
        self,
        directory: Path,
        state: Path,
        clocks: Clocks,
        moments: Moments,
        sent: Callable[[Outgoing], None],
    ) -> None:
        self._clocks, self._moments, self._sent = clocks, moments, sent
        self._directory = str(directory)
        self.waiting: deque[Outgoing] = deque()
        self.is_scanning = False
        self.slowest_scan_s = 0.0
        self.metrics = Counts()
        self.problems = Problems()
        self.journal = MortalJournal(state, "scope", clocks.monotonic)
        self.journal.moments = moments
        try:
            source = all_sources(directory)
            self.intake = Intake(
                directory,
                source,
                watch="poll",
                clock=clocks.monotonic,
                on_gone=self.problems.solved,
            )
            self.waiting.extend(_again(one) for one in self.journal.unsure_whether_sent())
            self.journal.mark_started()
            boot_id = uuid.uuid4().hex
            self.set_aside = SetAside(state, self.journal, boot_id, clocks.monotonic)
            self.pipeline = Pipeline(
                source,
                CodeReader(moments),
                KeepAll(),
                self.journal,
                self,
                self.metrics,
                self.problems,
                LooseSessions(self.journal, 6.0),
                threading.Event(),
                microscope="scope",
                boot_id=boot_id,
                set_aside=self.set_aside,
                make_way=self.intake.make_way,
                waiting=lambda: self.intake.waiting,
                clock=clocks.monotonic,
            )
        except BaseException:
            self.journal.close(cleanly=False)
            raise

    def put(self, messages: Sequence[Outgoing]) -> None:
        """Take over what was committed (the pipeline's outbox)."""
        self._moments.pass_by("put")
        self.waiting.extend(messages)

    def scan(self) -> None:
        """One turn of the intake thread."""
        started_s = self._clocks.now_s
        self.is_scanning = True
        self._watched(self.intake.step)
        self.is_scanning = False
        self.slowest_scan_s = max(self.slowest_scan_s, self._clocks.now_s - started_s)

    def hint(self, relative: str, closed: bool) -> None:
        self.intake._hint(relative, closed)

    def work(self, turns: int = 1_000) -> bool:
        """Some turns of the worker; True if nothing is left to do."""
        for _ in range(turns):
            if not self._watched(self._turn):
                return True
        return False

    def _turn(self) -> bool:
        offer = self.intake.next(0.0)
        if offer is None:
            return False
        if self.pipeline.process(offer.landed):
            self.intake.done(offer.landed)
        else:
            self.intake.retry(offer.landed)
        return True

    def beat(self) -> None:
        """One turn of the publisher, with what it does every second."""
        self.journal.mark_alive()
        for relative in self.set_aside.take_requests():
            self.intake.again(relative)
        while self.waiting:
            self._sent(self.waiting.popleft())

    def die(self) -> None:
        """End without a word; what was committed but not sent stays so."""
        self.set_aside.close(orderly=False)
        self.journal.close(cleanly=False)

    def stop(self) -> None:
        """End in order."""
        self.beat()
        self.set_aside.close(orderly=True)
        self.journal.close(cleanly=True)

    def _watched(self, call: Callable[[], Any]) -> Any:
        _Audit.listen(self._opened)
        try:
            return call()
        finally:
            _Audit.listen(None)

    def _opened(self, event: str, path: str, flags: int) -> None:
        if path.startswith(self._directory):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.metrics.unexpected += 1
            self._moments.pass_by("open" if event == "open" else "list")


def _again(one: Committed) -> Outgoing:
    return Outgoing(one.seq, one.topic, one.body, parse(one.topic, one.body), resent=True)
