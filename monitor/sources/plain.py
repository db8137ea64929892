"""Any MRC file as a stack of images, whatever is known of their angles: for `icewatch score`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.mrc import read_header, read_section, read_tilt_angles
from monitor.errors import Unreadable
from monitor.model import Landed, Tilt, TiltId
from monitor.sources.naming import extension, parse_movie_name, place
from monitor.sources.protocol import Known

_EXTENSIONS = (".mrc", ".mrcs", ".st", ".map")


class PlainMrc:
    """Reads every section of an MRC file as one image; the daemon has no part in this."""

    kind = "plain"

    def __init__(self, directory: Path) -> None:
        """Take the directory from which tilts have their relative paths."""
        self._directory = directory

    def claims(self, relative: str) -> str | None:
        return relative if extension(relative) in _EXTENSIONS else None

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        try:
            header = read_header(landed.path)
            angles = read_tilt_angles(landed.path, header)
        except PixelsError as error:
            raise Unreadable(str(error), error.reason) from error
        if header.sections_on_disk < 1:
            raise Unreadable(f"{landed.path.name!r} holds no complete image", "truncated")
        named = parse_movie_name(landed.path.name).angle_deg if header.nz == 1 else None
        where = place(landed.relative, landed.path.stem)
        for section in range(min(header.nz, header.sections_on_disk)):
            angle_deg = angles[section] if section < len(angles) else named
            yield Tilt(
                id=TiltId(where.series_key, angle_deg, None, f"section {section}"),
                session=where.session,
                grid=where.grid,
                lamella=where.lamella,
                series=where.series,
                path=landed.relative,
                section=section,
                angle_deg=angle_deg,
                pixel_size_angstrom=header.pixel_size_angstrom,
            )

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        try:
            return read_section(self._directory / tilt.path, tilt.section)
        except PixelsError as error:
            raise Unreadable(str(error), error.reason) from error
