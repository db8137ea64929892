"""Remembers over restarts how often the GPU killed the daemon, so that the CPU serves in time.

A small file in the state directory holds, as its first byte, whether a call of the GPU is under way
right now. Found set at a start, the daemon died in that call: a crash of the library, a hang that
ended the process, or an answer that was not to be trusted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "engine"
DEATHS_MAX = 2
"""After so many deaths in a row the CPU serves."""
DEATHS_A_DAY_MAX = 6
"""Or after so many within a day, in a row or not."""
_DAY_S = 86400.0
REST_S = 3600.0
"""After so long on the CPU the GPU is given another chance."""
SOUND_AFTER_CALLS = 50
"""So many calls without a death make up for those before."""
_CALLING, _IDLE = b"1", b"0"
_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Record:
    deaths: int = 0
    """In a row."""
    last_death: float = 0.0
    """Seconds of the system's clock, as it must hold over restarts."""
    plan: str = ""
    """Which plan they happened with: another driver, library or bundle starts from zero."""
    recent: tuple[float, ...] = ()
    """The last deaths, in a row or not, seconds of the system's clock."""


class EngineRecord:
    """The deaths of the GPU so far; used by the worker thread, but for `died_in_call`."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        """Read the record, and count the death of the last daemon if it died in a call."""
        self._clock = clock
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file: int | None = os.open(directory / FILE, flags, 0o600)
        content = os.pread(self._file, _BYTES, 0)
        self._record = _parsed(content[1:])
        self.died_in_call = content[:1] == _CALLING
        """Whether the daemon before this one died in a call of the GPU."""
        self._calls = 0
        if self.died_in_call:
            before, now = self._record, clock()
            recent = (*before.recent, now)[-DEATHS_A_DAY_MAX:]
            self._write(_Record(before.deaths + 1, now, before.plan, recent))

    def may_serve(self, plan: str) -> bool:
        """Say whether the GPU may be tried with this plan (any word that tells it from others)."""
        record = self._record
        if plan != record.plan:
            self._write(_Record(plan=plan))
            return True
        now = self._clock()
        rested = not 0.0 <= now - record.last_death < REST_S
        today = [one for one in record.recent if 0.0 <= now - one < _DAY_S]
        return (record.deaths < DEATHS_MAX and len(today) < DEATHS_A_DAY_MAX) or rested

    @property
    def has_served(self) -> bool:
        """Whether a GPU has served here before."""
        return bool(self._record.plan)

    @property
    def deaths(self) -> int:
        """Deaths in a row."""
        return self._record.deaths

    @contextmanager
    def call(self) -> Iterator[None]:
        """Mark a call of the GPU; a failure leaves the mark, as the process is then to end.

        Where it need not end after all: `survived`.
        """
        self._mark(_CALLING)
        yield
        self._mark(_IDLE)
        self._calls += 1
        if self._calls == SOUND_AFTER_CALLS and self._record.deaths:
            self._write(_Record(plan=self._record.plan, recent=self._record.recent))

    def survived(self) -> None:
        """Take the mark of a failed call away: this failure is no reason to end."""
        self._mark(_IDLE)

    def _mark(self, flag: bytes) -> None:
        self._put(flag)  # for deaths of the process alone: no wait for the disk

    def _write(self, record: _Record) -> None:
        self._record = record
        self._put((_IDLE + json.dumps(asdict(record)).encode()).ljust(_BYTES))

    def _put(self, content: bytes) -> None:
        with suppress(OSError):  # a full disk shows at the next commit
            if self._file is not None:
                os.pwrite(self._file, content, 0)

    def close(self) -> None:
        """Close the file; the mark stays as it is."""
        if self._file is not None:
            os.close(self._file)
        self._file = None


def _parsed(text: bytes) -> _Record:
    try:
        found = json.loads(text)
        recent = tuple(float(one) for one in found.get("recent", ()))[-DEATHS_A_DAY_MAX:]
        return _Record(int(found["deaths"]), float(found["last_death"]), str(found["plan"]), recent)
    except (ValueError, TypeError, KeyError, AttributeError):
        return _Record()  # a note that was cut short says nothing
