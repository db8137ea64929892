"""Keeps what the daemon stores within its limits: the oldest goes first, never what still runs.

Old sessions in the journal, overlays, engine plans and journals that were put aside share one
budget (`state.max_size_gb`) and one limit of age (`state.keep_days`). Each removal is logged and
counted.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engines.plans.folder import RECORD
from monitor.errors import JournalError
from monitor.journal import Journal
from monitor.journal_damage import PUT_ASIDE
from monitor.settings import StateSettings

logger = logging.getLogger(__name__)

FIRST_SWEEP_S, SWEEP_EVERY_S = 60.0, 600.0
KINDS = ("overlays", "engines", "damaged_journals", "journal")
_DAY_S = 86_400.0
_CLOCK = "retention_clock"
_STRANGE_STOP_S, _STRANGE_JUMP_S = 7 * _DAY_S, 3600.0
"""A clock that is so far from where it was expected may be wrong, and ages with it."""
_REST_S = _DAY_S
"""For so long nothing is removed for its age then: time enough to set the clock right."""
_SAME_BUILD_S = 3600.0
"""Plans that are put down within this time of the newest belong together, and serve."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that could be removed."""

    kind: str
    changed_s: float
    """Seconds since 1970."""
    size_bytes: int
    remove: Callable[[], object]
    runs: bool = False
    """Whether it belongs to what runs now, and must stay."""
    name: str = ""


