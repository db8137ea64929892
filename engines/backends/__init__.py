"""Backends run a bundle's graph: one file each, holding its settings and the backend itself.

To add one, write its file after the model of `onnx_runtime.py` and add its settings to `BACKENDS`
and to `BackendSettings`; `tests/contracts/test_backend.py` then holds it to the contract.
"""

from __future__ import annotations

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.backends.protocol import Backend, Inference

BackendSettings = OnnxRuntimeSettings
"""Any one of the settings, told apart by `kind`: a discriminated union once there are two."""

BACKENDS: dict[str, type[BackendSettings]] = {
    "onnxruntime": OnnxRuntimeSettings,
}
"""Settings of every backend by its `kind`; each has `build(bundle) -> Backend`."""

__all__ = ["BACKENDS", "Backend", "BackendSettings", "Inference"]
