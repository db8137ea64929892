"""Tomography 5: all is in a movie's name, and the mdoc of a series comes at its end."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from engines.microscope_movies import tomography5_mdoc, tomography5_name
from engines.microscope_step import writing_text
from monitor.simulate.faults import Faults
from monitor.simulate.movies import copying_anew, frames_in, landing, movie_steps
from monitor.simulate.script import Event, Script, Taken
from monitor.simulate.session import Session

_POSITIONS = ("Position_1", "Position_2", "Position_2_2", "Position_2_3", "L3_wt_04")
"""Beam-shift positions bear an index, and users name positions as they like."""
_WITH_SHIFT = "Position_2"
_WRITTEN_AFTER = datetime.timedelta(seconds=5)
"""The mdoc has the time at which an exposure ended, a name that at which it began."""


def tomography5(session: Session, kind: str) -> Script:
    """Let series land: `kind` is `Fractions.mrc`, `fractions.tiff` (5.7) or `EER.eer`."""
    session.folder.mkdir(parents=True, exist_ok=True)
    (session.folder / "Thumbnails").mkdir(exist_ok=True)
    yield from writing_text(session.folder / "Session.dm", _SESSION)
    for together in _groups(session.request.series):
        positions = [_Position(session, number, kind) for number in together]
        for order in range(len(positions[0].angles_deg)):
            for one in positions:
                yield session.next_tilt()
                yield from one.tilt(order)
        for one in positions:
            yield from one.closing()


_SESSION = (
    '<?xml version="1.0" encoding="utf-8"?>\n<TomographySession>'
    "<LamellaWorkflow>true</LamellaWorkflow></TomographySession>\n"
)


def position_name(number: int) -> str:
    """Name the position of a series (from 0)."""
    if number < len(_POSITIONS):
        return _POSITIONS[number]
    return f"Position_{number}"


def _groups(series: int) -> list[list[int]]:
    """List the series that are taken together at each angle: the beam is shifted between them."""
    groups: list[list[int]] = []
    for number in range(series):
        if position_name(number).startswith(_WITH_SHIFT + "_"):
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


class _Position:
    """One series of Tomography 5."""

    def __init__(self, session: Session, number: int, kind: str) -> None:
        self._session = session
        self._number = number
        self._kind = kind
        self._name = position_name(number)
        self.angles_deg = session.angles_deg(0)
        self._faults = Faults(session, number, len(self.angles_deg))
        self._movies: list[tuple[str, float, datetime.datetime]] = []

    @property
    def _lamella(self) -> str:
        shifted = self._name.startswith(_WITH_SHIFT + "_")
        return _WITH_SHIFT if shifted else self._name

    @property
    def _movie_kind(self) -> str:
        return {"E": "eer", "F": "mrc", "f": "tiff"}[self._kind[0]]

    def tilt(self, order: int) -> Iterator[Event]:
        """Take one tilt."""
        session, faults = self._session, self._faults
        yield from faults.between_tilts(order)
        angle_deg = round(session.read_out(self.angles_deg[order]), 2)
        # Names round to 0.1 degrees, whatever the number of digits.
        name = tomography5_name(self._name, order + 1, round(angle_deg, 1), session.now, self._kind)
        path = session.folder / name
        exposure, picture = session.expose(
            self._number, self._name, session.folder / self._lamella, angle_deg, order
        )
        self._movies.append((name, angle_deg, session.now + _WRITTEN_AFTER))
        yield from landing(
            faults,
            order,
            path,
            lambda place: movie_steps(session, self._movie_kind, place, picture),
        )
        yield Taken(exposure, (path,), complete=not faults.cuts(order))
        if faults.overwrites(order):
            yield session.wait(2.0)
            yield from copying_anew(path, session.chunk_bytes)

    def closing(self) -> Iterator[Event]:
        """Write the mdoc of the series, and the one that must be ignored."""
        session = self._session
        yield session.wait(5.0)
        if self._faults.wanted("no-mdoc"):
            return
        text = tomography5_mdoc(
            self._name,
            self._movies,
            session.request.pixel_size_angstrom,
            session.request.size_px,
            frames=frames_in(self._movie_kind),
            year_first=self._kind == "fractions.tiff",
        )
        yield from writing_text(session.folder / f"{self._name}.mdoc", text, "mdoc")
        if self._number == 0:
            other = session.folder / f"{self._name}_override.mdoc"
            yield from writing_text(other, text, "mdoc")
