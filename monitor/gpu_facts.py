"""What the driver says of the GPU, and how the engine on it works, as Prometheus metrics."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from engines.plans.card import find_bus_id
from engines.plans.errors import PlanError

logger = logging.getLogger(__name__)

NOT_INSTALLED = "nvidia-ml-py is not installed: pip install 'icewatch[gpu]'"
READ_AT_MOST_EVERY_S = 2.0
TRY_AGAIN_AFTER_S = 30.0
"""A driver that was not there, or that lost its GPU, is asked again after this time."""
ANSWER_WITHIN_S = 10.0
"""A driver that takes longer counts as lost: one whose GPU fell off the bus may never answer."""
_BATCHES = tuple(float(size) for size in range(1, 9))
_STAGE_BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
_Fact = TypeVar("_Fact")


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU at one moment; None for what its driver does not tell."""

    name: str
    driver: str
    utilisation_ratio: float | None
    """Share of the last moments in which it computed, 0 to 1."""
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: float | None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """Facts, or why there are none."""

    facts: GpuFacts | None
    reason: str = ""
    """One sentence; empty where there are facts."""


class GpuWatch:
    """Asks the driver; whatever happens to it or to the GPU, nothing is raised.

    May be read by several threads: one asks, the others get the last answer meanwhile.
    """

    def __init__(
        self,
        nvml: Any = None,
        bus_id: Callable[[], str] = find_bus_id,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch the GPU that computes through `nvml`, a module like `pynvml` (the default).

        `bus_id` says where it is, since NVML and CUDA number cards differently.
        """
        self._nvml = nvml
        self._bus_id = bus_id
        self._clock = clock
        self._asking = threading.Lock()
        self._asked_s = float("-inf")
        self._handle: Any = None
        self._seen = False
        self._lost = False
        self.losses = 0
        self._reading = GpuReading(None, "the GPU was not asked yet")

    def read(self) -> GpuReading:
        """Tell the newest facts, a few seconds old at most."""
        if not self._asking.acquire(blocking=False):
            if self._clock() - self._asked_s > ANSWER_WITHIN_S:
                self._note(GpuReading(None, self._no_answer()))
            return self._reading
        try:
            again_s = READ_AT_MOST_EVERY_S if self._reading.facts else TRY_AGAIN_AFTER_S
            if self._clock() - self._asked_s >= again_s:
                self._asked_s = self._clock()
                self._note(self._ask())
            return self._reading
        finally:
            self._asking.release()

    @property
    def lost(self) -> bool:
        """Whether a GPU was there and does not answer any more."""
        return self._lost

    def close(self) -> None:
        """Let go of the driver."""
        if self._handle is None:
            return
        self._handle = None
        try:
            self._nvml.nvmlShutdown()
        except self._failures() as error:
            logger.debug("shutdown of NVML: %s", error)

    def _note(self, reading: GpuReading) -> None:
        """Keep a reading; what changed for the worse or the better is said once."""
        self._reading = reading
        here = reading.facts is not None
        if self._seen and not here and not self._lost:
            self.losses += 1
            logger.error("GPU lost: %s", reading.reason)
        elif self._lost and here:
            logger.warning("GPU back")
        self._lost = self._seen and not here
        self._seen = self._seen or here

    def _no_answer(self) -> str:
        return f"the NVIDIA driver has not answered for {ANSWER_WITHIN_S:.0f} s"

    def _ask(self) -> GpuReading:
        try:
            if self._nvml is None:
                self._nvml = importlib.import_module("pynvml")
        except ImportError:
            return GpuReading(None, NOT_INSTALLED)
        try:
            if self._handle is None:
                self._nvml.nvmlInit()
                self._handle = self._nvml.nvmlDeviceGetHandleByPciBusId(self._bus_id().encode())
            return GpuReading(self._facts())
        except self._failures() as error:
            self.close()
            said = " ".join(str(error).split()) or type(error).__name__
            return GpuReading(None, f"the NVIDIA driver says: {said}")

    def _facts(self) -> GpuFacts:
        nvml, gpu = self._nvml, self._handle
        kind = nvml.NVML_TEMPERATURE_GPU
        # Asked of every GPU: a lost one fails here, so that None below means "not told".
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
        busy = self._if_told(lambda: float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu) / 100.0)
        return GpuFacts(
            name=_text(nvml.nvmlDeviceGetName(gpu)),
            driver=_text(nvml.nvmlSystemGetDriverVersion()),
            utilisation_ratio=busy,
            memory_used_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
            temperature_celsius=self._if_told(
                lambda: float(nvml.nvmlDeviceGetTemperature(gpu, kind))
            ),
        )

    def _if_told(self, ask: Callable[[], _Fact]) -> _Fact | None:
        """Ask for what some GPUs do not tell, as parts of one (MIG)."""
        try:
            return ask()
        except self._nvml.NVMLError as error:
            if _is_lost(error):
                raise
            return None

    def _failures(self) -> tuple[type[Exception], ...]:
        """Name what asking may raise: NVML's own errors, and those of a library half there."""
        own = getattr(self._nvml, "NVMLError", RuntimeError)
        return (own, PlanError, OSError, RuntimeError, ValueError, AttributeError, TypeError)


def _is_lost(error: Exception) -> bool:
    """Tell errors of a GPU or driver that went away from those of a fact that is not told."""
    return type(error).__name__ not in (
        "NVMLError_NotSupported",
        "NVMLError_NoPermission",
        "NVMLError_FunctionNotFound",
    )


def _text(found: str | bytes) -> str:
    """Older releases give bytes."""
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)


