"""Tilts that kill the daemon: which one is being read, which one was at two deaths in a row.

Before the pixels of a tilt are read its identity goes into a small file, and is taken out again
once its reading is committed. What is found there at a start was being read at a death. Once may
be chance: that tilt is tried last. After twice it is set aside until somebody asks for it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from monitor.errors import JournalError
from monitor.journal import Journal
from monitor.messages import encodable
from monitor.model import Tilt
from monitor.retry import take_requests, write_listed

logger = logging.getLogger(__name__)

DEATHS_MAX = 2
SUSPECTED_FOR_S = 3.0
"""A suspect waits this long after a start, so that all that landed meanwhile is found first."""
_NOTE_BYTES = 4096
_KEY = "deaths"


@dataclass(frozen=True, slots=True)
class Death:
    """A tilt that was being read when the daemon died, last and possibly before."""

    id: str
    path: str
    section: int
    series: str
    lamella: str
    boot_id: str
    """Of the daemon that died last: a start that dies in turn must not count it again."""
    deaths: int = 0


class SetAside:
    """Knows which tilts must wait and which are not to be read; safe to call from any thread."""

    def __init__(
        self,
        directory: Path,
        journal: Journal,
        boot_id: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        gpu_died: bool = False,
    ) -> None:
        """Count the death of the last daemon, if one died while it read a tilt.

        `gpu_died` says that it died in a call of the GPU: that is held against the GPU alone.
        """
        self._directory = directory
        self._journal = journal
        self._boot_id = boot_id
        self._clock = clock
        self._started_s = clock()
        self._lock = threading.RLock()
        rows: list[dict[str, Any]] = json.loads(journal.get(_KEY, "[]"))
        self._deaths = {row["id"]: Death(**row) for row in rows}
        self._note: int | None = os.open(
            directory / "working", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        died = self._died(os.pread(self._note, 1 << 20, 0))
        if died is not None and died.boot_id != boot_id and not gpu_died:
            self._count(died)
        self.over()
        write_listed(directory, self.listed())

    @staticmethod
    def _died(note: bytes) -> Death | None:
        line = note.partition(b"\n")[0].strip(b"\0 ")
        try:
            return Death(**json.loads(line)) if line else None
        except (ValueError, TypeError):
            return None  # a note that was cut short says nothing

    def _count(self, died: Death) -> None:
        before = self._deaths.get(died.id)
        if before is not None and before.boot_id == died.boot_id:
            return
        deaths = (before.deaths if before else 0) + 1
        # Only deaths in a row count: one in another tilt clears those before it.
        kept = {one.id: one for one in self._deaths.values() if one.deaths >= DEATHS_MAX}
        self._deaths = {**kept, died.id: replace(died, deaths=deaths)}
        self._remember()
        where = f"section {died.section} of {died.path!a}"
        if deaths >= DEATHS_MAX:
            logger.error("icewatch died %d times while it read %s: set aside", deaths, where)
        else:
            logger.warning("icewatch died while it read %s: tried again, as the last", where)

    def begin(self, tilt: Tilt) -> None:
        """Note that the pixels of a tilt are about to be read."""
        note = Death(*_names(tilt), boot_id=self._boot_id)
        self._write_note(json.dumps(asdict(note)).encode())

    def over(self) -> None:
        """Note that no tilt is being read any more."""
        self._write_note(b"")

    def survived(self, tilt: Tilt) -> None:
        """Forget that a tilt was being read at a death: this time all went well."""
        with self._lock:
            if self._deaths and self._deaths.pop(encodable(str(tilt.id)), None) is not None:
                self._remember()

    def _write_note(self, note: bytes) -> None:
        """Write without waiting for the disk: this is for deaths of the process alone."""
        with self._lock, suppress(OSError):  # a full disk shows at the next commit
            if self._note is not None:
                os.pwrite(self._note, (note + b"\n").ljust(_NOTE_BYTES, b"\0"), 0)

    def is_set_aside(self, tilt: Tilt) -> bool:
        """Whether a tilt is not to be read until somebody asks for it."""
        with self._lock:
            found = self._deaths.get(encodable(str(tilt.id)))
            return found is not None and found.deaths >= DEATHS_MAX

    def is_suspect(self, tilt: Tilt) -> bool:
        """Whether a tilt was being read at the last death: all others come before it."""
        with self._lock:
            return encodable(str(tilt.id)) in self._deaths

    @property
    def suspects_may_be_tried(self) -> bool:
        """Whether the daemon runs long enough to have found all that comes before suspects."""
        return self._clock() - self._started_s >= SUSPECTED_FOR_S

    def listed(self) -> list[dict[str, Any]]:
        """Tell which tilts are set aside, and why."""
        with self._lock:
            found = [one for one in self._deaths.values() if one.deaths >= DEATHS_MAX]
        return [
            {
                "id": one.id,
                "path": encodable(one.path),
                "section": one.section,
                "series": one.series,
                "lamella": one.lamella,
                "reason": f"icewatch died {one.deaths} times in a row while it read this tilt; "
                "`icewatch retry` asks for it again",
            }
            for one in found
        ]

    def take_requests(self) -> list[str]:
        """Give tilts free that somebody asked for; returns the files to be looked at again."""
        asked = take_requests(self._directory)
        if not asked:
            return []
        with self._lock:
            freed = [one for one in self._deaths.values() if one.id in asked]
            for one in freed:
                del self._deaths[one.id]
                logger.info("section %d of %s is tried again", one.section, ascii(one.path))
            if freed:
                self._remember()
        return list(dict.fromkeys(one.path for one in freed))

    def _remember(self) -> None:
        try:
            rows = [asdict(one) for one in self._deaths.values()]
            self._journal.set(_KEY, json.dumps(rows))
        except JournalError as error:
            logger.warning("which tilts are set aside is not kept: %s", error)
        write_listed(self._directory, self.listed())

    def close(self, *, orderly: bool) -> None:
        """Let go of the note; an orderly stop in the middle of a tilt is no death."""
        if orderly:
            self.over()
        with self._lock:
            note, self._note = self._note, None
        if note is not None:
            os.close(note)


def _names(tilt: Tilt) -> tuple[str, str, int, str, str]:
    return (
        encodable(str(tilt.id)),
        tilt.path,
        tilt.section,
        encodable(tilt.series),
        encodable(tilt.lamella),
    )
