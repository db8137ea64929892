"""THE data path: a landed file becomes tilts, readings, verdicts, and committed messages.

This is the only place that times, counts and catches.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, Protocol

from numpy.typing import NDArray

from engines.errors import BackendError, EngineError, PixelsError
from engines.icemap import IceMap
from monitor.errors import JournalError, MonitorError, NotReady, Unreadable
from monitor.journal import Draft, Journal
from monitor.messages import Stamp, encodable, lamella_message, parse, tilt_message, utc_now
from monitor.model import IceReading, LamellaHistory, Landed, Tilt
from monitor.policies import Policy
from monitor.problems import Problems
from monitor.sessions import LooseSessions
from monitor.sinks.metrics import Metrics
from monitor.sinks.protocol import Outgoing
from monitor.sources.protocol import Source

logger = logging.getLogger(__name__)

DECODING_FAILED = "decoding_failed"


class TiltReader(Protocol):
    """What the pipeline wants of `engines.segmenter.Segmenter`."""

    @property
    def bundle_name(self) -> str: ...

    @property
    def bundle_version(self) -> str: ...

    @property
    def backend_name(self) -> str: ...

    def read(self, image: NDArray[Any], pixel_size_angstrom: float | None) -> IceMap:
        """Measure the ice of one image; raises `EngineError`."""
        ...


class Outbox(Protocol):
    """Where committed messages go on."""

    def put(self, messages: Sequence[Outgoing]) -> None:
        """Take messages over; never blocks."""
        ...


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
    ) -> None:
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
        self.inference_since_s: float | None = None
        """Monotonic start of the engine call that runs now; a hung engine is seen by its age."""

    def process(self, landed: Landed) -> bool:
        """Read every new complete tilt of a file; False where it is to be looked at again.

        Ends early, between two tilts, when the daemon is told to stop. Raises `BackendError` where
        the engine can no longer be trusted: the process must end before it publishes another
        number.
        """
        try:
            all_read = True
            for tilt in self._source.new_tilts(landed, self._journal.knows):
                if self._stop.is_set():
                    return False
                all_read &= self._read(self._sessions.place(tilt), landed)
        except NotReady as error:
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
            if all_read:
                self._problems.solved(landed.relative)
        return True

    def _refuse(self, landed: Landed, sentence: str, reason: str) -> None:
        if self._problems.refused(landed, sentence):
            self._metrics.count_refused(reason)

    def _read(self, tilt: Tilt, landed: Landed) -> bool:
        """Read, judge and commit one tilt; False where its pixels could not be had."""
        icemap: IceMap | None = None
        try:
            with self._timed("read"):
                image = self._source.pixels(tilt)
            with self._timed("infer"), self._engine_call():
                icemap = self._segmenter.read(image, tilt.pixel_size_angstrom)
        except (Unreadable, PixelsError) as error:
            # The exposure is complete but its pixels cannot be had: that is published, as null.
            self._refuse(landed, str(error), error.reason)
        reading = self._reading(icemap, tilt)
        with self._timed("decide"):
            self._commit(tilt, reading, icemap, landed)
        return icemap is not None

    def _reading(self, icemap: IceMap | None, tilt: Tilt) -> IceReading:
        model = (
            self._segmenter.bundle_name,
            self._segmenter.bundle_version,
            self._segmenter.backend_name,
        )
        if icemap is None:
            return IceReading(
                None, None, None, {}, 0.0, (*tilt.flags, DECODING_FAILED), False, *model
            )
        return reading_of(icemap, model, tilt.flags)

    def _commit(
        self, tilt: Tilt, reading: IceReading, icemap: IceMap | None, landed: Landed
    ) -> None:
        history = self._journal.history(tilt.lamella, tilt.session)
        verdict = self._policy.decide(_with(history, tilt, reading))

        def draft(first_seq: int) -> list[Draft]:
            time_utc = utc_now()
            stamps = [
                Stamp(seq=seq, boot_id=self._boot_id, time=time_utc, microscope=self._microscope)
                for seq in (first_seq, first_seq + 1)
            ]
            latency_s = max(0.0, time.monotonic() - landed.changed_s)
            messages = (
                tilt_message(stamps[0], tilt, reading, latency_s),
                lamella_message(stamps[1], tilt, verdict),
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
        _log(tilt, reading, verdict.decision)

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


def reading_of(
    icemap: IceMap, model: tuple[str, str, str], source_flags: tuple[str, ...] = ()
) -> IceReading:
    """Keep of an ice map what is journalled and published (all but the arrays)."""
    return IceReading(
        icemap.percent,
        icemap.percent_low,
        icemap.percent_high,
        dict(icemap.phases),
        icemap.valid_area_percent,
        tuple(dict.fromkeys((*source_flags, *(str(flag) for flag in icemap.flags)))),
        icemap.in_domain,
        *model,
    )


def overlay_name(tilt: Tilt) -> PurePosixPath:
    """Name the overlay of a tilt: folder and stem of its file, then the section."""
    path = PurePosixPath(tilt.path)
    return path.with_name(f"{path.stem}_{tilt.section:04d}.overlay")


def _with(history: LamellaHistory, tilt: Tilt, reading: IceReading) -> LamellaHistory:
    return LamellaHistory(
        lamella=history.lamella,
        readings=(*history.readings, (tilt, reading)),
        previous=history.previous,
        tilts_expected=tilt.tilts_expected or history.tilts_expected,
    )


def _log(tilt: Tilt, reading: IceReading, decision: str) -> None:
    logger.info(
        "tilt series=%s angle_deg=%s ice_percent=%s flags=%s verdict=%s",
        ascii(encodable(tilt.series)),
        tilt.angle_deg,
        "none" if reading.percent is None else f"{reading.percent:.2f}",
        ",".join(reading.flags) or "-",
        decision,
    )
