"""Backends run a bundle's graph: one file each, holding its settings and the backend itself.

To add one, write its file after the model of `onnx_runtime.py` and add its settings to `BACKENDS`
and to `BackendSettings`; `tests/contracts/test_backend.py` then holds it to the contract.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.backends.openvino_cpu import OpenVinoSettings
from engines.backends.protocol import Backend, Inference
from engines.backends.tensorrt_gpu import TensorRtSettings

BackendSettings = Annotated[
    OnnxRuntimeSettings | OpenVinoSettings | TensorRtSettings, Field(discriminator="kind")
]
"""Any one of the settings, told apart by `kind`."""

BACKENDS: dict[str, type[OnnxRuntimeSettings] | type[OpenVinoSettings] | type[TensorRtSettings]] = {
    "onnxruntime": OnnxRuntimeSettings,
    "openvino": OpenVinoSettings,
    "tensorrt": TensorRtSettings,
}
"""Settings of every backend by its `kind`; each has `build(bundle) -> Backend`."""

__all__ = ["BACKENDS", "Backend", "BackendSettings", "Inference"]
