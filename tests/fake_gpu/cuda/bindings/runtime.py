"""The functions of the CUDA runtime that icewatch calls, on plain memory.

Copies that were started happen at `cudaStreamSynchronize`, as late as a real GPU may do them.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any


class cudaError_t(IntEnum):  # noqa: N801
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700


class cudaMemcpyKind(IntEnum):  # noqa: N801
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


OK = cudaError_t.cudaSuccess
TOTAL_BYTES = int(os.environ.get("ICEWATCH_FAKE_GPU_BYTES", str(8 << 30)))
blocks: dict[int, Any] = {}
started: list[Callable[[], None]] = []
sticky = OK


def cudaGetDeviceCount() -> tuple[cudaError_t, int]:  # noqa: N802
    count = int(os.environ.get("ICEWATCH_FAKE_GPUS", "1"))
    return (OK if count else cudaError_t.cudaErrorNoDevice), count


def cudaSetDevice(index: int) -> tuple[cudaError_t]:  # noqa: N802
    return (OK,)


def cudaStreamCreate() -> tuple[cudaError_t, int]:  # noqa: N802
    return OK, 7


def cudaStreamDestroy(stream: int) -> tuple[cudaError_t]:  # noqa: N802
    return (OK,)


def cudaMemGetInfo() -> tuple[cudaError_t, int, int]:  # noqa: N802
    return OK, TOTAL_BYTES - in_use(), TOTAL_BYTES


def in_use() -> int:
    return sum(len(block) for block in blocks.values())


def cudaMalloc(nbytes: int) -> tuple[cudaError_t, int]:  # noqa: N802
    if nbytes > TOTAL_BYTES - in_use():
        return cudaError_t.cudaErrorMemoryAllocation, 0
    block = (ctypes.c_uint8 * nbytes)()
    address = ctypes.addressof(block)
    blocks[address] = block
    return OK, address


def cudaHostAlloc(nbytes: int, flags: int) -> tuple[cudaError_t, int]:  # noqa: N802
    return cudaMalloc(nbytes)


def cudaFree(address: int) -> tuple[cudaError_t]:  # noqa: N802
    assert not started, "memory is given back while work on it is under way"
    del blocks[address]
    return (OK,)


cudaFreeHost = cudaFree  # noqa: N816


def _move(to: int, source: int, nbytes: int) -> None:
    ctypes.memmove(to, source, nbytes)


def cudaMemcpyAsync(  # noqa: N802
    to: int, source: int, nbytes: int, kind: cudaMemcpyKind, stream: int
) -> tuple[cudaError_t]:
    assert stream == 7
    if sticky is OK:
        started.append(partial(_move, to, source, nbytes))
    return (sticky,)


def cudaMemsetAsync(  # noqa: N802
    address: int, value: int, nbytes: int, stream: int
) -> tuple[cudaError_t]:
    assert stream == 7
    if sticky is OK:
        started.append(partial(_fill, address, value, nbytes))
    return (sticky,)


def _fill(address: int, value: int, nbytes: int) -> None:
    ctypes.memset(address, value, nbytes)


def cudaStreamSynchronize(stream: int) -> tuple[cudaError_t]:  # noqa: N802
    while started and sticky is OK:
        started.pop(0)()
    return (sticky,)


def break_down() -> None:
    """Answer every later call with the error that a bad kernel leaves."""
    global sticky
    sticky = cudaError_t.cudaErrorIllegalAddress
