"""PACEtomo: every target of a lamella at each angle, each stack reopened for every tilt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engines.microscope import SerialEMStackWriter
from engines.microscope_pacetomo import Target, run_text, sorting_in_place, targets_text
from engines.microscope_step import Step, writing_text
from engines.readers.mrc import write_mrc
from monitor.simulate.faults import LATE_S, Faults
from monitor.simulate.images import COUNTS_PER_ELECTRON
from monitor.simulate.script import Event, Script, Taken
from monitor.simulate.session import Session

_TARGETS = 3
"""On one lamella, at most."""
_ADDED_AFTER_S = 0.8
"""Aligning and fitting the CTF lie between the saving of a tilt and what is added to its mdoc."""


def pacetomo(session: Session) -> Script:
    """Let the series of one lamella after the other land."""
    folder = session.folder / "grid_1"
    series = range(session.request.series)
    for area, first in enumerate(series[::_TARGETS]):
        numbers = series[first : first + _TARGETS]
        yield from _area(session, folder, f"lam_{area + 1:02d}", numbers)


def _area(session: Session, folder: Path, root: str, numbers: range) -> Script:
    targets = [
        Target(root, at + 1, round(1.5 * at, 3), round(-0.8 * at, 3)) for at in range(len(numbers))
    ]
    angles = session.angles_deg(0)
    folder.mkdir(parents=True, exist_ok=True)
    yield from _setting_up(session, folder, targets)
    settings: dict[str, object] = {
        "startTilt": angles[0],
        "minTilt": min(angles),
        "maxTilt": max(angles),
        "step": session.step_deg,
    }
    yield from writing_text(folder / f"{root}_tgts.txt", targets_text(targets, settings))
    stacks = [
        _Stack(session, folder, target, number, len(angles))
        for target, number in zip(targets, numbers, strict=True)
    ]
    for order, nominal_deg in enumerate(angles):
        yield session.next_tilt()
        for at, stack in enumerate(stacks):
            yield from stack.tilt(nominal_deg, order)
            text = run_text(targets, settings, order, at)
            yield from writing_text(folder / f"{root}_tgts_run01.txt", text)
    yield session.wait(10.0)
    for stack in stacks:
        yield from stack.sorting()
    yield from writing_text(folder / f"{root}.log", "##### All tilt series completed #####\r\n")


def _setting_up(session: Session, folder: Path, targets: list[Target]) -> Iterator[Event]:
    """Take the images on which the targets were chosen."""
    picture = session.camera.expose(0, 0.0).counts
    for target in targets:
        for name in (f"{target.map_name}_view.mrc", f"{target.map_name}.mrc"):
            write_mrc(folder / name, picture, session.request.pixel_size_angstrom)
            yield Step(folder / name, "pixels", picture.nbytes, (folder / name,))
            yield session.wait(1.0)


class _Stack:
    """The series of one target."""

    def __init__(
        self, session: Session, folder: Path, target: Target, number: int, tilts: int
    ) -> None:
        self._session = session
        self._folder = folder
        self._target = target
        self._number = number
        self._faults = Faults(session, number, tilts)
        self._writer: SerialEMStackWriter | None = None
        self._cut = False

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._target.series}.mrc"

    def _open(self) -> Iterator[Step]:
        if self._writer is None:
            self._writer = SerialEMStackWriter(
                self._path,
                self._session.shape,
                self._session.request.pixel_size_angstrom,
                scheme="",
                line_end="\r\n",
                chunk_bytes=self._session.chunk_bytes,
            )
            yield Step(self._path, "create", self._path.stat().st_size)

    def tilt(self, nominal_deg: float, order: int) -> Iterator[Event]:
        """Take one tilt; a target that was cut is skipped from then on."""
        if self._cut:
            return
        session, faults = self._session, self._faults
        yield session.wait(session.request.interval_s / 10)
        yield from faults.between_tilts(order)
        yield from self._open()
        again = faults.overwrites(order)
        yield from self._write(nominal_deg, order, again=False, kept=not again)
        if again:
            yield session.next_tilt()
            yield from self._write(nominal_deg, order, again=True, kept=True)

    def _write(self, nominal_deg: float, order: int, *, again: bool, kept: bool) -> Iterator[Event]:
        session, faults, writer = self._session, self._faults, self._writer
        assert writer is not None
        angle_deg = session.read_out(nominal_deg)
        exposure, picture = session.expose(
            self._number, self._target.series, self._folder / self._target.root, angle_deg, order
        )
        steps = writer.adding(
            picture.counts,
            angle_deg,
            exposure.acquired_at,
            counts_per_electron=COUNTS_PER_ELECTRON,
            section=len(writer.file.sections) - 1 if again else None,
            extra={"NavigatorLabel": self._number + 1},
        )
        for event in faults.during(order, steps):
            yield event
            if isinstance(event, Step) and event.what == "extended" and faults.late(order):
                yield session.wait(LATE_S)
        self._cut = faults.cuts(order)
        yield Taken(exposure, (self._path,), complete=not self._cut, kept=kept)
        if not self._cut:
            yield session.wait(_ADDED_AFTER_S)
            shift = f"{self._target.shift_x_um + 0.001 * order} {self._target.shift_y_um}"
            writer.add_keys({"SpecimenShift": shift, "EucentricOffset": 0.012 * order})
            yield from writer.file.rewriting_mdoc()

    def sorting(self) -> Iterator[Event]:
        """Sort the finished stack by angle."""
        if self._cut or self._writer is None:
            return
        yield from sorting_in_place(self._writer.file)
        if self._faults.wanted("reorder"):
            yield self._session.wait(60.0)
            file = self._writer.file
            yield from file.reordering(file.order_by_angle()[::-1], "-unsorted")
