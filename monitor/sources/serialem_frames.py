"""One movie for each tilt, as SerialEM saves frames, alone or in the hands of PACEtomo.

SerialEM puts `<movie>.mdoc` beside a movie: since 4.1 possibly before the movie is complete, with
some cameras late, and if so set up never. Then the name tells series, angle and number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from numpy.typing import NDArray

from monitor.errors import NotReady
from monitor.model import Landed, Tilt
from monitor.sources.complete import WAIT_FOR_MDOC_S, not_yet
from monitor.sources.exposure import exposure_id
from monitor.sources.mdoc import Mdoc, MdocSection
from monitor.sources.mdocs import Mdocs
from monitor.sources.movies import Exposure, Identity, Movies, identity_of
from monitor.sources.naming import (
    MovieName,
    Place,
    image_announced,
    is_named_by_pacetomo,
    is_position,
    parse_movie_name,
    place,
)
from monitor.sources.neighbours import Neighbours
from monitor.sources.protocol import Known
from monitor.sources.targets import Lamellae


class SerialEMFrames:
    """Reads one exposure per movie, with what its mdoc says or, without one, its name."""

    kind = "serialem_frames"

    def __init__(
        self,
        movies: Movies,
        lamellae: Lamellae | None = None,
        *,
        prefer: Literal["stack", "movie"] = "stack",
    ) -> None:
        """Take what opens movies, and what knows the lamella of a series.

        `prefer`: whether a movie gives way to the section of a stack that shows the same.
        """
        self._movies = movies
        self._lamellae = lamellae or Lamellae(movies.directory)
        self._stack_first = prefer == "stack"
        self._mdocs = Mdocs()
        self._neighbours = Neighbours(movies.directory, _parse)

    def claims(self, relative: str) -> str | None:
        image = image_announced(relative)
        return None if not image or is_position(image) else image

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        name = parse_movie_name(landed.path.name)
        where = place(landed.relative, name.series)
        self._movies.wait_for_rest(landed)
        mdoc = self._mdocs.of(landed, settled=landed.quiet_s >= WAIT_FOR_MDOC_S)
        said = _said(landed, mdoc)
        if mdoc is None and name.angle_deg is not None:
            identity = identity_of(where, name, landed.path.name, name.angle_deg, None)
            if any(known(one) for one in identity.known_by):
                return
        _wait_for_mdoc(landed, said)
        identity = _identity(landed, name, where, said)
        if any(known(one) for one in identity.known_by):
            return
        self._give_way(landed, name.series)
        yield self._movies.tilt(landed, self._exposure(landed, name, where, identity, said))

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        return self._movies.pixels(tilt)

    def _exposure(
        self,
        landed: Landed,
        name: MovieName,
        where: Place,
        identity: Identity,
        said: MdocSection | None,
    ) -> Exposure:
        shared = self._lamellae.of(
            landed.relative,
            where.series,
            from_pacetomo=is_named_by_pacetomo(landed.path.name)
            or (said is not None and said.from_pacetomo),
        )
        planned = shared.tilts_planned if shared else None
        return Exposure(
            where=where,
            ids=identity.ids,
            angle_deg=_angle_deg(name, said) or 0.0,
            acquired_at=(said.acquired_at if said else None) or name.acquired_at,
            order=self._neighbours.order(landed, name),
            lamella=shared.key if shared else where.lamella,
            tilts_expected=planned or max(1, self._neighbours.announced(landed, name.series).count),
            said=said,
        )

    def _give_way(self, landed: Landed, series: str) -> None:
        """Raise `NotReady` while the section of a stack may still come that shows the same."""
        if not self._stack_first or landed.quiet_s >= WAIT_FOR_MDOC_S:
            return
        if self._neighbours.has_stack(landed.relative, series):
            raise NotReady(f"{landed.path.name!r} gives way to the stack of its series", "stack")


def _parse(relative: str) -> MovieName | None:
    return None if is_position(relative) else parse_movie_name(relative.rpartition("/")[2])


def _said(landed: Landed, mdoc: Mdoc | None) -> MdocSection | None:
    """Find what an mdoc says on a movie: `[FrameSet = 0]`, which `[ZValue = n]` may follow."""
    waited = landed.quiet_s >= WAIT_FOR_MDOC_S
    told = [
        one
        for one in (mdoc.sections if mdoc else ())
        if one.tilt_angle_deg is not None and (one.complete or waited)
    ]
    for one in told:
        if one.sub_frame_path == landed.path.name:
            return one
    return next((one for one in told if one.kind == "FrameSet"), told[0] if told else None)


def _wait_for_mdoc(landed: Landed, said: MdocSection | None) -> None:
    if said is None and landed.quiet_s < WAIT_FOR_MDOC_S:
        raise NotReady(f"the mdoc of {landed.path.name!r} is not there yet", "no_mdoc")


def _angle_deg(name: MovieName, said: MdocSection | None) -> float | None:
    return name.angle_deg if said is None else said.tilt_angle_deg


def _identity(landed: Landed, name: MovieName, where: Place, said: MdocSection | None) -> Identity:
    angle_deg = _angle_deg(name, said)
    if angle_deg is None:
        raise not_yet(
            landed,
            f"{landed.path.name!r} has no tilt angle in its name nor in an mdoc: no tilt; have "
            "SerialEM save one",
            "no_angle",
        )
    by_mdoc = exposure_id(where, said) if said is not None and said.acquired_at else None
    return identity_of(where, name, landed.path.name, angle_deg, by_mdoc)
