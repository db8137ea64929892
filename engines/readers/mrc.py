"""MRC files: read one section at a time, and a small writer; rows stay as they are stored."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.mrc_header import HEADER_BYTES, MrcHeader, parse_header

_MAX_EXTENDED_BYTES = 1 << 20
_WRITABLE = {"int8": 0, "int16": 1, "float32": 2}
_SERI_TILT_FLAG = 1


def read_header(path: Path) -> MrcHeader:
    """Read and check the header of an MRC file of either byte order.

    Raises `PixelsError` with reason `missing`, `unreadable` (not a regular file, no permission,
    I/O error), `truncated` (not all there, or no image in it yet) or `header`.
    """
    with _opened(path) as file:
        return _header(file, path)


def read_section(path: Path, section: int, header: MrcHeader | None = None) -> NDArray[Any]:
    """Copy one section out of an MRC file: (rows, columns), native byte order, rows as stored.

    The file is open only while its bytes are copied, so that no other program finds it in use.
    With `header`, as read before, a file that was replaced or shrank since is refused. Raises
    `PixelsError` as `read_header` does, and with reason `mode` (pixels of a kind that cannot be
    read), `section` (not in this file), `truncated` (its bytes are not there) or `changed`
    (rewritten while it was read).
    """
    with _opened(path) as file:
        now = _header(file, path)
        if header is not None:
            _refuse_other_file(header, now, path)
        if now.dtype is None:
            raise PixelsError(
                f"{path.name!r} holds pixels of MRC mode {now.mode}; have it written in mode 0, 1, "
                "2, 6 or 12",
                "mode",
            )
        if not 0 <= section < now.nz:
            raise PixelsError(f"{path.name!r} has no section {section}, only {now.nz}", "section")
        image = np.empty((now.ny, now.nx), now.dtype)
        start = now.data_offset + section * now.section_bytes
        if _fill(file, image.reshape(-1).view(np.uint8).data, start, path) < now.section_bytes:
            raise PixelsError(f"{path.name!r} is cut within section {section}", "truncated")
        _refuse_other_file(now, _header(file, path), path)
        _refuse_replaced(file, path)
    return image if image.dtype.isnative else image.astype(image.dtype.newbyteorder("="))


def read_tilt_angles(path: Path, header: MrcHeader) -> tuple[float | None, ...]:
    """Read the tilt angle of each section (degrees) from SerialEM's extended header.

    Empty where there is no such header; None for a section whose entry is still blank. SerialEM
    keeps the angle times 100 as the first short of each entry (SerialEM, EMimageExtra.cpp).
    Raises `PixelsError` as `read_header` does.
    """
    stride = header.seri_bytes_per_section
    if stride < 2 or not header.seri_flags & _SERI_TILT_FLAG:
        return ()
    wanted = min(header.nz * stride, header.nsymbt, _MAX_EXTENDED_BYTES)
    raw = bytearray(wanted)
    with _opened(path) as file:
        got = _fill(file, memoryview(raw), HEADER_BYTES, path)
    order = ">" if header.big_endian else "<"
    angles: list[float | None] = []
    for start in range(0, got - stride + 1, stride):
        blank = not any(raw[start : start + stride])
        angle = struct.unpack_from(order + "h", raw, start)[0] / 100
        angles.append(None if blank else angle)
    return tuple(angles)


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


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        # Looked at before it is opened: opening a FIFO or a device can block or do something.
        if not stat.S_ISREG(path.stat().st_mode):
            raise PixelsError(f"{path.name!r} is not a regular file", "unreadable")
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise PixelsError(f"{path.name!r} is not there", "missing") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        yield file
    finally:
        os.close(file)


def _unreadable(path: Path, error: OSError | ValueError) -> PixelsError:
    why = getattr(error, "strerror", None) or error
    return PixelsError(f"{path.name!r} cannot be read: {why}", "unreadable")


def _fill(file: int, target: memoryview, start: int, path: Path) -> int:
    """Read into `target` from byte `start` on; gives how many bytes there were."""
    done = 0
    try:
        while done < len(target):
            got = os.preadv(file, [target[done:]], start + done)
            if got == 0:
                break
            done += got
    except OSError as error:
        raise _unreadable(path, error) from error
    return done


def _header(file: int, path: Path) -> MrcHeader:
    raw = bytearray(HEADER_BYTES)
    got = _fill(file, memoryview(raw), 0, path)
    try:
        now = os.fstat(file)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(now.st_mode):
        raise PixelsError(f"{path.name!r} is not a regular file", "unreadable")
    if got < HEADER_BYTES:
        raise PixelsError(f"{path.name!r} ends within its {HEADER_BYTES}-byte header", "truncated")
    return parse_header(bytes(raw), now, path.name)


def _refuse_other_file(before: MrcHeader, now: MrcHeader, path: Path) -> None:
    def layout(header: MrcHeader) -> tuple[object, ...]:
        return header.inode, header.nx, header.ny, header.mode, header.dtype, header.data_offset

    if layout(before) != layout(now) or now.nz < before.nz or now.file_size < before.file_size:
        raise PixelsError(f"{path.name!r} was rewritten while it was read", "changed")


def _refuse_replaced(file: int, path: Path) -> None:
    try:
        same = os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError as error:
        raise PixelsError(f"{path.name!r} went away while it was read", "missing") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if not same:
        raise PixelsError(f"{path.name!r} was replaced while it was read", "changed")
