"""A worker with a memory instead of a journal."""

from __future__ import annotations

from pathlib import Path

from monitor.errors import SourceError
from monitor.model import Tilt, TiltId
from monitor.sources import Source
from tests.landings import landed

SEEN_TWICE_S = 2.0


class Reader:
    """Reads files with a source, and remembers tilts under all of their identities."""

    def __init__(self, root: Path, source: Source) -> None:
        self.root = root
        self.source = source
        self.seen: list[Tilt] = []
        self.known: set[TiltId] = set()

    def read(self, relative: str, quiet_s: float = SEEN_TWICE_S) -> SourceError | None:
        """Offer a file that has not changed for so long; gives what the source raised."""
        try:
            offer = landed(self.root, relative, quiet_s)
            for tilt in self.source.new_tilts(offer, self.known.__contains__):
                self.seen.append(tilt)
                self.known |= {tilt.id, *tilt.aliases}
        except SourceError as error:
            return error
        return None
