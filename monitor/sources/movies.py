"""What all sources of one file per tilt share: when it is complete, its pixels, its identities."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.movie import MovieHeader, read_movie_header, sum_of_frames
from engines.readers.mrc_header import HEADER_BYTES
from engines.readers.raw_file import facts, opened, read_at
from monitor.errors import NotReady
from monitor.model import FileStat, Landed, Tilt, TiltId
from monitor.settings import GainSettings
from monitor.sources.at_rest import AtRest
from monitor.sources.complete import (
    WAIT_FOR_MDOC_S,
    WAIT_OUT,
    ReadingFailures,
    not_yet,
    settled,
    while_listing,
)
from monitor.sources.gain_reference import GainReference
from monitor.sources.mdoc import MdocSection
from monitor.sources.naming import MovieName, Place

if TYPE_CHECKING:
    from engines.readers.gain import Gain

_END_BYTES = 4096
"""About a row of pixels: with the lowest of doses some of them see an electron."""
_WAIT_FOR_USUAL_S = 9.0
"""A movie that has fewer frames than those before it may have stalled, but is soon read."""
_HEADERS_KEPT = 2000
_SERIES_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Identity:
    """By which names an exposure goes."""

    ids: tuple[TiltId, ...]
    """Under which it is published: the first is that of the tilt, the others its aliases."""
    known_by: tuple[TiltId, ...]
    """Under which it may have been published before."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What names and metadata say on one movie, before it is opened."""

    where: Place
    ids: tuple[TiltId, ...]
    angle_deg: float
    acquired_at: str | None
    order: int | None
    lamella: str
    tilts_expected: int | None
    said: MdocSection | None = None
    said_is_of_movie: bool = True
    """Whether what the mdoc says on pixels and frames is said of the movie, not of a stack."""


@dataclass(slots=True)
class _Looked:
    """What a file was found to be when it was opened."""

    stat: FileStat
    was_settled: bool
    header: MovieHeader | PixelsError


@dataclass(slots=True)
class _Reading:
    """The movie whose tilt was listed last."""

    header: MovieHeader
    gain: Gain | None
    was_settled: bool


