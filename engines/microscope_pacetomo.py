"""What PACEtomo writes beside SerialEM's own files (PACEtomo.py, version 1.8).

Its files are written by Python on Windows: lines of the text files end in CR LF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.microscope_stack import StackFile
from engines.microscope_step import Step, renaming, writing_text
from engines.readers.mrc_header import HEADER_BYTES

_LINE_END = "\r\n"


@dataclass(frozen=True, slots=True)
class Target:
    """One target of a targets file; the first one is used for tracking."""

    root: str
    number: int
    """From 1."""
    shift_x_um: float
    shift_y_um: float
    skip: bool = False

    @property
    def series(self) -> str:
        """Name of the tilt series, without extension."""
        return f"{self.root}_ts_{self.number:03d}"

    @property
    def map_name(self) -> str:
        """Name of the image that the target was chosen on, without extension."""
        return f"{self.root}_tgt_{self.number:03d}"

    def values(self) -> dict[str, object]:
        """Give the lines of its block."""
        return {
            "tgtfile": f"{self.map_name}.mrc",
            "tsfile": f"{self.series}.mrc",
            "viewfile": f"{self.map_name}_view.mrc",
            "SSX": self.shift_x_um,
            "SSY": self.shift_y_um,
            "stageX": round(139.497 + self.shift_x_um, 3),
            "stageY": round(367.787 + self.shift_y_um, 3),
            "skip": self.skip,
        }


def targets_text(targets: Sequence[Target], settings: Mapping[str, object]) -> str:
    """Give the text of `<root>_tgts.txt`, as the script that selects targets writes it."""
    text = "".join(f"_set {key} = {value}\n" for key, value in settings.items())
    text += "\n" if settings else ""
    for target in targets:
        text += _block(target) + "\n"
    return text.replace("\n", _LINE_END)


def run_text(
    targets: Sequence[Target], settings: Mapping[str, object], section: int, at: int
) -> str:
    """Give the text of `<root>_tgts_run01.txt` after section `section` of target `at` (from 0)."""
    text = "".join(f"_set {key} = {value}\n" for key, value in settings.items())
    text += f"_spos = {section},{at}\n\n"
    for target in targets:
        text += _block(target)
        for branch in ("_pbr", "_nbr"):
            text += f"{branch}\nSSX = {target.shift_x_um}\nSSY = {target.shift_y_um}\n"
            text += f"focus = -3.5\nz0 = 0.0\nshifts = \nangles = \nsec = {section}\n"
            text += f"skip = {target.skip}\n"
        text += "\n"
    return text.replace("\n", _LINE_END)


def _block(target: Target) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in target.values().items())
    return f"_tgt = {target.number:03d}\n{lines}"


def sorting_in_place(stack: StackFile) -> Iterator[Step]:
    """Sort a finished stack by tilt angle, as PACEtomo does with the mrcfile library.

    The same file is written anew from its start; its extended header stays as it was, and so
    tells the angles in the order of acquisition. The mdoc moves aside, and comes again.
    """
    order = stack.order_by_angle()
    pixels = np.empty((len(order), *stack.shape), stack.dtype)
    with stack.path.open("r+b", buffering=0) as file:
        start = file.read(stack.offset(0))
        for at, section in enumerate(order):
            file.seek(stack.offset(section))
            file.readinto(pixels[at].reshape(-1).view(np.uint8).data)
        file.seek(0)
        file.write(_sorted_header(start[:HEADER_BYTES], pixels) + start[HEADER_BYTES:])
        yield Step(stack.path, "header", len(start))
        raw = pixels.reshape(-1).view(np.uint8).data
        for done in range(0, len(raw), stack.chunk_bytes):
            piece = raw[done : done + stack.chunk_bytes]
            file.write(piece)
            yield Step(stack.path, "pixels", len(piece))
    stack.sections = [stack.sections[k] for k in order]
    moved = renaming(stack.mdoc_path, stack.path.with_name(f"{stack.path.stem}_unsorted.mrc.mdoc"))
    yield Step(moved.path, "rename", 0, (moved.path, stack.mdoc_path))
    yield from writing_text(stack.mdoc_path, _sorted_mdoc(stack), "mdoc", also=(stack.path,))


def _sorted_header(raw: bytes, pixels: NDArray[Any]) -> bytes:
    """Give the header that mrcfile writes for an image stack: one section in each cell."""
    header = bytearray(raw)
    struct.pack_into("<i", header, 36, 1)
    low, high, mean = float(pixels.min()), float(pixels.max()), float(pixels.mean())
    struct.pack_into("<3f", header, 76, low, high, mean)
    struct.pack_into("<f", header, 216, float(pixels.std()))
    return bytes(header)


def _sorted_mdoc(stack: StackFile) -> str:
    """Give the mdoc that PACEtomo writes: each value is followed by a blank, blanks are single."""
    lines = [line for line in stack.mdoc_start().splitlines() if line.strip()]
    text = "".join((_LINE_END if line.startswith("[T") else "") + line + "\n" for line in lines)
    text += _LINE_END
    for number, (_, section) in enumerate(stack.sections):
        text += f"[ZValue = {number}]{_LINE_END}"
        for line in section.split("\n"):
            key, equals, value = line.partition(" =")
            if equals:
                words = "".join(f"{word} " for word in value.split())
                text += f"{key} = {words}{_LINE_END}"
        text += _LINE_END
    return text
