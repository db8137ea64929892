"""Which of the tilts that a source lists are read, and when: each exposure once, killers last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from monitor.journal import Journal
from monitor.model import Landed, Tilt
from monitor.set_aside import SetAside
from monitor.twins import is_twin

Admitted = Literal["now", "later", "never"]


class Admission:
    """Asks the journal and the list of suspects before the pixels of a tilt are read."""

    def __init__(
        self, journal: Journal, set_aside: SetAside | None, waiting: Callable[[], int]
    ) -> None:
        """Take both, and what tells how many files wait."""
        self._journal = journal
        self._set_aside = set_aside
        self._waiting = waiting
        self._suspects_alone: set[str] = set()
        """Files of which only tilts are left that were being read at a death."""

    def of(self, tilt: Tilt, landed: Landed) -> Admitted:
        """Say whether a tilt is read now, once nothing else is left to do, or not at all."""
        if self._came_before(tilt):
            return "never"
        if self._set_aside is None or not self._set_aside.is_suspect(tilt):
            return "now"
        if self._set_aside.is_set_aside(tilt):
            return "never"
        alone = landed.relative in self._suspects_alone and not self._waiting()
        return "now" if alone and self._set_aside.suspects_may_be_tried else "later"

    def listed(self, landed: Landed, *, only_later: bool) -> None:
        """Note that all tilts of a file were listed, and whether only suspects are left of it."""
        if only_later:
            self._suspects_alone.add(landed.relative)
        else:
            self._suspects_alone.discard(landed.relative)

    def _came_before(self, tilt: Tilt) -> bool:
        """Whether this exposure was read before, under another name or in its other form."""
        if self._journal.knows(tilt.id):
            return True
        earlier = self._journal.tilts_of_movie(tilt.movie) if tilt.movie else []
        twin = next((one for one in earlier if is_twin(tilt, one)), None)
        if twin is not None:
            self._journal.came_again(twin, tilt)
        return twin is not None
