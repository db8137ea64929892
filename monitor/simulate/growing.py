"""Files of a finished session, written again piece by piece as they once grew."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from engines.errors import PixelsError
from engines.microscope_stack import OPEN_MARK
from engines.microscope_step import TEXT_PIECE_BYTES, Step, deleting, marking, renaming
from engines.readers.mrc import read_header, read_tilt_angles
from engines.readers.mrc_header import HEADER_BYTES, MrcHeader
from monitor.simulate.finished import StackText, numbered

_CHUNK_BYTES = 8 << 20
_LEAST_PIECES = 4
_SAME_ANGLE_DEG = 0.06
_ANGLE = re.compile(rb"^TiltAngle\s*=\s*([-+]?[\d.]+)", re.MULTILINE)
_OF_PACETOMO = re.compile(r".*_ts_\d{3}", re.DOTALL)


def copying(source: Path, to: Path) -> Iterator[Step]:
    """Copy a file in pieces; it has its own name from its first byte on."""
    to.parent.mkdir(parents=True, exist_ok=True)
    size = source.stat().st_size
    piece_bytes = max(1, min(_CHUNK_BYTES, -(-size // _LEAST_PIECES)))
    with source.open("rb") as old, to.open("wb", buffering=0) as new:
        yield Step(to, "create")
        while piece := old.read(piece_bytes):
            new.write(piece)
            yield Step(to, "pixels", len(piece))
    yield Step(to, "header", 0, (to,))


class GrowingMdoc:
    """The mdoc of a stack, written section by section."""

    def __init__(self, path: Path, text: StackText) -> None:
        """Take where to write it, and what it says in the end."""
        self.path = path
        self._text = text
        self._written = 0

    def adding(self, section: int, also: tuple[Path, ...] = ()) -> Iterator[Step]:
        """Add one section under the next number; `also` is settled with it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        number, self._written = self._written, self._written + 1
        raw = numbered(self._text.sections[section], number)
        if number == 0:
            raw = self._text.start + raw
        with self.path.open("ab" if number else "wb", buffering=0) as mdoc:
            for done in range(0, len(raw), TEXT_PIECE_BYTES):
                mdoc.write(raw[done : done + TEXT_PIECE_BYTES])
                yield Step(self.path, "mdoc", min(TEXT_PIECE_BYTES, len(raw) - done))
        yield Step(self.path, "mdoc", 0, (self.path, *also))


