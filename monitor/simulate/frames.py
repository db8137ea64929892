"""SerialEM's saving of frames: one movie for each tilt, with an mdoc of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engines.microscope_movies import frame_mdoc
from engines.microscope_step import Step, writing_text
from engines.readers.mrc import write_mrc
from monitor.simulate.faults import LATE_S, Faults
from monitor.simulate.images import Picture
from monitor.simulate.movies import (
    copying_anew,
    counts_per_electron,
    frames_in,
    landing,
    movie_steps,
    with_early_mdoc,
)
from monitor.simulate.script import Event, Exposure, Script, Taken
from monitor.simulate.session import Session

_DOSE = 2.2
_EXTENSIONS = {"eer": ".eer", "mrc": ".mrc"}


def frames(session: Session, kind: str) -> Script:
    """Let series of movies land: `tiff` (LZW and ZIP in turn), `tiff-4bit`, `mrc` or `eer`."""
    folder = session.folder / "frames"
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith("tiff"):
        reference = folder / "CountRef_TS_001_000_0.0.mrc"
        write_mrc(reference, session.camera.expose(0, 0.0).counts, None)
        yield Step(reference, "pixels", reference.stat().st_size, (reference,))
    for number in range(session.request.series):
        series = f"TS_{number + 1:03d}"
        angles = session.angles_deg(number)
        faults = Faults(session, number, len(angles))
        one = "tiff-zip" if kind == "tiff" and number % 2 else kind
        for order, nominal_deg in enumerate(angles):
            yield session.next_tilt()
            yield from faults.between_tilts(order)
            angle_deg = session.read_out(nominal_deg)
            path = folder / movie_name(series, order, angle_deg, kind)
            yield from _tilt(session, faults, number, series, path, one, angle_deg, order)


def movie_name(series: str, order: int, angle_deg: float, kind: str) -> str:
    """Name a movie by base, number and angle: a Falcon's number counts from 1."""
    number = f"{order + 1:05d}" if kind == "eer" else f"{order:03d}"
    return f"{series}_{number}_{angle_deg:.1f}{_EXTENSIONS.get(kind, '.tif')}"


def _tilt(
    session: Session,
    faults: Faults,
    number: int,
    series: str,
    path: Path,
    kind: str,
    angle_deg: float,
    order: int,
) -> Iterator[Event]:
    exposure, picture = session.expose(number, series, path.parent / series, angle_deg, order)
    movie = landing(faults, order, path, lambda place: movie_steps(session, kind, place, picture))
    mdoc = writing_text(
        path.with_name(path.name + ".mdoc"), mdoc_text(session, path, kind, exposure), "mdoc"
    )
    # A Falcon's movie is written by another program than its mdoc, so either may be first.
    if faults.wanted("no-mdoc"):
        yield from movie
    elif faults.wanted("reorder") or (kind == "eer" and order % 2 and not faults.late(order)):
        yield from with_early_mdoc(movie, mdoc)
    else:
        yield from movie
        if faults.late(order):
            yield session.wait(LATE_S)
        if not faults.cuts(order):
            yield from mdoc
    yield Taken(exposure, (path,), complete=not faults.cuts(order))
    if faults.overwrites(order):
        yield session.wait(2.0)
        yield from copying_anew(path, session.chunk_bytes)


def movie_with_mdoc(
    session: Session, kind: str, path: Path, exposure: Exposure, picture: Picture
) -> Iterator[Event]:
    """Write a movie beside the section of a stack that holds its sum, then its mdoc."""
    yield from movie_steps(session, kind, path, picture)
    mdoc = path.with_name(path.name + ".mdoc")
    yield from writing_text(mdoc, mdoc_text(session, path, kind, exposure), "mdoc")


def mdoc_text(session: Session, path: Path, kind: str, exposure: Exposure) -> str:
    """Give the text of the mdoc of a movie."""
    return frame_mdoc(
        path.name,
        frames_in(kind),
        exposure.angle_deg,
        exposure.acquired_at,
        session.request.pixel_size_angstrom,
        exposure_dose_e_per_A2=_DOSE,
        counts_per_electron=counts_per_electron(kind),
        prior_dose_e_per_A2=_DOSE * exposure.order,
        line_end="\r\n" if exposure.order % 2 else "\n",
    )