class Retention:
    """Removes what is too old or too much; used by one thread, but for `change`."""

    def __init__(
        self,
        journal: Journal,
        settings: StateSettings,
        removed: Callable[[str, int, int], None] = lambda kind, count, size: None,
        used: Callable[[str, int], None] = lambda kind, size: None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the journal and the limits.

        `removed` hears of kind, number and bytes; `used` of what each kind takes.
        """
        self._journal = journal
        self._settings = settings
        self._removed = removed
        self._used = used
        self._now = now
        self._clock = clock
        self._rests_until_s = float("-inf")
        self._seen: tuple[float, float] | None = None
        """Both clocks at the last sweep."""
        self._said_too_much = False

    def change(self, settings: StateSettings) -> None:
        """Keep to other limits from the next sweep on."""
        self._settings = settings

    def run(self, stop: threading.Event) -> None:
        """Sweep from time to time (the thread's body)."""
        wait_s = FIRST_SWEEP_S
        while not stop.wait(wait_s):
            wait_s = SWEEP_EVERY_S
            try:
                self.sweep()
            except (JournalError, OSError) as error:
                logger.warning("what is old could not be removed: %s", error)

    def sweep(self) -> None:
        """Look at everything that is kept, and remove what is beyond the limits."""
        settings = self._settings
        kept = sorted(self._all(), key=lambda one: one.changed_s)
        if self._ages_are_sure():
            limit_s = self._now() - settings.keep_days * _DAY_S
            old = [one for one in kept if not one.runs and one.changed_s < limit_s]
            why = f"older than state.keep_days = {settings.keep_days:g}"
            self._remove(old, why)
            gone = set(map(id, old))
            kept = [one for one in kept if id(one) not in gone]
        self._shrink(kept, settings)

    def _shrink(self, kept: list[Kept], settings: StateSettings) -> None:
        total = sum(one.size_bytes for one in kept)
        excess = total - int(settings.max_size_gb * 1e9)
        surplus: list[Kept] = []
        for one in kept:
            if excess <= 0:
                break
            if not one.runs:
                surplus.append(one)
                excess -= one.size_bytes
        self._remove(surplus, f"more than state.max_size_gb = {settings.max_size_gb:g}")
        if excess > 0 and not self._said_too_much:
            logger.warning(
                "what must stay, the running session above all, takes %.1f GB, more than "
                "state.max_size_gb = %g; raise it, or free space by hand",
                (excess + settings.max_size_gb * 1e9) / 1e9,
                settings.max_size_gb,
            )
        self._said_too_much = excess > 0
        gone = set(map(id, surplus))
        for kind in KINDS:
            mine = (one for one in kept if one.kind == kind and id(one) not in gone)
            self._used(kind, sum(one.size_bytes for one in mine))

    def _remove(self, items: list[Kept], why: str) -> None:
        for kind in KINDS:
            mine = [one for one in items if one.kind == kind]
            done = [one for one in mine if _removed(one)]
            if not done:
                continue
            size = sum(one.size_bytes for one in done)
            self._removed(kind, len(done), size)
            logger.info(
                "removed %s: %s, %.1f MB, last changed %s to %s: %s",
                kind.replace("_", " "),
                _named(done),
                size / 1e6,
                _date(done[0].changed_s),
                _date(done[-1].changed_s),
                why,
            )

    def _ages_are_sure(self) -> bool:
        """Whether the clock can be trusted: one that jumped must not make everything old."""
        now_s, clock_s = self._now(), self._clock()
        if self._seen is None:
            noted = self._journal.get(_CLOCK, "")
            strange = noted != "" and abs(now_s - float(noted)) > _STRANGE_STOP_S
        else:
            drift_s = (now_s - self._seen[0]) - (clock_s - self._seen[1])
            strange = abs(drift_s) > _STRANGE_JUMP_S
        self._seen = (now_s, clock_s)
        if strange:
            self._rests_until_s = clock_s + _REST_S
            logger.warning(
                "the clock jumped, or icewatch was off for long: for a day nothing is removed for "
                "its age"
            )
        if clock_s < self._rests_until_s:
            return False
        self._journal.set(_CLOCK, f"{now_s:.0f}")
        return True

    def _all(self) -> Iterator[Kept]:
        state = self._journal.path.parent
        yield from self._sessions()
        yield from self._overlays(state / "overlays")
        yield from _plans(state / "engines")
        yield from _damaged(state)

    def _sessions(self) -> Iterator[Kept]:
        found = self._journal.sessions()
        tilts = sum(one.tilts for one in found) or 1
        size = self._journal.used_bytes()
        running = self._journal.running_session()
        for one in found:
            share = size * one.tilts // tilts
            forget = partial(self._journal.forget, one.name)
            runs = one.name == running
            yield Kept("journal", one.newest_s, share, forget, runs, one.name)

    def _overlays(self, directory: Path) -> Iterator[Kept]:
        running = self._journal.running_session()
        began_s = next(
            (one.oldest_s for one in self._journal.sessions() if one.name == running), 0.0
        )
        for folder, _, names in os.walk(directory):
            is_running = Path(folder).relative_to(directory).parts[:1] == (running,)
            for name in names:
                path = Path(folder, name)
                stat = _stat(path)
                if stat is not None:
                    runs = is_running or (stat.st_mtime >= began_s and bool(running))
                    remove = partial(path.unlink, missing_ok=True)
                    yield Kept("overlays", stat.st_mtime, stat.st_size, remove, runs)


def _plans(directory: Path) -> Iterator[Kept]:
    """Give plans and timings, each with its record; those of the newest build serve."""
    files = {path: stat for path in _files(directory) if (stat := _stat(path)) is not None}
    plans = {path: stat for path, stat in files.items() if path.suffix in (".plan", ".timings")}
    newest_s = max((stat.st_mtime for stat in plans.values()), default=0.0)
    for path, stat in plans.items():
        record = path.with_name(path.name + RECORD)
        remove = partial(_unlink, (record, path))  # without its record a plan is nothing
        runs = stat.st_mtime > newest_s - _SAME_BUILD_S
        yield Kept("engines", stat.st_mtime, stat.st_size, remove, runs, path.name)


def _damaged(state: Path) -> Iterator[Kept]:
    for path in _files(state):
        if path.name.startswith(PUT_ASIDE):
            stat = _stat(path)
            if stat is not None:
                remove = partial(path.unlink, missing_ok=True)
                yield Kept("damaged_journals", stat.st_mtime, stat.st_size, remove, name=path.name)


def _files(directory: Path) -> Iterable[Path]:
    try:
        return [path for path in directory.iterdir() if path.is_file()]
    except OSError:
        return []


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat(follow_symlinks=False)
    except OSError:
        return None


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _removed(one: Kept) -> bool:
    try:
        one.remove()
    except OSError as error:
        logger.warning("%s %s cannot be removed (%s)", one.kind, one.name, error.strerror)
        return False
    return True


def _named(items: list[Kept]) -> str:
    names = [one.name for one in items if one.name]
    if len(names) != len(items) or len(names) > 3:
        return f"{len(items)} of them"
    return ", ".join(ascii(name) for name in names)


def _date(at_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(max(0.0, at_s)))
