"""The network that reads tilts: on the GPU once its plan is proved, on the CPU until then.

Nothing waits for a plan: it is built in a process of its own while ONNX Runtime serves. What shows
that the GPU cannot be trusted ends the daemon before the reading is published (`BackendError`);
after two such deaths in a row the CPU serves, and the state says so.
"""

from __future__ import annotations

import faulthandler
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy import float32
from numpy.typing import NDArray

from engines.backends import Backend, Inference
from engines.backends.protocol import Memory
from engines.bundle import Bundle
from engines.errors import BackendError, BundleError, EngineError
from engines.icemap import Flag, IceMap
from engines.preprocess import Resampler
from engines.segmenter import Neighbours, Segmenter
from monitor.engine_record import REST_S, EngineRecord
from monitor.network import choose_backend

if TYPE_CHECKING:
    from engines.gpu.background import BackgroundBuild
    from engines.gpu.installation import Site

logger = logging.getLogger(__name__)

CPU, GPU, AUTO = "onnxruntime", "tensorrt", "auto"
CACHE = "engines"
LOAD_MAX_S = 120.0
"""The library may compile for the card when it loads a plan."""
CALL_MAX_S = {CPU: 10.0, GPU: 8.0}
"""A call that takes longer hangs: the process ends, and systemd starts it again."""
_NO_GPU = ("no_gpu", "library_missing")
"""Reasons of a `PlanError` that only say: this computer has no GPU to speak of."""


class Observe(Protocol):
    """Hears of a call of the GPU."""

    def __call__(self, stage: str, seconds: float, tilts: int) -> None:
        """Take the stage, how long it took, and how many tilts the network was given."""
        ...


def _unheard(stage: str, seconds: float, tilts: int) -> None:
    pass


class Engine:
    """Implements `monitor.pipeline_ports.TiltReader`; used by the worker thread.

    `trouble` and `busy_since_s` may be read from any thread.
    """

    def __init__(
        self,
        bundle: str,
        backend: str,
        state_directory: Path,
        record: EngineRecord,
        prepared: Path | None = None,
        on_change: Callable[[Engine], None] = lambda engine: None,
        observe: Observe = _unheard,
    ) -> None:
        """Take a network and where it may run; `open` then loads it.

        `on_change` hears of each change of backend, `observe` of each call of the GPU: stage,
        seconds, and how many tilts the network was given. Raises `BundleError`.
        """
        self._bundle = Bundle.load(bundle)
        self._wanted = backend
        self._cache = state_directory / CACHE
        self._record = record
        self._prepared = prepared
        self._on_change = on_change
        self._observe = observe
        self.trouble = ""
        """Why the CPU serves although a GPU should; empty where all is as it should be."""
        self.busy_since_s: float | None = None
        """Monotonic start of what is being done to the GPU between two tilts, if anything."""
        self._build: BackgroundBuild | None = None
        self._has_built = False
        self._site: Site | None = None
        self._segmenter: Segmenter | None = None

    def open(self) -> None:
        """Load the network on the best backend that can serve now.

        Raises `BundleError`, and `BackendError` where this process must end.
        """
        self._site = self._find_site()
        self._segmenter = self._on_gpu() or self._on_cpu()
        self._on_change(self)

    @property
    def bundle_name(self) -> str:
        return self._bundle.name

    @property
    def bundle_version(self) -> str:
        return self._bundle.version

    @property
    def backend_name(self) -> str:
        """The backend that serves; empty before there is one."""
        return self._segmenter.backend_name if self._segmenter else ""

    @property
    def has_gpu(self) -> bool:
        """Whether this computer has a GPU and a library for it."""
        return self._site is not None

    @property
    def built_s(self) -> float:
        """When the plan that serves was built, in seconds since 1970; 0 where none does."""
        site = self._site
        if site is None or self.backend_name != GPU:
            return 0.0
        return site.store.kept_since_s(site.key)

    @property
    def call_max_s(self) -> float:
        """After how long a reading is taken to hang."""
        return CALL_MAX_S.get(self.backend_name, CALL_MAX_S[CPU])

    def read(
        self,
        image: NDArray[Any],
        pixel_size_angstrom: float | None,
        neighbours: Neighbours | None = None,
        known_flags: tuple[Flag, ...] = (),
    ) -> IceMap:
        """Measure the ice of one image; raises as `Segmenter.read` does."""
        assert self._segmenter is not None, "an engine is opened before it reads"
        return self._segmenter.read(image, pixel_size_angstrom, neighbours, known_flags)

    def improve(self) -> None:
        """Between two tilts: take a plan into service whose build is over.

        Raises `BackendError` where the GPU fails in a way that this process cannot survive.
        """
        build = self._build
        if build is None or not build.is_over:
            return
        self._build = None
        failure = build.failure()
        if failure is not None:
            self._distrust(f"no plan could be built: {failure}")
            return
        better = self._on_gpu()
        if better is not None:
            if self._segmenter is not None:
                self._segmenter.close()
            self._segmenter = better
            self._on_change(self)

    def close(self) -> None:
        """End a build, and close the backend."""
        if self._build is not None:
            self._build.close()
        if self._segmenter is not None:
            self._segmenter.close()

    def leave(self) -> None:
        """Say, from another thread, that an orderly stop comes between: nothing has failed."""
        self._record.survived()
        if self._site is not None and self.busy_since_s is not None:
            with suppress(BackendError):
                self._site.store.end_trial(self._site.key)

    def _find_site(self) -> Site | None:
        """Look for a GPU where one is wanted."""
        if self._wanted not in (AUTO, GPU):
            return None
        from engines.gpu.installation import Site
        from engines.plans.errors import PlanError

        try:
            return Site.find(self._bundle, self._cache, logger.warning)
        except BundleError as error:
            self._distrust(str(error))
        except PlanError as error:
            expected = error.reason in _NO_GPU and not self._record.has_served
            if self._wanted == GPU or not expected:
                self._distrust(str(error))
            else:
                logger.info("the CPU serves: %s", error)
        return None

    def _on_gpu(self) -> Segmenter | None:
        """Take the plan into service; None where the CPU is to serve, now or for good."""
        site = self._site
        if site is None:
            return None
        if not self._record.may_serve(site.key.digest):
            self._distrust(
                f"the GPU ended icewatch {self._record.deaths} times in a row; it is tried again "
                f"at the first start that comes {REST_S / 3600:g} h later"
            )
            return None
        from engines.gate import ParityError
        from engines.gpu.device import GpuMemoryError, NoGpuError
        from engines.gpu.plan_runner import PlanRefusedError
        from engines.plans.errors import PlanError

        try:
            plan = site.plan(self._prepared, logger.warning)
            if plan is None:
                self._start_build(site)
                return None
            return self._opened(site, plan)
        except PlanRefusedError as error:
            self._give_up(site, error)
            self._start_build(site)
        except ParityError as error:
            self._give_up(site, error)
            self._distrust(str(error))
        except (PlanError, GpuMemoryError, NoGpuError) as error:
            self._record.survived()
            self._distrust(str(error))
        return None

    def _give_up(self, site: Site, error: BackendError) -> None:
        """Throw the plan away; this process has taken no harm."""
        self._record.survived()
        site.store.discard(site.key, str(error))

    def _opened(self, site: Site, plan: bytes) -> Segmenter:
        self.busy_since_s = time.monotonic()
        try:
            with self._record.call(), ends_at(LOAD_MAX_S):
                watched, resampler = site.open(plan), site.resampler()
        finally:
            self.busy_since_s = None
        if resampler is None:
            logger.info("raw pixels are averaged on the CPU: there are no plans for that")
        backend = _Recorded(watched, self._record, self._observe)
        averages = resampler and _RecordedResampler(resampler, self._record, self._observe)
        return Segmenter(self._bundle, backend, averages)

    def _start_build(self, site: Site) -> None:
        """Build the plan, once in a run: what does not do after that needs a person."""
        from engines.gpu.background import BackgroundBuild

        if self._has_built:
            said = "; ".join(site.library.messages) or "library, driver or bundle have changed"
            self._distrust(f"the plan that was built does not serve ({said}); restart icewatch")
            return
        self._has_built = True
        logger.info("building the TensorRT plan in the background; the CPU serves meanwhile")
        try:
            self._build = BackgroundBuild(self._bundle.directory, site.store.directory)
        except OSError as error:
            self._distrust(f"no plan could be built: {error.strerror}")

    def _on_cpu(self) -> Segmenter:
        name = CPU if self._wanted in (AUTO, GPU) else self._wanted
        return Segmenter(self._bundle, choose_backend(name).build(self._bundle))

    def _distrust(self, why: str) -> None:
        """Stay on the CPU for this run, and say so."""
        logger.error("the CPU serves: %s", why)
        self._site = None
        self.trouble = f"the CPU serves, not the GPU: {why}"


