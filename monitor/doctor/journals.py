"""Looks at the journal without opening it as the daemon does: no lock, no log, not one byte."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from monitor.doctor.facts import Facts
from monitor.doctor.finding import Finding, ok, problem, split, warning
from monitor.errors import ConfigError
from monitor.journal_damage import MARK, PUT_ASIDE, refuse_newer

LOCKS = Path("/proc/locks")
_CHECK_S = 2.0


def journal(facts: Facts) -> list[Finding]:
    """See whether the journal is ours, whole, and nobody else's; runs with the service's rights."""
    from monitor.journal_schema import SCHEMA_VERSION  # imports much, for the children alone

    directory = facts.settings.state.directory
    path = directory / "journal.sqlite3"
    found = _held(facts, directory)
    if not path.exists():
        return found or [ok("journal", "none yet: the first start makes one")]
    try:
        refuse_newer(path, SCHEMA_VERSION)
    except ConfigError as error:
        return [*found, split("journal", str(error))]
    except OSError as error:
        cause = f"'{path}' cannot be read by user {facts.who} ({error.strerror})"
        return [*found, problem("journal", cause, f"sudo chown -R {facts.who} '{directory}'")]
    if not facts.runs and not held_by(directory):
        found += _content(facts, path)
    found += _aside(directory)
    return found or [ok("journal", f"'{path}' can be used")]


def held_by(directory: Path) -> int:
    """Give the process that holds the lock of a state directory, from /proc/locks; 0: nobody."""
    try:
        stat = (directory / "lock").stat()
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return 0
    wanted = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    for line in lines:
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == wanted:
            return max(1, int(fields[4]))
    return 0


def _held(facts: Facts, directory: Path) -> list[Finding]:
    holder = held_by(directory)
    if not holder or facts.runs or str(holder) == facts.service.get("MainPID"):
        return []
    cause = f"'{directory}' is in use by another daemon (process {holder})"
    remedy = f"stop that one, or name another state.directory in {facts.config}"
    return [problem("state.directory", cause, remedy)]


def _content(facts: Facts, path: Path) -> list[Finding]:
    again = "nothing need be done: at its start icewatch puts it aside and begins a new one"
    if (path.parent / MARK).exists():
        return [warning("journal", f"'{path}' was found damaged by the last daemon", again)]
    if not path.stat().st_size:
        return [warning("journal", f"'{path}' is empty", again)]
    try:
        with _opened(path) as db:
            if db is None:
                return []
            until_s = time.monotonic() + _CHECK_S
            db.set_progress_handler(lambda: time.monotonic() > until_s, 10_000)
            row = db.execute("SELECT value FROM meta WHERE key = 'microscope'").fetchone()
            said = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return []  # it is large; what was read of it was right
        return [warning("journal", f"'{path}' is damaged ({error})", again)]
    except sqlite3.DatabaseError as error:
        return [warning("journal", f"'{path}' is damaged ({error})", again)]
    if said != "ok":
        return [warning("journal", f"'{path}' is damaged ({said[:100]})", again)]
    return _stranger(facts, path, str(row[0])) if row else []


def _stranger(facts: Facts, path: Path, owner: str) -> list[Finding]:
    if owner == facts.settings.microscope:
        return []
    cause = f"'{path}' belongs to microscope '{owner}', not '{facts.settings.microscope}'"
    remedy = f"name another state.directory, or the right microscope, in {facts.config}"
    return [problem("journal", cause, remedy)]


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Open a journal that nobody writes; None where its log holds what is not in the file yet."""
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        yield None  # to read both together SQLite would have to write beside them
        return
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        yield db


def _aside(directory: Path) -> list[Finding]:
    found = sorted(directory.glob(f"{PUT_ASIDE}*.sqlite3"))
    if not found:
        return []
    cause = f"{len(found)} damaged journals were put aside, the last one '{found[-1].name}'"
    remedy = "see to the disk (`sudo smartctl -a`, `dmesg`), then delete them"
    return [warning("journal", cause, remedy)]
