"""How much memory a process holds, on the host and on a GPU."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PROCESS = Path("/proc/self")
_FORGET_THE_PEAK = "5"


def peak_bytes() -> int:
    """Tell the largest resident set of this process since `reset_peak`."""
    return _status("VmHWM:")


def reset_peak() -> int:
    """Forget the peak so far, where the kernel lets us: the resident set now."""
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text(_FORGET_THE_PEAK)
    return _status("VmRSS:")


def _status(name: str) -> int:
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def device_bytes() -> int | None:
    """Tell the memory that this process holds on GPUs; None where nothing is, or can be told.

    In a container the driver may know this process by another number.
    """
    if find_spec("pynvml") is None:
        return None
    nvml: Any = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
        held = sum(_held_on(nvml, at) for at in range(nvml.nvmlDeviceGetCount()))
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        return None
    return held or None


def _held_on(nvml: Any, at: int) -> int:
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByIndex(at))
    return sum(one.usedGpuMemory or 0 for one in processes if one.pid == os.getpid())
