"""The header of an MRC file, decoded with every field doubted.

Layout: MRC2014 (https://www.ccpem.ac.uk/mrc-format/mrc2014/), with what IMOD and SerialEM add
(https://bio3d.colorado.edu/imod/doc/mrc_format.txt).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.errors import PixelsError
from engines.readers import nibbles

HEADER_BYTES = 1024
MAX_SIDE_PX = 65_536
"""Longest side of an image that is believed; the largest camera has 16384 (EER upsampled)."""
MAX_SECTION_BYTES = 1 << 30
_LARGEST_SECTION_COUNT = 1_000_000
_BYTES_UNREAD = {3: 4, 4: 8, 16: 3}
"""Per pixel, of the modes that are known but not read: complex numbers, colours."""
_PACKED = 101
_LARGEST_MODE = 999
_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", _PACKED: "u1"}
_KNOWN_MODES = frozenset({*_DTYPES, *_BYTES_UNREAD, _PACKED})
_IMOD_STAMP = 1_146_047_817
_IMOD_SIGNED_BYTES = 1
_IMOD_PACKED_BYTES = 16
_PACKED_TITLE = b"4 bits packed"


@dataclass(frozen=True, slots=True)
class MrcHeader:
    """What the header of an MRC file says, checked against the size of the file."""

    nx: int
    """Columns (px), where two share a byte after unpacking."""
    ny: int
    """Rows (px)."""
    nz: int
    """Sections that the header claims; a growing or cut file may hold fewer or more."""
    mode: int
    dtype: np.dtype[Any] | None
    """As stored, byte order included; None for a mode whose pixels cannot be read."""
    packed: bool
    """Whether two pixels share a byte, the left one in its low half."""
    data_offset: int
    section_bytes: int
    """0 for a mode that nobody knows."""
    pixel_size_angstrom: float | None
    """None where the header does not know: the 1.0 Å default, zero, or nonsense."""
    ext_type: str
    nsymbt: int
    titles: tuple[str, ...]
    seri_bytes_per_section: int
    """Bytes per section of SerialEM's extended header; 0 if there is none."""
    seri_flags: int
    file_size: int
    inode: int
    modified_ns: int
    big_endian: bool

    @property
    def sections_on_disk(self) -> int:
        """How many whole sections the file is long enough for; all if nobody can tell."""
        if not self.section_bytes:
            return self.nz if self.file_size > self.data_offset else 0
        return (self.file_size - self.data_offset) // self.section_bytes

    @property
    def is_whole(self) -> bool:
        """Whether the file is exactly as long as its header says; True if nobody can tell."""
        if not self.section_bytes:
            return self.file_size > self.data_offset
        return self.file_size == self.data_offset + self.nz * self.section_bytes


def parse_header(raw: bytes, now: os.stat_result, name: str) -> MrcHeader:
    """Decode the first 1024 bytes of a file whose size, inode and times are `now`.

    `name` is for the sentences. Raises `PixelsError`: `header` (nonsense), `truncated` (to come).
    """
    order = _byte_order(raw, name)
    nx, ny, nz, mode = struct.unpack_from(order + "4i", raw, 0)
    (nsymbt,) = struct.unpack_from(order + "i", raw, 92)
    if 0 in (nx, ny, nz):
        raise PixelsError(f"{name!r} holds no image yet ({nx} x {ny} x {nz})", "truncated")
    dtype = _dtype(raw, order, mode)
    packed = mode == _PACKED
    if mode == 0 and _is_packed_at_half_width(raw, order, nx, ny):
        nx, packed, dtype = 2 * nx, True, np.dtype("u1")
    section_bytes = nibbles.row_bytes(nx) * ny if packed else _section_bytes(nx, ny, mode, dtype)
    if max(section_bytes, nx * ny) > MAX_SECTION_BYTES:
        raise PixelsError(f"{name!r} claims {nx} x {ny} pixels, more than any camera has", "header")
    if HEADER_BYTES + nsymbt > now.st_size:
        raise PixelsError(
            f"{name!r} ends within its extended header of {nsymbt} bytes", "truncated"
        )
    ext_type = raw[104:108].decode("latin-1").strip("\0 ")
    seri_bytes, seri_flags = struct.unpack_from(order + "2h", raw, 128)
    is_seri = ext_type == "SERI" and nsymbt > 0 and seri_bytes > 0
    return MrcHeader(
        nx=nx,
        ny=ny,
        nz=nz,
        mode=mode,
        dtype=dtype,
        packed=packed,
        data_offset=HEADER_BYTES + nsymbt,
        section_bytes=section_bytes,
        pixel_size_angstrom=_pixel_size_angstrom(raw, order),
        ext_type=ext_type,
        nsymbt=nsymbt,
        titles=_titles(raw, order),
        seri_bytes_per_section=seri_bytes if is_seri else 0,
        seri_flags=seri_flags if is_seri else 0,
        file_size=now.st_size,
        inode=now.st_ino,
        modified_ns=now.st_mtime_ns,
        big_endian=order == ">",
    )


