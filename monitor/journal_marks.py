"""The two small files beside the journal: who holds it, and up to where all was surely sent."""

from __future__ import annotations

import fcntl
import os
from collections import deque
from contextlib import suppress
from pathlib import Path

from monitor.errors import JournalError

UNSURE_S = 10.0
"""A message that was committed this long before a death may not have reached every subscriber."""
_LINE_BYTES = 21


def hold_alone(directory: Path) -> int:
    """Lock the state directory for this process; the kernel lets go of it at any death."""
    held = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise JournalError(
            f"state.directory '{directory}' is in use by another icewatch; stop that one, or name "
            "another directory"
        ) from error
    return held


class Alive:
    """Keeps in a file which seq was committed at least `UNSURE_S` before the daemon last lived.

    And, in a second line, the newest of all: where the journal is lost, counting goes on from it.

    By the monotonic clock alone: a wall clock that jumps must not hide what was not sent.
    """

    def __init__(self, path: Path) -> None:
        """Take up what the last daemon left."""
        self._path = path
        self._marks: deque[tuple[float, int]] = deque()

    def sent_up_to(self) -> int | None:
        """Give the seq up to which all was sent for sure; None where no daemon noted it."""
        return self._line(0)

    def newest(self) -> int | None:
        """Give the newest seq that was noted; None where none is known."""
        found = [one for one in (self._line(0), self._line(1)) if one is not None]
        return max(found, default=None)

    def _line(self, number: int) -> int | None:
        try:
            at = number * _LINE_BYTES
            return int(self._path.read_bytes()[at : at + _LINE_BYTES])
        except (OSError, ValueError):
            return None

    def all_sent(self, seq: int) -> None:
        """Note that there is nothing up to a seq that was not sent."""
        self._write(seq, 0)

    def committed(self, seq: int) -> None:
        """Note the newest seq, so that it is known even where the journal is lost."""
        self._write(seq, _LINE_BYTES)

    def mark(self, now_s: float, newest_seq: int) -> None:
        """Note that the daemon lives, and what was committed so far."""
        self._marks.append((now_s, newest_seq))
        while len(self._marks) > 1 and self._marks[1][0] <= now_s - UNSURE_S:
            self._marks.popleft()
        since_s, seq = self._marks[0]
        if since_s <= now_s - UNSURE_S:
            self._write(seq, 0)

    def _write(self, seq: int, at: int) -> None:
        # A full or read-only disk shows at the next commit, with its sentence.
        with suppress(OSError):
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.pwrite(file, b"%020d\n" % seq, at)  # over the old one: never half of it
            finally:
                os.close(file)
