"""All ways of landing as one source, so that nothing else needs to know how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from monitor.errors import Unreadable
from monitor.model import Landed, Tilt
from monitor.sources.protocol import Known, NotMine, Source


class AnySource:
    """Asks each source in turn; the first that takes a file has it."""

    kind = "any"

    def __init__(
        self, sources: Sequence[Source], leaves_out: Callable[[str], bool] = lambda relative: False
    ) -> None:
        """Take the sources in the order in which they are asked, and what none of them is to have.

        `leaves_out` judges by name, as `claims` does.
        """
        self._sources = tuple(sources)
        self._leaves_out = leaves_out
        self._yielding: Source | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources in the order in which they are asked."""
        return self._sources

    def claims(self, relative: str) -> str | None:
        if self._leaves_out(relative):
            return None
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
