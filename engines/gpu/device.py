"""Memory and one stream of an NVIDIA GPU, by NVIDIA's own bindings of the CUDA runtime."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from types import ModuleType
from typing import Any

import numpy as np
from numpy import uint8
from numpy.typing import NDArray

from engines.errors import BackendError

_NO_DEVICE, _OLD_DRIVER, _NO_MEMORY = 100, 35, 2
_REMEDIES = {
    _NO_DEVICE: "no NVIDIA GPU is to be seen here; see what nvidia-smi says",
    _OLD_DRIVER: "the NVIDIA driver is missing or too old for this CUDA; update the driver",
    _NO_MEMORY: "the GPU has not enough free memory; end what else uses it",
}
"""What to do, by number of cudaError_t."""


class NoGpuError(BackendError):
    """Raised where there is no GPU that can be used at all: the CPU serves."""


class GpuMemoryError(BackendError):
    """Raised where the GPU has not enough free memory; nothing else is wrong with it."""


class Device:
    """One GPU, used by one thread; every failure of CUDA is a `BackendError`.

    After a failure in the middle of work the whole process is to end: errors of CUDA stick to it.
    """

    def __init__(self, cuda: ModuleType, index: int = 0) -> None:
        """Take a GPU; raises `NoGpuError` where there is none."""
        self._cuda = cuda
        try:
            count = self._call("cudaGetDeviceCount")
            if not index < count:
                raise NoGpuError(f"There is no GPU {index}: {count} are to be seen here.")
            self._call("cudaSetDevice", index)
            self.stream: int = int(self._call("cudaStreamCreate"))
        except NoGpuError:
            raise
        except BackendError as error:
            raise NoGpuError(str(error)) from error
        self._device: list[int] = []
        self._pinned: list[int] = []

    def free_bytes(self) -> int:
        """Tell how much memory is left on the GPU."""
        return int(self._call("cudaMemGetInfo")[0])

    def allocate(self, nbytes: int) -> int:
        """Reserve memory on the GPU: its address there."""
        address = int(self._call("cudaMalloc", nbytes))
        self._device.append(address)
        return address

    def release(self, address: int) -> None:
        """Give memory on the GPU back."""
        self._device.remove(address)
        self._call("cudaFree", address)

    def pinned(self, nbytes: int) -> NDArray[uint8]:
        """Reserve page-locked memory of this computer, from which copies run at full speed."""
        address = int(self._call("cudaHostAlloc", nbytes, 0))
        self._pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def unpin(self, memory: NDArray[uint8]) -> None:
        """Give page-locked memory back; nothing may look at it any more."""
        self._pinned.remove(memory.ctypes.data)
        self._call("cudaFreeHost", memory.ctypes.data)

    def upload(self, address: int, memory: NDArray[uint8], nbytes: int) -> None:
        """Start to copy bytes to the GPU; the memory must stay until `wait`."""
        self._copy(address, memory.ctypes.data, nbytes, "cudaMemcpyHostToDevice")

    def download(self, memory: NDArray[uint8], address: int, nbytes: int) -> None:
        """Start to copy bytes from the GPU; they are there after `wait`."""
        self._copy(memory.ctypes.data, address, nbytes, "cudaMemcpyDeviceToHost")

    def _copy(self, to: int, source: int, nbytes: int, way: str) -> None:
        kind = getattr(self._cuda.cudaMemcpyKind, way)
        self._call("cudaMemcpyAsync", to, source, nbytes, kind, self.stream)

    def spoil(self, address: int, nbytes: int) -> None:
        """Start to fill memory with NaN (float32), so that what is never written is found out."""
        self._call("cudaMemsetAsync", address, 0xFF, nbytes, self.stream)

    def wait(self) -> None:
        """Wait for all that was started."""
        self._call("cudaStreamSynchronize", self.stream)

    def close(self) -> None:
        """Give everything back; what fails then does no harm any more."""
        for give_back, addresses in (("cudaFree", self._device), ("cudaFreeHost", self._pinned)):
            for address in addresses:
                with suppress(BackendError):
                    self._call(give_back, address)
            addresses.clear()
        if self.stream:
            with suppress(BackendError):
                self._call("cudaStreamDestroy", self.stream)
            self.stream = 0

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of CUDA: what it returns, or a `BackendError`."""
        error, *answers = getattr(self._cuda, name)(*arguments)
        number = int(error)
        if number != 0:
            kind = GpuMemoryError if number == _NO_MEMORY else BackendError
            raise kind(f"{name} failed: {_REMEDIES.get(number) or _text(error)}.")
        return answers[0] if len(answers) == 1 else answers


def _text(error: Any) -> str:
    name = getattr(error, "name", str(error))
    return f"CUDA says {name} ({int(error)}); see the kernel's log for an Xid"


def open_device(index: int = 0) -> Device:
    """Take a GPU; raises `NoGpuError` where there is none, or no library for it."""
    try:
        from cuda.bindings import runtime  # type: ignore[import-untyped]
    except ImportError as error:
        raise NoGpuError(
            f"The CUDA bindings cannot be loaded ({error}); pip install 'icewatch[gpu]'."
        ) from error
    return Device(runtime, index)
