"""One MRC file for each tilt: a single image or a movie, with a frame mdoc or a telling name.

SerialEM puts `<movie>.mdoc` beside a movie (since 4.1 possibly before the movie is complete);
Tomography 5 says everything in the name. A movie is complete when it is as long as its header
says and no scan sees it change any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.mrc import read_header, read_section
from engines.readers.mrc_header import MrcHeader
from monitor.errors import NotReady
from monitor.model import Landed, Tilt, TiltId
from monitor.sources.complete import (
    WAIT_FOR_MDOC_S,
    ReadingFailures,
    not_yet,
    settled,
    while_listing,
)
from monitor.sources.exposure import exposure_id, mdoc_path, tilt_of
from monitor.sources.mdoc import MdocSection, read_mdoc
from monitor.sources.naming import (
    MovieName,
    Place,
    extension,
    image_of,
    is_ignored,
    parse_movie_name,
    place,
)
from monitor.sources.protocol import Known

_EXTENSIONS = (".mrc", ".mrcs")


class SingleMovie:
    """Reads one exposure per file; frames are summed one by one."""

    kind = "single_movie"

    def __init__(self, directory: Path) -> None:
        """Take the acquisition directory, from which tilts have their relative paths."""
        self._directory = directory
        self._first_number: dict[str, int] = {}
        self._failures = ReadingFailures()

    def claims(self, relative: str) -> str | None:
        image = image_of(relative)
        if is_ignored(relative) or extension(image) not in _EXTENSIONS:
            return None
        return image

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        name = parse_movie_name(landed.path.name)
        where = place(landed.relative, name.series)
        said = _said(landed, name)
        angle_deg = name.angle_deg if said is None else said.tilt_angle_deg
        if angle_deg is None:
            raise not_yet(
                landed,
                f"{landed.path.name!r} has no tilt angle in its name nor in an mdoc: no tilt; have "
                "SerialEM save one",
                "no_angle",
            )
        header = _complete_header(landed, said)
        ids = _ids(where, name, landed.path.name, said)
        if any(known(tilt_id) for tilt_id in ids):
            return
        self._failures.listing(landed)
        yield tilt_of(
            where,
            ids[0],
            landed.relative,
            0,
            angle_deg=angle_deg,
            order=self._order(landed.path, where, name),
            acquired_at=(said.acquired_at if said else None) or name.acquired_at,
            said=said,
            header=header,
        )

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        path = self._directory / tilt.path
        try:
            header = read_header(path)
            image = _sum_of_frames(path, header)
            after = read_header(path)
        except PixelsError as error:
            raise self._failures.error_for(tilt.id, error) from error
        self._failures.over(tilt.id)
        if not header.is_whole or header != after:
            raise NotReady(f"{path.name!r} was written to while it was read", "changed")
        return image

    def _order(self, path: Path, where: Place, name: MovieName) -> int | None:
        """Count from the lowest number that the series has; by time where there is no number."""
        if name.number is not None:
            first = self._first_number.get(where.series_key)
            if first is None:
                numbers = [one.number for one in _siblings(path, where.series)]
                first = min((number for number in numbers if number is not None), default=0)
            self._first_number[where.series_key] = first = min(first, name.number)
            return name.number - first
        when = name.acquired_at
        if when is None:
            return None
        return sum((one.acquired_at or when) < when for one in _siblings(path, where.series))


def _said(landed: Landed, name: MovieName) -> MdocSection | None:
    """Find what the mdoc says; None once it is not waited for any longer."""
    waited = landed.quiet_s >= WAIT_FOR_MDOC_S
    mdoc = read_mdoc(mdoc_path(landed.path), settled=waited)
    for section in mdoc.sections if mdoc else ():
        if section.tilt_angle_deg is not None and (section.complete or waited):
            return section
    if name.from_tomography and mdoc is None:
        return None
    if not waited:
        raise NotReady(f"the mdoc of {landed.path.name!r} is not there yet", "no_mdoc")
    return None


def _complete_header(landed: Landed, said: MdocSection | None) -> MrcHeader:
    name = landed.path.name
    try:
        header = read_header(landed.path)
    except PixelsError as error:
        raise while_listing(landed, error) from error
    if not header.is_whole:
        wanted = header.data_offset + header.nz * header.section_bytes
        raise not_yet(
            landed,
            f"{name!r} has {header.file_size} bytes where its header announces {wanted}",
            "truncated",
        )
    size_is_known = header.section_bytes > 0
    if landed.unchanged_scans < 1 or not (size_is_known or settled(landed)):
        raise NotReady(f"{name!r} has only just changed", "settling")
    frames = said.num_subframes if said else None
    # A sum of the frames is a single image, so after a while fewer frames have to be right.
    if frames is not None and header.nz < frames and landed.quiet_s < WAIT_FOR_MDOC_S:
        raise NotReady(f"{name!r} has {header.nz} of {frames} frames so far", "frames")
    return header


def _ids(where: Place, name: MovieName, file_name: str, said: MdocSection | None) -> list[TiltId]:
    """Identify the exposure: the first counts, by any of the others it may be known already.

    A movie that was published by its name must not be published again when its mdoc comes.
    """
    angle = said.tilt_angle_deg if name.angle_deg is None and said else name.angle_deg
    by_name = TiltId(
        where.series_key,
        None if angle is None else round(angle, 2) + 0.0,
        name.acquired_at,
        "" if name.acquired_at else file_name,
    )
    if said is None or not said.acquired_at:
        return [by_name]
    return [exposure_id(where, said), by_name]


def _siblings(path: Path, series: str) -> Iterator[MovieName]:
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in entries]
    except OSError:
        return  # only the order in the series is at stake
    for name in names:
        if series in name and extension(name) == extension(path.name):
            parsed = parse_movie_name(name)
            if parsed.series == series:
                yield parsed


def _sum_of_frames(path: Path, header: MrcHeader) -> NDArray[Any]:
    """Sum all frames of a movie, never holding more than one beside the sum."""
    image = read_section(path, 0, header)
    if header.nz == 1:
        return image
    total = image.astype(np.float32 if image.dtype.kind == "f" else np.int32)
    for frame in range(1, header.nz):
        total += read_section(path, frame, header)
    return total
