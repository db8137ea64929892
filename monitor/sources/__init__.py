"""Sources: from files on disk to exposures, one module for each way of landing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from monitor.errors import Unreadable
from monitor.model import Landed, Tilt
from monitor.sources.plain_image import PlainImage
from monitor.sources.protocol import Known, NotMine, Source
from monitor.sources.serialem_stack import SerialEMStack
from monitor.sources.single_movie import SingleMovie

__all__ = ["AnySource", "Known", "NotMine", "Source", "all_sources", "tilts_on_disk"]


def all_sources(directory: Path) -> AnySource:
    """Make the sources for all ways of landing below an acquisition directory."""
    return AnySource([SerialEMStack(directory), SingleMovie(directory)])


class AnySource:
    """Asks each source in turn; itself a source, so nothing else needs to know how many."""

    kind = "any"

    def __init__(self, sources: Sequence[Source]) -> None:
        """Take the sources in the order in which they are asked."""
        self._sources = tuple(sources)
        self._yielding: Source | None = None

    def claims(self, relative: str) -> str | None:
        for source in self._sources:
            target = source.claims(relative)
            if target is not None:
                return target
        return None

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        refusal: NotMine | None = None
        for source in self._sources:
            if source.claims(landed.relative) != landed.relative:
                continue
            self._yielding = source
            try:
                yield from source.new_tilts(landed, known)
            except NotMine as error:
                refusal = error
                continue
            return
        if refusal is not None:
            raise Unreadable(str(refusal), refusal.reason)

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        if self._yielding is None:
            raise Unreadable(f"{tilt.path!r} was not listed by any source", "unlisted")
        return self._yielding.pixels(tilt)


def tilts_on_disk(root: Path, landed: Landed) -> Iterator[tuple[Tilt, Source]]:
    """Yield every exposure of a file that lies there for good, with the source of its pixels.

    `root` is the folder that `landed.relative` counts from. An image of which nothing is known
    but its pixels counts as an exposure too. Raises as `Source.new_tilts` does.
    """
    last: Source = PlainImage(root)
    for source in (SerialEMStack(root), SingleMovie(root), last):
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
            if yielded or source is last or error.reason not in ("no_angle", "map"):
                raise
            continue
        return
