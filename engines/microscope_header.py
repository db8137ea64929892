"""The MRC header of SerialEM's stacks, with its extended header of one entry for each section."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from engines.readers.mrc_header import HEADER_BYTES

EXTENDED_BYTES = 4096
SERI_BYTES = 14
MODES = {"uint8": 0, "int16": 1, "uint16": 6, "float32": 2}
_SERI_FLAGS = 1 | 4 | 8 | 16 | 32
"""Tilt angle, stage position, magnification, intensity, dose."""
_IMOD_STAMP = 1_146_047_817


def stack_header(
    sections: int,
    shape: tuple[int, int],
    mode: int,
    pixel_size_angstrom: float,
    statistics: tuple[float, float, float],
    titles: Sequence[str],
) -> bytes:
    """Pack the header; before the first section every size is 0 (SerialEM, KStoreMRC.cpp)."""
    rows, columns = shape if sections else (0, 0)
    raw = bytearray(HEADER_BYTES)
    struct.pack_into("<4i", raw, 0, columns, rows, sections, mode)
    struct.pack_into("<3i", raw, 28, columns, rows, sections)
    cell = [size * pixel_size_angstrom for size in (columns, rows, sections)]
    struct.pack_into("<6f", raw, 40, *cell, 90.0, 90.0, 90.0)
    struct.pack_into("<3i3f2i", raw, 64, 1, 2, 3, *statistics, 0, EXTENDED_BYTES)
    struct.pack_into("<4si", raw, 104, b"SERI", 20140)
    struct.pack_into("<2h", raw, 128, SERI_BYTES, _SERI_FLAGS)
    struct.pack_into("<2i", raw, 152, _IMOD_STAMP, 0)
    struct.pack_into("<4s4Bfi", raw, 208, b"MAP ", 0x44, 0x44, 0, 0, -1.0, len(titles))
    for index, title in enumerate(titles):
        struct.pack_into("80s", raw, 224 + 80 * index, title.encode().ljust(80))
    return bytes(raw)


def seri_entry(angle_deg: float) -> bytes:
    """Pack what the extended header keeps of one section: the angle is times 100."""
    return struct.pack("<h2hhh2h", round(angle_deg * 100), 3487, 9195, 640, 4669, 0, 0)