def _byte_order(raw: bytes, name: str) -> str:
    """Take the machine stamp's word unless the numbers make sense only the other way round."""
    orders = "><" if raw[212] == 0x11 else "<>"
    for order in orders:
        nx, ny, nz, mode = struct.unpack_from(order + "4i", raw, 0)
        (nsymbt,) = struct.unpack_from(order + "i", raw, 92)
        sizes_make_sense = 0 <= nx <= MAX_SIDE_PX and 0 <= ny <= MAX_SIDE_PX and nz >= 0
        if sizes_make_sense and mode in _KNOWN_MODES and nsymbt >= 0:
            return order
    for order in orders:
        if _is_of_unknown_mode(raw, order):
            return order
    nx, ny, nz, mode = struct.unpack_from(orders[0] + "4i", raw, 0)
    raise PixelsError(
        f"{name!r} is not an MRC file: its header claims {nx} x {ny} x {nz} pixels in mode {mode}",
        "header",
    )


def _is_of_unknown_mode(raw: bytes, order: str) -> bool:
    """Whether all but the mode is as in an MRC file, its mark included."""
    nx, ny, nz, mode = struct.unpack_from(order + "4i", raw, 0)
    (nsymbt,) = struct.unpack_from(order + "i", raw, 92)
    sizes_make_sense = 0 < nx <= MAX_SIDE_PX and 0 < ny <= MAX_SIDE_PX
    counts_make_sense = 0 < nz <= _LARGEST_SECTION_COUNT and 0 <= mode <= _LARGEST_MODE
    return sizes_make_sense and counts_make_sense and nsymbt >= 0 and raw[208:211] == b"MAP"


def _section_bytes(nx: int, ny: int, mode: int, dtype: np.dtype[Any] | None) -> int:
    return nx * ny * (_BYTES_UNREAD.get(mode, 0) if dtype is None else dtype.itemsize)


def _dtype(raw: bytes, order: str, mode: int) -> np.dtype[Any] | None:
    code = _DTYPES.get(mode)
    if code is None:
        return None
    if mode == 0 and _are_unsigned(raw, order):
        code = "u1"
    return np.dtype(order + code)


def _are_unsigned(raw: bytes, order: str) -> bool:
    """Whether bytes are unsigned: those of IMOD and SerialEM are unless they say otherwise.

    Without IMOD's stamp they are signed, as MRC2014 has it, unless the range of values in the
    header says that they cannot be.
    """
    stamp, flags = struct.unpack_from(order + "2i", raw, 152)
    if stamp == _IMOD_STAMP:
        return not flags & _IMOD_SIGNED_BYTES
    low, high = struct.unpack_from(order + "2f", raw, 76)
    return bool(low >= 0.0 and high >= 128.0)


def _is_packed_at_half_width(raw: bytes, order: str, nx: int, ny: int) -> bool:
    """Whether bytes hold two pixels each, as IMOD finds out: by a flag, or by title and size."""
    stamp, flags = struct.unpack_from(order + "2i", raw, 152)
    if stamp == _IMOD_STAMP and flags & _IMOD_PACKED_BYTES:
        return True
    (titles,) = struct.unpack_from(order + "i", raw, 220)
    return titles == 1 and _PACKED_TITLE in raw[224:304] and nibbles.are_likely(nx, ny)


def _pixel_size_angstrom(raw: bytes, order: str) -> float | None:
    mx, my = struct.unpack_from(order + "2i", raw, 28)
    width, height = struct.unpack_from(order + "2f", raw, 40)
    if mx <= 0 or not np.isfinite(width):
        return None
    size = float(width) / int(mx)
    unknown = abs(size - 1.0) < 1e-4  # a cell as large as the image: nobody set it
    if unknown or not 0.01 < size < 10_000.0:
        return None
    if my > 0 and np.isfinite(height) and height > 0 and abs(float(height) / my / size - 1) > 0.01:
        return None
    return round(size, 6)


def _titles(raw: bytes, order: str) -> tuple[str, ...]:
    (count,) = struct.unpack_from(order + "i", raw, 220)
    labels = [raw[224 + 80 * n : 304 + 80 * n] for n in range(min(max(count, 0), 10))]
    return tuple(label.decode("latin-1").strip("\0 ") for label in labels)
