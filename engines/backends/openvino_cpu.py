"""OpenVINO on the CPU: a second backend, by choice only.

Its limits. It compiles code while it runs, which systemd's `MemoryDenyWriteExecute` forbids: under
that setting it is refused when it is built. A picture of 608 x 608 takes 180 MB above what is
loaded and larger ones in proportion (1 GB for eight of them), given back right after; what it
keeps for sizes that it has seen is bounded (`_KEPT_KERNELS`). It computes in float32 whatever the
processor offers: left to itself it takes bfloat16 where there is AMX, and percentages differ.
"""

from __future__ import annotations

import gc
import importlib
import mmap
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy import float32
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from engines.backends.onnx_runtime import usable_cores
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

NOT_INSTALLED = "openvino is not installed: pip install 'icewatch[openvino]', or use auto"
_LIBRARY, _TELEMETRY = "openvino", "openvino_telemetry"
_KEEP_MEMORY_UP_TO_PX = 768 * 768
_KEPT_KERNELS = 64
"""Compiled kernels that are kept, of all sizes together: with the default of 5000, each new size
costs 3.4 MB for good. So the process holds 313 MB after 1 size, 314 after 5, 333 after 20 and 351
after 100. A size that was dropped costs a tenth of one inference to compile again."""


class OpenVinoSettings(BaseModel):
    """How OpenVINO is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["openvino"] = "openvino"
    threads: int = Field(default=0, ge=0, le=256)
    """Threads of one inference; 0: one for each core that this process may use, at most 8."""

    def build(self, bundle: Bundle) -> OpenVinoBackend:
        """Compile the bundle's graph and run it once; raises `BackendError` and `BundleError`."""
        graph = bundle.read(GRAPH)
        library = load_library()
        _check_may_compile()
        ports = Ports.of(bundle.manifest)
        return OpenVinoBackend(library, graph, ports, self.threads or usable_cores())


class OpenVinoBackend:
    """One compiled model of OpenVINO and the request that runs it."""

    name = "openvino"

    def __init__(self, library: ModuleType, graph: bytes, ports: Ports, threads: int) -> None:
        """Compile the bytes of a graph; raises `BackendError` and `BundleError`."""
        self._ports = ports
        try:
            core = library.Core()
            self._compiled: Any = core.compile_model(
                core.read_model(graph), "CPU", _properties(threads)
            )
            self._request: Any = self._compiled.create_infer_request()
        except (RuntimeError, TypeError, ValueError, MemoryError) as error:
            raise BackendError(
                f"OpenVINO does not take the bundle's graph ({_reason(error)}); use the backend "
                "onnxruntime, or update openvino."
            ) from error
        warm_up(self._run, self._ports, self.name)

    @property
    def precision(self) -> str:
        """Name the type that it computes in, as OpenVINO itself says."""
        return str(self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())

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
        if self._request is None:
            raise BackendError("The backend openvino is closed; build another.")
        inputs = self._ports.inputs(picture, valid, memory)
        try:
            found = self._request.infer(inputs, share_inputs=True, share_outputs=False)
            answers: dict[str, NDArray[float32]] = {n: found[n] for n in self._ports.outputs}
            answers["area"] = _area(answers["probability"], valid)
            if picture.size > _KEEP_MEMORY_UP_TO_PX:
                self._shrink()
        except (RuntimeError, TypeError, ValueError, KeyError, MemoryError) as error:
            raise BackendError(
                f"OpenVINO failed on a picture of {picture.shape} ({_reason(error)}); restart, "
                "with more memory if that was short, or use the backend onnxruntime."
            ) from error
        return list(answers.values())

    def _shrink(self) -> None:
        """Give back the memory of a large picture: a request keeps its own answers, too."""
        self._request = None
        self._compiled.release_memory()
        self._request = self._compiled.create_infer_request()

    def close(self) -> None:
        self._request = self._compiled = None
        gc.collect()


def is_installed() -> bool:
    """Say whether OpenVINO is there, without loading it."""
    return find_spec(_LIBRARY) is not None


def load_library() -> ModuleType:
    """Import OpenVINO without its telemetry; raises `BackendError` where it is not installed.

    Merely imported, it writes an identity into the home directory and calls Google Analytics,
    unless its module for that cannot be imported. A microscope computer calls nobody.
    """
    if not is_installed():
        raise BackendError(f"The backend {NOT_INSTALLED}.")
    hidden: Any = None
    before = sys.modules.get(_TELEMETRY, hidden)
    sys.modules[_TELEMETRY] = hidden
    try:
        return importlib.import_module(_LIBRARY)
    except ImportError as error:
        raise BackendError(
            f"The backend openvino cannot be loaded ({error}); pip install 'icewatch[openvino]' "
            "anew, or use auto."
        ) from error
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before


def _check_may_compile() -> None:
    """Refuse to start where memory can never be both written and run, as OpenVINO needs it."""
    kinds = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        mmap.mmap(-1, mmap.PAGESIZE, kinds, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError as error:
        raise BackendError(
            "OpenVINO compiles code while it runs, which this process may not "
            f"({error.strerror}): set MemoryDenyWriteExecute=no in the systemd unit, or use the "
            "backend onnxruntime."
        ) from error


def _area(probability: NDArray[float32], valid: NDArray[float32]) -> NDArray[float32]:
    """Sum the probability over the valid pixels, row by row: (batch, channels).

    OpenVINO adds up a whole picture in float32, one pixel after the other: 0.3 % off at 608 x 608.
    """
    rows = np.einsum("bchw,bhw->bch", probability, valid[:, 0])
    return np.asarray(rows.sum(axis=2, dtype=np.float64), np.float32)


def _properties(threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        # Pinned threads wait for whoever else was put on their core.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_KERNELS,
    }


def _reason(error: Exception) -> str:
    """Say in one line what OpenVINO says in many, first of all where in its sources it happened."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [one for one in lines if one and not one.startswith(("Exception from", "Check '"))]
    return " ".join(" ".join(telling or lines).split())[:300]
