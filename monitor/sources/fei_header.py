"""What Thermo Fisher's programs keep of each section in the extended header of an MRC file.

Entries of 768 (`FEI1`) or 888 bytes (`FEI2`), the same up to where they are read here; a bit of a
mask says for each value whether it was set.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from engines.readers.mrc_header import HEADER_BYTES, MrcHeader
from engines.readers.raw_file import opened, read_at
from monitor.sources.wall_clock import iso_time

_KINDS = ("FEI1", "FEI2")
_LEAST_ENTRY_BYTES = 172
_LARGEST_ENTRY_BYTES = 4096
_MOST_SECTIONS = 1000
_TIME, _DOSE, _ALPHA, _PIXEL = (1 << bit for bit in (0, 6, 7, 14))
_FIRST_DAY = datetime(1899, 12, 30)
_DAYS = (30_000.0, 75_000.0)
"""1982 to 2105."""


@dataclass(frozen=True, slots=True)
class FeiEntry:
    """One section; None for what was not recorded."""

    tilt_angle_deg: float | None
    acquired_at: str | None
    dose_e_per_A2: float | None
    pixel_size_angstrom: float | None


def read_fei_entries(path: Path, header: MrcHeader) -> tuple[FeiEntry, ...]:
    """Read the entry of each section; empty where a file has none, or too many to be a series.

    Raises `PixelsError` as `read_header` does.
    """
    if header.ext_type not in _KINDS or not 0 < header.nz <= _MOST_SECTIONS:
        return ()
    order = ">" if header.big_endian else "<"
    with opened(path) as file:
        raw = read_at(file, HEADER_BYTES, min(header.nsymbt, 4), path)
        size = struct.unpack(order + "i", raw)[0] if len(raw) == 4 else 0
        if not _LEAST_ENTRY_BYTES <= size <= _LARGEST_ENTRY_BYTES:
            return ()
        if size * header.nz > header.nsymbt:
            return ()
        raw = read_at(file, HEADER_BYTES, size * header.nz, path)
    starts = range(0, len(raw) - _LEAST_ENTRY_BYTES + 1, size)
    return tuple(_entry(raw[start : start + _LEAST_ENTRY_BYTES], order) for start in starts)


def _entry(raw: bytes, order: str) -> FeiEntry:
    (mask,) = struct.unpack_from(order + "I", raw, 8)

    def value(bit: int, offset: int) -> float | None:
        (found,) = struct.unpack_from(order + "d", raw, offset)
        return float(found) if mask & bit and math.isfinite(found) else None

    angle, dose, pixel_m = value(_ALPHA, 100), value(_DOSE, 92), value(_PIXEL, 156)
    return FeiEntry(
        tilt_angle_deg=angle + 0.0 if angle is not None and abs(angle) <= 90.0 else None,
        acquired_at=_time(value(_TIME, 12)),
        # Of electrons per square metre.
        dose_e_per_A2=dose * 1e-20 if dose is not None and 1e16 < dose < 1e24 else None,
        pixel_size_angstrom=_pixel_size_angstrom(pixel_m),
    )


def _pixel_size_angstrom(pixel_m: float | None) -> float | None:
    size = None if pixel_m is None else pixel_m * 1e10
    return round(size, 6) if size is not None and 0.01 < size < 10_000.0 else None


def _time(days: float | None) -> str | None:
    """Read days since 30 December 1899, as Windows programs count."""
    if days is None or not _DAYS[0] < days < _DAYS[1]:
        return None
    when = _FIRST_DAY + timedelta(seconds=round(days * 86_400.0))
    return iso_time(when.year, when.month, when.day, when.hour, when.minute, when.second)
