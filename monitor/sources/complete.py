"""How long to wait for what: the rules that all sources share on when a file is complete."""

from __future__ import annotations

from engines.errors import PixelsError
from monitor.errors import NotReady, SourceError, Unreadable
from monitor.model import Landed

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
_WAIT_OUT = frozenset({"missing", "unreadable", "changed"})
"""Reasons that say nothing on the file itself: it is tried again for as long as it takes."""


def settled(landed: Landed) -> bool:
    """Whether a file has not changed for so long that no more of it is to be expected."""
    return landed.quiet_s >= GIVE_UP_AFTER_S


def not_yet(landed: Landed, sentence: str, reason: str) -> SourceError:
    """Make the error for something that is missing: to wait for it, or that it will not come."""
    return (Unreadable if settled(landed) else NotReady)(sentence, reason)


def while_listing(landed: Landed, error: PixelsError) -> SourceError:
    """Say what a reader's error means for a file that may still be written to."""
    if error.reason in _WAIT_OUT:
        return NotReady(str(error), error.reason)
    return not_yet(landed, str(error), error.reason)


def while_reading(error: PixelsError) -> SourceError:
    """Say what a reader's error means for an exposure that was found complete before.

    It can only mean that somebody writes to the file again, so it is looked at anew.
    """
    return NotReady(str(error), error.reason)
