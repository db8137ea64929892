"""Sources: from files on disk to exposures, one module for each way of landing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from monitor.errors import Unreadable
from monitor.model import Landed, Tilt
from monitor.settings import AcquisitionSettings
from monitor.sources.any_source import AnySource
from monitor.sources.at_rest import AtRest
from monitor.sources.batch_positions import BatchPositions
from monitor.sources.custom import Custom
from monitor.sources.movies import Movies
from monitor.sources.naming import is_position
from monitor.sources.plain_image import PlainImage
from monitor.sources.protocol import Known, NotMine, Source
from monitor.sources.serialem_frames import SerialEMFrames
from monitor.sources.serialem_stack import SerialEMStack
from monitor.sources.targets import Lamellae
from monitor.sources.tomography5 import FinalMdocs, Tomography5
from monitor.sources.tomography5_stack import Tomography5Stack

__all__ = ["AnySource", "Known", "NotMine", "Source", "all_sources", "tilts_on_disk"]


def all_sources(
    directory: Path,
    acquisition: AcquisitionSettings | None = None,
    *,
    pace: Callable[[int], None] = lambda piece_bytes: None,
) -> AnySource:
    """Make the sources for the ways of landing that are looked for below a directory.

    Without settings, for all of them. `pace` is called with the number of bytes before each piece
    of an image is read; it may wait.
    """
    settings = acquisition or AcquisitionSettings(directory=directory)
    movies = Movies(directory, settings.gain, pace)
    if settings.layout == "custom":
        return AnySource([Custom(movies, settings.custom)])
    of_serialem = _of_serialem(movies, settings)
    of_tomography = _of_tomography(movies)
    if settings.layout == "tomography5":
        return AnySource(of_tomography)
    if settings.layout in ("serialem", "pacetomo"):
        return AnySource(of_serialem, is_position)
    # What the extended header of a stack says decides before the mdoc that may be to come.
    stack, frames = of_serialem
    tomography_movies, tomography_stack = of_tomography
    return AnySource([tomography_stack, stack, tomography_movies, frames])


def _of_serialem(movies: Movies, settings: AcquisitionSettings) -> tuple[Source, Source]:
    lamellae = Lamellae(movies.directory, forced=settings.layout == "pacetomo")
    return (
        SerialEMStack(movies.directory, lamellae, prefer=settings.prefer, pace=movies.pace),
        SerialEMFrames(movies, lamellae, prefer=settings.prefer),
    )


def _of_tomography(movies: Movies) -> tuple[Source, Source]:
    batch = BatchPositions(movies.directory, movies.at_rest)
    final = FinalMdocs(movies.directory, movies.at_rest)
    return Tomography5(movies, batch, final), Tomography5Stack(movies, batch, final)


@lru_cache(maxsize=4)
def _of_files_at_rest(root: Path) -> tuple[Source, ...]:
    movies = Movies(root, at_rest=AtRest(at_once=True))
    tomography_movies, tomography_stack = _of_tomography(movies)
    return (
        tomography_stack,
        SerialEMStack(root),
        tomography_movies,
        SerialEMFrames(movies),
        PlainImage(root),
    )


def tilts_on_disk(root: Path, landed: Landed) -> Iterator[tuple[Tilt, Source]]:
    """Yield every exposure of a file that lies there for good, with the source of its pixels.

    `root` is the folder that `landed.relative` counts from. An image of which nothing is known
    but its pixels counts as an exposure too. Raises as `Source.new_tilts` does.
    """
    sources = _of_files_at_rest(root)
    for source in sources:
        if source.claims(landed.relative) != landed.relative:
            continue
        yielded = False
        try:
            for tilt in source.new_tilts(landed, lambda tilt_id: False):
                yielded = True
                yield tilt, source
        except NotMine:
            continue
        except Unreadable as error:
            if yielded or source is sources[-1] or error.reason not in ("no_angle", "map"):
                raise
            continue
        return
