"""The network of the settings: which bundle, on which backend."""

from __future__ import annotations

from engines.backends import BACKENDS, BackendSettings, openvino_cpu
from engines.bundle import Bundle
from engines.errors import BackendError
from engines.segmenter import Segmenter


def choose_backend(name: str) -> BackendSettings:
    """Give the settings of a backend; `auto` is the best that this installation has.

    Raises `BackendError` for one that this version or this installation does not have.
    """
    if name == "auto":  # never OpenVINO: its compiler cannot run under MemoryDenyWriteExecute
        name = "onnxruntime"
    if name not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise BackendError(f"'{name}' is not part of this version; use auto or {known}")
    if name == "openvino" and not openvino_cpu.is_installed():
        raise BackendError(openvino_cpu.NOT_INSTALLED)
    return BACKENDS[name]()


def load_segmenter(bundle: str, backend: str) -> Segmenter:
    """Load and warm up a network; raises `BundleError` or `BackendError` with one sentence."""
    settings = choose_backend(backend)
    loaded = Bundle.load(bundle)
    return Segmenter(loaded, settings.build(loaded))
