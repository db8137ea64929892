"""Movies of every kind, and the ways in which one comes to lie where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy import int32
from numpy.typing import NDArray

from engines.microscope_eer import eer_movie_steps, split_into_electrons
from engines.microscope_frames import mrc_movie_steps, tiff_movie_steps
from engines.microscope_step import Step, renaming
from monitor.simulate.faults import Faults, rsync_name
from monitor.simulate.images import COUNTS_PER_ELECTRON, Picture
from monitor.simulate.script import Event
from monitor.simulate.session import Session

FRAMES = 8
EER_FRAMES = 24
_MDOC_AFTER_WRITES = 3
_MOST_ELECTRONS = 5.0
"""For each pixel, in the mean."""


def frames_in(kind: str) -> int:
    """Say how many frames a movie of a kind has: `tiff`, `tiff-zip`, `tiff-4bit`, `mrc`, `eer`."""
    return EER_FRAMES if kind == "eer" else FRAMES


def counts_per_electron(kind: str) -> float:
    """Say how many counts an electron makes in a movie of a kind."""
    return COUNTS_PER_ELECTRON if kind == "mrc" else 1.0


def movie_steps(session: Session, kind: str, path: Path, picture: Picture) -> Iterator[Step]:
    """Write one exposure as a movie."""
    pixel, number, random = session.request.pixel_size_angstrom, frames_in(kind), session.random
    if kind == "eer":
        hits = split_into_electrons(_fewer(session, picture), number, random)
        return eer_movie_steps(path, hits, pixel)
    if kind == "mrc":
        frames = _shared_out(picture.counts, number, random)
        return mrc_movie_steps(path, frames, pixel, number, chunk_bytes=session.chunk_bytes)
    if kind == "tiff-4bit":
        frames = _shared_out(_fewer(session, picture), number, random)
        return tiff_movie_steps(path, frames, pixel, bits=4)
    most = 255 * number
    frames = _shared_out(np.minimum(picture.electrons, most), number, random)
    zipped = kind == "tiff-zip"
    return tiff_movie_steps(path, frames, pixel, compression="zip" if zipped else "lzw")


def _shared_out(
    counts: NDArray[Any], frames: int, generator: np.random.Generator
) -> Iterator[NDArray[Any]]:
    """Share counts out over frames that add up to them; which gets the next one is random."""
    phase = generator.integers(0, frames, counts.shape, np.int32)
    before = np.zeros_like(phase)
    for frame in range(1, frames + 1):
        now = (counts.astype(int32) * frame + phase) // frames
        yield (now - before).astype(counts.dtype)
        before = now


def _fewer(session: Session, picture: Picture) -> NDArray[int32]:
    """Leave out electrons of coarse pixels, where so many come that none could be counted."""
    share = _MOST_ELECTRONS / max(float(picture.electrons.mean()), 1e-6)
    if share >= 1.0:
        return picture.electrons
    return session.random.binomial(picture.electrons, share).astype(int32)


def landing(
    faults: Faults, order: int, path: Path, write: Callable[[Path], Iterator[Step]]
) -> Iterator[Event]:
    """Let a movie land by its own name, or as rsync lets it: whole, or as a fault has it."""
    hidden = faults.wanted("rsync")
    yield from faults.during(order, _generated(write(rsync_name(path) if hidden else path)))
    if hidden and not faults.cuts(order):
        yield renaming(rsync_name(path), path)


def _generated(steps: Iterator[Step]) -> Generator[Step]:
    yield from steps


def with_early_mdoc(movie: Iterator[Event], mdoc: Iterator[Step]) -> Iterator[Event]:
    """Write an mdoc while its movie is still being written."""
    for number, event in enumerate(movie):
        yield event
        if number == _MDOC_AFTER_WRITES:
            yield from mdoc


def copying_anew(path: Path, chunk_bytes: int) -> Iterator[Step]:
    """Put a copy in the place of a file, as a copier does that starts again."""
    copy = rsync_name(path)
    with path.open("rb") as source, copy.open("wb", buffering=0) as target:
        while piece := source.read(chunk_bytes):
            target.write(piece)
            yield Step(copy, "pixels", len(piece))
    yield renaming(copy, path)
