"""Hostile and broken TIFF files: what is wrong, the bytes, and what a reader may say."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import imagecodecs
import numpy as np

Entry = tuple[int, int, int, int]
"""Tag, type, count, and value or offset."""

SHORT, LONG, RATIO, UNDEFINED, LONG8 = 3, 4, 5, 7, 16
HUGE = 2**32 - 1
_SIDE = 16
_PIXELS = bytes(range(256))
"""One image of 16 x 16 bytes."""


def directory(entries: Sequence[Entry], following: int = 0, *, big: bool = False) -> bytes:
    """A directory as it is on disk, whatever its entries say."""
    count, entry, link = ("<Q", "<HHQQ", "<Q") if big else ("<H", "<HHII", "<I")
    packed = b"".join(struct.pack(entry, *one) for one in sorted(entries))
    return struct.pack(count, len(entries)) + packed + struct.pack(link, following)


def start(first: int, *, big: bool = False) -> bytes:
    """The header of a file with the offset of its first directory."""
    if big:
        return struct.pack("<2s3HQ", b"II", 43, 8, 0, first)
    return struct.pack("<2sHI", b"II", 42, first)


def entries(offset: int, length: int, **changes: int | tuple[int, int, int] | None) -> list[Entry]:
    """The tags of an image of 16 x 16 bytes; `changes` by number (`t256=5`), None: no such tag."""
    tags: dict[int, tuple[int, int, int] | None] = {
        256: (LONG, 1, _SIDE),
        257: (LONG, 1, _SIDE),
        258: (SHORT, 1, 8),
        259: (SHORT, 1, 1),
        262: (SHORT, 1, 1),
        273: (LONG, 1, offset),
        277: (SHORT, 1, 1),
        278: (LONG, 1, _SIDE),
        279: (LONG, 1, length),
    }
    for name, change in changes.items():
        tags[int(name[1:])] = (LONG, 1, change) if isinstance(change, int) else change
    return [(tag, *value) for tag, value in tags.items() if value is not None]


def tiff(
    data: bytes = _PIXELS,
    *,
    big: bool = False,
    following: int = 0,
    **changes: int | tuple[int, int, int] | None,
) -> bytes:
    """A file of one image with some tags changed."""
    head = 16 if big else 8
    padded = data + bytes(len(data) % 2)
    tags = entries(head, len(data), **changes)
    return start(head + len(padded), big=big) + padded + directory(tags, following, big=big)


def pages(count: int, *, shared: bool, side: int = 1) -> bytes:
    """Many images, each with its own bytes or all with the same."""
    size = side * side
    area = size if shared else size * count
    area += area % 2
    found = [start(8 + area), bytes(area)]
    place = 8 + area
    for page in range(count):
        tags = entries(8 if shared else 8 + page * size, size, t256=side, t257=side, t278=side)
        length = len(directory(tags))
        found.append(directory(tags, place + length if page + 1 < count else 0))
        place += length
    return b"".join(found)


def _circle(of: int) -> bytes:
    tags = entries(8, 256)
    length = len(directory(tags))
    first = 8 + 256
    return (
        start(first)
        + _PIXELS
        + b"".join(directory(tags, first + (page + 1) % of * length) for page in range(of))
    )


def _lzw(count: int) -> bytes:
    return bytes(imagecodecs.lzw_encode(bytes(count)))


def _square(packed: bytes, side: int, compression: int) -> bytes:
    return tiff(packed, t256=side, t257=side, t278=side, t259=compression)


def _two_sizes() -> bytes:
    first = entries(8, 256)
    second = entries(8, 64, t256=8, t257=8, t278=8)
    place = 8 + 256 + len(directory(first))
    return start(8 + 256) + _PIXELS + directory(first, place) + directory(second)


def _many_tags(count: int) -> bytes:
    tags = entries(8, 256) + [(60_000 + n % 5000, SHORT, 1, n) for n in range(count)]
    return start(8 + 256) + _PIXELS + directory(tags)


_TILED: dict[str, Any] = {"t273": None, "t278": None, "t279": None, "t324": 8, "t325": 256}


BAD_TIFF: list[tuple[str, Callable[[], bytes], str]] = [
    *(
        (f"cut after {n} bytes", lambda n=n: tiff()[:n], "truncated")
        for n in (4, 7, 8, 100, 264, 265)
    ),
    *(
        (f"cut {n} bytes before its end", lambda n=n: tiff()[:-n], "truncated")
        for n in (1, 3, 4, 5, 50)
    ),
    ("big, cut after 4 bytes", lambda: tiff(big=True)[:4], "truncated"),
    ("big, cut after 15 bytes", lambda: tiff(big=True)[:15], "truncated"),
    ("no directory yet", lambda: start(0) + _PIXELS, "truncated"),
    ("a directory beyond its end", lambda: start(HUGE) + _PIXELS, "truncated"),
    ("a directory at 2^64 - 1", lambda: start(2**64 - 1, big=True) + _PIXELS, "truncated"),
    ("a directory inside its header", lambda: start(4) + _PIXELS, "header"),
    ("a directory that follows itself", partial(_circle, 1), "header"),
    ("two directories that follow each other", partial(_circle, 2), "header"),
    ("a hundred directories in a circle", partial(_circle, 100), "header"),
    ("a next directory inside its header", partial(tiff, following=2), "header"),
    ("a next directory that is not there", partial(tiff, following=10**9), "truncated"),
    ("a directory without tags", lambda: start(8) + directory([]), "header"),
    ("a directory of 65535 tags", lambda: start(8) + b"\xff\xff" + bytes(10**6), "header"),
    ("a directory of 2^64 - 1 tags", lambda: start(16, big=True) + b"\xff" * 3000, "header"),
    ("a directory of 5000 tags", partial(_many_tags, 5000), "header"),
    ("500 tags nobody knows", partial(_many_tags, 500), "sound"),
    (
        "offsets of 3 bytes",
        lambda: struct.pack("<2s3HQ", b"II", 43, 3, 0, 16) + bytes(99),
        "header",
    ),
    ("20,001 images", partial(pages, 20_001, shared=False), "header"),
    ("20,000 images of a pixel", partial(pages, 20_000, shared=False), "sound"),
    ("a thousand images of the same bytes", partial(pages, 1000, shared=True, side=64), "bomb"),
    ("images of two sizes", _two_sizes, "header"),
    ("no width", partial(tiff, t256=None), "header"),
    ("a width of 0", partial(tiff, t256=0), "header"),
    ("a height of 0", partial(tiff, t257=0), "header"),
    ("sides of 2^20", partial(tiff, t256=2**20, t257=2**20, t278=2**20), "header"),
    ("sides of 2^32 - 1", partial(tiff, t256=HUGE, t257=HUGE, t278=HUGE), "header"),
    ("sides of 65536", partial(tiff, t256=65_536, t257=65_536, t278=65_536), "header"),
    ("an image of 1 GB in 256 bytes", partial(tiff, t256=32_768, t257=32_768, t278=32_768), "bomb"),
    ("an image larger than its bytes", partial(tiff, t256=64, t257=64, t278=64), "decode"),
    ("pixels of no bits", partial(tiff, t258=0), "header"),
    ("pixels of 65535 bits", partial(tiff, t258=(SHORT, 1, 65_535)), "header"),
    ("pixels of 3 bits", partial(tiff, t258=3), "mode"),
    ("pixels of 1 bit", partial(tiff, t258=None), "mode"),
    ("three colours", partial(tiff, t277=3), "mode"),
    ("a compression nobody knows", partial(tiff, t259=4711), "mode"),
    ("JPEG", partial(tiff, t259=7), "mode"),
    ("a predictor nobody knows", partial(tiff, t259=5, t317=99), "mode"),
    ("bits in the other order", partial(tiff, t266=2), "mode"),
    ("a kind of numbers nobody knows", partial(tiff, t339=77), "mode"),
    ("no strips", partial(tiff, t273=None), "header"),
    ("no sizes of strips", partial(tiff, t279=None), "header"),
    ("strips of no rows", partial(tiff, t278=0), "header"),
    (
        "more strips than rows",
        partial(tiff, t273=(SHORT, 2, 0x0010_0008), t279=(SHORT, 2, 0x0010_0010)),
        "header",
    ),
    ("fewer strips than there are", partial(tiff, t278=1), "header"),
    ("a strip at 0", partial(tiff, t273=0), "truncated"),
    ("a strip of no bytes", partial(tiff, t279=0), "truncated"),
    ("a strip beyond its end", partial(tiff, t273=10**9), "truncated"),
    ("a strip that ends beyond its end", partial(tiff, t279=10**6), "truncated"),
    ("a strip whose end overflows", partial(tiff, t273=HUGE, t279=HUGE), "truncated"),
    (
        "a strip whose end overflows 64 bits",
        partial(tiff, big=True, t273=(LONG8, 1, 2**64 - 8), t279=(LONG8, 1, 2**63)),
        "truncated",
    ),
    ("2^31 strips", partial(tiff, t273=(LONG, 2**31, 8), t279=(LONG, 2**31, 8)), "header"),
    ("offsets that are fractions", partial(tiff, t273=(RATIO, 1, 8)), "header"),
    ("offsets of a type nobody knows", partial(tiff, t273=(99, 1, 8)), "header"),
    ("a width that is text", partial(tiff, t256=(2, 4, 16)), "header"),
    ("a description of 4 GB", partial(tiff, t270=(2, HUGE, 8)), "truncated"),
    ("a resolution of 0 / 0", partial(tiff, t282=(RATIO, 1, 2)), "sound"),
    ("a resolution beyond its end", partial(tiff, t282=(RATIO, 1, HUGE)), "truncated"),
    ("a forged tile of 2^30", partial(tiff, t322=2**15, t323=2**15, **_TILED), "header"),
    ("a tile of 2^32 - 1", partial(tiff, t322=HUGE, t323=HUGE, **_TILED), "header"),
    ("a tile of nothing", partial(tiff, t322=0, t323=0, **_TILED), "header"),
    ("tiles without a size", partial(tiff, **_TILED), "header"),
    ("a tile that is one of many", partial(tiff, t322=4, t323=4, **_TILED), "header"),
    ("tile and strip at once", partial(tiff, t322=16, t323=16, t324=8, t325=256), "sound"),
    ("LZW of 100 bytes for 16 MB", lambda: _square(_lzw(10**6)[:100], 4096, 5), "bomb"),
    (
        "ZIP of 100 bytes for 16 MB",
        lambda: _square(zlib.compress(bytes(10**5))[:100], 4096, 8),
        "bomb",
    ),
    (
        "16 MB packed as tight as ZIP can",
        lambda: _square(zlib.compress(bytes(2**24), 9), 4096, 8),
        "sound",
    ),
    ("16 MB packed as tight as LZW can", lambda: _square(_lzw(2**24), 4096, 5), "sound"),
    ("ZIP of 100 times the image", lambda: _square(zlib.compress(bytes(10**6)), 100, 8), "decode"),
    ("LZW of 100 times the image", lambda: _square(_lzw(10**6), 100, 5), "sound decode"),
    ("ZIP of half the image", lambda: _square(zlib.compress(bytes(5000)), 100, 8), "decode"),
    ("LZW of half the image", lambda: _square(_lzw(5000), 100, 5), "decode"),
    (
        "ZIP cut short",
        lambda: _square(zlib.compress(np.random.default_rng(0).bytes(10_000))[:5000], 100, 8),
        "decode",
    ),
    ("LZW of noise", lambda: _square(np.random.default_rng(0).bytes(5000), 100, 5), "decode"),
    ("LZW of ones", lambda: _square(b"\xff" * 5000, 100, 5), "decode"),
    ("ZIP of noise", lambda: _square(np.random.default_rng(0).bytes(5000), 100, 8), "decode"),
    ("a million bytes for a strip of 256", lambda: tiff(bytes(10**6), t259=8), "bomb"),
]
