"""Frames of a TIFF movie: which kind of pixels they hold, and their sum.

imagecodecs decompresses; what it is given was checked by `tiff_walk` and here before, and it
writes into buffers of the size that the image has, never more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers import nibbles, tiff_walk
from engines.readers.mrc_header import MAX_SECTION_BYTES, MAX_SIDE_PX
from engines.readers.raw_file import Pace
from engines.readers.tiff_decoder import (
    DEFLATE,
    FLOATING,
    HORIZONTAL,
    LZW,
    NONE,
    OLD_DEFLATE,
    PageDecoder,
)
from engines.readers.tiff_walk import Page, Walk

LARGEST_RATIO = 10_000
"""No codec read here packs tighter than 1:1500, so what claims more than this is a bomb."""
_SMALL_BYTES = 1 << 16
_SMALL_TILE_BYTES = 1 << 24
_BLOCK_ROWS = 256
_CODES = {
    (8, 1): "u1",
    (8, 2): "i1",
    (16, 1): "u2",
    (16, 2): "i2",
    (16, 3): "f2",
    (32, 1): "u4",
    (32, 2): "i4",
    (32, 3): "f4",
    (64, 3): "f8",
}


@dataclass(frozen=True, slots=True)
class FrameKind:
    """Size, pixels and packing of a frame; all frames of a movie are alike."""

    nx: int
    """Columns (px), of which two may share a byte."""
    ny: int
    compression: int
    predictor: int
    dtype: np.dtype[Any] | None
    """As stored, byte order included; None where the pixels cannot be read."""
    packed: Literal["low", "high"] | None
    """Which half of a byte is the left pixel, where two share one."""
    segment_columns: int
    """Of a strip or tile, in pixels as stored."""
    segment_rows: int
    bits: int
    sample_format: int

    @property
    def columns_stored(self) -> int:
        """How many elements of `dtype` a row has."""
        return nibbles.row_bytes(self.nx) if self.packed else self.nx

    @property
    def segment_bytes(self) -> int:
        """Of a whole strip or tile, unpacked."""
        return self.segment_columns * self.segment_rows * (self.dtype.itemsize if self.dtype else 1)

    @property
    def image_bytes(self) -> int:
        """Of a frame as it is stored, decompressed."""
        return self.columns_stored * self.ny * (self.dtype.itemsize if self.dtype else 1)


def frame_kind(page: Page, found: Walk, path: Path) -> FrameKind:
    """Check what a directory says of its image; raises `PixelsError` (`header`)."""
    nx, ny = page.number(tiff_walk.COLUMNS, 0), page.number(tiff_walk.ROWS, 0)
    bits = page.number(tiff_walk.BITS, 1)
    sample_format = page.number(tiff_walk.SAMPLE_FORMAT, 1)
    _require(0 < nx <= MAX_SIDE_PX and 0 < ny <= MAX_SIDE_PX, path, f"{nx} x {ny} pixels")
    _require(0 < bits <= 64, path, f"pixels of {bits} bits")
    _require(nx * ny * max(bits, 8) // 8 <= MAX_SECTION_BYTES, path, f"{nx} x {ny} pixels")
    packed: Literal["low", "high"] | None = None
    dtype: np.dtype[Any] | None
    if bits == 4 and sample_format == 1:
        packed, dtype = "high", np.dtype("u1")
    else:
        dtype = _dtype(page, found, bits, sample_format)
        if bits == 8 and dtype == np.uint8 and nibbles.are_likely(nx, ny):
            packed, nx = "low", 2 * nx
    stored = nibbles.row_bytes(nx) if packed else nx
    columns, rows = _segment_shape(page, stored, ny, path)
    return FrameKind(
        nx=nx,
        ny=ny,
        compression=page.number(tiff_walk.COMPRESSION, NONE),
        predictor=page.number(tiff_walk.PREDICTOR, 1),
        dtype=dtype if _is_readable(page, dtype, packed, found) else None,
        packed=packed,
        segment_columns=columns,
        segment_rows=rows,
        bits=bits,
        sample_format=sample_format,
    )


def _dtype(page: Page, found: Walk, bits: int, sample_format: int) -> np.dtype[Any] | None:
    # 4 means that the writer did not say; such pixels are counts.
    code = _CODES.get((bits, 1 if sample_format == 4 else sample_format))
    return np.dtype((">" if found.big_endian else "<") + code) if code else None


def _is_readable(page: Page, dtype: np.dtype[Any] | None, packed: str | None, found: Walk) -> bool:
    compression = page.number(tiff_walk.COMPRESSION, NONE)
    predictor = page.number(tiff_walk.PREDICTOR, 1)
    if dtype is None or page.number(tiff_walk.SAMPLES, 1) != 1:
        return False
    if compression not in (NONE, LZW, DEFLATE, OLD_DEFLATE):
        return False
    if page.number(tiff_walk.FILL_ORDER, 1) != 1:
        return False
    if compression == NONE or predictor == 1:
        return True
    if predictor == HORIZONTAL:
        return dtype.kind in "iu" and packed is None
    return predictor == FLOATING and dtype.kind == "f" and not found.big_endian


def _segment_shape(page: Page, columns: int, rows: int, path: Path) -> tuple[int, int]:
    if not page.is_tiled:
        per_strip = min(page.number(tiff_walk.ROWS_PER_STRIP, rows), rows)
        _require(per_strip > 0, path, "strips without a row")
        expected = -(-rows // per_strip)
        shape = columns, per_strip
    else:
        wide, high = page.number(tiff_walk.TILE_COLUMNS, 0), page.number(tiff_walk.TILE_ROWS, 0)
        bits = page.number(tiff_walk.BITS, 1)
        image_bytes = columns * rows * max(bits, 8) // 8
        fits = wide * high * max(bits, 8) // 8 <= max(image_bytes, _SMALL_TILE_BYTES)
        _require(wide > 0 and high > 0 and fits, path, f"tiles of {wide} x {high} pixels")
        if bits == 4:
            wide = nibbles.row_bytes(wide)
        expected = -(-columns // wide) * -(-rows // high)
        shape = wide, high
    pieces = len(page.offsets)
    _require(pieces == expected, path, f"an image in {pieces} pieces where {expected} make it up")
    return shape


def _require(holds: bool, path: Path, what: str) -> None:
    if not holds:
        raise PixelsError(f"{path.name!r} is not a sound TIFF file: it claims {what}", "header")


def refuse_bombs(pages: list[Page], kind: FrameKind, found: Walk, path: Path) -> None:
    """Raise `PixelsError` (`bomb`) for what would unpack to more than any codec can pack."""
    for page in pages:
        if kind.segment_bytes > LARGEST_RATIO * int(page.byte_counts.min()):
            raise PixelsError(
                f"{path.name!r} claims to be packed tighter than 1:{LARGEST_RATIO}; it is not "
                "unpacked",
                "bomb",
            )
        if int(page.byte_counts.max()) > 2 * kind.segment_bytes + _SMALL_BYTES:
            raise PixelsError(
                f"{path.name!r} claims more bytes for a piece of an image than it can need", "bomb"
            )
    if sum(int(page.byte_counts.sum()) for page in pages) > found.file_size:
        raise PixelsError(
            f"{path.name!r} uses the same bytes for several images; it is not unpacked", "bomb"
        )


def sum_dtype(dtype: np.dtype[Any], frames: int) -> np.dtype[Any]:
    """Which pixels hold the sum of so many frames (up to `MAX_PAGES`) without overflow."""
    if dtype.kind == "f":
        return np.dtype("f8" if dtype.itemsize == 8 else "f4")
    if dtype.itemsize == 4:
        return np.dtype("f8")
    if dtype == np.uint8 and frames <= 257:
        return np.dtype("u2")
    return np.dtype("u4" if dtype.kind == "u" else "i4")


def sum_of_pages(
    file: int, pages: list[Page], kind: FrameKind, found: Walk, path: Path, pace: Pace
) -> NDArray[Any]:
    """Decode page after page and add them up; a single page keeps its own kind of pixels.

    Raises `PixelsError` with reason `bomb`, `decode` or `truncated`.
    """
    refuse_bombs(pages, kind, found, path)
    decoder = PageDecoder(file, kind, path, pace)
    if len(pages) == 1:
        return decoder.rows(decoder.decoded(pages[0]), 0, kind.ny)
    assert kind.dtype is not None
    total = np.zeros((kind.ny, kind.nx), sum_dtype(kind.dtype, len(pages)))
    for page in pages:
        image = decoder.decoded(page)
        for start in range(0, kind.ny, _BLOCK_ROWS):
            rows = decoder.rows(image, start, start + _BLOCK_ROWS)
            block = total[start : start + _BLOCK_ROWS]
            np.add(block, rows, out=block, casting="unsafe")
    return total