class GpuCollector(Collector):
    """The GPU at the moment of the scrape; without one, `icewatch_gpu_up` is 0 and stands alone."""

    def __init__(self, microscope: str, watch: GpuWatch) -> None:
        self._scope = microscope
        self._watch = watch

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Read the GPU; raises nothing."""
        facts = self._watch.read().facts
        yield self._gauge("up", "1 while the GPU answers, else 0", float(facts is not None))
        lost = CounterMetricFamily(
            "icewatch_gpu_lost", "Times that the GPU stopped answering", labels=("microscope",)
        )
        lost.add_metric((self._scope,), self._watch.losses)
        yield lost
        if facts is None:
            return
        known = (
            ("utilisation_ratio", "Share of time in which the GPU computed"),
            ("memory_used_bytes", "Memory of the GPU that is in use, by whomever"),
            ("memory_total_bytes", "Memory of the GPU"),
            ("temperature_celsius", "Temperature of the GPU"),
        )
        for name, text in known:
            value: float | None = getattr(facts, name)
            if value is not None:
                yield self._gauge(name, text, float(value))
        info = GaugeMetricFamily(
            "icewatch_gpu_info",
            "Constant 1; its labels say which GPU and driver",
            labels=("microscope", "name", "driver"),
        )
        info.add_metric((self._scope, facts.name, facts.driver), 1.0)
        yield info

    def _gauge(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"icewatch_gpu_{name}", text, labels=("microscope",))
        family.add_metric((self._scope,), value)
        return family


class EngineMetrics:
    """How old the engine is, what batches it gets and where its time goes."""

    def __init__(
        self,
        microscope: str,
        registry: CollectorRegistry,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Declare the metrics; nothing is exposed before there is an engine."""
        self._scope = microscope
        self._now = now
        self.age = Gauge(
            "icewatch_engine_age_seconds",
            "Time since the engine that serves was built",
            ("microscope",),
            registry=registry,
        )
        self.batch = Histogram(
            "icewatch_engine_batch_tilts",
            "Tilts that the engine was given at once",
            ("microscope",),
            registry=registry,
            buckets=_BATCHES,
        )
        self.stage = Histogram(
            "icewatch_engine_stage_seconds",
            "Time of one call of the engine in each of its stages",
            ("microscope", "stage"),
            registry=registry,
            buckets=_STAGE_BUCKETS_S,
        )

    def serves(self, built_s: float) -> None:
        """Say that an engine serves which was built at `built_s`, seconds since 1970."""
        self.age.labels(self._scope).set_function(lambda: max(0.0, self._now() - built_s))
        self.batch.labels(self._scope)

    def gone(self) -> None:
        """Say that no engine serves any more: its age is shown no longer."""
        self.age.clear()

    def ran(self, stage: str, seconds: float, tilts: int) -> None:
        """Note one call of a stage; `tilts` is how many the network was given at once."""
        self.stage.labels(self._scope, stage).observe(seconds)
        if tilts:
            self.batch.labels(self._scope).observe(tilts)
