"""Movies of Thermo Fisher's Tomography 5: what there is to know of a tilt is in its name.

The mdoc of a series is written when it is over or was cancelled, and once more when it is resumed.
It then tells how many tilts there are, and their doses; nothing waits for it, and no movie is
read again for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from monitor.errors import NotReady, SourceError, Unreadable
from monitor.model import Landed, Tilt
from monitor.sources.at_rest import AtRest
from monitor.sources.batch_positions import BatchPositions
from monitor.sources.complete import WAIT_FOR_MDOC_S
from monitor.sources.exposure import exposure_id
from monitor.sources.mdoc import Mdoc, MdocSection
from monitor.sources.mdocs import Mdocs
from monitor.sources.movies import Exposure, Movies, identity_of
from monitor.sources.naming import (
    MovieName,
    image_announced,
    is_position,
    parse_movie_name,
    place,
)
from monitor.sources.neighbours import Neighbours
from monitor.sources.protocol import Known

_ANGLE_TOLERANCE_DEG = 0.06


class FinalMdocs:
    """Reads the mdoc of a whole series, where it is there and at rest."""

    def __init__(self, directory: Path, at_rest: AtRest) -> None:
        """Take the acquisition directory, and what knows whether a file is being written to."""
        self._directory = directory
        self._at_rest = at_rest
        self._mdocs = Mdocs()

    def look(self, relative: str, series: str) -> bool:
        """Whether an mdoc is there that is being written; from then on it is known when not."""
        looks = [self._at_rest.look(path) for path in self._places(relative, series)]
        return any(look.stat is not None and not look.at_rest for look in looks)

    def read(self, relative: str, series: str) -> Mdoc | None:
        """Give the mdoc of a series in the folder of a file, or above; None without one."""
        for path in self._places(relative, series):
            if not self._at_rest.look(path).at_rest:
                continue
            try:
                mdoc = self._mdocs.read(path, settled=True)
            except SourceError:
                continue  # nothing depends on it
            if mdoc is not None and mdoc.sections:
                return mdoc
        return None

    def _places(self, relative: str, series: str) -> Iterator[Path]:
        folders = relative.split("/")[:-1]
        yield self._directory.joinpath(*folders, f"{series}.mdoc")
        if folders:
            yield self._directory.joinpath(*folders[:-1], f"{series}.mdoc")


class Tomography5:
    """Reads one exposure per movie."""

    kind = "tomography5"

    def __init__(
        self, movies: Movies, batch: BatchPositions | None = None, final: FinalMdocs | None = None
    ) -> None:
        """Take what opens movies, and what knows lamellae and the mdocs of whole series."""
        self._movies = movies
        self._batch = batch or BatchPositions(movies.directory, movies.at_rest)
        self._final = final or FinalMdocs(movies.directory, movies.at_rest)
        self._neighbours = Neighbours(movies.directory, position_name)

    def claims(self, relative: str) -> str | None:
        image = image_announced(relative)
        return image if image and is_position(image) else None

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        name = parse_movie_name(landed.path.name)
        where = place(landed.relative, name.series)
        being_written = self._is_being_written(landed, name.series)
        self._movies.wait_for_rest(landed)
        if being_written and landed.quiet_s < WAIT_FOR_MDOC_S:
            raise NotReady(f"what belongs to {landed.path.name!r} is being written", "settling")
        angle_deg = name.angle_deg
        if angle_deg is None:
            raise Unreadable(f"{landed.path.name!r} has no tilt angle below 90 degrees", "no_angle")
        mdoc = self._final.read(landed.relative, name.series)
        said = _said(landed.path.name, name, mdoc)
        identity = identity_of(where, name, landed.path.name, angle_deg, None)
        by_mdoc = (exposure_id(where, said),) if said and said.acquired_at else ()
        if any(known(one) for one in (*identity.known_by, *by_mdoc)):
            return
        announced = max(1, self._neighbours.announced(landed, name.series).count)
        yield self._movies.tilt(
            landed,
            Exposure(
                where=where,
                ids=tuple(dict.fromkeys((*identity.ids, *by_mdoc))),
                angle_deg=angle_deg,
                acquired_at=name.acquired_at or (said.acquired_at if said else None),
                order=self._neighbours.order(landed, name),
                lamella=self._batch.lamella(landed.relative, name.series),
                tilts_expected=max(announced, len(mdoc.sections) if mdoc else 0),
                said=said,
                said_is_of_movie=False,
            ),
        )

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        return self._movies.pixels(tilt)

    def _is_being_written(self, landed: Landed, series: str) -> bool:
        mdoc = self._final.look(landed.relative, series)
        return self._batch.is_being_written(landed.relative) or mdoc


def position_name(relative: str) -> MovieName | None:
    """Read the path of a movie of Tomography 5; None for any other."""
    return parse_movie_name(relative.rpartition("/")[2]) if is_position(relative) else None


def _said(file_name: str, name: MovieName, mdoc: Mdoc | None) -> MdocSection | None:
    """Find the section of a movie in the mdoc of its series."""
    sections = mdoc.sections if mdoc else ()
    for one in sections:
        if one.sub_frame_path == file_name:
            return one
    alike = [
        one
        for one in sections
        if not one.sub_frame_path
        and one.tilt_angle_deg is not None
        and abs(one.tilt_angle_deg - (name.angle_deg or 0.0)) < _ANGLE_TOLERANCE_DEG
    ]
    return alike[0] if len(alike) == 1 else None
