"""Wiring only: settings become objects, objects become four threads, and an ordered stop."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from engines.errors import BackendError, BundleError
from monitor.errors import JournalError
from monitor.health import Health, judge, notify_systemd
from monitor.intake import Intake
from monitor.journal import Committed, Journal
from monitor.messages import LamellaMessage, StatusMessage, parse, utc_now
from monitor.network import load_segmenter
from monitor.pipeline import Pipeline
from monitor.problems import Problems
from monitor.publisher import Publisher
from monitor.sessions import LooseSessions
from monitor.settings import Settings
from monitor.sinks.metrics import Metrics, RecalledLamella
from monitor.sinks.overlays import Overlays
from monitor.sinks.protocol import Outgoing
from monitor.sinks.stream import Stream
from monitor.sinks.verdict_files import VerdictFiles
from monitor.sources import all_sources
from monitor.web.server import serve_metrics, serve_status

logger = logging.getLogger(__name__)

ENGINE_CALL_MAX_S = 10.0
"""An engine call that takes longer hangs: the process ends, and systemd starts it again."""
EXIT_FAILED = 1


class Daemon:
    """One microscope's daemon; `run` blocks until `stop` is set and says how it went."""

    def __init__(self, settings: Settings) -> None:
        """Open the journal and bind every port, so that what is taken is known at once.

        Raises `MonitorError` with one sentence.
        """
        self._settings = settings
        self._boot_id = uuid.uuid4().hex
        self._started_s = time.monotonic()
        self._version = version("icewatch")
        self._stop = threading.Event()
        self._failed = threading.Event()
        self._problems = Problems()
        self._pipeline: Pipeline | None = None
        self._backend_name = ""
        self._newest_seq = 0
        self._journal = Journal(settings.state.directory, settings.microscope)
        self._stream = Stream(settings.publish.zmq_endpoint, self._journal.messages_from)
        self._metrics = Metrics(
            settings.microscope,
            self._version,
            self._recall_with_tilts,
            self._journal.running_session(),
        )
        self._publisher = self._build_publisher()
        self._source = all_sources(settings.acquisition.directory)
        self._intake = Intake(
            settings.acquisition.directory,
            self._source,
            poll_interval_s=settings.acquisition.poll_interval_s,
            watch=settings.acquisition.watch,
            on_gone=self._problems.solved,
        )
        self._stop_metrics = serve_metrics(settings.publish.metrics_address, self._metrics.registry)
        self._web = serve_status(settings.publish.web_address, self.status)

    def _build_publisher(self) -> Publisher:
        settings, journal = self._settings, self._journal
        verdict_files = VerdictFiles(
            settings.verdict_directory,
            settings.microscope,
            settings.verdict.mode,
            self._recall,
            journal.running_session(),
        )
        overlays = Overlays(settings.state.directory / "overlays")
        publisher = Publisher(
            self._stream, self._metrics, [verdict_files, overlays], self._status_message
        )
        publisher.put([_again(one) for one in journal.unsure_whether_sent()])
        return publisher

    def _recall(self, session: str) -> list[LamellaMessage]:
        """Give the newest message of each lamella of a session."""
        found = (parse(one.topic, one.body) for one in self._journal.lamella_messages(session))
        return [message for message in found if isinstance(message, LamellaMessage)]

    def _recall_with_tilts(self, session: str) -> dict[str, RecalledLamella]:
        """Give what the metrics show of each lamella of a session."""
        found = {}
        for message in self._recall(session):
            readings = self._journal.history(message.lamella, session).readings
            percents = [one.percent for _, one in readings if one.percent is not None]
            newest = percents[-1] if percents else None
            found[message.lamella] = RecalledLamella(message, newest)
        return found

    def run(self) -> int:
        """Work until stopped; returns the exit status."""
        faulthandler.enable()
        self._journal.mark_started()
        intake = self._thread("intake", lambda: self._intake.run(self._stop))
        worker = self._thread("worker", self._work)
        drained = threading.Event()
        publisher = self._thread("publisher", lambda: self._publisher.run(drained))
        for thread in (publisher, worker, intake):
            thread.start()
        self._stop.wait()
        notify_systemd("STOPPING=1")
        intake.join(timeout=2.0)
        worker.join(timeout=2.0)
        drained.set()
        self._publisher.wake()
        publisher.join(timeout=2.0)
        alive = any(thread.is_alive() for thread in (publisher, worker, intake))
        self._close(cleanly=not (alive or self._failed.is_set()))
        return EXIT_FAILED if self._failed.is_set() else 0

    def stop(self) -> None:
        """Begin an ordered stop; may be called from a signal handler."""
        self._stop.set()

    def _close(self, *, cleanly: bool) -> None:
        self._web.shutdown()
        self._web.server_close()
        self._stop_metrics()
        self._stream.close()
        try:
            self._journal.close(cleanly=cleanly)
        except JournalError as error:
            logger.error("%s", error)

    def _thread(self, name: str, body: Callable[[], None]) -> threading.Thread:
        """A thread whose failure ends the process: half a daemon is worse than none."""

        def guarded() -> None:
            try:
                body()
            except BundleError as error:
                self._fail(f"model.bundle: {error}")
            except BackendError as error:
                self._fail(f"the engine cannot be trusted any more: {error}")
            except BaseException:
                logger.critical("thread %s died", name, exc_info=True)
                self._failed.set()
                self._stop.set()
                raise

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _fail(self, sentence: str) -> None:
        logger.critical("%s", sentence)
        self._failed.set()
        self._stop.set()

    def _work(self) -> None:
        """Read tilts as they land (the worker's body)."""
        segmenter = load_segmenter(self._settings.model.bundle, self._settings.model.backend)
        self._backend_name = segmenter.backend_name
        self._metrics.running(
            segmenter.bundle_name, segmenter.bundle_version, segmenter.backend_name
        )
        policy = self._settings.verdict.policy.build(self._settings.verdict.skip_above_ice_percent)
        self._pipeline = Pipeline(
            self._source,
            segmenter,
            policy,
            self._journal,
            self._publisher,
            self._metrics,
            self._problems,
            LooseSessions(self._journal, self._settings.acquisition.session_gap_h),
            self._stop,
            microscope=self._settings.microscope,
            boot_id=self._boot_id,
        )
        notify_systemd("READY=1")
        while not self._stop.is_set():
            notify_systemd("WATCHDOG=1")
            offer = self._intake.next(timeout_s=0.5)
            if offer is None:
                continue
            if self._pipeline.process(offer.landed):
                self._intake.done(offer.landed)
            else:
                self._intake.retry(offer.landed)

    def _health(self) -> Health:
        return judge(
            warm=self._pipeline is not None,
            intake=self._intake.status(),
            problems=self._problems,
            failing_sinks=self._publisher.failing,
        )

    def _status_message(self) -> StatusMessage:
        """Make the heartbeat (called by the publisher every second)."""
        last_seq = self._last_seq()
        self._journal.mark_alive()
        self._end_if_engine_hangs()
        health, intake = self._health(), self._intake.status()
        return StatusMessage(
            seq=last_seq,
            boot_id=self._boot_id,
            time=utc_now(),
            microscope=self._settings.microscope,
            state=health.state,
            reason=health.reason,
            backend=self._backend_name,
            last_seq=last_seq,
            backlog=intake.backlog,
            oldest_unprocessed_s=round(intake.oldest_unprocessed_s, 3),
            replay_endpoint=self._stream.replay_endpoint,
        )

    def _end_if_engine_hangs(self) -> None:
        since_s = self._pipeline.inference_since_s if self._pipeline else None
        if since_s is not None and time.monotonic() - since_s > ENGINE_CALL_MAX_S:
            logger.critical("an engine call hangs for over %g s: ending", ENGINE_CALL_MAX_S)
            os._exit(EXIT_FAILED)  # the worker cannot be stopped any other way

    def status(self) -> dict[str, Any]:
        """Tell everything that `icewatch status` shows (called by the HTTP thread)."""
        health, intake = self._health(), self._intake.status()
        return {
            "schema": "icewatch.daemon/1",
            "microscope": self._settings.microscope,
            "version": self._version,
            "state": health.state,
            "reason": health.reason,
            "backend": self._backend_name,
            "bundle": self._settings.model.bundle,
            "acquisition_directory": str(self._settings.acquisition.directory),
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "last_seq": self._last_seq(),
            "backlog": intake.backlog,
            "incomplete": intake.incomplete,
            "watching": intake.watching,
            "files_seen": intake.files_seen,
            "oldest_unprocessed_s": round(intake.oldest_unprocessed_s, 3),
            "zmq_endpoint": self._settings.publish.zmq_endpoint,
            "replay_endpoint": self._stream.replay_endpoint,
            "verdict_directory": str(self._settings.verdict_directory),
            "sinks_failing": self._publisher.failing,
            "problems": [asdict(problem) for problem in self._problems.open()],
            "lamellae": self._lamellae(),
        }

    def _last_seq(self) -> int:
        """Give the newest seq; the last one known while the journal cannot be read."""
        try:
            self._newest_seq = self._journal.last_seq()
        except JournalError as error:
            self._problems.journal_failed(str(error))
        return self._newest_seq

    def _lamellae(self) -> list[dict[str, Any]]:
        try:
            found = self._recall(self._journal.running_session())
        except JournalError:
            return []  # the state says why
        return [message.model_dump(mode="json", by_alias=True) for message in found]


def _again(one: Committed) -> Outgoing:
    return Outgoing(one.seq, one.topic, one.body, parse(one.topic, one.body), resent=True)


def run(settings: Settings) -> int:
    """Run the daemon in the foreground until SIGTERM or SIGINT; returns the exit status."""
    daemon = Daemon(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    return daemon.run()
