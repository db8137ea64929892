"""A GPU that is none: pretend libraries in place of CUDA and TensorRT."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engines.gpu.device import Device
from engines.plans import library as libraries
from engines.plans.library import Library

PRETEND = ("cuda", "cuda.bindings", "cuda.bindings.runtime", "tensorrt_rtx")
FOLDER = Path(__file__).resolve().parent / "fake_gpu"


@dataclass(frozen=True)
class PretendGpu:
    """What tests of this process need."""

    cuda: Any
    library: Library
    fault: Path

    def device(self) -> Device:
        return Device(self.cuda)

    def plan(self, graph: bytes) -> bytes:
        magic: bytes = self.library.module.MAGIC
        return magic + graph


def plug_in(patch: pytest.MonkeyPatch, scratch: Path) -> PretendGpu:
    """Put the pretend libraries before the real ones until the patch is undone."""
    fault = scratch / "fault"
    patch.setenv("ICEWATCH_FAKE_FAULT", str(fault))
    for name in [n for n in sys.modules if n.split(".")[0] in ("cuda", "tensorrt_rtx", "tensorrt")]:
        patch.delitem(sys.modules, name)
    for name in PRETEND:
        patch.setitem(sys.modules, name, ModuleType(name))  # so that undoing takes it out again
        del sys.modules[name]
    patch.syspath_prepend(str(FOLDER))
    patch.setattr(libraries, "_load", libraries._load.__wrapped__)
    cuda = importlib.import_module("cuda.bindings.runtime")
    library = libraries.find("tensorrt_rtx")
    return PretendGpu(cuda, library, fault)
