"""A pretend NVIDIA driver, for every Python that finds this folder on its path."""

from __future__ import annotations

import ctypes
import os
from typing import Any

ATTRIBUTES = {16: 46, 32: 0, 37: 384, 38: 6 << 20, 75: 8, 76: 6}
NO_DEVICE = 100
_load = ctypes.CDLL


class Driver:
    """What `engines.plans.card` asks of libcuda and of NVML."""

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0 if os.environ.get("ICEWATCH_FAKE_GPUS", "1") != "0" else NO_DEVICE

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:  # noqa: N802
        name.value = b"Pretend Card"
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:  # noqa: N802
        memory._obj.value = 8 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, number: int, device: Any) -> int:  # noqa: N802
        value._obj.value = ATTRIBUTES[number]
        return 0

    def cuDeviceGetPCIBusId(self, name: Any, length: int, device: Any) -> int:  # noqa: N802
        name.value = b"0000:41:00.0"
        return 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, length: int) -> int:  # noqa: N802
        text.value = os.environ.get("ICEWATCH_FAKE_DRIVER", "600.00").encode()
        return 0


def load(name: Any, *more: Any, **keywords: Any) -> Any:
    """Give the pretend driver in place of NVIDIA's libraries."""
    if name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        return Driver()
    return _load(name, *more, **keywords)


ctypes.CDLL = load  # type: ignore[assignment,misc]
