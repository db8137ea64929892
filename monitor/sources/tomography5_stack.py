"""The stack of a whole series that Tomography 5 may save beside, or instead of, its movies.

Its sections may be in the order of their angles while its mdoc is in that of acquisition, so they
are told by angle. Where the movies are kept too, they alone are read: one exposure counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.fei_header import FeiSection
from engines.readers.mrc import read_fei_sections, read_header, read_section
from engines.readers.mrc_header import MrcHeader
from monitor.errors import NotReady
from monitor.model import FileStat, Landed, Tilt, TiltId
from monitor.sources.batch_positions import BatchPositions
from monitor.sources.complete import ReadingFailures, not_yet, settled, while_listing
from monitor.sources.exposure import exposure_id, mdoc_path
from monitor.sources.mdoc import Mdoc, MdocSection
from monitor.sources.movies import Movies, identity_of
from monitor.sources.naming import (
    EXTENSIONS,
    Place,
    extension,
    image_announced,
    is_position,
    parse_movie_name,
    place,
)
from monitor.sources.neighbours import Neighbours
from monitor.sources.protocol import Known, NotMine
from monitor.sources.tomography5 import FinalMdocs, position_name

_EXTENSIONS = (".mrc", ".mrcs", ".st")
_ANGLE_TOLERANCE_DEG = 0.06
_LEAST_BYTES = 1024 + 2 * 768
_LEAST_RANGE_DEG = 0.5
_REJECTED_KEPT = 2000


@dataclass(frozen=True, slots=True)
class _Section:
    """One section, and what is known of it."""

    number: int
    entry: FeiSection
    angle_deg: float
    said: MdocSection | None
    ids: tuple[TiltId, ...]

    @property
    def acquired_at(self) -> str | None:
        return (self.said.acquired_at if self.said else None) or self.entry.acquired_at


class Tomography5Stack:
    """Reads the sections of a stack whose extended header gives their angles."""

    kind = "tomography5_stack"

    def __init__(
        self, movies: Movies, batch: BatchPositions | None = None, final: FinalMdocs | None = None
    ) -> None:
        """Take what the source of the movies takes; no gain reference is applied to stacks."""
        self._directory = movies.directory
        self._pace: Callable[[int], None] = movies.pace
        self._wait_for_rest = movies.wait_for_rest
        self._batch = batch or BatchPositions(movies.directory, movies.at_rest)
        self._final = final or FinalMdocs(movies.directory, movies.at_rest)
        self._neighbours = Neighbours(movies.directory, position_name)
        self._not_mine: dict[str, tuple[FileStat, str]] = {}
        self._failures = ReadingFailures()

    def claims(self, relative: str) -> str | None:
        if extension(relative) not in _EXTENSIONS or not image_announced(relative):
            return None
        return None if is_position(relative) else relative

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        series = landed.path.stem
        self._refuse_others(landed)
        self._final.look(landed.relative, series)
        self._wait_for_rest(landed)
        if self._neighbours.has_movies(landed.relative, series):
            return
        header, entries = self._read_headers(landed)
        mdoc = self._final.read(landed.relative, series)
        if mdoc is None and not settled(landed):
            # Where a finished session is copied, movies or the mdoc may come after the stack.
            raise NotReady(f"{landed.path.name!r} may have its mdoc still to come", "no_mdoc")
        where = place(landed.relative, series)
        sections = _sections(where, entries, mdoc, landed.path.name)
        self._failures.listing(landed)
        for order, section in _in_order(sections):
            if not any(known(one) for one in section.ids):
                yield self._tilt(landed, where, header, section, order, len(sections))

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        path = self._directory / tilt.path
        try:
            header = read_header(path)
            image = read_section(path, tilt.section, header, self._pace)
            entries = read_fei_sections(path, read_header(path))
        except PixelsError as error:
            raise self._failures.error_for(tilt.id, error) from error
        self._failures.over(tilt.id)
        now = entries[tilt.section].angle_deg if tilt.section < len(entries) else None
        if now is None or abs(now - (tilt.angle_deg or 0.0)) > _ANGLE_TOLERANCE_DEG:
            raise NotReady(f"{path.name!r} was rewritten while it was read", "changed")
        return image

    def _refuse_others(self, landed: Landed) -> None:
        """Raise `NotMine` for what can be told from names and sizes, or was found out before."""
        before = self._not_mine.get(landed.relative)
        if before is not None and before[0] == landed.stat:
            raise NotMine(before[1], "no_angle")
        is_movie = parse_movie_name(landed.path.name).angle_deg is not None
        if not (is_movie or landed.stat.size < _LEAST_BYTES or _is_there(mdoc_path(landed.path))):
            return
        raise NotMine(f"{landed.path.name!r} is no stack of Tomography 5", "no_angle")

    def _read_headers(self, landed: Landed) -> tuple[MrcHeader, tuple[FeiSection, ...]]:
        try:
            header = read_header(landed.path)
            entries = read_fei_sections(landed.path, header)
        except PixelsError as error:
            if error.reason in ("header", "truncated"):
                self._reject(landed, str(error))
            raise while_listing(landed, error) from error
        angles = [one.angle_deg for one in entries if one.angle_deg is not None]
        # A search map or a tile of an atlas has such a header, too.
        if len(angles) < 2 or max(angles) - min(angles) < _LEAST_RANGE_DEG:
            self._reject(
                landed,
                f"{landed.path.name!r} has no mdoc and no tilt angles in its header: no tilt",
            )
        if not header.is_whole:
            raise not_yet(
                landed,
                f"{landed.path.name!r} has {header.file_size} bytes, and its header announces "
                "other than that",
                "truncated",
            )
        return header, entries

    def _reject(self, landed: Landed, sentence: str) -> None:
        if len(self._not_mine) > _REJECTED_KEPT:
            self._not_mine.clear()
        self._not_mine[landed.relative] = (landed.stat, sentence)
        raise NotMine(sentence, "no_angle")

    def _tilt(
        self,
        landed: Landed,
        where: Place,
        header: MrcHeader,
        section: _Section,
        order: int,
        count: int,
    ) -> Tilt:
        said, entry = section.said, section.entry
        said_pixel_size = said.pixel_spacing_angstrom if said else None
        said_dose = said.exposure_dose_e_per_A2 if said else None
        return Tilt(
            id=section.ids[0],
            aliases=section.ids[1:],
            session=where.session,
            grid=where.grid,
            lamella=self._batch.lamella(landed.relative, where.series),
            series=where.series,
            path=landed.relative,
            section=section.number,
            angle_deg=section.angle_deg,
            order=order,
            acquired_at=section.acquired_at,
            pixel_size_angstrom=entry.pixel_size_angstrom
            or header.pixel_size_angstrom
            or said_pixel_size,
            exposure_dose_e_per_A2=said_dose or entry.dose_e_per_A2,
            counts_per_electron=said.counts_per_electron if said else None,
            tilts_expected=count,
            movie=said.sub_frame_path if said else "",
        )


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (OSError, ValueError):
        return False
    return True


def _sections(
    where: Place, entries: tuple[FeiSection, ...], mdoc: Mdoc | None, file_name: str
) -> list[_Section]:
    """Put sections and mdoc together by angle, and name each exposure in every way there is."""
    left = list(mdoc.sections) if mdoc else []
    seen: dict[float, int] = {}
    found = []
    for number, entry in enumerate(entries):
        if entry.angle_deg is None:
            continue
        angle_deg = entry.angle_deg
        said = _taken(left, angle_deg)
        again = seen[round(angle_deg, 2)] = seen.get(round(angle_deg, 2), 0) + 1
        by_header = TiltId(
            where.series_key,
            round(angle_deg, 2) + 0.0,
            entry.acquired_at,
            "" if entry.acquired_at else f"{file_name}#{again}",
        )
        ids = (*_ids_in_mdoc(where, said), by_header)
        found.append(_Section(number, entry, angle_deg, said, tuple(dict.fromkeys(ids))))
    return found


def _ids_in_mdoc(where: Place, said: MdocSection | None) -> Iterator[TiltId]:
    """Yield the identity that the movie of a section has, and that of the section itself."""
    if said is None:
        return
    name = parse_movie_name(said.sub_frame_path)
    if extension(said.sub_frame_path) in EXTENSIONS and name.angle_deg is not None:
        yield from identity_of(where, name, said.sub_frame_path, name.angle_deg, None).ids
    if said.acquired_at:
        yield exposure_id(where, said)


def _taken(left: list[MdocSection], angle_deg: float) -> MdocSection | None:
    """Take the section of an mdoc that is nearest to an angle, if it is near enough."""
    near = [one for one in left if one.tilt_angle_deg is not None]
    best = min(near, key=lambda one: abs((one.tilt_angle_deg or 0.0) - angle_deg), default=None)
    if best is None or abs((best.tilt_angle_deg or 0.0) - angle_deg) > _ANGLE_TOLERANCE_DEG:
        return None
    left.remove(best)
    return best


def _in_order(sections: list[_Section]) -> Iterator[tuple[int, _Section]]:
    """Count in the order of acquisition: by time, or as in the mdoc, or as they lie there."""
    if all(one.acquired_at for one in sections):
        return enumerate(sorted(sections, key=lambda one: (one.acquired_at or "", one.number)))
    if all(one.said for one in sections):
        return enumerate(sorted(sections, key=lambda one: one.said.z_value if one.said else 0))
    return enumerate(sections)
