"""MRC files: read one section at a time, and a small writer; rows stay as they are stored."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers import fei_header, nibbles
from engines.readers.fei_header import FeiSection
from engines.readers.mrc_header import HEADER_BYTES, MrcHeader, parse_header
from engines.readers.raw_file import Pace, facts, fill, opened, read_at, refuse_replaced, unpaced

READABLE_MODES = "MRC mode 0, 1, 2, 6, 12 or 101"
_MAX_EXTENDED_BYTES = 1 << 20
_WRITABLE = {"int8": 0, "int16": 1, "float32": 2}
_SERI_TILT_FLAG = 1


def read_header(path: Path) -> MrcHeader:
    """Read and check the header of an MRC file of either byte order.

    Raises `PixelsError` with reason `missing`, `unreadable` (not a regular file, no permission,
    I/O error), `truncated` (not all there, or no image in it yet) or `header`.
    """
    with opened(path) as file:
        return header_of(file, path)


def read_section(
    path: Path, section: int, header: MrcHeader | None = None, pace: Pace = unpaced
) -> NDArray[Any]:
    """Copy one section out of an MRC file: (rows, columns), native byte order, rows as stored.

    The file is open only while its bytes are copied, so that no other program finds it in use;
    `pace` is called before that with how many there are, and may wait. With `header`, as read
    before, a file that was replaced or shrank since is refused. Raises `PixelsError` as
    `read_header` does, and with reason `mode` (pixels of a kind that cannot be read), `section`
    (not in this file), `truncated` (its bytes are not there) or `changed` (rewritten while it
    was read).
    """
    before = header or read_header(path)
    pace(before.section_bytes)
    with opened(path) as file:
        now = header_of(file, path)
        _refuse_other_file(before, now, path)
        stored = _room(now, path)
        if not 0 <= section < now.nz:
            raise PixelsError(f"{path.name!r} has no section {section}, only {now.nz}", "section")
        _fill_section(file, stored, section, now, path)
        _refuse_other_file(now, header_of(file, path), path)
        refuse_replaced(file, path)
    return _pixels(stored, now)


def sum_of_sections(file: int, header: MrcHeader, path: Path, pace: Pace) -> NDArray[Any]:
    """Add up all sections of an open MRC file, never holding more than one beside the sum.

    A single section stays of its own kind of pixels. Raises `PixelsError` (`mode`, `truncated`).
    """
    stored = _room(header, path)
    _fill_section(file, stored, 0, header, path, pace)
    if header.nz == 1:
        return _pixels(stored, header)
    total = _pixels(stored, header).astype("f4" if stored.dtype.kind == "f" else "i4")
    for section in range(1, header.nz):
        _fill_section(file, stored, section, header, path, pace)
        total += _pixels(stored, header)
    return total


def _room(header: MrcHeader, path: Path) -> NDArray[Any]:
    """Make room for one section as it is stored, where its bytes are there to fill it."""
    if header.dtype is None:
        raise PixelsError(
            f"{path.name!r} holds pixels of MRC mode {header.mode}; have it written as "
            f"{READABLE_MODES}",
            "mode",
        )
    if header.sections_on_disk < 1:
        raise PixelsError(f"{path.name!r} is cut within section 0", "truncated")
    columns = nibbles.row_bytes(header.nx) if header.packed else header.nx
    return np.empty((header.ny, columns), header.dtype)


def _fill_section(
    file: int,
    stored: NDArray[Any],
    section: int,
    header: MrcHeader,
    path: Path,
    pace: Pace = unpaced,
) -> None:
    start = header.data_offset + section * header.section_bytes
    there = start + header.section_bytes <= header.file_size
    flat = stored.reshape(-1).view(np.uint8).data
    if not there or fill(file, flat, start, path, pace) < header.section_bytes:
        raise PixelsError(f"{path.name!r} is cut within section {section}", "truncated")


def _pixels(stored: NDArray[Any], header: MrcHeader) -> NDArray[Any]:
    if header.packed:
        return nibbles.as_counts(stored, header.nx)
    return stored if stored.dtype.isnative else stored.astype(stored.dtype.newbyteorder("="))


def read_tilt_angles(path: Path, header: MrcHeader) -> tuple[float | None, ...]:
    """Read the tilt angle of each section (degrees) from the extended header.

    Empty where there is no such header; None for a section whose entry is still blank. SerialEM
    keeps the angle times 100 as the first short of each entry (SerialEM, EMimageExtra.cpp); for
    Thermo Fisher's see `fei_header`. Raises `PixelsError` as `read_header` does.
    """
    if header.ext_type in fei_header.ENTRY_TYPES:
        return tuple(section.angle_deg for section in read_fei_sections(path, header))
    stride = header.seri_bytes_per_section
    if stride < 2 or not header.seri_flags & _SERI_TILT_FLAG:
        return ()
    raw = _extended(path, header, header.nz * stride)
    order = ">" if header.big_endian else "<"
    angles: list[float | None] = []
    for start in range(0, len(raw) - stride + 1, stride):
        blank = not any(raw[start : start + stride])
        angle = struct.unpack_from(order + "h", raw, start)[0] / 100
        angles.append(None if blank else angle)
    return tuple(angles)


def read_fei_sections(path: Path, header: MrcHeader) -> tuple[FeiSection, ...]:
    """Read what Thermo Fisher's programs note of each section; empty where they did not.

    Raises `PixelsError` as `read_header` does.
    """
    if header.ext_type not in fei_header.ENTRY_TYPES:
        return ()
    raw = _extended(path, header, header.nsymbt)
    stride = fei_header.entry_bytes(raw)
    if not stride:
        return ()
    starts = range(0, min(len(raw), header.nz * stride) - stride + 1, stride)
    return tuple(fei_header.parse_entry(raw[start : start + stride]) for start in starts)


def _extended(path: Path, header: MrcHeader, wanted: int) -> bytes:
    raw = bytearray(min(wanted, header.nsymbt, _MAX_EXTENDED_BYTES))
    with opened(path) as file:
        got = fill(file, memoryview(raw), HEADER_BYTES, path)
    return bytes(raw[:got])


def write_mrc(path: Path, data: NDArray[Any], pixel_size_angstrom: float | None) -> None:
    """Write one image (rows, columns) or a stack (sections, rows, columns) as MRC2014.

    `data` is int8, int16 or float32; without a pixel size (Å) the cell equals the image size,
    which readers take as unknown. Raises `PixelsError` (reason `mode`) for any other dtype and
    `OSError` where the file cannot be written.
    """
    mode = _WRITABLE.get(data.dtype.name)
    if mode is None or data.ndim not in (2, 3) or data.size == 0:
        raise PixelsError(
            f"cannot write {data.dtype.name} data of shape {data.shape} as MRC; use an image or "
            "a stack of int8, int16 or float32",
            "mode",
        )
    stack = data if data.ndim == 3 else data[np.newaxis]
    header = _packed_header(stack, mode, pixel_size_angstrom or 1.0)
    with path.open("wb") as file:
        file.write(header)
        for image in stack:
            file.write(np.ascontiguousarray(image, image.dtype.newbyteorder("<")).data)


def _packed_header(stack: NDArray[Any], mode: int, pixel_size_angstrom: float) -> bytes:
    nz, ny, nx = stack.shape
    finite = bool(np.isfinite(stack).all())
    mean = float(stack.mean(dtype=np.float64)) if finite else -2.0
    rms = float(stack.std(dtype=np.float64)) if finite else -1.0
    low, high = (float(stack.min()), float(stack.max())) if finite else (0.0, -1.0)
    raw = bytearray(HEADER_BYTES)
    # An image or a stack of images: space group 0, one section per cell.
    struct.pack_into("<10i", raw, 0, nx, ny, nz, mode, 0, 0, 0, nx, ny, 1)
    cell = (nx * pixel_size_angstrom, ny * pixel_size_angstrom, pixel_size_angstrom)
    struct.pack_into("<6f", raw, 40, *cell, 90.0, 90.0, 90.0)
    struct.pack_into("<3i3f2i", raw, 64, 1, 2, 3, low, high, mean, 0, 0)
    struct.pack_into("<i", raw, 108, 20141)
    struct.pack_into("<4s4Bfi", raw, 208, b"MAP ", 0x44, 0x44, 0, 0, rms, 1)
    struct.pack_into("80s", raw, 224, b"icewatch".ljust(80))
    return bytes(raw)


def header_of(file: int, path: Path) -> MrcHeader:
    """Read and check the header of an open file, as `read_header` does."""
    raw = bytearray(HEADER_BYTES)
    got = fill(file, memoryview(raw), 0, path)
    now = facts(file, path)
    if got < HEADER_BYTES:
        raise PixelsError(f"{path.name!r} ends within its {HEADER_BYTES}-byte header", "truncated")
    header = parse_header(bytes(raw), now, path.name)
    if header.pixel_size_angstrom is None and header.ext_type in fei_header.ENTRY_TYPES:
        wanted = min(header.nsymbt, fei_header.ENTRY_START_BYTES)
        first = fei_header.parse_entry(read_at(file, HEADER_BYTES, wanted, path))
        return replace(header, pixel_size_angstrom=first.pixel_size_angstrom)
    return header


def _refuse_other_file(before: MrcHeader, now: MrcHeader, path: Path) -> None:
    def layout(header: MrcHeader) -> tuple[object, ...]:
        return header.inode, header.nx, header.ny, header.mode, header.dtype, header.data_offset

    if layout(before) != layout(now) or now.nz < before.nz or now.file_size < before.file_size:
        raise PixelsError(f"{path.name!r} was rewritten while it was read", "changed")
