"""Every Prometheus metric of the program, on a registry of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from monitor.messages import LamellaMessage, StatusMessage, TiltMessage
from monitor.pipeline_ports import TiltReader
from monitor.sinks.protocol import Outgoing
from monitor.sinks.session_metrics import MAX_WORDS, Bounded, RecalledLamella, SessionMetrics

__all__ = ["Metrics", "RecalledLamella"]

_LATENCY_BUCKETS_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_STAGE_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 5.0)
_STATES = ("starting", "ready", "degraded", "stalled")


class DiskCollector(Collector):
    """The disk of the state directory at the moment of the scrape; nothing where it is gone."""

    def __init__(self, microscope: str, directory: Path) -> None:
        self._scope = microscope
        self._directory = directory

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Ask the file system; raises nothing."""
        try:
            usage = shutil.disk_usage(self._directory)
        except OSError:
            return
        known = (
            ("size", "Size of the disk that holds the state directory", usage.total),
            ("free", "What is free of it for the user that icewatch runs as", usage.free),
        )
        for name, text, size_bytes in known:
            full_name = f"icewatch_state_disk_{name}_bytes"
            family = GaugeMetricFamily(full_name, text, labels=("microscope",))
            family.add_metric((self._scope,), size_bytes)
            yield family


class Metrics:
    """The sink that Prometheus scrapes; the label `microscope` is on every metric of ours."""

    name = "metrics"

    def __init__(
        self,
        microscope: str,
        version: str,
        recall: Callable[[str], Mapping[str, RecalledLamella]] = lambda session: {},
        session: str = "",
        state_directory: Path | None = None,
    ) -> None:
        """Declare all metrics; nothing is exposed for a lamella before its first reading.

        `recall` gives what is known of a session, which is shown again after a restart or when
        tilts of several sessions come in turns, so that no alert resolves falsely. The disk of
        `state_directory` is watched.
        """
        # They would be a second series for each counter, which no rule asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        if state_directory is not None:
            self.registry.register(DiskCollector(microscope, state_directory))
        self._scope = microscope
        self._version = version
        self._reasons = Bounded(MAX_WORDS)
        self._declare_tilts()
        self._declare_health()
        self._session = SessionMetrics(microscope, self.registry, recall, session)

    def _declare_tilts(self) -> None:
        self.tilts = self._counter(
            "icewatch_tilts_published",
            "Tilts published, by whether a percentage could be measured",
            "result",
        )
        for result in ("measured", "not_measurable"):
            self.tilts.labels(self._scope, result)
        self.latency = Histogram(
            "icewatch_landed_to_published_seconds",
            "From the last write that completed a tilt to its message",
            ("microscope",),
            registry=self.registry,
            buckets=_LATENCY_BUCKETS_S,
        )
        self.stage = Histogram(
            "icewatch_stage_seconds",
            "Time per tilt in each stage of the pipeline",
            ("microscope", "stage"),
            registry=self.registry,
            buckets=_STAGE_BUCKETS_S,
        )

    def _declare_health(self) -> None:
        self.refused = self._counter(
            "icewatch_files_refused", "Files that gave no tilt, by reason", "reason"
        )
        self.errors = self._counter("icewatch_errors", "Errors survived, by stage", "stage")
        for stage in ("receiving", "processing", "sending"):
            self.errors.labels(self._scope, stage)
        self.state = self._gauge(
            "icewatch_state", "1 for the state that the daemon is in", ("microscope", "state")
        )
        self.backlog = self._gauge("icewatch_backlog_files", "Files that wait to be read")
        self.oldest = self._gauge(
            "icewatch_oldest_unprocessed_seconds", "Age of the file that waits longest"
        )
        self.aside = self._gauge(
            "icewatch_tilts_set_aside", "Tilts not read any more since the daemon died of them"
        )
        self.last_seq = self._gauge("icewatch_last_seq", "Number of the newest message")
        self.beaten = self._gauge(
            "icewatch_heartbeat_timestamp_seconds", "When the daemon last said how it is"
        )
        self.reload_taken = self._gauge(
            "icewatch_config_last_reload_successful",
            "1 if the configuration was right when it was last read, else 0",
        )
        self.reload_at = self._gauge(
            "icewatch_config_last_reload_success_timestamp_seconds",
            "When a configuration was last taken into use",
        )
        self.reloaded(True)
        self.state_removed = self._counter(
            "icewatch_state_removed", "Things removed from the state directory, by kind", "kind"
        )
        self.state_freed = self._counter(
            "icewatch_state_removed_bytes",
            "Bytes removed from the state directory, by kind",
            "kind",
        )
        self.state_kept = self._gauge(
            "icewatch_state_kept_bytes",
            "What the state directory holds that can be removed one day, by kind",
            ("microscope", "kind"),
        )
        self.build = self._gauge(
            "icewatch_build_info",
            "Constant 1; its labels say what runs",
            ("microscope", "version", "bundle", "bundle_version", "backend"),
        )

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ("microscope",)) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(name, text, ("microscope", label), registry=self.registry)

    def running(self, engine: TiltReader) -> None:
        """Say which bundle and backend read the tilts from now on."""
        self.build.clear()
        names = (engine.bundle_name, engine.bundle_version, engine.backend_name)
        self.build.labels(self._scope, self._version, *names).set(1)
        self.latency.labels(self._scope)

    def publish(self, outgoing: Outgoing) -> None:
        """Count a committed message and show its numbers."""
        message = outgoing.message
        if isinstance(message, TiltMessage):
            self._session.tilt(message, resent=outgoing.resent)
            if not outgoing.resent:
                measured = message.ice.percent is not None
                self.tilts.labels(self._scope, "measured" if measured else "not_measurable").inc()
            if outgoing.landed_s is not None:
                age_s = max(0.0, time.monotonic() - outgoing.landed_s)
                self.latency.labels(self._scope).observe(age_s)
        elif isinstance(message, LamellaMessage):
            self._session.lamella(message)
        self.last_seq.labels(self._scope).set(outgoing.seq)

    def beat(self) -> None:
        """Nothing is due: the heartbeat brings its own numbers through `heartbeat`."""

    def heartbeat(self, status: StatusMessage) -> None:
        """Show the state that the heartbeat tells."""
        for state in _STATES:
            self.state.labels(self._scope, state).set(state == status.state)
        self.backlog.labels(self._scope).set(status.backlog)
        self.oldest.labels(self._scope).set(status.oldest_unprocessed_s)
        self.last_seq.labels(self._scope).set(status.last_seq)
        self.beaten.labels(self._scope).set_to_current_time()

    def set_aside(self, tilts: int) -> None:
        """Show how many tilts are set aside."""
        self.aside.labels(self._scope).set(tilts)

    def reloaded(self, taken: bool) -> None:
        """Note that the configuration was read, and whether it was taken into use."""
        self.reload_taken.labels(self._scope).set(taken)
        if taken:
            self.reload_at.labels(self._scope).set_to_current_time()

    def removed(self, kind: str, count: int, size_bytes: int) -> None:
        """Count what was removed from the state directory."""
        self.state_removed.labels(self._scope, kind).inc(count)
        self.state_freed.labels(self._scope, kind).inc(size_bytes)

    def state_used(self, kind: str, size_bytes: int) -> None:
        """Show what is kept in the state directory."""
        self.state_kept.labels(self._scope, kind).set(size_bytes)

    def count_error(self, stage: str) -> None:
        """Count an error that was survived."""
        self.errors.labels(self._scope, stage).inc()

    def count_refused(self, reason: str) -> None:
        """Count a file that gave no tilt."""
        self.refused.labels(self._scope, self._reasons(reason)).inc()

    def time_stage(self, stage: str, seconds: float) -> None:
        """Note how long one stage took for one tilt."""
        self.stage.labels(self._scope, stage).observe(seconds)
