"""A pretend TensorRT: its plan is the ONNX graph, run by ONNX Runtime on pretend GPU memory.

A fault is put in by the environment: ICEWATCH_FAKE_FAULT names a file that holds `kind count`, and
from the answer after so many on the fault is there; each process that showed it takes the file away
unless the kind ends in `!`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from cuda.bindings import runtime as cuda  # type: ignore[import-untyped]

__version__ = "1.7.1.999"
MOST_SIDE_PX = 1536
MAGIC = b"pretend plan "
answers = 0


class _Any:
    """Takes whatever is set, called or asked."""

    def __init__(self, *args: Any, **keywords: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **keywords: None


class ILogger:
    Severity = IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)


class IProgressMonitor:
    pass


class BuilderFlag(IntEnum):
    TF32 = 1


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class Port:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class Network:
    """Knows its inputs once a parser has read a graph into it."""

    def __init__(self) -> None:
        self.graph = b""
        self.ports: list[Port] = []

    @property
    def num_inputs(self) -> int:
        return len(self.ports)

    def get_input(self, at: int) -> Port:
        return self.ports[at]


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def node_operator(self) -> str:
        return ""

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network = network
        self.errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, at: int) -> ParserError:
        return self.errors[at]

    def parse(self, graph: bytes) -> bool:
        try:
            session = onnxruntime.InferenceSession(graph)
        except Exception as error:  # noqa: BLE001
            self.errors.append(ParserError(str(error)))
            return False
        self.network.graph = graph
        self.network.ports = [Port(one.name, tuple(one.shape)) for one in session.get_inputs()]
        return True


class Builder(_Any):
    def create_network(self, flags: int) -> Network:
        return Network()

    def create_builder_config(self) -> Any:
        return _Any()

    def create_optimization_profile(self) -> Any:
        return _Any()

    def build_serialized_network(self, network: Network, config: Any) -> bytes | None:
        if wait := os.environ.get("ICEWATCH_FAKE_BUILD_WAITS_FOR"):
            while not Path(wait).exists():
                time.sleep(0.02)
        if os.environ.get("ICEWATCH_FAKE_BUILD_FAILS"):
            return None
        return MAGIC + network.graph


class TensorIOMode(IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class DynamicShapesKernelSpecializationStrategy(IntEnum):
    LAZY, EAGER, NONE = range(3)


class DataType(IntEnum):
    FLOAT = 0


class RuntimeConfig:
    """Where the memory comes from, and whether kernels stay the same."""

    def __init__(self) -> None:
        self.dynamic_shapes_kernel_specialization_strategy = (
            DynamicShapesKernelSpecializationStrategy.LAZY
        )
        self.allocation = ExecutionContextAllocationStrategy.STATIC

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.allocation = strategy


class Runtime:
    def __init__(self, logger: ILogger) -> None: ...

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if (wait := os.environ.get("ICEWATCH_FAKE_LOAD_WAITS_FOR")) and not Path(wait).exists():
            time.sleep(3600.0)
        if os.environ.get("ICEWATCH_FAKE_REFUSES"):
            return None
        plan = bytes(plan)
        return Engine(plan[len(MAGIC) :]) if plan.startswith(MAGIC) else None


class Engine:
    def __init__(self, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options)
        self.inputs = [one.name for one in self.session.get_inputs()]
        self.outputs = [one.name for one in self.session.get_outputs()]
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, at: int) -> str:
        names: list[str] = [*self.outputs, *self.inputs]
        return names[at]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, config: RuntimeConfig) -> Context:
        assert config.allocation is ExecutionContextAllocationStrategy.USER_MANAGED
        kept = config.dynamic_shapes_kernel_specialization_strategy
        assert kept is DynamicShapesKernelSpecializationStrategy.NONE
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.scratch = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        most = MOST_SIDE_PX
        return name != "picture" or (1 <= shape[0] <= 8 and max(shape[2:]) <= most)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address in cuda.blocks
        self.addresses[name] = address
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return 64 * int(np.prod(next(iter(self.shapes.values()))))

    def set_device_memory(self, address: int, nbytes: int) -> None:
        assert len(cuda.blocks[address]) == nbytes >= self.update_device_memory_size_for_shapes()
        self.scratch = address

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if "raw" in self.shapes:
            return self.shapes["down"][0], self.shapes["across"][1]
        batch, _, rows, columns = self.shapes["picture"]
        declared = {one.name: one.shape[1] for one in self.engine.session.get_outputs()}
        channels = declared[name]
        if name in ("area", "features"):
            return batch, channels
        step = 4 if name == "memory_left" else 1
        return batch, channels, rows // step, columns // step

    def execute_async_v3(self, stream: int) -> bool:
        assert self.scratch in cuda.blocks
        fault = fault_now()
        if fault == "refuses":
            return False
        cuda.started.append(lambda: self._execute(fault))
        return True

    def _execute(self, fault: str) -> None:
        kinds = {one.name: one.type for one in self.engine.session.get_inputs()}
        inputs = {
            name: self._at(name, self.shapes[name], kinds[name]).copy()
            for name in self.engine.inputs
        }
        found = self.engine.session.run(self.engine.outputs, inputs)
        if fault == "cuda":
            cuda.break_down()
            return
        if fault == "unwritten":
            return
        for name, values in zip(self.engine.outputs, spoiled(found, fault), strict=True):
            self._at(name, values.shape)[:] = values

    def _at(self, name: str, shape: tuple[int, ...], kind: str = "tensor(float)") -> Any:
        count = int(np.prod(shape))
        element = ctypes.c_uint8 if kind == "tensor(uint8)" else ctypes.c_float
        memory = (element * count).from_address(self.addresses[name])
        return np.ctypeslib.as_array(memory).reshape(shape)


def spoiled(found: list[Any], fault: str) -> list[Any]:
    """Change an answer as a failing card does."""
    if len(found) == 1:  # an average of pixels
        picture = found[0].copy()
        if fault in ("drift", "half"):
            picture[len(picture) // 2 :] *= 0.9 if fault == "drift" else 0.0
        return [np.full_like(picture, np.nan) if fault == "nan" else picture]
    probability, area, *rest = found
    if fault == "nan":
        probability = probability.copy()
        probability[..., 3, 5] = np.nan
    if fault == "drift":
        probability = np.clip(probability + 0.1, 0, 1)
        area = probability.sum(axis=(2, 3))
    if fault == "half":  # the lower half was never written
        probability = probability.copy()
        probability[:, :, probability.shape[2] // 2 :] = 0.0
    return [probability, area, *rest]


def fault_now() -> str:
    """Tell which fault this answer shows; some end or stop the process right here."""
    global answers
    answers += 1
    where = os.environ.get("ICEWATCH_FAKE_FAULT")
    if not where or not Path(where).exists():
        return ""
    kind, count = Path(where).read_text().split()
    if answers <= int(count):
        return ""
    lasting = kind.endswith("!")
    kind = kind.rstrip("!")
    if not lasting and kind in ("segfault", "hang"):
        Path(where).unlink()
    if kind == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        time.sleep(3600.0)
    if kind == "raise":
        raise RuntimeError("the pretend card fell off the bus")
    return kind
