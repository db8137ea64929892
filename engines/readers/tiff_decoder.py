"""Decodes TIFF images page by page; imagecodecs decompresses.

What it is given was checked before, by `tiff_walk` and `tiff_frames`, and it writes into buffers
of the size that the image has, never more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers import nibbles
from engines.readers.raw_file import Pace, fill
from engines.readers.tiff_walk import Page

if TYPE_CHECKING:
    from engines.readers.tiff_frames import FrameKind

NONE, LZW, DEFLATE, OLD_DEFLATE = 1, 5, 8, 32946
"""Compressions that are read."""
HORIZONTAL, FLOATING = 2, 3
"""Predictors that are undone."""


class PageDecoder:
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
        if self._workers == 1 or len(pieces) == 1 or self._kind.compression == NONE:
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
            if compression == NONE:
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
        if kind.predictor == 1 or kind.compression == NONE:
            return
        from imagecodecs import delta_decode, floatpred_decode

        if kind.predictor == FLOATING:
            part[:] = floatpred_decode(part, axis=-1)
        else:
            part[:] = delta_decode(part.astype(part.dtype.newbyteorder("="), copy=False), axis=-1)


def _decompressor(compression: int) -> Callable[..., Any]:
    from imagecodecs import deflate_decode, lzw_decode

    return lzw_decode if compression == LZW else deflate_decode