@dataclass(slots=True)
class Movies:
    """Opens movies that are complete, each as seldom as can be, and sums their frames."""

    directory: Path
    """The acquisition directory, from which tilts have their relative paths."""
    gain: GainSettings = field(default_factory=GainSettings)
    pace: Callable[[int], None] = lambda piece_bytes: None
    """Called with a number of bytes before they are read; it may wait."""
    at_rest: AtRest = field(default_factory=AtRest)
    _reference: GainReference = field(init=False)
    _looked: OrderedDict[str, _Looked] = field(init=False, default_factory=OrderedDict)
    _frames: OrderedDict[str, int] = field(init=False, default_factory=OrderedDict)
    """How many frames the newest movie of each series has."""
    _reading: dict[str, _Reading] = field(init=False, default_factory=dict)
    _failures: ReadingFailures = field(init=False, default_factory=ReadingFailures)

    def __post_init__(self) -> None:
        """Look at the gain reference for the first time."""
        self._reference = GainReference(self.gain, self.at_rest)

    def wait_for_rest(self, landed: Landed) -> None:
        """Raise `NotReady` until two scans saw the same: nothing may be opened before."""
        if landed.unchanged_scans < 1:
            raise NotReady(f"{landed.path.name!r} has only just changed", "settling")

    def tilt(self, landed: Landed, exposure: Exposure) -> Tilt:
        """Make the tilt of a movie that is complete; raises `NotReady` or `Unreadable`."""
        header = self._complete_header(landed, exposure)
        if self._reference.is_being_written() and landed.quiet_s < WAIT_FOR_MDOC_S:
            raise NotReady("the gain reference is being written", "gain")
        gain, flags = self._reference.for_images(header.nx, header.ny)
        self._reading = {landed.relative: _Reading(header, gain, settled(landed))}
        self._failures.listing(landed)
        self._note_frames(exposure, header)
        said, where = exposure.said, exposure.where
        pixel_sizes = [said.pixel_spacing_angstrom if said else None, header.pixel_size_angstrom]
        if not exposure.said_is_of_movie:
            pixel_sizes.reverse()
        return Tilt(
            id=exposure.ids[0],
            aliases=exposure.ids[1:],
            session=where.session,
            grid=where.grid,
            lamella=exposure.lamella,
            series=where.series,
            path=landed.relative,
            section=0,
            angle_deg=exposure.angle_deg + 0.0,
            order=exposure.order,
            acquired_at=exposure.acquired_at,
            pixel_size_angstrom=pixel_sizes[0] or pixel_sizes[1],
            exposure_dose_e_per_A2=said.exposure_dose_e_per_A2 if said else None,
            # EER counts electrons, whatever the mdoc says of the image that the program saw.
            counts_per_electron=header.counts_per_electron
            or (said.counts_per_electron if said else None),
            tilts_expected=exposure.tilts_expected,
            flags=flags,
            movie=landed.path.name,
        )

    def header(self, landed: Landed) -> MovieHeader:
        """Open a movie once for each state that it is in, and once more when no more comes.

        A file that is found incomplete is not in its writer's way again until it changes.
        """
        state = (landed.stat, settled(landed))
        before = self._looked.get(landed.relative)
        if before is not None and (before.stat, before.was_settled) == state:
            found = before.header
        else:
            found = self._look(landed)
        if isinstance(found, PixelsError):
            raise while_listing(landed, found) from found
        return found

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        """Sum the frames of a movie that was listed."""
        path = self.directory / tilt.path
        listed = self._reading.get(tilt.path)
        try:
            if listed is None:
                header = read_movie_header(path)
                gain, _ = self._reference.for_images(header.nx, header.ny)
                listed = _Reading(header, gain, True)
            # Some programs copy into a file that has its full size, full of zeros, from the start.
            if not listed.was_settled and listed.header.kind == "mrc" and _ends_in_zeros(path):
                raise NotReady(f"{path.name!r} ends in zeros", "zeros")
            image = self._sum(path, listed)
        except PixelsError as error:
            raise self._failures.error_for(tilt.id, error) from error
        self._failures.over(tilt.id)
        return image

    def _sum(self, path: Path, listed: _Reading) -> NDArray[Any]:
        try:
            return sum_of_frames(path, listed.header, gain=listed.gain, pace=self.pace)
        except PixelsError as error:
            if error.reason != "gain":
                raise
        return sum_of_frames(path, listed.header, pace=self.pace)

    def _look(self, landed: Landed) -> MovieHeader | PixelsError:
        found: MovieHeader | PixelsError
        try:
            found = read_movie_header(landed.path)
        except PixelsError as error:
            found = error
        if isinstance(found, MovieHeader) and _stat_of(found) != landed.stat:
            raise NotReady(f"{landed.path.name!r} has only just changed", "settling")
        if isinstance(found, MovieHeader) or found.reason not in WAIT_OUT:
            self._looked[landed.relative] = _Looked(landed.stat, settled(landed), found)
            self._looked.move_to_end(landed.relative)
            if len(self._looked) > _HEADERS_KEPT:
                self._looked.popitem(last=False)
        return found

    def _complete_header(self, landed: Landed, exposure: Exposure) -> MovieHeader:
        name = landed.path.name
        header = self.header(landed)
        if not header.is_whole:
            raise not_yet(
                landed,
                f"{name!r} has {header.file_size} bytes, and its header announces other than that"
                if header.kind == "mrc"
                else f"{name!r} ends within a frame, after {header.frames} whole ones",
                "truncated",
            )
        said = exposure.said if exposure.said_is_of_movie else None
        frames = said.num_subframes if said else None
        if header.size_known:
            # A sum of the frames is one image, so after a while fewer frames have to be right.
            if frames is not None and header.frames < frames and not _waited(landed):
                raise NotReady(f"{name!r} has {header.frames} of {frames} frames so far", "frames")
            return header
        self._refuse_growing(landed, exposure, header, frames)
        return header

    def _refuse_growing(
        self, landed: Landed, exposure: Exposure, header: MovieHeader, frames: int | None
    ) -> None:
        """Raise `NotReady` for a movie to which frames may still be appended one by one."""
        usual = self._frames.get(exposure.where.series_key)
        if header.kind == "mrc":
            enough, patient = False, settled(landed)
        elif frames is not None and header.frames < frames:
            enough, patient = False, settled(landed)
        else:
            # With more frames than the mdoc tells, as EER may have, or without an mdoc, as many as
            # the movies before it have is the best that is known.
            lacking = usual is not None and frames is None and header.frames < usual
            enough = header.frames in (frames, usual)
            patient = landed.quiet_s >= _WAIT_FOR_USUAL_S if lacking else _waited(landed)
        if not (enough or patient):
            raise NotReady(
                f"{landed.path.name!r} has {header.frames} frames so far, and more may come",
                "frames",
            )

    def _note_frames(self, exposure: Exposure, header: MovieHeader) -> None:
        key = exposure.where.series_key
        self._frames[key] = header.frames
        self._frames.move_to_end(key)
        if len(self._frames) > _SERIES_KEPT:
            self._frames.popitem(last=False)


def identity_of(
    where: Place, name: MovieName, file_name: str, angle_deg: float, by_mdoc: TiltId | None
) -> Identity:
    """Identify the exposure of a movie by its mdoc, where it has one with a time, and by its name.

    A name without date and time may be used again for another exposure. So what was published by
    its mdoc is noted under its name in another form (`#mdoc`): only where there is no mdoc any
    more is the movie taken for the same.
    """
    angle = round(angle_deg if name.angle_deg is None else name.angle_deg, 2) + 0.0
    if name.acquired_at:
        by_name = TiltId(where.series_key, angle, name.acquired_at)
        ids = (by_name,) if by_mdoc is None else tuple(dict.fromkeys((by_mdoc, by_name)))
        return Identity(ids, ids)
    by_name = TiltId(where.series_key, angle, None, file_name)
    with_mdoc = replace(by_name, fallback=f"{file_name}#mdoc")
    if by_mdoc is None:
        return Identity((by_name,), (by_name, with_mdoc))
    return Identity((by_mdoc, with_mdoc), (by_mdoc, by_name))


def _ends_in_zeros(path: Path) -> bool:
    with opened(path) as file:
        size = facts(file, path).st_size
        return not any(read_at(file, max(HEADER_BYTES, size - _END_BYTES), _END_BYTES, path))


def _stat_of(header: MovieHeader) -> FileStat:
    return FileStat(header.file_size, header.modified_ns, header.inode)


def _waited(landed: Landed) -> bool:
    return landed.image_quiet_s >= WAIT_FOR_MDOC_S
