"""Wiring only: settings become objects, objects become four threads, and an ordered stop."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from engines.bundle_store import FOLDER
from engines.errors import BackendError, BundleError
from monitor.bundle_swap import BundleSwap
from monitor.engine import Engine
from monitor.engine_record import EngineRecord
from monitor.errors import ConfigError, JournalError
from monitor.gpu_facts import EngineMetrics, GpuCollector, GpuWatch
from monitor.health import notify_systemd
from monitor.intake import Intake
from monitor.journal import Committed, Journal
from monitor.journal_last_tilt import LastTilt
from monitor.journal_replay import KeptPast
from monitor.logs_sink import LogLines
from monitor.messages import StatusMessage, parse
from monitor.pace import Pace
from monitor.pipeline import Pipeline
from monitor.problems import Problems
from monitor.publisher import Publisher
from monitor.reload import HangUps, LiveSettings
from monitor.reporting import Identity, Reporter, recall, recall_with_tilts
from monitor.retention import Retention
from monitor.sessions import LooseSessions
from monitor.set_aside import SetAside
from monitor.settings import Settings
from monitor.shadow import Shadow, ShadowTap
from monitor.sinks.metrics import Metrics
from monitor.sinks.overlays import Overlays
from monitor.sinks.protocol import Outgoing, Sink
from monitor.sinks.stream import Stream
from monitor.sources import all_sources
from monitor.stop_bell import StopBell
from monitor.vitals import Passing, Patience, SeenByKernel, Vitals
from monitor.web.server import serve_metrics, serve_status

logger = logging.getLogger(__name__)

Recalled = TypeVar("Recalled")

GPU_LOOK_S = 10.0
STOP_MAX_S = 2.0
"""What is being read or measured at a stop is waited for so long."""
EXIT_FAILED = 1


class Daemon:
    """One microscope's daemon; `run` blocks until the bell is rung and says how it went."""

    def __init__(self, settings: Settings, bell: StopBell, config: Path | None = None) -> None:
        """Open the journal and bind every port, so that what is taken is known at once.

        `config` is the file that the settings came from, if they may change. Raises
        `MonitorError` with one sentence.
        """
        self._settings = settings
        self._config = config
        self._refusal = ""
        """What is wrong with the configuration after all, found while starting."""
        self._identity = Identity(version("icewatch"), uuid.uuid4().hex)
        self._bell = bell
        self._stop = threading.Event()
        self._failed = threading.Event()
        self._vitals = Vitals()
        self._problems = Problems()
        self._journal = Journal(settings.state.directory, settings.microscope)
        past = KeptPast(self._journal, lambda: self._reporter.heartbeat())
        self._stream = Stream(settings.publish, past)
        self._metrics = Metrics(
            settings.microscope,
            self._identity.version,
            partial(self._recalled, recall_with_tilts),
            self._journal.running_session(),
            settings.state.directory,
        )
        self._engine_record = EngineRecord(settings.state.directory)
        with self._damage_noticed(ValueError, TypeError, KeyError):
            self._set_aside = SetAside(
                settings.state.directory,
                self._journal,
                self._identity.boot_id,
                gpu_died=self._engine_record.died_in_call,
            )
        self._retention = Retention(
            self._journal, settings.state, self._metrics.removed, self._metrics.state_used
        )
        self._live = LiveSettings(
            settings,
            config,
            partial(self._recalled, recall),
            self._journal.running_session(),
            self._retention.change,
            self._metrics.reloaded,
        )
        self._last_tilt = LastTilt.recalled(self._journal)
        self._publisher = self._build_publisher()
        self._pace = Pace(settings.acquisition.read_rate_mb_per_s * 1e6, self._stop)
        self._source = all_sources(
            settings.acquisition.directory, settings.acquisition, pace=self._pace
        )
        self._intake = Intake(
            settings.acquisition.directory,
            self._source,
            poll_interval_s=settings.acquisition.poll_interval_s,
            watch=settings.acquisition.watch,
            on_gone=self._problems.solved,
        )
        self._stop_metrics = serve_metrics(settings.publish.metrics_address, self._metrics.registry)
        self._engine_metrics = EngineMetrics(settings.microscope, self._metrics.registry)
        self._reporter = Reporter(
            settings,
            self._identity,
            self._journal,
            self._intake,
            self._problems,
            self._set_aside,
            lambda: self._publisher.failing,
            lambda: self._stream.replay_endpoint,
        )
        self._shadow = Shadow(settings.state.directory / FOLDER)
        self._bundles = BundleSwap(settings, self._engine_of, self._shadow)
        self._web = serve_status(settings.publish.web_address, self._status)

    def _build_publisher(self) -> Publisher:
        overlays = Overlays(self._settings.state.directory / "overlays")
        sinks: list[Sink] = [self._last_tilt, LogLines(), self._live.verdict_files, overlays]
        publisher = Publisher(self._stream, self._metrics, sinks, self._heartbeat)
        again = [self._again(one) for one in self._journal.unsure_whether_sent()]
        publisher.put(again)
        return publisher

    @property
    def _is_up(self) -> bool:
        return self._reporter.pipeline is not None and not self._stop.is_set()

    def run(self) -> int:
        """Work until stopped; returns the exit status.

        Raises `ConfigError` where the network of the configuration turned out to be of no use.
        """
        faulthandler.enable()
        self._journal.mark_started()
        intake_stop = Passing(self._stop)
        intake = self._thread("intake", lambda: self._intake.run(intake_stop))
        worker = self._thread("worker", self._work)
        drained = threading.Event()
        publisher = self._thread("publisher", lambda: self._publisher.run(drained))
        for thread in (publisher, worker, intake):
            thread.start()
        self._vitals.watch("intake", SeenByKernel(intake), lambda: intake_stop.passes)
        self._thread("retention", lambda: self._retention.run(self._stop)).start()
        self._live.listen(lambda: self._is_up, self._bell.ring)
        self._bell.wait()
        self._stop.set()
        notify_systemd("STOPPING=1")
        until_s = time.monotonic() + STOP_MAX_S
        for thread in (intake, worker):  # both may wait for the same share
            thread.join(timeout=max(0.0, until_s - time.monotonic()))
        drained.set()
        self._publisher.wake()
        publisher.join(timeout=2.0)
        alive = any(thread.is_alive() for thread in (publisher, worker, intake))
        self._close(cleanly=not (alive or self._failed.is_set()))
        if self._refusal:
            raise ConfigError(self._refusal)
        return EXIT_FAILED if self._failed.is_set() else 0

    def _close(self, *, cleanly: bool) -> None:
        self._web.shutdown()
        self._web.server_close()
        self._stop_metrics()
        self._stream.close()
        self._set_aside.close(orderly=not self._failed.is_set())
        if not self._failed.is_set():
            self._bundles.leave()
        self._engine_record.close()
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
                where = f"{self._config}: " if self._config else ""
                self._refusal = f"{where}model.bundle: {error}"
                self._failed.set()
                self._bell.ring()
            except BackendError as error:
                self._fail(f"the engine cannot be trusted any more: {error}")
            except BaseException:
                logger.critical("thread %s died", name, exc_info=True)
                self._failed.set()
                self._bell.ring()
                raise

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _fail(self, sentence: str) -> None:
        logger.critical("%s", sentence)
        self._failed.set()
        self._bell.ring()

    def _work(self) -> None:
        """Read tilts as they land (the worker's body)."""
        self._reporter.engine = engine = self._bundles.begin()
        self._watch_gpu(engine)
        self._reporter.pipeline = pipeline = self._pipeline_of(engine)
        stop = Passing(self._stop)
        self._vitals.watch(
            "worker",
            SeenByKernel(threading.current_thread()),
            lambda: (stop.passes, pipeline.reading_since_s, pipeline.inference_since_s),
            lambda: self._patience(engine, pipeline),
        )
        notify_systemd("READY=1")
        while not stop.is_set():
            engine.improve()
            other = self._bundles.step()
            if other is not None:
                self._reporter.pipeline = pipeline = self._pipeline_of(other)
                self._reporter.engine, before = other, engine
                engine = other
                before.close()
            offer = self._intake.next(timeout_s=0.5)
            if offer is None:
                continue
            if pipeline.process(offer.landed):
                self._intake.done(offer.landed)
            else:
                self._intake.retry(offer.landed)
                if self._bundles.is_due:
                    self._intake.again(offer.landed.relative)
        self._bundles.close()
        engine.close()

    def _engine_of(self, bundle: str) -> Engine:
        model = self._settings.model
        return Engine(
            bundle,
            model.backend,
            self._settings.state.directory,
            self._engine_record,
            model.prepared_engines,
            self._engine_changed,
            self._engine_metrics.ran,
        )

    def _pipeline_of(self, engine: Engine) -> Pipeline:
        """Begin a pipeline: no tilt is read with what another network remembers of the others."""
        tap = ShadowTap(engine, self._publisher, self._shadow, lambda: self._intake.waiting)
        return Pipeline(
            self._source,
            tap,
            self._live.policy,
            self._journal,
            tap,
            self._metrics,
            self._problems,
            LooseSessions(self._journal, self._settings.acquisition.session_gap_h),
            self._stop,
            microscope=self._settings.microscope,
            boot_id=self._identity.boot_id,
            set_aside=self._set_aside,
            make_way=lambda landed: self._bundles.is_due or self._intake.make_way(landed),
            waiting=lambda: self._intake.waiting,
            pace=self._pace,
        )

    def _patience(self, engine: Engine, pipeline: Pipeline) -> Patience:
        """How long the worker may stay at what it does: loading a plan ends by itself."""
        loading = (engine.busy_since_s, self._bundles.busy_since_s)
        if loading != (None, None) or self._pace.asked_s == float("inf"):
            return "unbounded"
        return "none" if pipeline.reading_since_s is None else "while computing"

    def _engine_changed(self, engine: Engine) -> None:
        self._metrics.running(engine)
        if engine.built_s:
            self._engine_metrics.serves(engine.built_s)
        else:
            self._engine_metrics.gone()

    def _watch_gpu(self, engine: Engine) -> None:
        """Show the facts of the GPU, and notice its loss, where there is one."""
        if engine.has_gpu:
            self._reporter.gpu = GpuWatch()
            self._metrics.registry.register(
                GpuCollector(self._settings.microscope, self._reporter.gpu)
            )
            self._thread("gpu", partial(self._look_at_gpu, self._reporter.gpu)).start()

    def _look_at_gpu(self, gpu: GpuWatch) -> None:
        """Notice a loss though nobody scrapes; in a thread of its own, as drivers may hang."""
        while not self._stop.wait(GPU_LOOK_S):
            gpu.read()

    def _heartbeat(self) -> StatusMessage:
        """Do what is due every second, and make the heartbeat (called by the publisher)."""
        self._journal.mark_alive()
        self._end_if_engine_hangs()
        for relative in self._set_aside.take_requests():
            self._intake.again(relative)
        self._metrics.set_aside(len(self._set_aside.listed()))
        beat = self._bundles.worded(self._live.worded(self._reporter.heartbeat()))
        if self._journal.damage and not self._failed.is_set():
            self._fail(f"{self._journal.damage}: it is put aside at the next start")
        self._vitals.status(f"{beat.state}: {beat.reason}" if beat.reason else beat.state)
        self._vitals.beat()
        return beat

    def _status(self) -> dict[str, Any]:
        """Tell all that `/status` shows."""
        with self._damage_noticed(ValidationError):
            found = self._reporter.status()
        aside = self._journal.aside
        return {
            **self._bundles.told(self._live.told(found)),
            "last_tilt": self._last_tilt.told(),
            "journal_put_aside": aside.name if aside else "",
        }

    @contextmanager
    def _damage_noticed(self, *kinds: type[Exception]) -> Iterator[None]:
        """What was journalled and cannot be read any more shows that the journal is damaged."""
        try:
            yield
        except kinds as error:
            raise self._journal.damaged(f"a message cannot be read: {error}") from error

    def _recalled(self, recall: Callable[[Journal, str], Recalled], session: str) -> Recalled:
        with self._damage_noticed(ValidationError, KeyError):
            return recall(self._journal, session)

    def _again(self, one: Committed) -> Outgoing:
        with self._damage_noticed(ValidationError, KeyError):
            message = parse(one.topic, one.body)
        return Outgoing(one.seq, one.topic, one.body, message, resent=True)

    def _end_if_engine_hangs(self) -> None:
        engine, pipeline = self._reporter.engine, self._reporter.pipeline
        if engine is None:
            return
        call_s = _age_s(pipeline.inference_since_s if pipeline else None)
        if call_s > engine.call_max_s:
            logger.critical("an engine call hangs for over %g s: ending", engine.call_max_s)
            os._exit(EXIT_FAILED)  # the worker cannot be stopped any other way


def _age_s(since_s: float | None) -> float:
    return 0.0 if since_s is None else time.monotonic() - since_s


def run(settings: Settings, config: Path | None = None) -> int:
    """Run the daemon in the foreground until SIGTERM or SIGINT; returns the exit status.

    `config` is read again at each SIGHUP.
    """
    if config is not None:
        HangUps.block()
    with StopBell() as bell:
        daemon = Daemon(settings, bell, config)
        bell.listen(signal.SIGTERM, signal.SIGINT)
        return daemon.run()
