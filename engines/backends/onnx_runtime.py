"""ONNX Runtime on the CPU: the backend that is always there."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from numpy import float32
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from engines.backends.protocol import (
    Inference,
    Memory,
    Ports,
    check_inference,
    check_inputs,
    warm_up,
)
from engines.bundle import GRAPH, Bundle
from engines.errors import BackendError

MAX_THREADS = 8
"""More threads gain little on one picture and take cores from whoever else works here."""

_KEEP_MEMORY_UP_TO_PX = 768 * 768
_ERRORS_ONLY = 3
_NO_REPORTS = "ORT_DISABLE_TELEMETRY"
"""The library would report its use to its maker; what runs beside a microscope talks to nobody."""


class OnnxRuntimeSettings(BaseModel):
    """How ONNX Runtime is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["onnxruntime"] = "onnxruntime"
    threads: int = Field(default=0, ge=0, le=256)
    """Threads of one inference; 0: one for each core that this process may use, at most 8."""

    def build(self, bundle: Bundle) -> OnnxRuntimeBackend:
        """Load the bundle's graph and run it once; raises `BackendError` and `BundleError`."""
        graph = bundle.read(GRAPH)
        os.environ.setdefault(_NO_REPORTS, "1")
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise BackendError(
                f"The backend onnxruntime cannot be loaded ({error}); pip install onnxruntime."
            ) from error
        ports = Ports.of(bundle.manifest)
        return OnnxRuntimeBackend(onnxruntime, graph, ports, self.threads or usable_cores())


class OnnxRuntimeBackend:
    """One session of ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, library: ModuleType, graph: bytes, ports: Ports, threads: int) -> None:
        """Start a session on the bytes of a graph; raises `BackendError` and `BundleError`."""
        self._failures = _failures(library)
        self._ports = ports
        self._shrink = library.RunOptions()
        self._shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            self._session: Any = library.InferenceSession(
                graph, _session_options(library, threads), providers=["CPUExecutionProvider"]
            )
        except self._failures as error:
            raise BackendError(
                f"ONNX Runtime does not take the bundle's graph ({_first_line(error)}); update "
                "onnxruntime, or export the bundle again."
            ) from error
        warm_up(self._run, self._ports, self.name)

    def infer(
        self,
        picture: NDArray[float32],
        valid: NDArray[float32],
        memory: Memory | None = None,
    ) -> Inference:
        """Run the network on a batch."""
        check_inputs(picture, valid, memory)
        answers = self._run(picture, valid, memory)
        return check_inference(self._ports.inference(answers), picture, self._ports, self.name)

    def _run(
        self, picture: NDArray[float32], valid: NDArray[float32], memory: Memory | None
    ) -> list[NDArray[float32]]:
        if self._session is None:
            raise BackendError("The backend onnxruntime is closed; build another.")
        # Memory for larger pictures is given back, for 5 % of time (328 to 185 MB at 1024 x 1024).
        options = self._shrink if picture.size > _KEEP_MEMORY_UP_TO_PX else None
        inputs = self._ports.inputs(picture, valid, memory)
        try:
            answers: list[NDArray[float32]] = self._session.run(
                self._ports.outputs, inputs, options
            )
        except self._failures as error:
            raise BackendError(
                f"ONNX Runtime failed on a picture of {picture.shape} ({_first_line(error)}); "
                "restart, with more memory if that was short."
            ) from error
        return answers

    def close(self) -> None:
        self._session = None


def usable_cores() -> int:
    """Count the physical cores that this process may run on, 1 to `MAX_THREADS`."""
    siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = set()
    for cpu in os.sched_getaffinity(0):
        try:
            cores.add(Path(siblings.format(cpu)).read_text())
        except OSError:
            cores.add(str(cpu))
    return min(len(cores), MAX_THREADS)


def _session_options(library: ModuleType, threads: int) -> Any:
    options = library.SessionOptions()
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Patterns plan one block for each input size: 30 MB more at 608 x 608, and no faster.
    options.enable_mem_pattern = False
    # Spinning between and after operations: a tenth more CPU time, and no faster.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _failures(library: ModuleType) -> tuple[type[Exception], ...]:
    """Name the exceptions of ONNX Runtime, which share no base and differ between versions."""
    state = library.capi.onnxruntime_pybind11_state
    found = (getattr(state, name) for name in dir(state))
    named = (one for one in found if isinstance(one, type) and issubclass(one, Exception))
    return (*named, RuntimeError, MemoryError)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip()[:300]
