"""Tilt series in growing stacks, written in the order of SerialEM and of PACEtomo."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from engines.mdoc_text import PROGRAM_TITLE, serialem_time
from tests.pretend_movies import MDOCS, Movies
from tests.pretend_session import (
    BETWEEN_EXPOSURES_S,
    COLUMNS,
    IMAGE_BYTES,
    ROWS,
    Exposure,
    Server,
    angle_of,
    code_of,
    pixels,
)

_HEADER_BYTES, _EXTENDED_BYTES, _ENTRY_BYTES = 1024, 1024, 14
_DATA_START = _HEADER_BYTES + _EXTENDED_BYTES
_MOST_TILTS = 40
_SECTION = re.compile(rb"\[ZValue = (\d+)\](.*?)(?=\n\[|\Z)", re.DOTALL)
_DATE = re.compile(rb"\nDateTime = ([^\r\n]+)\r?\n")


@dataclass(slots=True)
class Stack:
    """One series; at most one operation runs on it."""

    server: Server
    relative: str
    line_end: str = "\n"
    movies: Movies | None = None
    """Where the movies of the same exposures go, if they are kept."""
    sections: list[Exposure] = field(default_factory=list)
    """As they lie in the stack, or will when the operation that runs is over."""
    operation: Iterator[None] | None = None
    swift: bool = False
    frozen: bool = False
    is_sorted: bool = False
    touched_s: float = 0.0

    def __post_init__(self) -> None:
        self.server.make_folder(self.path.parent)
        self.server.create(self.path, _header(0) + bytes(_EXTENDED_BYTES))

    @property
    def path(self) -> Path:
        return self.server.root / self.relative

    @property
    def mdoc(self) -> Path:
        return self.server.root / (self.relative + ".mdoc")

    def files(self) -> list[Path]:
        return [self.path, self.mdoc, *(self.movies.files() if self.movies else ())]

    def folders(self) -> list[Path]:
        return [self.path.parent, *(self.movies.folders() if self.movies else ())]

    def begin(self, what: str, where: int = 0) -> None:
        """Begin an operation unless one runs; what makes no sense now becomes another tilt."""
        if self.operation is not None or self.frozen:
            return
        count = len(self.sections)
        sortable = count > 1 and not self.is_sorted
        if what == "overwrite" and count:
            self.swift, self.operation = True, self._overwrite(where % count)
        elif what == "rewrite" and count:
            self.operation = self._rewrite_mdoc()
        elif what == "sort" and sortable:
            self.operation = self._sort()
        elif what == "sort in place" and sortable:
            self.swift, self.operation = True, self._sort_in_place()
        elif what == "again":
            self.operation = self._again(where)
        elif not self.is_sorted and count < _MOST_TILTS:
            self.operation = self._tilt(where)

    def _tilt(self, where: int) -> Iterator[None]:
        k = len(self.sections)
        self.sections.append(one := self._expose(angle_of(k)))
        movie: Iterator[None] = iter(())
        if self.movies:
            movie = self.movies.write_tilt(_movie_name(self.movies, one), one, MDOCS[where % 3])
        if where % 2:
            yield from movie
        yield from self._write_section(k)
        yield from self._append_mdoc(k)
        yield from movie

    def _expose(self, angle_deg: float) -> Exposure:
        one = self.server.expose(angle_deg)
        one.paths.append(self.relative)
        return one

    def _overwrite(self, k: int) -> Iterator[None]:
        self.sections[k] = self._expose(self.sections[k].angle_deg)
        yield from self._write_section(k)
        yield from self._rewrite_mdoc()

    def _sort(self) -> Iterator[None]:
        """Copy the stack in the order of the angles, as SerialEM does."""
        server, old = self.server, self.path.with_name(self.path.name + "-unsorted")
        old_mdoc = self.path.with_name(old.name + ".mdoc")
        server.clocks.now_s += BETWEEN_EXPOSURES_S
        server.rename(self.path, old)
        yield
        server.rename(self.mdoc, old_mdoc)
        yield
        sections = sorted(self.sections, key=lambda one: one.angle_deg)
        self.is_sorted = True
        server.create(self.path, _header(0) + bytes(_EXTENDED_BYTES))
        yield
        self.sections = []
        for k, one in enumerate(sections):
            self.sections.append(one)
            yield from self._write_section(k)
            yield from self._append_mdoc(k)
        server.delete(old)
        yield
        server.delete(old_mdoc)
        yield

    def _sort_in_place(self) -> Iterator[None]:
        """Replace every section, then move the mdoc away and write another, as PACEtomo does."""
        self.server.clocks.now_s += BETWEEN_EXPOSURES_S
        self.is_sorted = True
        self.sections.sort(key=lambda one: one.angle_deg)
        for k in range(len(self.sections)):
            yield from self._write_section(k)
        self.server.rename(self.mdoc, self.path.with_name(self.path.stem + "_unsorted.mrc.mdoc"))
        yield
        for k in range(len(self.sections)):
            yield from self._append_mdoc(k)

    def _again(self, where: int) -> Iterator[None]:
        """Begin the series anew under its name, in new files or in those that are there."""
        self.server.clocks.now_s += BETWEEN_EXPOSURES_S
        self.server.delete(self.mdoc)
        yield
        if where % 3:
            self.server.delete(self.path)
            yield
        self.sections, self.is_sorted = [], False
        self.server.create(self.path, _header(0) + bytes(_EXTENDED_BYTES))
        yield
        yield from self._tilt(where)

    def _rewrite_mdoc(self) -> Iterator[None]:
        backup = self.mdoc.with_name(self.mdoc.name + "~")
        self.server.rename(self.mdoc, backup)
        yield  # for a moment there is no mdoc
        for k in range(len(self.sections)):
            yield from self._append_mdoc(k)
        self.server.delete(backup)
        yield

    def _write_section(self, k: int) -> Iterator[None]:
        image, start = pixels(self.sections[k].code), _DATA_START + k * IMAGE_BYTES
        half = IMAGE_BYTES // 2
        self.server.patch(self.path, start, image[:half])
        yield
        self.server.patch(self.path, start + half, image[half:])
        yield
        self.server.patch(self.path, 0, _header(len(self.sections)))
        yield
        entry = struct.pack("<h", round(self.sections[k].angle_deg * 100)) + b"\1" * 12
        self.server.patch(self.path, _HEADER_BYTES + k * _ENTRY_BYTES, entry)
        yield

    def _append_mdoc(self, k: int) -> Iterator[None]:
        """Append one section in three pieces, cut where it hurts most."""
        one = self.sections[k]
        raw = self._mdoc_section(k, one).replace("\n", self.line_end).encode()
        cuts = (0, raw.index(b"TiltAngle = ") + 14, raw.index(b"DateTime") + 26, len(raw))
        for start, end in pairwise(cuts):
            if k == 0 and start == 0:
                self.server.create(self.mdoc, raw[:end])
            else:
                self.server.append(self.mdoc, raw[start:end])
            if end == len(raw):
                one.was_complete = True
            yield

    def _mdoc_section(self, k: int, one: Exposure) -> str:
        start = (
            ""
            if k
            else f"PixelSpacing = 2\nImageFile = {self.path.name}\n\n[T = {PROGRAM_TITLE}]\n"
        )
        movie = ""
        if self.movies:
            movie = f"SubFramePath = C:\\{Path(_movie_name(self.movies, one)).name}\n"
        return (
            f"{start}\n[ZValue = {k}]\nTiltAngle = {one.angle_deg:.2f}\nExposureDose = 2.2\n{movie}"
            f"NumSubFrames = 10\nDateTime = {serialem_time(one.when)}\nFilterSlitAndLoss = 10 0\n"
        )

    def there(self) -> set[int]:
        """List the exposures that whoever reads the files now finds complete."""
        return self._in_stack() | (self.movies.there() if self.movies else set())

    def _in_stack(self) -> set[int]:
        try:
            raw, text = self.path.read_bytes(), self.mdoc.read_bytes()
        except FileNotFoundError:
            return set()
        if len(raw) < _DATA_START:
            return set()
        nz = struct.unpack_from("<i", raw, 8)[0]
        found = set()
        for match in _SECTION.finditer(text):
            k, date = int(match[1]), _DATE.search(match[2])
            start = _DATA_START + k * IMAGE_BYTES
            one = self.server.exposures.get(code_of(raw[start : start + IMAGE_BYTES]) or 0)
            if one and date and k < nz and serialem_time(one.when) == date[1].decode():
                found.add(one.code)
        return found


def _movie_name(movies: Movies, one: Exposure) -> str:
    return f"{movies.relative}_{one.code:03d}_{one.angle_deg:.1f}.mrc"


def _header(nz: int) -> bytes:
    rows, columns = (ROWS, COLUMNS) if nz else (0, 0)
    raw = bytearray(_HEADER_BYTES)
    struct.pack_into("<4i", raw, 0, columns, rows, nz, 1)
    struct.pack_into("<3i6f", raw, 28, columns, rows, nz, 12.0, 8.0, 2.0 * nz, 90.0, 90.0, 90.0)
    struct.pack_into("<3i3f2i", raw, 64, 1, 2, 3, 0.0, 0.0, 0.0, 0, _EXTENDED_BYTES)
    struct.pack_into("<4si", raw, 104, b"SERI", 20140)
    struct.pack_into("<2h", raw, 128, _ENTRY_BYTES, 1 | 4 | 8 | 16 | 32)
    struct.pack_into("<4s4B", raw, 208, b"MAP ", 0x44, 0x44, 0, 0)
    return bytes(raw)
