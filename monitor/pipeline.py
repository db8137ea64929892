"""THE data path: a landed file becomes tilts, readings, verdicts, and committed messages.

This is the only place that times, counts and catches.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engines.errors import BackendError, EngineError, PixelsError
from engines.icemap import IceMap
from monitor.admission import Admission
from monitor.errors import JournalError, MonitorError, NotReady, Unreadable
from monitor.journal import Draft, Journal
from monitor.messages import Stamp, lamella_message, parse, tilt_message, utc_now
from monitor.model import IceReading, Landed, Tilt
from monitor.pace import Pace, idle_io
from monitor.pipeline_ports import Outbox, TiltReader
from monitor.policies import Policy
from monitor.problems import Problems
from monitor.readings import (
    missing_of,
    occupancy_of,
    overlay_name,
    reading_of,
    with_reading,
)
from monitor.recent_series import RecentSeries
from monitor.sessions import LooseSessions
from monitor.set_aside import SetAside
from monitor.sinks.metrics import Metrics
from monitor.sinks.protocol import Outgoing
from monitor.sources.protocol import Source

logger = logging.getLogger(__name__)


class Pipeline:
    """Turns each new tilt of a landed file into a reading and a verdict; one thread calls it."""

    def __init__(
        self,
        source: Source,
        segmenter: TiltReader,
        policy: Policy,
        journal: Journal,
        outbox: Outbox,
        metrics: Metrics,
        problems: Problems,
        sessions: LooseSessions,
        stop: threading.Event,
        *,
        microscope: str,
        boot_id: str,
        set_aside: SetAside | None = None,
        make_way: Callable[[Landed], bool] = lambda landed: False,
        waiting: Callable[[], int] = lambda: 0,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take all that a tilt passes on its way.

        `make_way` says whether work on a file is to pause for others, `waiting` how many files
        wait; `pace` is what the source asks before it reads.
        """
        self._source = source
        self._segmenter = segmenter
        self._policy = policy
        self._journal = journal
        self._outbox = outbox
        self._metrics = metrics
        self._problems = problems
        self._sessions = sessions
        self._stop = stop
        self._microscope = microscope
        self._boot_id = boot_id
        self._set_aside = set_aside
        self._make_way = make_way
        self._pace = pace
        self._clock = clock
        self._admission = Admission(journal, set_aside, waiting)
        self._recent = RecentSeries()
        self._reading_since_s: float | None = None
        self.inference_since_s: float | None = None
        """Monotonic start of the engine call that runs now; a hung engine is seen by its age."""

    @property
    def reading_since_s(self) -> float | None:
        """Since when (monotonic) the file system owes the worker an answer; None if it owes none.

        While reading is only held back, it owes none.
        """
        since_s, pace = self._reading_since_s, self._pace
        if since_s is None or pace is None:
            return since_s
        return None if pace.asked_s == float("inf") else max(since_s, pace.asked_s)

    def process(self, landed: Landed) -> bool:
        """Read every new complete tilt of a file; False where it is to be looked at again.

        Ends early, between two tilts, when the daemon is told to stop or other files come first.
        Raises `BackendError` where the engine can no longer be trusted: the process must end
        before it publishes another number.
        """
        try:
            is_done, all_read = self._read_new(landed)
        except NotReady as error:
            self._problems.unread(landed, error)
            if self._problems.waiting(landed, error):
                self._metrics.count_refused(error.reason)
            return False
        except Unreadable as error:
            self._refuse(landed, str(error), error.reason)
        except JournalError as error:
            self._problems.journal_failed(str(error))
            self._metrics.count_error(error.stage)
            return False
        except (MonitorError, EngineError) as error:
            if isinstance(error, BackendError):
                raise
            self._refuse(landed, str(error), "error")
        except Exception as error:
            logger.exception("unexpected error at %r", landed.relative)
            self._refuse(landed, f"{type(error).__name__}: {error}", "unexpected")
        else:
            self._problems.was_read(landed.relative)
            if all_read and is_done:
                self._problems.solved(landed.relative)
            return is_done
        return True

    def _read_new(self, landed: Landed) -> tuple[bool, bool]:
        """Read the new tilts of a file: whether none is left for later, and all had pixels."""
        began, all_read, later = False, True, False
        try:
            for tilt in self._new_tilts(landed):
                if self._stop.is_set() or (began and self._make_way(landed)):
                    return False, all_read
                placed = self._sessions.place(tilt)
                admitted = self._admission.of(placed, landed)
                later |= admitted == "later"
                if admitted == "now":
                    began = True
                    all_read &= self._read(placed, landed)
        except (Unreadable, NotReady) as error:
            # What is wrong with the rest of a file must not hide a suspect that waits in it.
            self._admission.listed(landed, only_later=later and not began)
            if later:
                raise NotReady(str(error), error.reason) from error
            raise
        self._admission.listed(landed, only_later=later and not began)
        return not later, all_read

    def _new_tilts(self, landed: Landed) -> Iterator[Tilt]:
        tilts = self._source.new_tilts(landed, self._journal.knows)
        while True:
            with self._asking():
                tilt = next(tilts, None)
            if tilt is None:
                return
            yield tilt

    def _refuse(self, landed: Landed, sentence: str, reason: str) -> None:
        if self._problems.refused(landed, sentence):
            self._metrics.count_refused(reason)

    def _read(self, tilt: Tilt, landed: Landed) -> bool:
        """Read, judge and commit one tilt; False where its pixels could not be had."""
        if self._set_aside is None:
            return self._read_and_commit(tilt, landed)
        self._set_aside.begin(tilt)
        try:
            was_read = self._read_and_commit(tilt, landed)
        except BackendError:
            raise  # the process ends, and this tilt may be why
        except Exception:
            self._set_aside.over()
            raise
        self._set_aside.over()
        self._set_aside.survived(tilt)
        return was_read

    def _read_and_commit(self, tilt: Tilt, landed: Landed) -> bool:
        icemap: IceMap | None = None
        series = self._recent.at(tilt)
        try:
            with self._timed("read"), self._asking(), idle_io():
                image = self._source.pixels(tilt)
            self._problems.was_read(landed.relative)
            with self._timed("infer"), self._engine_call():
                icemap = self._segmenter.read(
                    image, tilt.pixel_size_angstrom, series, missing_of(tilt)
                )
        except (Unreadable, PixelsError) as error:
            # The exposure is complete but its pixels cannot be had: that is published, as null.
            self._refuse(landed, str(error), error.reason)
        reading = reading_of(icemap, self._model, tilt.flags, series.occupancy_percent)
        with self._timed("decide"):
            self._commit(tilt, reading, icemap, landed)
        return icemap is not None

    def _commit(
        self, tilt: Tilt, reading: IceReading, icemap: IceMap | None, landed: Landed
    ) -> None:
        before = self._journal.history(tilt.lamella, tilt.session)
        history = with_reading(before, tilt, reading)
        verdict = self._policy.decide(history)

        def draft(first_seq: int) -> list[Draft]:
            time_utc = utc_now()
            stamps = [
                Stamp(seq=seq, boot_id=self._boot_id, time=time_utc, microscope=self._microscope)
                for seq in (first_seq, first_seq + 1)
            ]
            latency_s = max(0.0, self._clock() - landed.changed_s)
            messages = (
                tilt_message(stamps[0], tilt, reading, latency_s),
                lamella_message(stamps[1], tilt, verdict, occupancy_of(history)),
            )
            return [(message.topic, message.body()) for message in messages]

        committed = self._journal.add(tilt, reading, verdict.decision, draft)
        self._problems.journal_works()
        self._outbox.put(
            [
                Outgoing(
                    seq=one.seq,
                    topic=one.topic,
                    body=one.body,
                    message=parse(one.topic, one.body),
                    icemap=icemap if one.topic == "tilt" else None,
                    overlay_name=overlay_name(tilt),
                    landed_s=landed.changed_s if one.topic == "tilt" else None,
                )
                for one in committed
            ]
        )

    @property
    def _model(self) -> tuple[str, str, str]:
        engine = self._segmenter
        return engine.bundle_name, engine.bundle_version, engine.backend_name

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._metrics.time_stage(stage, time.perf_counter() - start)

    @contextmanager
    def _engine_call(self) -> Iterator[None]:
        self.inference_since_s = time.monotonic()
        try:
            yield
        finally:
            self.inference_since_s = None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._reading_since_s = time.monotonic()
        try:
            yield
        finally:
            self._reading_since_s = None
