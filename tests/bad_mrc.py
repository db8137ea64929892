"""Hostile and broken MRC files: what is wrong, the bytes, and what a reader may say."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tests.test_mrc import header_bytes

BIG = 2**31 - 1
_IMOD_STAMP = 1_146_047_817
_DATA = np.arange(48, dtype="<i2").tobytes()


def mrc(data: bytes = _DATA, **header: Any) -> bytes:
    """A stack of two small images with some fields of its header changed."""
    return bytes(header_bytes(**header)) + data


def sound() -> bytes:
    """A stack that nothing is wrong with."""
    return mrc()


def _with(offset: int, form: str, *values: object, data: bytes = _DATA, **header: Any) -> bytes:
    raw = header_bytes(**header)
    struct.pack_into(form, raw, offset, *values)
    return bytes(raw) + data


def _fei(size: int, fill: bytes) -> bytes:
    entries = bytearray(fill * 1536)[:1536]
    struct.pack_into("<i", entries, 0, size)
    return _with(104, "<4s", b"FEI1", nsymbt=1536, data=bytes(entries) + _DATA)


def _seri(entry_bytes: int, flags: int) -> bytes:
    raw = header_bytes(nsymbt=64)
    struct.pack_into("<4s", raw, 104, b"SERI")
    struct.pack_into("<2h", raw, 128, entry_bytes, flags)
    return bytes(raw) + bytes(64) + _DATA


def _cut_at(length: int) -> bytes:
    return sound()[:length]


BAD_MRC: list[tuple[str, Callable[[], bytes], str]] = [
    ("nothing at all", partial(bytes, 0), "truncated"),
    *((f"cut after {n} bytes", partial(_cut_at, n), "truncated") for n in range(1, 1024)),
    ("a header and no image", partial(_cut_at, 1024), "truncated"),
    ("one byte too short", lambda: sound()[:-1], "truncated"),
    ("one byte too long", lambda: sound() + b"\0", "truncated"),
    ("all zeros", partial(bytes, 5000), "truncated"),
    ("all ones", lambda: b"\xff" * 5000, "header"),
    ("noise", lambda: np.random.default_rng(0).bytes(100_000), "header"),
    ("a width of 0", partial(mrc, nx=0), "truncated"),
    ("a height of 0", partial(mrc, ny=0), "truncated"),
    ("no section", partial(mrc, nz=0), "truncated"),
    ("a negative width", partial(mrc, nx=-6), "header"),
    ("a negative height", partial(mrc, ny=-4), "header"),
    ("negative sections", partial(mrc, nz=-2), "header"),
    ("two negative sides", partial(mrc, nx=-6, ny=-4), "header"),
    ("sizes whose product overflows", partial(mrc, nx=BIG, ny=BIG, nz=BIG), "header"),
    ("a product of 2^32", partial(mrc, nx=65_536, ny=65_536, nz=1), "header"),
    ("a product that is 0 in 32 bits", partial(mrc, nx=65_536, ny=65_536, nz=65_536), "header"),
    ("an image of 2 GB", partial(mrc, nx=32_768, ny=32_768, nz=1), "header"),
    ("an image of 1 GB that is not there", partial(mrc, nx=32_768, ny=16_384, nz=1), "truncated"),
    ("more sections than it has", partial(mrc, nz=BIG), "header"),
    ("100 sections of which 98 are missing", partial(mrc, nz=100), "truncated"),
    (
        "a million frames of a pixel",
        lambda: mrc(bytes(10**6), nx=1, ny=1, nz=10**6, mode=0),
        "header",
    ),
    ("an unknown mode without the mark", lambda: _with(208, "4s", b"\0" * 4, mode=7), "header"),
    ("an unknown mode with the mark", partial(mrc, mode=7), "mode"),
    ("a negative mode", partial(mrc, mode=-1), "header"),
    ("a mode of 2^31 - 1", partial(mrc, mode=BIG), "header"),
    ("whole complex numbers", lambda: mrc(bytes(192), mode=3), "mode"),
    ("complex numbers", lambda: mrc(bytes(384), mode=4), "mode"),
    ("colours", lambda: mrc(bytes(144), mode=16), "mode"),
    ("an extended header of 2^31 - 1", partial(mrc, nsymbt=BIG), "truncated"),
    ("an extended header of -1", partial(mrc, nsymbt=-1), "header"),
    ("an extended header of -1024", partial(mrc, nsymbt=-1024), "header"),
    ("an extended header over the images", partial(mrc, nsymbt=96), "truncated"),
    ("the stamp of the other byte order", partial(mrc, stamp=b"\x11\x11\0\0"), "sound"),
    ("half of it in the other byte order", lambda: _with(0, ">2i", 6, 4), "header"),
    ("SerialEM's entries of negative length", partial(_seri, -14, 1), "sound"),
    ("SerialEM's entries of 32767 bytes", partial(_seri, 32_767, -1), "sound"),
    ("Thermo Fisher's entries of no length", partial(_fei, 0, b"\xff"), "sound"),
    ("Thermo Fisher's entries of NaN", partial(_fei, 768, b"\xff"), "sound"),
    ("Thermo Fisher's entries beyond the end", partial(_fei, 4096, b"\0"), "sound"),
    ("a pixel size of NaN", partial(mrc, cell=(float("nan"), float("nan"))), "sound"),
    ("a pixel size of 10^38", partial(mrc, cell=(3e38, 3e38)), "sound"),
    ("a cell of no pixels", lambda: _with(28, "<3i", 0, 0, 0), "sound"),
    ("images of NaN", lambda: mrc(b"\xff" * 192, mode=2), "sound"),
    ("images of half NaN", lambda: mrc(b"\xff" * 96, mode=12), "sound"),
    ("labels without end", lambda: _with(220, "<i800s", BIG, b"\xff" * 800), "sound"),
    ("labels of -1", lambda: _with(220, "<i", -1), "sound"),
    (
        "packed bytes twice as wide as allowed",
        lambda: _with(152, "<2i", _IMOD_STAMP, 16, mode=0, nx=65_536, ny=16_384, nz=1),
        "header",
    ),
    (
        "packed bytes that are signed as well",
        lambda: _with(152, "<2i", _IMOD_STAMP, 17, mode=0, data=bytes(48)),
        "sound",
    ),
    ("a page of text", lambda: b"The quick brown fox jumps over the lazy dog.\n" * 100, "header"),
    ("a packed stack", lambda: gzip.compress(np.random.default_rng(1).bytes(5000)), "header"),
    ("a picture of the web", lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, "header"),
    ("a file of HDF5", lambda: b"\x89HDF\r\n\x1a\n" + b"\x08" * 4000, "header"),
]
