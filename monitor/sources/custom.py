"""Images that no microscope program named: a pattern or a table tells what they are.

Each file is one exposure, an image or a movie. The table may grow while the daemon runs; a file
that it does not name yet is waited for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from monitor.errors import ConfigError, NotReady
from monitor.model import FileStat, Landed, Tilt, TiltId
from monitor.settings import CustomSettings
from monitor.sources.angle_table import MAX_BYTES, AngleTable, parse_table
from monitor.sources.at_rest import AtRest, read_small_file
from monitor.sources.complete import GIVE_UP_AFTER_S, not_yet
from monitor.sources.movies import Exposure, Movies
from monitor.sources.name_pattern import CustomName, NamePattern
from monitor.sources.naming import (
    MovieName,
    Place,
    image_announced,
    parse_movie_name,
)
from monitor.sources.neighbours import Neighbours
from monitor.sources.protocol import Known

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 4096


class Names(Protocol):
    """What knows a file by its path below the acquisition directory."""

    def claims(self, relative: str) -> bool:
        """Say whether a file may be one of ours, by name alone."""
        ...

    def read(self, relative: str) -> CustomName | None:
        """Say what is known of a file; None where it is none of ours."""
        ...

    def refresh(self) -> None:
        """See whether more is known by now."""
        ...


class Patterned:
    """Knows files by a regular expression."""

    def __init__(self, pattern: str) -> None:
        self._pattern = NamePattern(pattern)

    def claims(self, relative: str) -> bool:
        return self._pattern.read(relative) is not None

    def read(self, relative: str) -> CustomName | None:
        return self._pattern.read(relative)

    def refresh(self) -> None:
        pass


class Tabled:
    """Knows the angles of files from a table that is read anew when it changed."""

    def __init__(self, path: Path, at_rest: AtRest) -> None:
        """Take the table and what knows whether it is being written to."""
        self._path = path
        self._at_rest = at_rest
        self._taken: tuple[FileStat, bool] | None = None
        self._table = AngleTable()
        self._told = ""
        self.refresh()

    def claims(self, relative: str) -> bool:
        return True

    def read(self, relative: str) -> CustomName | None:
        name = parse_movie_name(relative.rpartition("/")[2])
        angle_deg = self._table.angle_deg(relative)
        return CustomName(name.series, angle_deg, name.number, name.acquired_at)

    def refresh(self) -> None:
        look = self._at_rest.look(self._path)
        if look.stat is None:
            self._tell(f"the table {str(self._path)!r} is not there; its last state counts")
        elif look.at_rest:
            # What a program writes reaches the disk in blocks, which may end within a line.
            whole = look.quiet_s >= GIVE_UP_AFTER_S and look.stat.size % _BLOCK_BYTES != 0
            if self._taken != (look.stat, whole):
                self._taken = (look.stat, whole)
                self._take(is_whole=whole)

    def _take(self, *, is_whole: bool) -> None:
        try:
            self._table = read_table(self._path, is_whole=is_whole)
        except ConfigError as error:
            self._tell(f"the table {str(self._path)!r} {error}; its last state counts")
            return
        bad = self._table.bad_lines
        self._tell(f"the table {str(self._path)!r}, {bad[0]}; left out" if bad else "")

    def _tell(self, sentence: str) -> None:
        if sentence and sentence != self._told:
            logger.warning("%s", sentence)
        self._told = sentence


class Custom:
    """Reads one exposure per file."""

    kind = "custom"

    def __init__(self, movies: Movies, settings: CustomSettings) -> None:
        """Take what opens movies, and a pattern or a table; `ValueError` for a bad pattern."""
        self._movies = movies
        self._names: Names = (
            Patterned(settings.pattern)
            if settings.pattern is not None
            else Tabled(settings.table or Path(), movies.at_rest)
        )
        self._neighbours = Neighbours(movies.directory, self._movie_name, joined_by="")

    def claims(self, relative: str) -> str | None:
        if image_announced(relative) != relative:
            return None
        return relative if self._names.claims(relative) else None

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        self._names.refresh()
        self._movies.wait_for_rest(landed)
        name = self._names.read(landed.relative)
        if name is None or name.angle_deg is None:
            raise self._no_angle(landed)
        where = _place(landed.relative, name)
        ids = _ids(where, name, landed.path.name)
        if any(known(one) for one in ids):
            return
        movie_name = self._movie_name(landed.relative)
        yield self._movies.tilt(
            landed,
            Exposure(
                where=where,
                ids=ids,
                angle_deg=name.angle_deg,
                acquired_at=name.acquired_at,
                order=self._neighbours.order(landed, movie_name) if movie_name else None,
                lamella=where.lamella,
                tilts_expected=max(1, self._neighbours.announced(landed, name.series).count),
            ),
        )

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        return self._movies.pixels(tilt)

    def _no_angle(self, landed: Landed) -> Exception:
        if isinstance(self._names, Tabled):
            # For as long as it takes: a line may come when the series is over.
            return NotReady(f"{landed.path.name!r} has no line in the table of angles", "no_angle")
        return not_yet(
            landed,
            f"what the pattern takes for the tilt angle of {landed.path.name!r} is none",
            "no_angle",
        )

    def _movie_name(self, relative: str) -> MovieName | None:
        name = self._names.read(relative)
        if name is None or name.angle_deg is None:
            return None
        return MovieName(name.series, name.angle_deg, name.number, name.acquired_at)


def read_table(path: Path, *, is_whole: bool = True) -> AngleTable:
    """Read a table; raises `ConfigError` with the rest of a sentence on it.

    `is_whole`: a last line counts although no newline ends it.
    """
    try:
        raw = read_small_file(path, MAX_BYTES, through_links=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot be read: {why}") from error
    if b"\0" in raw:
        raise ConfigError("is no table of text; write a line name,angle for each image")
    return parse_table(raw.decode("utf-8", "surrogateescape"), is_settled=is_whole)


def _place(relative: str, name: CustomName) -> Place:
    """Say where a file belongs: by its folders, and by what the pattern takes from its name."""
    folders = relative.split("/")[:-1]
    named = [part for part in (name.session, name.grid) if part and part not in folders]
    return Place(
        session=name.session or (folders[0] if folders else ""),
        grid=name.grid or "/".join(folders[1:]),
        lamella="/".join([*folders, *named, name.lamella or name.series]),
        series=name.series,
        series_key="/".join([*folders, *named, name.series]),
    )


def _ids(where: Place, name: CustomName, file_name: str) -> tuple[TiltId, ...]:
    """Identify an exposure by its time, where the name holds one, else by its file.

    A table may be put right: another angle then is no other exposure.
    """
    angle_deg = None if name.angle_deg is None else round(name.angle_deg, 2) + 0.0
    if name.acquired_at:
        return (TiltId(where.series_key, angle_deg, name.acquired_at),)
    by_name = TiltId(where.series_key, angle_deg, None, file_name)
    return (by_name, replace(by_name, angle_deg=None))
