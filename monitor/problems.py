"""What went wrong with which file: one log line for each, and a short list for `status`."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from monitor.errors import NotReady
from monitor.model import FileStat, Landed

logger = logging.getLogger(__name__)

INCOMPLETE_AFTER_S = 60.0
"""A file that was announced but is still not complete after this long is named."""
_KEPT = 50
_FAILING = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENODEV,
        errno.ENXIO,
        errno.EREMOTEIO,
    }
)
"""What a file system says when it is not one file that is at fault."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that gave no tilt, and why."""

    path: str
    sentence: str
    reason: str


class Problems:
    """Collects problems from the worker; the intake, the heartbeat and `status` share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Problem] = OrderedDict()
        self._waiting: dict[str, tuple[FileStat, float]] = {}
        self._told: set[tuple[str, int, str]] = set()
        self._unread: dict[str, str] = {}
        """Files that the file system failed to give since it last gave any, with the sentence."""
        self._bad: set[str] = set()
        """Files that it fails to give while it gives others: no fault of the whole share."""
        self.journal_error = ""
        """Why nothing can be committed now; empty while the journal works."""

    def refused(self, landed: Landed, sentence: str, reason: str = "refused") -> bool:
        """Note a file that cannot be read; False if this very state of it was told before."""
        with self._lock:
            self._open[landed.relative] = Problem(landed.relative, sentence, reason)
            self._open.move_to_end(landed.relative)
            while len(self._open) > _KEPT:
                self._open.popitem(last=False)
            key = (landed.relative, landed.stat.mtime_ns, sentence)
            if key in self._told:
                return False
            if len(self._told) > 10_000:
                self._told.clear()
            self._told.add(key)
        logger.warning("%s: %s", ascii(landed.relative), sentence)
        return True

    def waiting(self, landed: Landed, error: NotReady) -> bool:
        """Note a file that is not complete yet; True once it has been so for too long."""
        with self._lock:
            stat, since_s = self._waiting.get(landed.relative, (None, 0.0))
            if stat != landed.stat:
                self._waiting[landed.relative] = (landed.stat, time.monotonic())
                return False
        if time.monotonic() - since_s < INCOMPLETE_AFTER_S:
            return False
        return self.refused(landed, str(error), "incomplete")

    def solved(self, relative: str) -> None:
        """Forget a file that could be read after all, or is no longer there (any thread)."""
        with self._lock:
            self._waiting.pop(relative, None)
            self._open.pop(relative, None)
            self._unread.pop(relative, None)
            self._bad.discard(relative)

    def unread(self, landed: Landed, error: Exception) -> None:
        """Note that a file cannot be read now: perhaps the file system fails altogether."""
        with self._lock:
            if landed.relative not in self._bad and _is_failing_disk(error):
                self._unread[landed.relative] = str(error)

    def was_read(self, relative: str) -> None:
        """Note that a file could be read, so that the file system works."""
        with self._lock:
            self._bad.discard(relative)
            if self._unread:
                self._bad |= self._unread.keys() - {relative}
                self._unread.clear()

    @property
    def share_error(self) -> str:
        """Why nothing can be read now; empty while reading works."""
        with self._lock:
            return next(iter(self._unread.values()), "")

    def journal_failed(self, sentence: str) -> None:
        """Note that nothing can be committed; said once until it works again."""
        if not self.journal_error:
            logger.error("%s", sentence)
        self.journal_error = sentence

    def journal_works(self) -> None:
        """Note that commits work."""
        if self.journal_error:
            logger.info("the journal works again")
        self.journal_error = ""

    def open(self) -> list[Problem]:
        """Give the problems that stand, newest last."""
        with self._lock:
            return list(self._open.values())


def _is_failing_disk(error: BaseException | None) -> bool:
    """Whether an error goes back to a file system that does not work, at any depth."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno in _FAILING
        error = error.__cause__
    return False
