"""Frames of a TIFF movie: which kind of pixels they hold, and their sum.

imagecodecs decompresses; what it is given was checked by `tiff_walk` and here before, and it
writes into buffers of the size that the image has, never more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers import nibbles, tiff_walk
from engines.readers.mrc_header import MAX_SECTION_BYTES, MAX_SIDE_PX
from engines.readers.raw_file import Pace, fill
from engines.readers.tiff_walk import Page, Walk

LARGEST_RATIO = 10_000
"""No codec read here packs tighter than 1:1500, so what claims more than this is a bomb."""
_SMALL_BYTES = 1 << 16
_SMALL_TILE_BYTES = 1 << 24
_BLOCK_ROWS = 256
_NONE, _LZW, _DEFLATE, _OLD_DEFLATE = 1, 5, 8, 32946
_HORIZONTAL, _FLOATING = 2, 3
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
        compression=page.number(tiff_walk.COMPRESSION, _NONE),
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
    compression = page.number(tiff_walk.COMPRESSION, _NONE)
    predictor = page.number(tiff_walk.PREDICTOR, 1)
    if dtype is None or page.number(tiff_walk.SAMPLES, 1) != 1:
        return False
    if compression not in (_NONE, _LZW, _DEFLATE, _OLD_DEFLATE):
        return False
    if page.number(tiff_walk.FILL_ORDER, 1) != 1:
        return False
    if compression == _NONE or predictor == 1:
        return True
    if predictor == _HORIZONTAL:
        return dtype.kind in "iu" and packed is None
    return predictor == _FLOATING and dtype.kind == "f" and not found.big_endian


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
    decoder = _Decoder(file, kind, path, pace)
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


class _Decoder:
    """Decodes the pages of one movie into one buffer, which the next page overwrites."""

    def __init__(self, file: int, kind: FrameKind, path: Path, pace: Pace) -> None:
        assert kind.dtype is not None
        self._file, self._kind, self._path, self._pace = file, kind, path, pace
        self._dtype = kind.dtype
        strips = -(-kind.ny // kind.segment_rows)
        rows = strips * kind.segment_rows  # the last strip may be padded to full height
        self._image = np.empty((rows, kind.columns_stored), kind.dtype)
        self._packed = bytearray()
        self._workers = max(1, (os.cpu_count() or 1) // 2)

    def decoded(self, page: Page) -> NDArray[Any]:
        """Give a page as it is stored but decompressed, padded rows below it included."""
        if page.is_tiled:
            self._tiles(page)
        else:
            self._strips(page)
            self._undo_predictor(self._image)
        return self._image

    def rows(self, image: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
        """Give some rows of a decoded page as pixels of this machine."""
        some = image[start : min(stop, self._kind.ny)]
        if self._kind.packed:
            return nibbles.unpack(some, self._kind.nx, self._kind.packed)
        return some if some.dtype.isnative else some.astype(some.dtype.newbyteorder("="))

    def _strips(self, page: Page) -> None:
        kind = self._kind
        flat = self._image.reshape(-1).view(np.uint8)
        row_bytes = kind.columns_stored * self._dtype.itemsize
        last = row_bytes * (kind.ny - (len(page.offsets) - 1) * kind.segment_rows)

        def one(index: int, stored: memoryview) -> None:
            start = index * kind.segment_bytes
            needed = last if index == len(page.offsets) - 1 else kind.segment_bytes
            self._unpack(stored, flat[start : start + kind.segment_bytes], needed)

        self._each(page, one)

    def _tiles(self, page: Page) -> None:
        kind = self._kind
        across = -(-kind.columns_stored // kind.segment_columns)

        def one(index: int, stored: memoryview) -> None:
            tile = np.empty((kind.segment_rows, kind.segment_columns), self._dtype)
            flat = tile.reshape(-1).view(np.uint8)
            top = index // across * kind.segment_rows
            left = index % across * kind.segment_columns
            self._unpack(stored, flat, len(flat))
            self._undo_predictor(tile)
            place = self._image[top : top + kind.segment_rows, left : left + kind.segment_columns]
            place[:] = tile[: place.shape[0], : place.shape[1]]

        self._each(page, one)

    def _each(self, page: Page, work: Callable[[int, memoryview], None]) -> None:
        """Work on each piece of a page, in as many threads as tifffile would take."""
        pieces = self._read(page)
        if self._workers == 1 or len(pieces) == 1 or self._kind.compression == _NONE:
            for index, stored in enumerate(pieces):
                work(index, stored)
            return
        with ThreadPoolExecutor(self._workers) as pool:
            for _ in pool.map(work, range(len(pieces)), pieces):
                pass

    def _read(self, page: Page) -> list[memoryview]:
        """Read the bytes of a page, at once where they lie together."""
        wanted = int(page.byte_counts.sum())
        if len(self._packed) < wanted:
            self._packed = bytearray(wanted)
        target = memoryview(self._packed)
        if len(page.offsets) == 1:
            self._fill(target[:wanted], int(page.offsets[0]))
            return [target[:wanted]]
        order = np.argsort(page.offsets, kind="stable")
        starts, counts = page.offsets[order], page.byte_counts[order]
        ends = starts + counts
        breaks = [0, *(np.flatnonzero(starts[1:] != ends[:-1]) + 1).tolist(), len(starts)]
        into = np.concatenate([[0], np.cumsum(counts)])
        for first, past in pairwise(breaks):
            low, high = int(into[first]), int(into[past])
            self._fill(target[low:high], int(starts[first]))
        pieces: list[memoryview] = [target[:0]] * len(starts)
        for place, index in enumerate(order.tolist()):
            pieces[index] = target[int(into[place]) : int(into[place + 1])]
        return pieces

    def _fill(self, target: memoryview, start: int) -> None:
        if fill(self._file, target, start, self._path, self._pace) < len(target):
            raise PixelsError(f"{self._path.name!r} was cut while it was read", "truncated")

    def _unpack(self, stored: memoryview, target: NDArray[np.uint8], needed: int) -> None:
        compression = self._kind.compression
        try:
            if compression == _NONE:
                got = min(len(stored), len(target))
                target[:got] = np.frombuffer(stored, np.uint8, got)
            else:
                got = len(_decompressor(compression)(stored, out=target))
        except (RuntimeError, ValueError) as error:
            raise self._damaged() from error
        if got < needed:
            raise self._damaged()

    def _damaged(self) -> PixelsError:
        return PixelsError(
            f"{self._path.name!r} is damaged: a frame cannot be decompressed", "decode"
        )

    def _undo_predictor(self, part: NDArray[Any]) -> None:
        """Turn the differences along each row of a tile or of whole rows into values."""
        kind = self._kind
        if kind.predictor == 1 or kind.compression == _NONE:
            return
        from imagecodecs import delta_decode, floatpred_decode

        if kind.predictor == _FLOATING:
            part[:] = floatpred_decode(part, axis=-1)
        else:
            part[:] = delta_decode(part.astype(part.dtype.newbyteorder("="), copy=False), axis=-1)


def _decompressor(compression: int) -> Callable[..., Any]:
    from imagecodecs import deflate_decode, lzw_decode

    return lzw_decode if compression == _LZW else deflate_decode
