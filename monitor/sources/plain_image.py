"""A file of which nothing is known but its pixels: for scoring files, not for the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.movie import read_movie_header, sum_of_frames
from engines.readers.mrc import read_header, read_section, read_tilt_angles
from monitor.errors import Unreadable
from monitor.model import Landed, Tilt, TiltId
from monitor.sources.complete import while_listing, while_reading
from monitor.sources.naming import extension, is_ignored, place
from monitor.sources.protocol import Known

_STACKS = (".mrc", ".mrcs", ".st", ".map")
_MOVIES = (".tif", ".tiff", ".eer")


class PlainImage:
    """Takes each section of an MRC file as an exposure, and a TIFF or EER file as one.

    The angle is that of the extended header, if any.
    """

    kind = "plain_image"

    def __init__(self, directory: Path) -> None:
        """Take the folder from which tilts have their relative paths."""
        self._directory = directory

    def claims(self, relative: str) -> str | None:
        ours = extension(relative) in _STACKS + _MOVIES and not is_ignored(relative)
        return relative if ours else None

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        try:
            if extension(landed.relative) in _MOVIES:
                yield from self._movie(landed, known)
            else:
                yield from self._sections(landed, known)
        except PixelsError as error:
            raise while_listing(landed, error) from error

    def _movie(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        header = read_movie_header(landed.path)
        if not header.is_whole:
            raise Unreadable(
                f"{landed.path.name!r} is cut after {header.frames} frames", "truncated"
            )
        where = place(landed.relative, landed.path.stem)
        tilt_id = TiltId(where.series_key, None, None, landed.path.name)
        if not known(tilt_id):
            yield Tilt(
                id=tilt_id,
                session=where.session,
                grid=where.grid,
                lamella=where.lamella,
                series=where.series,
                path=landed.relative,
                section=0,
                angle_deg=None,
                pixel_size_angstrom=header.pixel_size_angstrom,
                counts_per_electron=header.counts_per_electron,
            )

    def _sections(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        name = landed.path.name
        header = read_header(landed.path)
        angles = read_tilt_angles(landed.path, header)
        where = place(landed.relative, landed.path.stem)
        for section in range(min(header.nz, header.sections_on_disk)):
            angle_deg = angles[section] if section < len(angles) else None
            tilt_id = TiltId(where.series_key, angle_deg, None, f"{name}#{section}")
            if known(tilt_id):
                continue
            yield Tilt(
                id=tilt_id,
                session=where.session,
                grid=where.grid,
                lamella=where.lamella,
                series=where.series,
                path=landed.relative,
                section=section,
                angle_deg=angle_deg,
                order=section,
                pixel_size_angstrom=header.pixel_size_angstrom,
            )
        if header.sections_on_disk < header.nz:
            raise Unreadable(
                f"{name!r} is cut: it holds {header.sections_on_disk} of {header.nz} sections",
                "truncated",
            )

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        path = self._directory / tilt.path
        try:
            if extension(tilt.path) in _MOVIES:
                return sum_of_frames(path)
            return read_section(path, tilt.section)
        except PixelsError as error:
            raise while_reading(error) from error
