"""The graphics card that is there, asked of the driver without any CUDA library.

The driver's own libraries are called (CUDA driver API and NVML), so that no package is needed and
no context is made on the card:
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html
"""

from __future__ import annotations

import ctypes
import re
from typing import Any

from engines.plans.errors import PlanError
from engines.plans.key import Card

_MULTIPROCESSORS, _ERROR_CORRECTION, _BUS_BITS, _L2_BYTES = 16, 32, 37, 38
_MAJOR, _MINOR = 75, 76
"""CUdevice_attribute in cuda.h."""
_TEXT_BYTES, _BUS_ID_BYTES = 96, 32
_NO_DEVICE, _OTHER_VERSION = 100, (18, 803)
"""CUDA_ERROR_NO_DEVICE; NVML and CUDA where the driver was updated under the running kernel."""
_REBOOT = "the driver was updated: restart this computer"
_REMEDY = "see that nvidia-smi lists the card, or stay on the CPU"


def find_card(number: int = 0) -> Card:
    """Describe a card, counted as CUDA counts them; raises `PlanError` where there is none."""
    driver, device = _device(number)
    name = ctypes.create_string_buffer(_TEXT_BYTES)
    _call(driver, "cuDeviceGetName", name, _TEXT_BYTES, device)
    memory = ctypes.c_size_t()
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    return Card(
        name=printable(name.value),
        compute_capability=f"{attribute(_MAJOR)}.{attribute(_MINOR)}",
        driver=_driver_version(),
        memory_bytes=memory.value,
        multiprocessors=attribute(_MULTIPROCESSORS),
        l2_bytes=attribute(_L2_BYTES),
        bus_bits=attribute(_BUS_BITS),
        error_correction=bool(attribute(_ERROR_CORRECTION)),
    )


def find_bus_id(number: int = 0) -> str:
    """Name the place of a card on the PCI bus, counted as CUDA counts them.

    CUDA counts the fastest first, and only those that CUDA_VISIBLE_DEVICES names; other programs
    count otherwise. Raises `PlanError` where there is none.
    """
    driver, device = _device(number)
    text = ctypes.create_string_buffer(_BUS_ID_BYTES)
    _call(driver, "cuDeviceGetPCIBusId", text, _BUS_ID_BYTES, device)
    return printable(text.value)


def _device(number: int) -> tuple[Any, ctypes.c_int]:
    """Give the driver, and its handle of a card."""
    try:
        driver: Any = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise PlanError(f"There is no NVIDIA driver here: {_REMEDY}.", "no_gpu") from error
    device = ctypes.c_int()
    _call(driver, "cuInit", 0)
    _call(driver, "cuDeviceGet", ctypes.byref(device), number)
    return driver, device


def _call(driver: Any, name: str, *arguments: Any) -> None:
    status = getattr(driver, name)(*arguments)
    if status == _NO_DEVICE:
        raise PlanError(f"The NVIDIA driver knows of no card here: {_REMEDY}.", "no_gpu")
    if status:
        remedy = _REBOOT if status in _OTHER_VERSION else _REMEDY
        raise PlanError(f"The NVIDIA driver answers error {status} to {name}: {remedy}.", "gpu")


def _driver_version() -> str:
    """Ask NVML for the version of the driver."""
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    try:
        nvml: Any = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        raise PlanError(f"The NVIDIA driver has no libnvidia-ml: {_REMEDY}.", "gpu") from error
    _call(nvml, "nvmlInit_v2")
    try:
        _call(nvml, "nvmlSystemGetDriverVersion", text, _TEXT_BYTES)
    finally:
        nvml.nvmlShutdown()
    return printable(text.value)


def printable(text: bytes) -> str:
    """Read a name without what could steer a terminal."""
    return re.sub(r"[^\x20-\x7e]", "?", text.decode("ascii", "replace"))
