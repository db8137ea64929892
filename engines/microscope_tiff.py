"""A TIFF file as libtiff appends to it: an image's bytes, then its directory, then the link."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

_TYPES = {"byte": (1, "B"), "text": (2, "s"), "short": (3, "H"), "long": (4, "I")}
_TYPES |= {"ratio": (5, "2I"), "opaque": (7, "s"), "float": (11, "f"), "offset": (16, "Q")}

Tag = tuple[int, str, Sequence[int] | bytes]
"""Number, type and values of a tag."""


class TiffAppender:
    """Appends images to one file, which is open only while something is written."""

    def __init__(self, path: Path, *, big: bool) -> None:
        """Start the file with its header, which links to no directory yet."""
        self.path = path
        self._big = big
        header = (
            struct.pack("<2s3HQ", b"II", 43, 8, 0, 0) if big else struct.pack("<2sHI", b"II", 42, 0)
        )
        path.write_bytes(header)
        self._link_at = len(header) - (8 if big else 4)

    def data(self, stored: bytes) -> int:
        """Append the bytes of an image; gives where they start."""
        with self.path.open("ab") as file:
            if file.tell() % 2:
                file.write(b"\0")
            start = file.tell()
            file.write(stored)
        return start

    def directory(self, tags: list[Tag]) -> int:
        """Append a directory and link it to the one before; gives how many bytes it has."""
        start = self.data(b"")
        raw, link = self._packed(sorted(tags, key=lambda tag: tag[0]), start)
        self.data(raw)
        with self.path.open("r+b") as file:
            file.seek(self._link_at)
            file.write(struct.pack("<Q" if self._big else "<I", start))
        self._link_at = start + link
        return len(raw)

    def _packed(self, tags: list[Tag], start: int) -> tuple[bytes, int]:
        inline = 8 if self._big else 4
        count_format, entry_format = ("<Q", "<HHQ8s") if self._big else ("<H", "<HHI4s")
        entry_bytes = struct.calcsize(entry_format)
        link = struct.calcsize(count_format) + entry_bytes * len(tags)
        entries, more = struct.pack(count_format, len(tags)), b""
        for number, kind, values in tags:
            code, letter = _TYPES[kind]
            if isinstance(values, bytes):
                count, raw = len(values), values
            else:
                count = len(values) // (2 if kind == "ratio" else 1)
                raw = struct.pack(f"<{len(values)}{letter[-1]}", *values)
            if len(raw) > inline:
                offset = start + link + inline + len(more)
                more += raw + b"\0" * (len(raw) % 2)
                raw = struct.pack("<Q" if self._big else "<I", offset)
            entries += struct.pack(entry_format, number, code, count, raw.ljust(inline, b"\0"))
        return entries + bytes(inline) + more, link
