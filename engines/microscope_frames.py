"""Movies as K2 and K3 cameras write them, for a pretend microscope: TIFF and growing MRC.

Each `..._steps` function is an iterator that does one write at a time, so that a movie can be seen
at every stage of its way; the `write_...` function beside it does all of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.microscope_step import Step
from engines.microscope_tiff import Tag, TiffAppender
from engines.readers import nibbles
from engines.readers.mrc_header import HEADER_BYTES

Compression = Literal["none", "lzw", "zip"]
_COMPRESSIONS = {"none": 1, "lzw": 5, "zip": 8}
_MRC_MODES = {"uint8": 0, "int16": 1, "uint16": 6, "float32": 2}
_IMOD_STAMP = 1_146_047_817
_IMOD_PACKED = 16
_STRIP_ROWS = 512


def split_into_frames(
    counts: NDArray[Any], frames: int, generator: np.random.Generator
) -> Iterator[NDArray[Any]]:
    """Split an image of whole counts into frames that add up to it, each count at random."""
    left = counts.astype(np.int64)
    for remaining in range(frames, 0, -1):
        share = generator.binomial(left, 1.0 / remaining)
        left -= share
        yield share.astype(counts.dtype)


def tiff_movie_steps(
    path: Path,
    frames: Iterable[NDArray[Any]],
    pixel_size_angstrom: float | None,
    *,
    compression: Compression = "lzw",
    bits: Literal[4, 8, 16] = 8,
) -> Iterator[Step]:
    """Write frames (rows, columns) of counts as SerialEM saves a K2 or K3 movie.

    Each page is two writes: its bytes, then its directory; the second counts as `header`. Four
    bits at a super-resolution size are stored as bytes of half the width without any mark, at
    other sizes as TIFF has it.
    """
    file = TiffAppender(path, big=False)
    yield Step(path, "create", 8)
    for frame in frames:
        stored, tags = _tiff_image(frame, bits, compression)
        offset = file.data(b"".join(stored))
        yield Step(path, "pixels", sum(map(len, stored)))
        starts = offset + np.cumsum([0, *map(len, stored[:-1])])
        tags += [(273, "long", starts.tolist()), (279, "long", [len(strip) for strip in stored])]
        if pixel_size_angstrom:
            per_cm = round(1e8 / pixel_size_angstrom * 8), 8
            tags += [(282, "ratio", per_cm), (283, "ratio", per_cm), (296, "short", [3])]
        yield Step(path, "header", file.directory(tags))
    yield Step(path, "header", 0, (path,))


def write_tiff_movie(
    path: Path,
    frames: Iterable[NDArray[Any]],
    pixel_size_angstrom: float | None,
    *,
    compression: Compression = "lzw",
    bits: Literal[4, 8, 16] = 8,
) -> None:
    """Write a whole TIFF movie; see `tiff_movie_steps`."""
    for _ in tiff_movie_steps(
        path, frames, pixel_size_angstrom, compression=compression, bits=bits
    ):
        pass


def mrc_movie_steps(
    path: Path,
    frames: Iterable[NDArray[Any]],
    pixel_size_angstrom: float,
    expected: int,
    *,
    bits: Literal[4, 8, 16, 32] = 16,
    chunk_bytes: int = 8 << 20,
) -> Iterator[Step]:
    """Write frames (rows, columns) as the plug-in of K2 and K3 does.

    The header comes after the first frame and announces the `expected` frames, and once more at
    the end with those that came. 4 bits are bytes of half the width with IMOD's flag, 8 bits are
    unsigned bytes with IMOD's stamp, 16 are int16 or uint16 as the frames are, 32 are float32.
    """
    path.write_bytes(b"")
    yield Step(path, "create")
    count, header = 0, b""
    with_nz = struct.Struct("<i")
    for frame in frames:
        stored = _mrc_pixels(frame, bits)
        place = HEADER_BYTES + count * stored.nbytes
        raw = stored.tobytes()
        for start in range(0, len(raw), chunk_bytes):
            piece = raw[start : start + chunk_bytes]
            _write_at(path, place + start, piece)
            yield Step(path, "pixels", len(piece))
        count += 1
        if not header:
            header = _mrc_movie_header(stored, expected, pixel_size_angstrom, packed=bits == 4)
            _write_at(path, 0, header)
            yield Step(path, "header", len(header))
    _write_at(path, 8, with_nz.pack(count))
    yield Step(path, "header", with_nz.size, (path,))


def write_mrc_movie_growing(
    path: Path,
    frames: Iterable[NDArray[Any]],
    pixel_size_angstrom: float,
    expected: int,
    *,
    bits: Literal[4, 8, 16, 32] = 16,
) -> None:
    """Write a whole MRC movie; see `mrc_movie_steps`."""
    for _ in mrc_movie_steps(path, frames, pixel_size_angstrom, expected, bits=bits):
        pass


def _tiff_image(
    frame: NDArray[Any], bits: int, compression: Compression
) -> tuple[list[bytes], list[Tag]]:
    rows, columns = frame.shape
    signed = frame.dtype.kind == "i" and bits == 16
    if bits == 4:
        unmarked = nibbles.are_likely(columns // 2, rows)
        stored = _pack_nibbles(frame, left_low=unmarked)
        if unmarked:
            columns, bits = stored.shape[1], 8
    else:
        stored = frame.astype(f"<{'i' if signed else 'u'}{bits // 8}")
    strips = [_packed(stored[top : top + _STRIP_ROWS], compression) for top in range(0, rows, 512)]
    return strips, [
        (256, "long", [columns]),
        (257, "long", [rows]),
        (258, "short", [bits]),
        (259, "short", [_COMPRESSIONS[compression]]),
        (262, "short", [1]),
        (277, "short", [1]),
        (278, "long", [_STRIP_ROWS]),
        (339, "short", [2 if signed else 1]),
    ]


def _packed(rows: NDArray[Any], compression: Compression) -> bytes:
    raw = rows.tobytes()
    if compression == "none":
        return raw
    from imagecodecs import deflate_encode, lzw_encode

    return bytes(lzw_encode(raw) if compression == "lzw" else deflate_encode(raw))


def _pack_nibbles(frame: NDArray[Any], *, left_low: bool) -> NDArray[np.uint8]:
    rows, columns = frame.shape
    padded = np.zeros((rows, 2 * nibbles.row_bytes(columns)), np.uint8)
    padded[:, :columns] = np.clip(frame, 0, 15)
    low, high = (0, 1) if left_low else (1, 0)
    packed: NDArray[np.uint8] = padded[:, low::2] | padded[:, high::2] << np.uint8(4)
    return packed


def _mrc_pixels(frame: NDArray[Any], bits: int) -> NDArray[Any]:
    if bits == 4:
        return _pack_nibbles(frame, left_low=True)
    if bits == 8:
        return frame.astype(np.uint8)
    if bits == 32:
        return frame.astype("<f4")
    return frame.astype("<u2" if frame.dtype.kind == "u" else "<i2")


def _mrc_movie_header(
    stored: NDArray[Any], sections: int, pixel_size_angstrom: float, *, packed: bool
) -> bytes:
    rows, columns = stored.shape
    raw = bytearray(HEADER_BYTES)
    struct.pack_into("<4i", raw, 0, columns, rows, sections, _MRC_MODES[stored.dtype.name])
    struct.pack_into("<3i", raw, 28, columns, rows, sections)
    cell = [size * pixel_size_angstrom for size in (columns, rows, sections)]
    struct.pack_into("<6f", raw, 40, *cell, 90.0, 90.0, 90.0)
    low, high, mean = float(stored.min()), float(stored.max()), float(stored.mean())
    struct.pack_into("<3i3f", raw, 64, 1, 2, 3, low, high, mean)
    struct.pack_into("<i", raw, 108, 20140)
    struct.pack_into("<2i", raw, 152, _IMOD_STAMP, _IMOD_PACKED if packed else 0)
    struct.pack_into("<4s4Bfi", raw, 208, b"MAP ", 0x44, 0x44, 0, 0, -1.0, 1)
    scaled = "4 bits packed" if packed else "scaled by 1.00"
    title = f"SerialEMCCD: Dose frac. image, {scaled}  r/f 0"
    struct.pack_into("80s", raw, 224, title.encode().ljust(80))
    return bytes(raw)


def _write_at(path: Path, offset: int, raw: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(raw)