class GrowingStack:
    """A stack and its mdoc, written section by section as SerialEM does."""

    def __init__(self, source: Path, path: Path, text: StackText) -> None:
        """Take the finished stack, where to write it, and its mdoc.

        A stack that cannot be read as one is copied as it is, at the time of its first tilt.
        """
        self._source = source
        self.path = path
        self._text = text
        self._mdoc_path = path.with_name(path.name + ".mdoc")
        self._header = _header(source)
        sections = len(text.sections)
        if self._header is not None:
            sections = min(sections, self._header.nz, self._header.sections_on_disk)
        self.order: Sequence[int] = sorted(range(sections), key=lambda k: text.times_s[k])
        self._mdoc = GrowingMdoc(self._mdoc_path, text)
        self._entry_angles = _entry_angles(source, self._header)
        self._grown = 0
        self._has_mark = not _OF_PACETOMO.fullmatch(path.stem)

    def angle_deg(self, section: int) -> float:
        """Say at which angle a section was taken, as far as the mdoc tells."""
        match = _ANGLE.search(self._text.sections[section])
        return float(match[1]) if match else 0.0

    def adding(self, section: int) -> Iterator[Step]:
        """Add one section: pixels, header, extended header, mdoc."""
        if self._grown == 0:
            yield from self._creating()
            if self._has_mark:
                yield marking(self._mark)
        yield from self._growing(section, self._grown)
        self._grown += 1

    @property
    def _mark(self) -> Path:
        return self.path.with_name(self.path.name + OPEN_MARK)

    def finishing(self) -> Iterator[Step]:
        """Give the stack the order that its source has, and whatever lies behind its sections."""
        header = self._header
        if list(self.order) != sorted(self.order) and header is not None:
            yield from self._reordering()
        if header is not None:
            yield from self._rest(header)
        for section in range(len(self.order), len(self._text.sections)):
            yield from self._mdoc.adding(section)
        if self._has_mark:
            yield deleting(self._mark)

    def _creating(self) -> Iterator[Step]:
        header = self._header
        if header is None:
            yield from copying(self._source, self.path)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        raw = bytearray(self._bytes(0, HEADER_BYTES))
        order = ">" if header.big_endian else "<"
        struct.pack_into(order + "3i", raw, 0, 0, 0, 0)
        self.path.write_bytes(bytes(raw) + bytes(header.data_offset - HEADER_BYTES))
        yield Step(self.path, "create", header.data_offset)

    def _growing(self, section: int, at: int) -> Iterator[Step]:
        header = self._header
        if header is not None:
            yield from self._writing(header, section, at)
        yield from self._mdoc.adding(section, (self.path,))

    def _writing(self, header: MrcHeader, section: int, at: int) -> Iterator[Step]:
        piece_bytes = max(1, min(_CHUNK_BYTES, -(-header.section_bytes // _LEAST_PIECES)))
        start, to = (header.data_offset + k * header.section_bytes for k in (section, at))
        with self.path.open("r+b", buffering=0) as stack:
            for done in range(0, header.section_bytes, piece_bytes):
                piece = self._bytes(start + done, min(piece_bytes, header.section_bytes - done))
                stack.seek(to + done)
                stack.write(piece)
                yield Step(self.path, "pixels", len(piece))
            stack.seek(0)
            stack.write(self._header_with(header, at + 1))
            yield Step(self.path, "header", HEADER_BYTES)
            entry, place = self._entry(header, section, at)
            stack.seek(place)
            stack.write(entry)
            yield Step(self.path, "extended", len(entry))

    def _header_with(self, header: MrcHeader, sections: int) -> bytes:
        raw = bytearray(self._bytes(0, HEADER_BYTES))
        order = ">" if header.big_endian else "<"
        struct.pack_into(order + "i", raw, 8, sections)
        return bytes(raw)

    def _entry(self, header: MrcHeader, section: int, at: int) -> tuple[bytes, int]:
        """Give a section's part of the extended header, and where it goes."""
        size = header.seri_bytes_per_section
        if size and HEADER_BYTES + (max(section, at) + 1) * size <= header.data_offset:
            raw = self._bytes(HEADER_BYTES + self._entry_of(section) * size, size)
            return raw, HEADER_BYTES + at * size
        return b"", HEADER_BYTES

    def _entry_of(self, section: int) -> int:
        """Find the entry with a section's angle: PACEtomo sorts the sections, not the entries."""
        wanted = self.angle_deg(section)

        def off(entry: int) -> float:
            angle = self._entry_angles[entry]
            return 360.0 if angle is None else abs(angle - wanted)

        if section >= len(self._entry_angles) or off(section) < _SAME_ANGLE_DEG:
            return section
        return min(range(len(self._entry_angles)), key=off)

    def _reordering(self) -> Iterator[Step]:
        old = self.path.with_name(self.path.name + "-unsorted")
        old_mdoc = old.with_name(old.name + ".mdoc")
        yield renaming(self._mdoc_path, old_mdoc)
        yield renaming(self.path, old)
        yield from self._creating()
        self._mdoc = GrowingMdoc(self._mdoc_path, self._text)
        for at, section in enumerate(sorted(self.order)):
            yield from self._growing(section, at)
        yield deleting(old)
        yield deleting(old_mdoc)

    def _rest(self, header: MrcHeader) -> Iterator[Step]:
        """Write what the source has besides its sections: it may be cut within the last one."""
        size = self._source.stat().st_size
        end = header.data_offset + len(self.order) * header.section_bytes
        with self.path.open("rb") as stack:
            if size <= end and stack.read(header.data_offset) == self._bytes(0, header.data_offset):
                return
        with self.path.open("r+b", buffering=0) as stack:
            stack.seek(end)
            stack.write(self._bytes(end, size - end))
            stack.seek(0)
            stack.write(self._bytes(0, header.data_offset))
        settles = (self.path,) if size == end else ()
        yield Step(self.path, "header", header.data_offset + max(0, size - end), settles)

    def _bytes(self, start: int, size: int) -> bytes:
        with self._source.open("rb") as source:
            source.seek(start)
            return source.read(max(0, size))


def _header(source: Path) -> MrcHeader | None:
    try:
        header = read_header(source)
    except PixelsError:
        return None
    return header if header.section_bytes else None


def _entry_angles(source: Path, header: MrcHeader | None) -> tuple[float | None, ...]:
    try:
        return read_tilt_angles(source, header) if header else ()
    except PixelsError:
        return ()
