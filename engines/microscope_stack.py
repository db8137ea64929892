"""A stack and its mdoc on disk, as SerialEM has them: what is written where, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.mdoc_text import PROGRAM_TITLE
from engines.microscope_header import EXTENDED_BYTES, MODES, SERI_BYTES, seri_entry, stack_header
from engines.microscope_step import Step, deleting, marking, renaming, writing_text
from engines.readers.mrc_header import HEADER_BYTES

OPEN_MARK = ".openTS"
"""Lies beside a stack for as long as SerialEM's own tilt series controller has it open."""


class StackFile:
    """The files of one series; every method that writes is a generator of its single writes."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int],
        pixel_size_angstrom: float,
        dtype: str = "int16",
        scheme: str = "dosym = 0.0",
        line_end: str = "\n",
        chunk_bytes: int = 8 << 20,
    ) -> None:
        """Take what stays the same; `scheme` is how the second title says that the series goes."""
        self.path = path
        self.mdoc_path = path.with_name(path.name + ".mdoc")
        self.shape = shape
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.statistics = (0.0, 0.0, 0.0)
        self.sections: list[tuple[float, str]] = []
        """Tilt angle (degrees) and text in the mdoc, of each section."""
        self.line_end = line_end
        self._entries: list[bytes] = []
        self._pixel_size_angstrom = pixel_size_angstrom
        self._mode = MODES[dtype]
        self._scheme = scheme
        self.chunk_bytes = chunk_bytes

    @property
    def section_bytes(self) -> int:
        """Bytes of the pixels of one section."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def offset(self, section: int) -> int:
        """Where the pixels of a section begin."""
        return HEADER_BYTES + EXTENDED_BYTES + section * self.section_bytes

    def creating(self) -> Iterator[Step]:
        """Write the stack as it is before its first image: no mdoc, all sizes 0."""
        raw = self.header(0) + bytes(EXTENDED_BYTES)
        self.path.write_bytes(raw)
        yield Step(self.path, "create", len(raw))

    def keep(self, section: int, angle_deg: float, text: str) -> None:
        """Remember a section that is to be written next."""
        if section == len(self.sections):
            self.sections.append((angle_deg, text))
            self._entries.append(seri_entry(angle_deg))
        else:
            self.sections[section] = (angle_deg, text)
            self._entries[section] = seri_entry(angle_deg)

    def writing_tilt(self, section: int, pixels: bytes, mdoc: Iterator[Step]) -> Iterator[Step]:
        """Write pixels, the header, the entry of the extended header, and last of all the mdoc.

        The stack stays open until the mdoc is written, so that it is closed after it.
        """
        with self.path.open("r+b", buffering=0) as stack:
            for done in range(0, len(pixels), self.chunk_bytes):
                piece = pixels[done : done + self.chunk_bytes]
                stack.seek(self.offset(section) + done)
                stack.write(piece)
                yield Step(self.path, "pixels", len(piece))
            stack.seek(0)
            stack.write(self.header(len(self.sections)))
            yield Step(self.path, "header", HEADER_BYTES)
            stack.seek(HEADER_BYTES + section * SERI_BYTES)
            stack.write(self._entries[section])
            yield Step(self.path, "extended", SERI_BYTES)
            yield from mdoc

    def appending_to_mdoc(self, section: int) -> Iterator[Step]:
        """Write the last section of the mdoc; the whole mdoc for the first one."""
        text = ("" if section else self.mdoc_start()) + self.numbered(section)
        yield from writing_text(self.mdoc_path, text, "mdoc", append=section > 0, also=(self.path,))

    def rewriting_mdoc(self, *, in_place: bool = False) -> Iterator[Step]:
        """Write the whole mdoc again; the one before stays as `.mdoc~` unless `in_place`.

        SerialEM makes that backup at its first rewriting since it opened the stack (autodoc.c).
        """
        if self.mdoc_path.exists() and not in_place:
            moved = renaming(self.mdoc_path, self.mdoc_path.with_name(self.mdoc_path.name + "~"))
            # For a moment there is no mdoc.
            yield Step(moved.path, "mdoc", 0, (moved.path, self.mdoc_path))
        text = self.mdoc_start() + "".join(map(self.numbered, range(len(self.sections))))
        yield from writing_text(self.mdoc_path, text, "mdoc", also=(self.path,))

    def reordering(self, order: Sequence[int], suffix: str) -> Iterator[Step]:
        """Write a new stack with the sections in another order, the old one aside as `suffix`.

        As SerialEM's CMultiTSTasks does: the mdoc is moved first, then the stack, and both are
        deleted once all is copied.
        """
        old = self.path.with_name(self.path.name + suffix)
        old_mdoc = self.path.with_name(self.path.name + suffix + ".mdoc")
        was_marked = self.open_mark.exists()
        yield renaming(self.mdoc_path, old_mdoc)
        if was_marked:
            yield self.mark_closed()
        yield renaming(self.path, old)
        if was_marked:
            yield marking(old.with_name(old.name + OPEN_MARK))
        sections = self.sections
        self.sections, self._entries = [], []
        yield from self.creating()
        if was_marked:
            yield self.mark_open()
        with old.open("rb") as source:
            for section, from_section in enumerate(order):
                source.seek(self.offset(from_section))
                self.keep(section, *sections[from_section])
                pixels, mdoc = source.read(self.section_bytes), self.appending_to_mdoc(section)
                yield from self.writing_tilt(section, pixels, mdoc)
        if was_marked:
            yield deleting(old.with_name(old.name + OPEN_MARK))
        yield deleting(old)
        yield deleting(old_mdoc)

    def order_by_angle(self) -> list[int]:
        """List the sections by ascending tilt angle."""
        return sorted(range(len(self.sections)), key=lambda section: self.sections[section][0])

    @property
    def open_mark(self) -> Path:
        """The file that lies there while the series runs."""
        return self.path.with_name(self.path.name + OPEN_MARK)

    def mark_open(self) -> Step:
        """Say that the series runs."""
        return marking(self.open_mark)

    def mark_closed(self) -> Step:
        """Say that the series is over."""
        return deleting(self.open_mark)

    def numbered(self, section: int) -> str:
        """Give the mdoc's text of a section, under its number."""
        heading = f"{self.line_end}[ZValue = {section}]{self.line_end}"
        return heading + self.sections[section][1]

    def mdoc_start(self) -> str:
        """Give what comes before the first section of the mdoc."""
        lines = [
            f"PixelSpacing = {self._pixel_size_angstrom:g}",
            "Voltage = 300",
            f"ImageFile = {self.path.name}",
            f"ImageSize = {self.shape[1]} {self.shape[0]}",
            f"DataMode = {self._mode}",
        ]
        for title in self._titles():
            lines += ["", f"[T = {title.strip()}]"]
        return self.line_end.join([*lines, ""])

    def header(self, sections: int) -> bytes:
        """Give the header of the stack when it holds so many sections."""
        return stack_header(
            sections,
            self.shape,
            self._mode,
            self._pixel_size_angstrom,
            self.statistics,
            self._titles(),
        )

    def _titles(self) -> tuple[str, str]:
        axis = "                Tilt axis angle = 84.2, binning = 1  spot = 5  camera = 1 "
        return PROGRAM_TITLE, axis + self._scheme


def statistics(pixels: NDArray[Any]) -> tuple[float, float, float]:
    """Give minimum, maximum and mean."""
    return float(pixels.min()), float(pixels.max()), float(pixels.mean())
