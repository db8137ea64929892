"""What every way of landing offers to the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from numpy.typing import NDArray

from monitor.errors import SourceError
from monitor.model import Landed, Tilt, TiltId


class NotMine(SourceError):  # noqa: N818  a way to pass a file on, not a fault
    """Raised by a source that claimed a file by name and finds that it is of another kind."""


Known = Callable[[TiltId], bool]
"""Says whether an exposure was already read and journalled."""


class Source(Protocol):
    """One way of landing; sources are asked in a fixed order, the first that takes a file has it.

    A source keeps no state that a restart would miss: what was done is in the journal.
    """

    kind: str
    """Word for logs and counters."""

    def claims(self, relative: str) -> str | None:
        """Say which file holds the tilts that a change of `relative` announces.

        Called by the intake thread for each changed file; judged by name alone, nothing is
        opened. Returns the relative path of the file to hand to `new_tilts` (a stack for its
        mdoc, say), or None where this source has no part in the file.
        """
        ...

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        """Yield the complete exposures of a file that are not known yet, in acquisition order.

        Called by the worker thread. Raises `NotReady` where more is to come that was announced
        but is not complete (after yielding what is), `Unreadable` where waiting cannot help, and
        `NotMine`, before anything is yielded, where the next source that claims the file is to be
        asked.
        """
        ...

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        """Read one exposure: (rows, columns), native dtype, rows as stored.

        Called by the worker thread, right after `new_tilts` yielded the tilt. The file is opened
        read-only, its bytes are copied out, and it is closed again. Raises `NotReady` where the
        file changed under the reader, `Unreadable` where the pixels cannot be had.
        """
        ...
