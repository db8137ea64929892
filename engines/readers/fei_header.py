"""The extended header of Thermo Fisher programs (FEI1, FEI2): what they note of each section.

A field counts only where its bit in the entry's mask says that it was set.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta

ENTRY_TYPES = frozenset({"FEI1", "FEI2"})
_SHORTEST_ENTRY, _LONGEST_ENTRY = 768, 4096
ENTRY_START_BYTES = 164
"""Up to the end of the last field that is read."""
_DAY_ZERO = datetime(1899, 12, 30)
_BELIEVED_DAYS = (33_000.0, 73_000.0)
"""1990 to 2099: any other is what a program writes that does not know the time."""
_ANGSTROM_PER_METRE = 1e10

# Offset of a field in the entry and its bit in the mask.
_TIMESTAMP, _DOSE, _ALPHA_TILT, _PIXEL_SIZE_X = (12, 0), (92, 6), (100, 7), (156, 14)


@dataclass(frozen=True, slots=True)
class FeiSection:
    """What the extended header says of one section; None where it does not."""

    angle_deg: float | None
    acquired_at: str | None
    """In the microscope's own time, without a zone: 2026-01-05T10:00:00."""
    dose_e_per_A2: float | None
    pixel_size_angstrom: float | None


_NOTHING = FeiSection(None, None, None, None)


def entry_bytes(start: bytes) -> int:
    """How long each entry is, by what the first one says; 0 where that makes no sense."""
    order = _order(start)
    return int(struct.unpack_from(order + "i", start)[0]) if order else 0


def parse_entry(raw: bytes) -> FeiSection:
    """Decode one entry, of which the first `ENTRY_START_BYTES` are enough."""
    order = _order(raw)
    if not order or len(raw) < ENTRY_START_BYTES:
        return _NOTHING
    # The masks are little-endian always; the rest follows the file.
    (mask,) = struct.unpack_from("<I", raw, 8)

    def value(field: tuple[int, int]) -> float | None:
        offset, bit = field
        if not mask >> bit & 1:
            return None
        (number,) = struct.unpack_from(order + "d", raw, offset)
        return float(number) if math.isfinite(number) else None

    angle_deg, dose, size = value(_ALPHA_TILT), value(_DOSE), value(_PIXEL_SIZE_X)
    return FeiSection(
        angle_deg=angle_deg + 0.0 if angle_deg is not None and abs(angle_deg) <= 90.0 else None,
        acquired_at=_iso(value(_TIMESTAMP)),
        dose_e_per_A2=_per_square_angstrom(dose),
        pixel_size_angstrom=_angstrom(size),
    )


def _order(raw: bytes) -> str:
    for order in "<>":
        if len(raw) >= 4:
            (size,) = struct.unpack_from(order + "i", raw)
            if _SHORTEST_ENTRY <= size <= _LONGEST_ENTRY:
                return order
    return ""


def _iso(days: float | None) -> str | None:
    if days is None or not _BELIEVED_DAYS[0] < days < _BELIEVED_DAYS[1]:
        return None
    when = _DAY_ZERO + timedelta(milliseconds=round(days * 86_400_000.0))
    return when.replace(microsecond=0).isoformat()


def _per_square_angstrom(dose_e_per_m2: float | None) -> float | None:
    dose = (dose_e_per_m2 or 0.0) / _ANGSTROM_PER_METRE**2
    return round(dose, 9) if 0.0 < dose < 1e6 else None


def _angstrom(metres: float | None) -> float | None:
    size = (metres or 0.0) * _ANGSTROM_PER_METRE
    return round(size, 6) if 0.01 < size < 10_000.0 else None
