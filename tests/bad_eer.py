"""Hostile and broken EER files: what is wrong, the bytes, and what a reader may say."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from engines.microscope_eer import encode_electrons
from engines.readers.eer_frames import LEGACY_END
from tests.bad_tiff import LONG, LONG8, SHORT, UNDEFINED, directory, entries, start

_SIDE = 64
_BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE m [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(
        b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 10)
        for letter in range(ord("b"), ord("j"))
    )
    + b"]><metadata><item name='sensorPixelSize.width' unit='m'>&i;</item></metadata>"
)


def _frame() -> bytes:
    return encode_electrons(np.random.default_rng(0).random((_SIDE, _SIDE)) < 0.05)


def eer(
    stored: bytes | None = None,
    *,
    frames: int = 1,
    shared: bool = False,
    metadata: bytes = b"",
    side: int = _SIDE,
    codec: int = 65001,
    **changes: int | tuple[int, int, int] | None,
) -> bytes:
    """A movie with the same electrons in each frame, with some tags changed."""
    stored = _frame() if stored is None else stored
    area = stored * (1 if shared else frames) + metadata
    found = [start(16 + len(area), big=True), area]
    place = 16 + len(area)
    for frame in range(frames):
        offset = 16 + (0 if shared else frame * len(stored))
        more: dict[str, int | tuple[int, int, int] | None] = {"t258": None, "t259": codec}
        if metadata:
            more["t65001"] = UNDEFINED, len(metadata), 16 + len(area) - len(metadata)
        more |= {"t256": side, "t257": side, "t278": side, **changes}
        tags = entries(offset, len(stored), **more)
        length = len(directory(tags, big=True))
        following = place + length if frame + 1 < frames else 0
        found.append(directory(tags, following, big=True))
        place += length
    return b"".join(found)


def _legacy(words: int) -> bytes:
    return bytes(800) + struct.pack("<q", words) + LEGACY_END


def _item(value: bytes) -> bytes:
    return b'<metadata><item name="sensorPixelSize.width" unit="m">%s</item></metadata>' % value


_BITS: dict[str, Any] = {
    "t65007": (SHORT, 1, 65_535),
    "t65008": (SHORT, 1, 65_535),
    "t65009": (SHORT, 1, 0),
}

BAD_EER: list[tuple[str, Callable[[], bytes], str]] = [
    ("cut in its last directory", lambda: eer(frames=3)[:-9], "truncated"),
    ("cut in its first frame", lambda: eer()[:60], "truncated"),
    ("a run beyond its frame", lambda: eer(b"\xfe" * 2000), "decode"),
    ("ones", lambda: eer(b"\xff" * 2000), "decode"),
    ("zeros", lambda: eer(bytes(2000)), "sound"),
    ("noise", lambda: eer(np.random.default_rng(2).bytes(2000)), "sound decode"),
    ("a frame of one byte", lambda: eer(b"\0"), "sound decode"),
    ("a frame that stops early", lambda: eer(_frame()[:50]), "sound"),
    ("sides of 65536", partial(eer, side=65_536), "header"),
    ("sides of 0", partial(eer, side=0), "header"),
    ("sides of 16384 in a hundred bytes", lambda: eer(bytes(100), side=16_384), "bomb"),
    ("a megabyte for 64 x 64 pixels", lambda: eer(bytes(10**6)), "bomb"),
    ("1000 frames of the same bytes", partial(eer, frames=1000, shared=True), "bomb"),
    ("tiles", partial(eer, t273=None, t279=None, t324=16, t325=100), "header"),
    ("too few strips", partial(eer, t278=1), "header"),
    ("strips of no rows", partial(eer, t278=0), "header"),
    ("codes of 65535 bits", partial(eer, codec=65002, **_BITS), "mode"),
    ("codes of no bits", partial(eer, codec=65002, t65007=0, t65008=0, t65009=0), "mode"),
    ("codes of 64-bit sizes", partial(eer, codec=65002, t65007=(LONG8, 1, 2**63)), "mode"),
    ("an electron codec that is not known", partial(eer, codec=65003, t258=(LONG, 1, 8)), "mode"),
    ("metadata that unfold without end", partial(eer, metadata=_BOMB), "sound"),
    ("a pixel size of NaN", partial(eer, metadata=_item(b"nan")), "sound"),
    ("a pixel size of 10^999", partial(eer, metadata=_item(b"1e999")), "sound"),
    ("a pixel size of -1", partial(eer, metadata=_item(b"-1e-10")), "sound"),
    ("metadata of 2^63 bytes", partial(eer, t65001=(UNDEFINED, 2**63, 16)), "truncated"),
    ("the first form of EER", partial(_legacy, 100), "mode"),
    ("the first form with a negative length", partial(_legacy, -1), "truncated"),
    ("the first form with a length beyond", partial(_legacy, 2**60), "mode"),
]
