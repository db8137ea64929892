"""A pretend microscope: writes tilts to disk byte for byte in the order of the real programs.

For tests, the demo and simulated sessions. Keys and titles follow real files of SerialEM 4.0 and
Tomography 5; what SerialEM writes when follows its source (KStoreMRC.cpp, KImageStore.cpp).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.mdoc_text import PROGRAM_TITLE, exposure_keys, serialem_time
from engines.microscope_movies import write_frame_mdoc_movie, write_tomography5_movie

__all__ = [
    "SerialEMStackWriter",
    "dose_symmetric",
    "write_frame_mdoc_movie",
    "write_tomography5_movie",
]

_HEADER_BYTES = 1024
_EXTENDED_BYTES = 4096
_SERI_BYTES = 14
_SERI_FLAGS = 1 | 4 | 8 | 16 | 32
"""Tilt angle, stage position, magnification, intensity, dose."""
_IMOD_STAMP = 1_146_047_817
_MODES = {"int16": 1, "uint16": 6, "float32": 2}
_MDOC_PIECE = 400


def dose_symmetric(
    start_deg: float, step_deg: float, max_deg: float, group: int = 2
) -> list[float]:
    """List the angles of a dose-symmetric series in the order of acquisition (degrees).

    `max_deg` counts from the start, to either side; `group` tilts are taken before the side
    changes (Hagen et al. 2017, doi:10.1016/j.jsb.2016.06.007).
    """
    steps = int(max_deg / step_deg + 1e-6)
    angles = [start_deg]
    for first in range(1, steps + 1, group):
        block = range(first, min(first + group, steps + 1))
        angles += [start_deg + step * step_deg for step in block]
        angles += [start_deg - step * step_deg for step in block]
    return angles


class SerialEMStackWriter:
    """Writes one tilt series as SerialEM does: a growing stack, and an mdoc that comes last."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int],
        pixel_size_angstrom: float,
        *,
        dtype: str = "int16",
        start_deg: float = 0.0,
        line_end: str = "\n",
        chunk_bytes: int = 8 << 20,
        between: Callable[[str], None] = lambda step: None,
    ) -> None:
        """Create the stack as it is before its first image: sizes 0, a blank extended header.

        `shape` is (rows, columns) in px; `between` is called after each single write with what
        was written: `pixels`, `header`, `extended`, `mdoc`.
        """
        self.path = path
        self.mdoc_path = path.with_name(path.name + ".mdoc")
        self._shape = shape
        self._pixel_size_angstrom = pixel_size_angstrom
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._mode = _MODES[dtype]
        self._start_deg = start_deg
        self._line_end = line_end
        self._chunk_bytes = chunk_bytes
        self._between = between
        self._sections: list[tuple[float, str]] = []
        self._entries: list[bytes] = []
        self._prior_dose = 0.0
        self._statistics = (0.0, 0.0, 0.0)
        path.write_bytes(self._header(0) + bytes(_EXTENDED_BYTES))

    def add(
        self,
        image: NDArray[Any],
        angle_deg: float,
        when: datetime,
        exposure_dose_e_per_A2: float = 2.2,  # noqa: N803  e/Å², as everywhere
        counts_per_electron: float = 165.5,
        **extra: object,
    ) -> None:
        """Add one tilt: image (rows, columns) in counts, angle, wall clock, dose.

        `extra` goes into the mdoc, or overrides what would be there.
        """
        for _ in self.steps(
            image, angle_deg, when, exposure_dose_e_per_A2, counts_per_electron, extra=extra
        ):
            pass

    def steps(
        self,
        image: NDArray[Any],
        angle_deg: float,
        when: datetime,
        exposure_dose_e_per_A2: float = 2.2,  # noqa: N803  e/Å², as everywhere
        counts_per_electron: float = 165.5,
        *,
        section: int | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> Iterator[str]:
        """Do what `add` does one write at a time, yielding what was written.

        `section` overwrites a section that is there, as a resumed series may.
        """
        k = len(self._sections) if section is None else section
        pixels = np.ascontiguousarray(image, self._dtype)
        if pixels.shape != self._shape:
            raise ValueError(f"image of shape {pixels.shape} for a stack of {self._shape}")
        self._statistics = _statistics(pixels)
        keys = self._keys(angle_deg, when, exposure_dose_e_per_A2, counts_per_electron)
        text = self._section_text({**keys, **(extra or {})})
        fresh = k == len(self._sections)
        if fresh:
            self._sections.append((angle_deg, text))
            self._entries.append(_seri_entry(angle_deg))
        else:
            self._sections[k] = (angle_deg, text)
            self._entries[k] = _seri_entry(angle_deg)
        self._prior_dose += exposure_dose_e_per_A2
        for step in self._write_section(k, pixels.tobytes()):
            self._between(step)
            yield step
        for _ in self._append_mdoc(k) if fresh else self._rewrite_mdoc():
            self._between("mdoc")
            yield "mdoc"

    def _write_section(self, k: int, pixels: bytes) -> Iterator[str]:
        start = _HEADER_BYTES + _EXTENDED_BYTES + k * len(pixels)
        with self.path.open("r+b", buffering=0) as stack:
            for done in range(0, len(pixels), self._chunk_bytes):
                stack.seek(start + done)
                stack.write(pixels[done : done + self._chunk_bytes])
                yield "pixels"
            stack.seek(0)
            stack.write(self._header(len(self._sections)))
            yield "header"
            stack.seek(_HEADER_BYTES + k * _SERI_BYTES)
            stack.write(self._entries[k])
            yield "extended"

    def _append_mdoc(self, k: int) -> Iterator[None]:
        text = ("" if k else self._mdoc_start()) + self._numbered(k)
        with self.mdoc_path.open("ab" if k else "wb", buffering=0) as mdoc:
            yield from _in_pieces(mdoc.write, text.encode())

    def rewrite_mdoc(self) -> None:
        """Write the whole mdoc again, as PACEtomo makes SerialEM do after every tilt."""
        for _ in self._rewrite_mdoc():
            self._between("mdoc")

    def _rewrite_mdoc(self) -> Iterator[None]:
        backup = self.mdoc_path.with_name(self.mdoc_path.name + "~")
        if self.mdoc_path.exists():
            self.mdoc_path.replace(backup)
            yield  # for a moment there is no mdoc
        text = self._mdoc_start() + "".join(self._numbered(k) for k in range(len(self._sections)))
        with self.mdoc_path.open("wb", buffering=0) as mdoc:
            yield from _in_pieces(mdoc.write, text.encode())
        backup.unlink(missing_ok=True)

    def sort_by_angle(self) -> None:
        """Finish a dose-symmetric series as SerialEM does: a new stack, sorted by tilt angle."""
        for _ in self.sorting_steps():
            pass

    def sorting_steps(self) -> Iterator[str]:
        """Do what `sort_by_angle` does one write at a time, yielding what was written."""
        old, old_mdoc = (
            self.path.with_name(path.name + suffix)
            for path, suffix in ((self.path, "-unsorted"), (self.path, "-unsorted.mdoc"))
        )
        self.path.replace(old)
        yield "rename"
        self.mdoc_path.replace(old_mdoc)
        yield "rename"
        order = sorted(range(len(self._sections)), key=lambda k: self._sections[k][0])
        section_bytes = self._shape[0] * self._shape[1] * self._dtype.itemsize
        sections, entries = self._sections, self._entries
        self._sections, self._entries = [], []
        self.path.write_bytes(self._header(0) + bytes(_EXTENDED_BYTES))
        yield "header"
        with old.open("rb") as source:
            for k, from_k in enumerate(order):
                source.seek(_HEADER_BYTES + _EXTENDED_BYTES + from_k * section_bytes)
                self._sections.append(sections[from_k])
                self._entries.append(entries[from_k])
                yield from self._write_section(k, source.read(section_bytes))
                for _ in self._append_mdoc(k):
                    yield "mdoc"
        old.unlink()
        old_mdoc.unlink()
        yield "delete"

    def _keys(
        self, angle_deg: float, when: datetime, dose: float, counts_per_electron: float
    ) -> dict[str, object]:
        low, high, mean = self._statistics
        return {
            "MinMaxMean": f"{low:g} {high:g} {mean:g}",
            **exposure_keys(angle_deg, dose, self._pixel_size_angstrom),
            "CountsPerElectron": f"{counts_per_electron:g}",
            "TargetDefocus": "-3.5",
            "PriorRecordDose": f"{self._prior_dose:g}",
            "NumSubFrames": "10",
            "FrameDosesAndNumber": f"{dose / 10:g} 10",
            "DateTime": serialem_time(when),
            "FilterSlitAndLoss": "10 0",
            "UncroppedSize": f"{-self._shape[1]} {-self._shape[0]}",
        }

    def _section_text(self, keys: dict[str, object]) -> str:
        return "".join(f"{key} = {value}{self._line_end}" for key, value in keys.items())

    def _numbered(self, k: int) -> str:
        return f"{self._line_end}[ZValue = {k}]{self._line_end}{self._sections[k][1]}"

    def _titles(self) -> tuple[str, str]:
        return (
            PROGRAM_TITLE,
            "                Tilt axis angle = 84.2, binning = 1  spot = 5  camera = 1 "
            f"dosym = {self._start_deg:.1f}",
        )

    def _mdoc_start(self) -> str:
        lines = [
            f"PixelSpacing = {self._pixel_size_angstrom:g}",
            "Voltage = 300",
            f"ImageFile = {self.path.name}",
            f"ImageSize = {self._shape[1]} {self._shape[0]}",
            f"DataMode = {self._mode}",
        ]
        for title in self._titles():
            lines += ["", f"[T = {title.strip()}]"]
        return self._line_end.join([*lines, ""])

    def _header(self, nz: int) -> bytes:
        rows, columns = self._shape if nz else (0, 0)
        raw = bytearray(_HEADER_BYTES)
        struct.pack_into("<4i", raw, 0, columns, rows, nz, self._mode)
        struct.pack_into("<3i", raw, 28, columns, rows, nz)
        cell = [size * self._pixel_size_angstrom for size in (columns, rows, nz)]
        struct.pack_into("<6f", raw, 40, *cell, 90.0, 90.0, 90.0)
        struct.pack_into("<3i3f2i", raw, 64, 1, 2, 3, *self._statistics, 0, _EXTENDED_BYTES)
        struct.pack_into("<4si", raw, 104, b"SERI", 20140)
        struct.pack_into("<2h", raw, 128, _SERI_BYTES, _SERI_FLAGS)
        struct.pack_into("<2i", raw, 152, _IMOD_STAMP, 0)
        struct.pack_into("<4s4Bfi", raw, 208, b"MAP ", 0x44, 0x44, 0, 0, -1.0, 2)
        for index, title in enumerate(self._titles()):
            struct.pack_into("80s", raw, 224 + 80 * index, title.encode().ljust(80))
        return bytes(raw)


def _seri_entry(angle_deg: float) -> bytes:
    return struct.pack("<h2hhh2h", round(angle_deg * 100), 3487, 9195, 640, 4669, 0, 0)


def _statistics(pixels: NDArray[Any]) -> tuple[float, float, float]:
    return float(pixels.min()), float(pixels.max()), float(pixels.mean())


def _in_pieces(write: Callable[[bytes], object], text: bytes) -> Iterator[None]:
    for start in range(0, len(text), _MDOC_PIECE):
        write(text[start : start + _MDOC_PIECE])
        yield
