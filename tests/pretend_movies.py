"""Series of movies, one for each tilt, as SerialEM saves frames and as Tomography 5 writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engines.mdoc_text import PROGRAM_TITLE, serialem_time
from tests.pretend_session import (
    BETWEEN_EXPOSURES_S,
    COLUMNS,
    IMAGE_BYTES,
    ROWS,
    Exposure,
    Server,
    angle_of,
    pixels,
)

_FRAMES = 2
_SECOND_FRAME = 10_000
"""What the second frame shows, so that the first alone is no code of any exposure."""
Mdoc = Literal["early", "late", "never"]
MDOCS: tuple[Mdoc, ...] = ("late", "early", "never")


@dataclass(slots=True)
class Movies:
    """One series; at most one operation runs on it."""

    server: Server
    relative: str
    """Folder and start of the name of each movie."""
    program: Literal["SerialEM", "Tomography"] = "SerialEM"
    line_end: str = "\n"
    newest: dict[str, Exposure] = field(default_factory=dict)
    """What lies under each name."""
    number: int = 0
    operation: Iterator[None] | None = None
    swift: bool = False
    frozen: bool = False
    touched_s: float = 0.0

    def __post_init__(self) -> None:
        self.server.make_folder((self.server.root / self.relative).parent)

    def files(self) -> list[Path]:
        movies = [self.server.root / name for name in self.newest]
        return [*movies, *map(_mdoc_of, movies)]

    def folders(self) -> list[Path]:
        return [(self.server.root / self.relative).parent]

    def begin(self, what: str, where: int = 0) -> None:
        """Begin an operation unless one runs; what makes no sense now becomes another tilt."""
        if self.operation is not None or self.frozen:
            return
        names = list(self.newest)
        by_serialem = self.program == "SerialEM"
        if what == "rewrite" and names and by_serialem:
            self.operation = self._late_mdoc(names[where % len(names)])
        elif what == "again" and names and by_serialem:
            self.operation = self._again(names[where % len(names)], MDOCS[where % 3])
        elif what == "sort" and names and not by_serialem:
            self.operation = self._mdoc_of_all()
        else:
            self.operation = self._tilt(MDOCS[where % 3] if by_serialem else "never")

    def _tilt(self, mdoc: Mdoc) -> Iterator[None]:
        one = self.server.expose(angle_of(self.number))
        self.number += 1
        if self.program == "SerialEM":
            name = f"{self.relative}_{self.number:03d}_{one.angle_deg:.1f}.mrc"
        else:
            name = (
                f"{self.relative}_{self.number:03d}_{one.angle_deg:.2f}_"
                f"{one.when:%Y%m%d_%H%M%S}_Fractions.mrc"
            )
        yield from self.write_tilt(name, one, mdoc)

    def _again(self, name: str, mdoc: Mdoc) -> Iterator[None]:
        """Delete a movie and take it again under the same name."""
        path = self.server.root / name
        self.server.clocks.now_s += BETWEEN_EXPOSURES_S
        self.server.delete(_mdoc_of(path))
        yield
        self.server.delete(path)
        yield
        one = self.server.expose(self.newest.pop(name).angle_deg)
        yield from self.write_tilt(name, one, mdoc)

    def _late_mdoc(self, name: str) -> Iterator[None]:
        yield from self._write_mdoc(self.server.root / name, self.newest[name])

    def write_tilt(self, name: str, one: Exposure, mdoc: Mdoc) -> Iterator[None]:
        """Write one movie and its mdoc, one write at a time."""
        path = self.server.root / name
        one.paths.append(name)
        self.newest[name] = one
        if mdoc == "early":
            yield from self._write_mdoc(path, one)
        first, second = pixels(one.code - _SECOND_FRAME), pixels(_SECOND_FRAME)
        half = IMAGE_BYTES // 2
        self.server.create(path, _header(_FRAMES) + first[:half])
        yield
        self.server.append(path, first[half:])
        yield
        self.server.append(path, second[:half])
        yield
        self.server.append(path, second[half:])
        one.was_complete = True
        yield
        self.server.patch(path, 0, _header(_FRAMES))
        yield
        if mdoc == "late":
            yield from self._write_mdoc(path, one)

    def _write_mdoc(self, path: Path, one: Exposure) -> Iterator[None]:
        text = (
            f"T = {PROGRAM_TITLE}    \nVoltage = 300\n\n[FrameSet = 0]\n"
            f"TiltAngle = {one.angle_deg:.2f}\nExposureDose = 2.2\nSubFramePath = {path.name}\n"
            f"NumSubFrames = {_FRAMES}\nDateTime = {serialem_time(one.when)}\nNavigatorLabel = 1\n"
        )
        raw = text.replace("\n", self.line_end).encode()
        cut = raw.index(b"DateTime") + 26
        self.server.create(_mdoc_of(path), raw[:cut])
        yield
        self.server.append(_mdoc_of(path), raw[cut:])
        yield

    def _mdoc_of_all(self) -> Iterator[None]:
        """Write the mdoc of the whole series, as Tomography does at its end."""
        sections = "".join(
            f"\n[ZValue = {k}]\nTiltAngle = {one.angle_deg:.2f}\n"
            f"SubFramePath = X:\\{Path(name).name}\nDateTime = {serialem_time(one.when)}\n"
            for k, (name, one) in enumerate(self.newest.items())
        )
        raw = f"PixelSpacing = 2\n\n[T = Tomography: TITAN]\n{sections}".encode()
        path = self.server.root / (self.relative + ".mdoc")
        self.server.create(path, raw[: len(raw) // 2])
        yield
        self.server.append(path, raw[len(raw) // 2 :])
        yield

    def there(self) -> set[int]:
        """List the exposures that whoever reads the movies now finds complete."""
        found = set()
        for name, one in self.newest.items():
            try:
                raw = (self.server.root / name).read_bytes()
            except FileNotFoundError:
                continue
            whole = pixels(one.code - _SECOND_FRAME) + pixels(_SECOND_FRAME)
            if raw == _header(_FRAMES) + whole:
                found.add(one.code)
        return found


def _mdoc_of(path: Path) -> Path:
    return path.with_name(path.name + ".mdoc")


def _header(nz: int) -> bytes:
    raw = bytearray(1024)
    struct.pack_into("<4i", raw, 0, COLUMNS, ROWS, nz, 1)
    struct.pack_into("<3i6f", raw, 28, COLUMNS, ROWS, nz, 12.0, 8.0, 2.0 * nz, 90.0, 90.0, 90.0)
    struct.pack_into("<3i", raw, 64, 1, 2, 3)
    struct.pack_into("<4s4B", raw, 208, b"MAP ", 0x44, 0x44, 0, 0)
    return bytes(raw)
