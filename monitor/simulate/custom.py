"""Names that no microscope program gives: for `layout = "custom"`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engines.microscope_step import writing_text
from monitor.simulate.faults import Faults
from monitor.simulate.movies import copying_anew, landing, movie_steps
from monitor.simulate.script import Event, Script, Taken
from monitor.simulate.session import Session

PATTERN = r"(?P<series>lam\d+)-(?P<number>\d+)-tilt(?P<angle>[-+]\d+\.\d+)"
"""Fits the names that `custom` writes."""
TABLE = "angles.csv"
CONFIGURATION = f"""To have it found:
  [acquisition]
  layout = "custom"
  custom.pattern = '{PATTERN}'"""


def custom(session: Session) -> Script:
    """Let movies land with names of their own; a table `name,angle` tells the angles too."""
    folder = session.folder
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        (number, order): folder / custom_name(number, order, angle)
        for number in range(session.request.series)
        for order, angle in enumerate(session.angles_deg(number))
    }
    angles = [
        angle for number in range(session.request.series) for angle in session.angles_deg(number)
    ]
    lines = (
        f"{path.name},{angle:.1f}\n" for path, angle in zip(paths.values(), angles, strict=True)
    )
    yield from writing_text(folder / TABLE, "name,angle\n" + "".join(lines))
    for number in range(session.request.series):
        nominal = session.angles_deg(number)
        faults = Faults(session, number, len(nominal))
        for order, angle_deg in enumerate(nominal):
            yield session.next_tilt()
            yield from faults.between_tilts(order)
            yield from _tilt(session, faults, number, order, angle_deg, paths[number, order])


def custom_name(number: int, order: int, angle_deg: float) -> str:
    """Name a movie in a way that no microscope program has."""
    return f"lam{number + 1:02d}-{order + 1:03d}-tilt{angle_deg:+.1f}.tif"


def _tilt(
    session: Session, faults: Faults, number: int, order: int, angle_deg: float, path: Path
) -> Iterator[Event]:
    series = f"lam{number + 1:02d}"
    exposure, picture = session.expose(number, series, path.parent / series, angle_deg, order)
    yield from landing(
        faults, order, path, lambda place: movie_steps(session, "tiff", place, picture)
    )
    yield Taken(exposure, (path,), complete=not faults.cuts(order))
    if faults.overwrites(order):
        yield session.wait(2.0)
        yield from copying_anew(path, session.chunk_bytes)
