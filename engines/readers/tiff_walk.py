"""The directories of a TIFF or EER file, walked with every number doubted.

Classic and BigTIFF of either byte order. Nothing is decoded and no more is read than the
directories themselves; the bounds are far above what any camera writes, so that a hostile file
costs a fraction of a second and a few megabytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.raw_file import read_at

MAX_PAGES = 20_000
"""A Falcon 4i writes 320 frames a second: this is a minute of exposure."""
_MAX_TAGS = 512
_MAX_TAGS_IN_ALL = 2_000_000
_MAX_SEGMENTS = 65_536
_MAX_SEGMENTS_IN_ALL = 2_000_000
_MAX_TEXT_BYTES = 1 << 20
_CHUNK_BYTES = 4096
"""Read at once for each directory: enough for all of it in any real file."""

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TYPE_BYTES |= {16: 8, 17: 8, 18: 8}
_UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TEXT = frozenset({1, 2, 7})

SUBFILE, COLUMNS, ROWS, BITS, COMPRESSION = 254, 256, 257, 258, 259
FILL_ORDER, DESCRIPTION, STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = (
    *(266, 270, 273, 277, 278, 279),
)
X_RESOLUTION, PLANES, RESOLUTION_UNIT, PREDICTOR = 282, 284, 296, 317
TILE_COLUMNS, TILE_ROWS, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT = 322, 323, 324, 325, 339
EER_METADATA, EER_SKIP_BITS, EER_COLUMN_BITS, EER_ROW_BITS = 65001, 65007, 65008, 65009
_NUMBERS = frozenset(
    {SUBFILE, COLUMNS, ROWS, BITS, COMPRESSION, FILL_ORDER, SAMPLES, ROWS_PER_STRIP, PLANES}
    | {RESOLUTION_UNIT, PREDICTOR, TILE_COLUMNS, TILE_ROWS, SAMPLE_FORMAT}
    | {EER_SKIP_BITS, EER_COLUMN_BITS, EER_ROW_BITS}
)
_LISTS = frozenset({STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES})
_TEXTS = frozenset({DESCRIPTION, EER_METADATA})


@dataclass(frozen=True, slots=True)
class Page:
    """One directory: what it says of its image, and where the image's segments are."""

    numbers: dict[int, int]
    """First value of each tag that is a number, by tag."""
    offsets: NDArray[np.int64]
    """Where each strip or tile starts in the file."""
    byte_counts: NDArray[np.int64]
    is_tiled: bool

    def number(self, tag: int, default: int) -> int:
        """Give a tag's value, or what its absence means."""
        return self.numbers.get(tag, default)


@dataclass(slots=True)
class Walk:
    """Every directory up to the first that is not all there yet."""

    big_endian: bool
    file_size: int
    pages: list[Page] = field(default_factory=list)
    is_whole: bool = False
    """Whether the chain of directories ends as it should, with all segments inside the file."""
    x_resolution: float | None = None
    texts: dict[int, bytes] = field(default_factory=dict)
    """Description and metadata of the first page."""


class _NotAllThereError(Exception):
    """Something lies behind the end of the file, where it may still come."""


