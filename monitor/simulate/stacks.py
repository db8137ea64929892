"""SerialEM's own tilt series: a growing stack, in any order, reordered or resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engines.microscope import SerialEMStackWriter
from engines.microscope_step import Step
from monitor.simulate.faults import LATE_S, Faults
from monitor.simulate.frames import movie_name, movie_with_mdoc
from monitor.simulate.images import COUNTS_PER_ELECTRON, Picture
from monitor.simulate.script import Event, Exposure, Script, Taken
from monitor.simulate.session import Session

_CLOSED_FOR_S = 600.0
"""How long a series waits to be resumed."""


def serialem(session: Session) -> Script:
    """Let dose-symmetric series land, sorted by angle at their end."""
    for number in range(session.request.series):
        angles = session.angles_deg(number)
        one = _Series(session, number, len(angles), "dosym", angles[0])
        yield from one.opening()
        for angle in angles:
            yield from one.tilt(angle)
        yield from one.closing(sort=True)


def serialem_bidirectional(session: Session) -> Script:
    """Let bidirectional series land; at the turn the first half is inverted."""
    for number in range(session.request.series):
        angles, turn = session.bidirectional_deg(number)
        one = _Series(session, number, len(angles), "bidir", angles[0])
        yield from one.opening()
        for order, angle in enumerate(angles):
            if order == turn:
                yield from one.stack.turning()
            yield from one.tilt(angle)
        yield from one.closing(sort=False)


def serialem_resumed(session: Session) -> Script:
    """Let series land that are stopped, backed up by one tilt, and resumed later."""
    for number in range(session.request.series):
        angles = session.angles_deg(number)
        one = _Series(session, number, len(angles), "dosym", angles[0])
        half = max(1, len(angles) // 2)
        yield from one.opening()
        for order, angle in enumerate(angles[:half]):
            yield from one.tilt(angle, kept=order < half - 1)
        yield one.stack.file.mark_closed()
        yield session.wait(_CLOSED_FOR_S)
        yield one.stack.file.mark_open()
        yield from one.tilt(angles[half - 1], again=True)
        for angle in angles[half:]:
            yield from one.tilt(angle)
        yield from one.closing(sort=True)


def serialem_with_frames(session: Session) -> Script:
    """Let series land whose frames are saved too: each exposure is in two places."""
    for number in range(session.request.series):
        angles = session.angles_deg(number)
        one = _Series(session, number, len(angles), "dosym", angles[0], movies="tiff")
        yield from one.opening()
        for angle in angles:
            yield from one.tilt(angle)
        yield from one.closing(sort=True)


class _Series:
    """One series of SerialEM."""

    def __init__(
        self,
        session: Session,
        number: int,
        tilts: int,
        scheme: str,
        start_deg: float,
        movies: str = "",
    ) -> None:
        self._session = session
        self._number = number
        self._name = f"TS_{number + 1:03d}"
        self._folder = session.folder
        self._faults = Faults(session, number, tilts)
        self._scheme = scheme
        self._start_deg = start_deg
        self._movies = movies
        self._taken = 0
        self._cut = False

    def opening(self) -> Iterator[Event]:
        """Open the file for the series; the first tilt comes later."""
        session = self._session
        self._folder.mkdir(parents=True, exist_ok=True)
        self.stack = SerialEMStackWriter(
            self._folder / f"{self._name}.mrc",
            session.shape,
            session.request.pixel_size_angstrom,
            start_deg=self._start_deg,
            scheme=self._scheme,
            line_end=("\r\n", "\n")[self._number % 2],
            chunk_bytes=session.chunk_bytes,
        )
        yield Step(self.stack.path, "create", self.stack.path.stat().st_size)
        yield self.stack.file.mark_open()

    def tilt(
        self, nominal_deg: float, *, again: bool = False, kept: bool = True
    ) -> Iterator[Event]:
        """Take one tilt; `again`: in place of the one before, which was not `kept`."""
        if self._cut:
            return
        order = self._taken - again
        self._taken = order + 1
        yield self._session.next_tilt()
        yield from self._faults.between_tilts(order)
        overwritten = self._faults.overwrites(order)
        yield from self._write(nominal_deg, order, again=again, kept=kept and not overwritten)
        if overwritten:
            yield self._session.next_tilt()
            yield from self._write(nominal_deg, order, again=True, in_place=True, kept=kept)

    def _write(
        self,
        nominal_deg: float,
        order: int,
        *,
        again: bool,
        kept: bool,
        in_place: bool = False,
    ) -> Iterator[Event]:
        session = self._session
        angle_deg = session.read_out(nominal_deg)
        exposure, picture = session.expose(
            self._number, self._name, self._folder / self._name, angle_deg, order
        )
        movie = self._movie_path(order, angle_deg, again=again)
        section = self._section(exposure, picture, movie, again=again, in_place=in_place)
        # The section and the movie are written by different programs: either may be first.
        if movie is None:
            yield from section
        elif order % 2:
            yield from section
            yield from movie_with_mdoc(session, self._movies, movie, exposure, picture)
        else:
            yield from movie_with_mdoc(session, self._movies, movie, exposure, picture)
            yield from section
        self._cut = self._faults.cuts(order)
        paths = (self.stack.path,) if movie is None else (self.stack.path, movie)
        complete = not self._cut or movie is not None
        yield Taken(exposure, paths, complete=complete, kept=kept or movie is not None)

    def _movie_path(self, order: int, angle_deg: float, *, again: bool) -> Path | None:
        if not self._movies:
            return None
        folder = self._folder / "frames"
        folder.mkdir(exist_ok=True)
        # SerialEM counts on where a tilt is taken anew.
        number = order + 500 * again
        return folder / movie_name(self._name, number, angle_deg, self._movies)

    def _section(
        self,
        exposure: Exposure,
        picture: Picture,
        movie: Path | None,
        *,
        again: bool,
        in_place: bool,
    ) -> Iterator[Event]:
        steps = self.stack.adding(
            picture.counts,
            exposure.angle_deg,
            exposure.acquired_at,
            counts_per_electron=COUNTS_PER_ELECTRON,
            section=len(self.stack.file.sections) - 1 if again else None,
            in_place=in_place,
            extra={"SubFramePath": f"X:\\frames\\{movie.name}"} if movie else None,
        )
        late = self._faults.late(exposure.order)
        for event in self._faults.during(exposure.order, steps):
            yield event
            if late and isinstance(event, Step) and event.what == "extended":
                yield self._session.wait(LATE_S)

    def closing(self, *, sort: bool) -> Iterator[Event]:
        """Sort the stack if that is wanted, and close it; a program that died does neither."""
        if self._cut:
            return
        yield self._session.wait(2.0)
        file = self.stack.file
        if sort:
            yield from self.stack.sorting()
        yield file.mark_closed()
        if self._faults.wanted("reorder"):
            yield self._session.wait(60.0)
            yield from file.reordering(file.order_by_angle()[::-1], "-unsorted")
