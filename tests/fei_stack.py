"""Stacks as Tomography 5 writes them, with an extended header of Thermo Fisher's own."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engines.readers.mrc import write_mrc

_ENTRY_BYTES = {"FEI1": 768, "FEI2": 888}
_FIRST_DAY = datetime(1899, 12, 30)


def write_fei_stack(
    path: Path,
    images: NDArray[Any],
    pixel_size_angstrom: float,
    angles: Sequence[float],
    times: Sequence[datetime | None],
    *,
    kind: str = "FEI1",
) -> None:
    """Write images (sections, rows, columns) with the angle and time of each."""
    write_mrc(path, images, pixel_size_angstrom)
    raw = path.read_bytes()
    entries = [
        _entry(angle, when, pixel_size_angstrom, _ENTRY_BYTES[kind])
        for angle, when in zip(angles, times, strict=True)
    ]
    header = bytearray(raw[:1024])
    struct.pack_into("<i", header, 92, _ENTRY_BYTES[kind] * len(entries))
    header[104:108] = kind.encode()
    path.write_bytes(bytes(header) + b"".join(entries) + raw[1024:])


def _entry(angle_deg: float, when: datetime | None, pixel_size_angstrom: float, size: int) -> bytes:
    raw = bytearray(size)
    days = (when - _FIRST_DAY).total_seconds() / 86_400 if when else 0.0
    mask = (1 if when else 0) | 1 << 6 | 1 << 7 | 1 << 14
    struct.pack_into("<2iId", raw, 0, size, 1, mask, days)
    struct.pack_into("<2d", raw, 92, 2.1e20, angle_deg)
    struct.pack_into("<d", raw, 156, pixel_size_angstrom * 1e-10)
    return bytes(raw)