def is_tiff(start: bytes) -> bool:
    """Whether the first four bytes are those of a classic or a BigTIFF file."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def walk(file: int, file_size: int, path: Path) -> Walk:
    """Walk all directories of an open TIFF file.

    Raises `PixelsError`: `truncated` (nothing there yet), `header` (no writer makes this).
    """
    start = read_at(file, 0, 16, path)
    order = ">" if start[:2] == b"MM" else "<"
    big = len(start) > 3 and 43 in (start[2], start[3])
    found = Walk(order == ">", file_size)
    try:
        _Walker(file, path, order, big, found).follow(_first_directory(start, order, big, path))
        found.is_whole = True
    except _NotAllThereError:
        pass
    if not found.pages:
        raise PixelsError(f"{path.name!r} holds no image yet", "truncated")
    return found


def _first_directory(start: bytes, order: str, big: bool, path: Path) -> int:
    if len(start) < (16 if big else 8):
        raise _NotAllThereError
    if not big:
        (offset,) = struct.unpack_from(order + "I", start, 4)
        return int(offset)
    offset_bytes, zero, offset = struct.unpack_from(order + "2HQ", start, 4)
    if (offset_bytes, zero) != (8, 0):
        raise PixelsError(f"{path.name!r} is not a BigTIFF file: its offsets are odd", "header")
    return int(offset)


class _Walker:
    def __init__(self, file: int, path: Path, order: str, big: bool, found: Walk) -> None:
        self._file, self._path, self._order, self._found = file, path, order, found
        self._count = struct.Struct(order + ("Q" if big else "H"))
        self._entry = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
        self._offset = struct.Struct(order + ("Q" if big else "I"))
        self._header_bytes = 16 if big else 8
        self._tags = self._segments = 0

    def follow(self, offset: int) -> None:
        """Note page after page until the chain ends; raises `_NotAllThereError` where it is cut."""
        seen: set[int] = set()
        if offset == 0:
            raise _NotAllThereError
        while offset:
            self._require(offset >= self._header_bytes, "a directory inside its header")
            self._require(offset not in seen, "a chain of directories that goes in a circle")
            seen.add(offset)
            self._require(len(seen) <= MAX_PAGES, f"more than {MAX_PAGES} images")
            offset = self._page(offset)

    def _page(self, offset: int) -> int:
        chunk = self._read(offset, _CHUNK_BYTES, self._count.size)
        (tags,) = self._count.unpack_from(chunk)
        self._require(0 < tags <= _MAX_TAGS, f"a directory of {tags} tags")
        self._tags += tags
        self._require(self._tags <= _MAX_TAGS_IN_ALL, "more tags than any camera writes")
        end = self._count.size + tags * self._entry.size
        wanted = end + self._offset.size
        if len(chunk) < wanted:
            chunk = self._read(offset, wanted, wanted)
        entries = self._entry.iter_unpack(chunk[self._count.size : end])
        self._found.pages.append(self._parsed(entries))
        (following,) = self._offset.unpack_from(chunk, end)
        return int(following)

    def _parsed(self, entries: Any) -> Page:
        numbers: dict[int, int] = {}
        lists: dict[int, NDArray[np.int64]] = {}
        first = not self._found.pages
        for tag, kind, count, value in entries:
            if tag in _NUMBERS:
                self._number(numbers, tag, kind, count, value)
            elif tag in _LISTS:
                lists[tag] = self._list(kind, count, value)
            elif first and tag in _TEXTS and kind in _TEXT:
                self._found.texts[tag] = self._text(count, value)
            elif first and tag == X_RESOLUTION and kind == 5 and count == 1:
                self._found.x_resolution = self._rational(value)
        is_tiled = TILE_OFFSETS in lists
        nothing = np.zeros(0, np.int64)
        offsets = lists.get(TILE_OFFSETS if is_tiled else STRIP_OFFSETS, nothing)
        byte_counts = lists.get(TILE_BYTES if is_tiled else STRIP_BYTES, nothing)
        if len(offsets) == 0 or len(offsets) != len(byte_counts):
            self._require(
                False, f"an image of {len(offsets)} pieces, {len(byte_counts)} of known size"
            )
        self._refuse_missing(offsets, byte_counts)
        return Page(numbers, offsets, byte_counts, is_tiled)

    def _refuse_missing(self, offsets: NDArray[np.int64], byte_counts: NDArray[np.int64]) -> None:
        size = self._found.file_size
        # Each at most the size of a file before they are added: no sum overflows.
        inside = (offsets > 0) & (byte_counts > 0) & (offsets <= size) & (byte_counts <= size)
        if not (inside.all() and (offsets + byte_counts <= size).all()):
            raise _NotAllThereError

    def _number(
        self, numbers: dict[int, int], tag: int, kind: int, count: int, value: bytes
    ) -> None:
        code = _UNSIGNED.get(kind)
        if code is None or count == 0:
            return
        if count * _TYPE_BYTES[kind] > len(value):
            (offset,) = self._offset.unpack(value)
            value = self._read(offset, 8, _TYPE_BYTES[kind])
        (numbers[tag],) = struct.unpack_from(self._order + code, value)

    def _list(self, kind: int, count: int, value: bytes) -> NDArray[np.int64]:
        code = _UNSIGNED.get(kind)
        self._require(code is not None, f"offsets of type {kind}")
        self._segments += count
        self._require(
            count <= _MAX_SEGMENTS and self._segments <= _MAX_SEGMENTS_IN_ALL,
            f"images in {max(count, self._segments)} pieces",
        )
        wanted = count * _TYPE_BYTES[kind]
        if wanted > len(value):
            (offset,) = self._offset.unpack(value)
            value = self._read(offset, wanted, wanted)
        numbers = np.frombuffer(value, f"{self._order}u{_TYPE_BYTES[kind]}", count)
        # What does not fit in 63 bits becomes negative, and is found to be outside the file.
        return numbers.astype(np.int64)

    def _text(self, count: int, value: bytes) -> bytes:
        count = min(count, _MAX_TEXT_BYTES)
        if count <= len(value):
            return value[:count]
        (offset,) = self._offset.unpack(value)
        return self._read(offset, count, count)

    def _rational(self, value: bytes) -> float | None:
        if len(value) < 8 or self._offset.size == 4:
            (offset,) = self._offset.unpack(value)
            value = self._read(offset, 8, 8)
        above, below = struct.unpack_from(self._order + "2I", value)
        return above / below if below else None

    def _read(self, offset: int, count: int, at_least: int) -> bytes:
        if offset + at_least > self._found.file_size:
            raise _NotAllThereError
        found = read_at(self._file, offset, count, self._path)
        if len(found) < at_least:
            raise _NotAllThereError
        return found

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise PixelsError(
                f"{self._path.name!r} is not a sound TIFF file: it has {what}", "header"
            )
