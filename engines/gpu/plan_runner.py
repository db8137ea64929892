"""Runs a compiled plan: names in, arrays out; buffers are reserved once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from engines.errors import BackendError
from engines.gpu.device import Device, GpuMemoryError
from engines.plans.library import Library

Arrays = dict[str, NDArray[float32]]

_OF_THE_LIBRARY = (RuntimeError, ValueError, TypeError, MemoryError, OSError)
_MOST_BYTES = 4 << 30
"""Of one buffer: more than any picture that a plan takes can need."""


class PlanRefusedError(BackendError):
    """Raised for a plan that the library does not take: to be thrown away and built anew."""


@dataclass(slots=True)
class _Port:
    """One input or output: the same number of bytes here and on the GPU."""

    host: NDArray[uint8]
    address: int

    @property
    def nbytes(self) -> int:
        return self.host.nbytes


class PlanRunner:
    """One plan on one GPU, used by one thread; its buffers grow to the largest picture seen."""

    def __init__(self, library: Library, plan: bytes, device: Device) -> None:
        """Load a plan whose bytes are known to be ours: it is code that runs in this process.

        Raises `PlanRefusedError` where the library does not take it, `BackendError` where the GPU
        fails.
        """
        self._device = device
        self._library = library
        self._ports: dict[str, _Port] = {}
        self._kept: dict[str, NDArray[Any]] = {}
        """Inputs that nobody can change, as they lie on the GPU now."""
        self._scratch = _Scratch(device)
        try:
            self._load(plan)
        except _OF_THE_LIBRARY as error:
            raise BackendError(
                f"{library.label} does not load a plan ({type(error).__name__}: {error}); see that "
                "driver and library belong together."
            ) from error

    def _load(self, plan: bytes) -> None:
        library, module = self._library, self._library.module
        self._runtime = module.Runtime(library.logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise PlanRefusedError(
                f"{library.label} does not take this plan: it was built for another card, driver "
                "or version."
            )
        self._context = self._engine.create_execution_context(_how(module, self._engine))
        if self._context is None:
            raise GpuMemoryError(
                "The GPU has not enough memory for the plan; end what else uses it."
            )
        names = [self._engine.get_tensor_name(k) for k in range(self._engine.num_io_tensors)]
        incoming = module.TensorIOMode.INPUT
        self.inputs = [n for n in names if self._engine.get_tensor_mode(n) == incoming]
        self.outputs = [n for n in names if n not in self.inputs]
        for name in self.outputs:
            if self._engine.get_tensor_dtype(name) != module.DataType.FLOAT:
                raise PlanRefusedError(f"The plan does not give {name} as float32: build it again.")

    @property
    def reserved_bytes(self) -> int:
        """Memory on the GPU that this plan holds now, without the weights."""
        return self._scratch.nbytes + sum(port.nbytes for port in self._ports.values())

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the plan: its outputs by name, float32, in memory of their own.

        Inputs are contiguous, of the type that the plan takes; a read-only one that is the same
        object as in the call before is not copied again.

        Raises `BackendError` where the GPU fails, after which the process is to end.
        """
        try:
            return self._run(inputs)
        except _OF_THE_LIBRARY as error:
            raise BackendError(
                f"{self._library.label} failed ({type(error).__name__}: {error}); restart."
            ) from error

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        for name in self.inputs:
            self._upload(name, inputs[name])
        self._make_room()
        shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in self.outputs}
        for name, shape in shapes.items():
            if any(side < 0 for side in shape):
                raise BackendError(f"The plan does not say how large {name} is; build it again.")
            nbytes = 4 * int(np.prod(shape))
            port = self._port(name, nbytes)
            self._device.spoil(port.address, nbytes)
            self._place(name, port)
        if not self._context.execute_async_v3(self._device.stream):
            raise BackendError("The plan failed on the GPU; see the kernel's log for an Xid.")
        for name, shape in shapes.items():
            port = self._ports[name]
            self._device.download(port.host, port.address, 4 * int(np.prod(shape)))
        self._device.wait()
        return {name: self._copied(name, shape) for name, shape in shapes.items()}

    def _upload(self, name: str, values: NDArray[Any]) -> None:
        if not self._context.set_input_shape(name, values.shape):
            raise BackendError(f"The plan does not take {name} of {values.shape}; build it again.")
        port = self._port(name, values.nbytes)
        if self._kept.get(name) is not values:
            np.copyto(port.host[: values.nbytes].view(values.dtype).reshape(values.shape), values)
            self._device.upload(port.address, port.host, values.nbytes)
            self._kept.pop(name, None)
            if values.flags.owndata and not values.flags.writeable:
                self._kept[name] = values
        self._place(name, port)

    def _place(self, name: str, port: _Port) -> None:
        if not self._context.set_tensor_address(name, port.address):
            raise BackendError(f"The plan does not take the memory of {name}; build it again.")

    def _make_room(self) -> None:
        """Reserve what the network itself needs for these shapes."""
        needed = int(self._context.update_device_memory_size_for_shapes())
        address, nbytes = self._scratch.of(needed)
        self._context.set_device_memory(address, nbytes)

    def _port(self, name: str, nbytes: int) -> _Port:
        port = self._ports.get(name)
        if port is not None and port.nbytes >= nbytes:
            return port
        if nbytes > _MOST_BYTES:
            raise BackendError(f"{name} would take {nbytes} bytes; that is no picture.")
        if port is not None:
            self._device.wait()  # nothing may still be on its way
            del self._ports[name]
            self._kept.pop(name, None)
            self._device.release(port.address)
            self._device.unpin(port.host)
        made = _Port(self._device.pinned(nbytes), self._device.allocate(nbytes))
        self._ports[name] = made
        return made

    def _copied(self, name: str, shape: tuple[int, ...]) -> NDArray[float32]:
        nbytes = 4 * int(np.prod(shape))
        return self._ports[name].host[:nbytes].view(float32).reshape(shape).copy()

    def close(self) -> None:
        """Give plan, context and memory back, in the order that the library wants."""
        self._context = self._engine = self._runtime = None
        self._ports.clear()
        self._device.close()


def _how(module: Any, engine: Any) -> Any:
    """Say how a plan is run: memory by the shapes that come, and always the same kernels.

    tensorrt_rtx would put kernels that it compiles in the background in place of those that were
    proved (DynamicShapesKernelSpecializationStrategy, LAZY by default).
    """
    strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
    if not hasattr(module, "DynamicShapesKernelSpecializationStrategy"):
        return strategy
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(strategy)
    config.dynamic_shapes_kernel_specialization_strategy = (
        module.DynamicShapesKernelSpecializationStrategy.NONE
    )
    return config


class _Scratch:
    """Memory of the GPU for what lies between the layers; it grows, and never shrinks."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._address = 0
        self.nbytes = 0

    def of(self, nbytes: int) -> tuple[int, int]:
        """Give address and size of at least so many bytes."""
        if nbytes > self.nbytes:
            self._device.wait()
            if self._address:
                self._device.release(self._address)
            self._address, self.nbytes = 0, 0
            self._address = self._device.allocate(nbytes)
            self.nbytes = nbytes
        return self._address, self.nbytes
