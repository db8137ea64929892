"""How long to wait for what: the rules that all sources share on when a file is complete."""

from __future__ import annotations

from engines.errors import PixelsError
from monitor.errors import NotReady, SourceError, Unreadable
from monitor.model import Landed, TiltId

WAIT_FOR_MDOC_S = 5.5
"""A movie this long without its mdoc is read by its name alone.

With a scan every 2 s that is at most 8 s after the movie was last written to, also where no
events come.
"""
GIVE_UP_AFTER_S = 15.0
"""A file this long without a change is not being written to any more.

SerialEM writes pixels, header and mdoc of a tilt within a second or two of each other; only
between tilts it is silent for long, and then nothing is missing.
"""
LASTING_S = 60.0
"""An exposure that could be listed but not read for this long is behind a bad spot of a disk.

A share that is gone cannot be listed either, so no outage is taken for that.
"""
WAIT_OUT = frozenset({"missing", "unreadable", "changed"})
"""Reasons that say nothing on the file itself: it is tried again for as long as it takes."""
_OF_NO_USE = frozenset({"mode", "bomb"})
_DAMAGED = frozenset({"decode", "gain"})


def settled(landed: Landed) -> bool:
    """Whether a file has not changed for so long that no more of it is to be expected."""
    return landed.quiet_s >= GIVE_UP_AFTER_S


def not_yet(landed: Landed, sentence: str, reason: str) -> SourceError:
    """Make the error for something that is missing: to wait for it, or that it will not come."""
    return (Unreadable if settled(landed) else NotReady)(sentence, reason)


def while_listing(landed: Landed, error: PixelsError) -> SourceError:
    """Say what a reader's error means for a file that may still be written to."""
    if error.reason in WAIT_OUT:
        return NotReady(str(error), error.reason)
    return not_yet(landed, str(error), error.reason)


def while_reading(error: PixelsError, *, is_settled: bool = True) -> SourceError:
    """Say what a reader's error means for an exposure that was found complete before.

    Pixels of a kind that cannot be read will not come otherwise, nor will damaged ones once
    nobody writes any more. All else can only mean that somebody writes to the file again, so it
    is looked at anew.
    """
    final = error.reason in _OF_NO_USE or (is_settled and error.reason in _DAMAGED)
    return (Unreadable if final else NotReady)(str(error), error.reason)


class ReadingFailures:
    """Remembers since when exposures cannot be read, so that none holds back others for ever.

    A restart forgets it, and waits once more.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._is_settled = True
        self._since_s: dict[TiltId, float] = {}

    def listing(self, landed: Landed) -> None:
        """Note when the exposures that are read next are listed."""
        self._now_s = landed.changed_s + landed.quiet_s
        self._is_settled = settled(landed)

    def error_for(self, tilt_id: TiltId, error: PixelsError) -> SourceError:
        """Say what a reader's error means for an exposure: as `while_reading`, up to a limit."""
        if error.reason in ("changed", "missing") or error.reason in _OF_NO_USE | _DAMAGED:
            return while_reading(error, is_settled=self._is_settled)
        since_s = self._since_s.setdefault(tilt_id, self._now_s)
        if self._now_s - since_s < LASTING_S:
            return NotReady(str(error), error.reason)
        self.over(tilt_id)
        return Unreadable(str(error), error.reason)

    def over(self, tilt_id: TiltId) -> None:
        """Forget an exposure that was read, or given up."""
        self._since_s.pop(tilt_id, None)
