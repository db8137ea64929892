"""Who takes part: the backends of this version, and PyTorch to compare them with."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from numpy import float32
from numpy.typing import NDArray

from engines.backends import BACKENDS, Backend
from engines.backends.onnx_runtime import usable_cores
from engines.bundle import GRAPH, Bundle
from engines.errors import BackendError
from engines.preprocess import Resampler

Inputs = dict[str, NDArray[float32]]
Call = Callable[[], object]

REFERENCE = "onnxruntime"
"""The backend that is always there: others are held to what it says."""
EAGER = "torch"
TITLES = {
    "torch": "PyTorch eager",
    "torch-compile": "torch.compile",
    "torch-cuda": "PyTorch eager, GPU",
    "torch-compile-cuda": "torch.compile, GPU",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
}
"""All that can be named, in the order of the table."""
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt_rtx"),
}
_ALL_OF_TORCH = ("torch", "segmentation_models_pytorch", "safetensors")


@dataclass(frozen=True, slots=True)
class Contender:
    """A backend that is ready to run, and the call of its library without anything around it."""

    backend: Backend
    device: str
    version: str
    threads: int | None
    bare: Callable[[Inputs], Call] | None = None
    """Makes the bare call on the same inputs each time; None where there is none to be had."""
    resampler: Resampler | None = None
    """Averages raw pixels where the network is, if not on the CPU."""


def names() -> list[str]:
    """List all that can be named; a backend that has no title yet comes last."""
    return list(dict.fromkeys((*TITLES, *BACKENDS)))


def title(name: str) -> str:
    """Name a contender for people."""
    return TITLES.get(name, name)


def why_absent(name: str) -> str | None:
    """Say in a few words why a contender cannot take part; None: it can, as far as is known."""
    if name.startswith(EAGER):
        return _why_no_torch(name)
    if name not in BACKENDS:
        return "not part of this version"
    libraries = _DISTRIBUTIONS.get(name, ())
    if libraries and not any(find_spec(one) for one in libraries):
        return f"{' or '.join(libraries)} is not installed"
    if name == "tensorrt" and not has_nvidia_driver():
        return "no NVIDIA driver"
    return None


def _why_no_torch(name: str) -> str | None:
    missing = [one for one in _ALL_OF_TORCH if find_spec(one) is None]
    if missing:
        return f"{missing[0]} is not installed"
    if name.endswith("-cuda") and not has_nvidia_driver():
        return "no NVIDIA driver"
    if name == "torch-compile" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "no C++ compiler"
    return None


def has_nvidia_driver() -> bool:
    """Say whether a driver of NVIDIA can be loaded here."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def build(name: str, bundle: Bundle, threads: int) -> Contender:
    """Build a contender; `threads` 0: as many as it takes by itself.

    Raises `BackendError` and `BundleError`.
    """
    if name.startswith(EAGER):
        return _torch(name, bundle, threads)
    if name == "tensorrt":
        return _tensorrt(bundle)
    backend = BACKENDS[name].model_validate({"threads": threads}).build(bundle)
    used = threads or usable_cores()
    make_bare = {"onnxruntime": _bare_onnx_runtime, "openvino": _bare_openvino}.get(name)
    bare = partial(make_bare, bundle, used) if make_bare else None
    return Contender(backend, "CPU", _version(name), used, bare)


def _tensorrt(bundle: Bundle) -> Contender:
    """Open the plan that is kept for this GPU, or build it first, as the daemon would."""
    from engines.backends.tensorrt_gpu import users_cache
    from engines.gpu.device import open_device
    from engines.gpu.installation import Site
    from engines.gpu.plan_runner import PlanRunner

    site = Site.find(bundle, users_cache())
    plan = site.plan() or site.build()

    def bare(inputs: Inputs) -> Call:
        # Neither canary nor checks of what comes in and goes out.
        runner = PlanRunner(site.library, plan, open_device())
        return lambda: runner.run(inputs)

    backend: Backend = site.open(plan)
    card = site.key.card.name if site.key.card else "GPU"
    return Contender(backend, card, site.library.label, None, bare, site.resampler())


def _torch(name: str, bundle: Bundle, threads: int) -> Contender:
    from engines.benchmarking.torch_model import TorchBackend

    device = "cuda" if name.endswith("-cuda") else "cpu"
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise BackendError("PyTorch finds no GPU that it can use")
    backend = TorchBackend(bundle, device, threads, compiled="compile" in name)

    def bare(inputs: Inputs) -> Call:
        given = backend.put(inputs)
        return lambda: backend.call(given)

    used = backend.threads if device == "cpu" else None
    return Contender(backend, backend.device, backend.version, used, bare)


def _bare_onnx_runtime(bundle: Bundle, threads: int, inputs: Inputs) -> Call:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(bundle.read(GRAPH), options, providers=providers)
    return lambda: session.run(None, inputs)


def _bare_openvino(bundle: Bundle, threads: int, inputs: Inputs) -> Call:
    from engines.backends.openvino_cpu import load_library

    core: Any = load_library().Core()
    properties = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = core.compile_model(core.read_model(bundle.read(GRAPH)), "CPU", properties)
    request = model.create_infer_request()
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)


def _version(name: str) -> str:
    for distribution in _DISTRIBUTIONS.get(name, (name,)):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return ""
