"""What can go wrong while a session lands: each fault changes the script, none the writers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

from engines.microscope_step import Step, renaming
from monitor.simulate.script import Event
from monitor.simulate.session import Session

STALL_S = 20.0
LATE_S = 12.0
AWAY_S = 4.0


class Faults:
    """The faults of one series: when which of them happens."""

    def __init__(self, session: Session, series: int, tilts: int) -> None:
        """Choose the tilts (counted from 0) of series `series` that something happens to."""
        wanted = session.request.faults
        self._session = session
        middle = range(1, tilts - 1) if tilts > 2 else range(tilts)
        # Drawn whether or not it is wanted: a fault more changes nothing else.
        drawn = {kind: session.pick(middle) for kind in ("stall", "blink", "overwrite")}
        self._at = {kind: at for kind, at in drawn.items() if kind in wanted}
        self._cut = "cut" in wanted and series == 0
        self._last = tilts - 1
        self._wanted = wanted

    def wanted(self, kind: str) -> bool:
        """Whether a fault was asked for."""
        return kind in self._wanted

    def cuts(self, order: int) -> bool:
        """Whether a tilt ends half way, and the series with it."""
        return self._cut and order == self._last

    def overwrites(self, order: int) -> bool:
        """Whether a tilt is written once more."""
        return self._at.get("overwrite") == order

    def late(self, order: int) -> bool:
        """Whether the mdoc of a tilt comes late."""
        return "late-mdoc" in self._wanted and order % 2 == 1

    def during(self, order: int, steps: Generator[Step]) -> Iterator[Event]:
        """Write a tilt: all of it, with a pause in between, or only its beginning."""
        stalls, written = self._at.get("stall") == order, 0
        for step in steps:
            yield step
            written += step.size > 0
            if written == 2 and self.cuts(order):
                steps.close()
                return
            if written == 2 and stalls:
                yield self._session.wait(STALL_S)
                stalls = False

    def between_tilts(self, order: int) -> Iterator[Event]:
        """Let the folder of the session be away for a while."""
        if self._at.get("blink") == order:
            folder = self._session.folder
            away = folder.with_name(f".{folder.name}-away")
            yield Step(renaming(folder, away).path, "rename")
            yield self._session.wait(AWAY_S)
            yield Step(renaming(away, folder).path, "rename")


def lands(path: Path, steps: Iterator[Step], *, hidden: bool) -> Iterator[Step]:
    """Write a file; `hidden`: `steps` write it under rsync's temporary name, then it is renamed."""
    yield from steps
    if hidden:
        yield renaming(rsync_name(path), path)


def rsync_name(path: Path) -> Path:
    """Name the file that rsync writes to."""
    return path.with_name(f".{path.name}.a1B2c3")