@contextmanager
def ends_at(limit_s: float) -> Iterator[None]:
    """End the process where a call hangs, even one of the library that lets no thread run."""
    faulthandler.dump_traceback_later(limit_s, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class _Recorded:
    """A backend on the GPU whose calls are marked, so that a death in one is known as such."""

    def __init__(self, backend: Backend, record: EngineRecord, observe: Observe) -> None:
        self._backend, self._record, self._observe = backend, record, observe
        self.name = backend.name

    def infer(
        self, picture: NDArray[float32], valid: NDArray[float32], memory: Memory | None = None
    ) -> Inference:
        with _marked(self._record, partial(self._observe, "network", tilts=len(picture))):
            return self._backend.infer(picture, valid, memory)

    def close(self) -> None:
        self._backend.close()


class _RecordedResampler:
    """The same for what averages pixels."""

    def __init__(self, resampler: Resampler, record: EngineRecord, observe: Observe) -> None:
        self._resampler, self._record, self._observe = resampler, record, observe

    def takes(self, image: NDArray[Any], shape: tuple[int, int]) -> bool:
        return self._resampler.takes(image, shape)

    def __call__(self, image: NDArray[Any], shape: tuple[int, int]) -> NDArray[float32]:
        with _marked(self._record, partial(self._observe, "average", tilts=0)):
            return self._resampler(image, shape)

    def close(self) -> None:
        self._resampler.close()


@contextmanager
def _marked(record: EngineRecord, observe: Callable[[float], None]) -> Iterator[None]:
    """Mark and time a call; whatever fails in it says that the GPU is not to be trusted."""
    start = time.perf_counter()
    try:
        with record.call(), ends_at(CALL_MAX_S[GPU] + 2.0):
            yield
    except EngineError:
        raise
    except (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise BackendError(f"The GPU failed ({type(error).__name__}: {error}).") from error
    observe(time.perf_counter() - start)
