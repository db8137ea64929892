"""What a daemon journalled of a session; the journal is only read, whoever writes it meanwhile."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from monitor.annotate.candidates import Candidate
from monitor.errors import ConfigError, JournalError
from monitor.journal_records import reading_from, tilt_from
from monitor.messages import encodable

JOURNAL = "journal.sqlite3"
_LOG = "-wal"
_TRIES = 5
_SHOWN = 5
Journalled = list[tuple[str, str]]
"""Tilt and reading as they were written."""


def candidates_of_session(state: Path, acquisition: Path, session: str | None) -> list[Candidate]:
    """Give the tilts of a session, the newest without a name, in the order of their arrival.

    Raises `ConfigError` where there is no such journal or session, `JournalError` where it cannot
    be read.
    """
    found = []
    for tilt_text, reading_text in _journalled(state / JOURNAL, session):
        try:
            tilt, reading = tilt_from(tilt_text), reading_from(reading_text)
        except (ValueError, TypeError, KeyError) as error:
            raise JournalError(
                f"journal '{state / JOURNAL}' holds a tilt that cannot be read; use the icewatch "
                "that wrote it"
            ) from error
        found.append(Candidate(tilt, reading, acquisition, tilt.path))
    return found


def _journalled(path: Path, session: str | None) -> Journalled:
    if not path.is_file():
        raise ConfigError(
            f"'{path.parent}' holds no journal; name the state.directory of a daemon that ran"
        )
    try:
        with tempfile.TemporaryDirectory(prefix="icewatch-journal-") as folder:
            copy = _copied(path, Path(folder))
            with closing(sqlite3.connect(copy)) as db:
                return _tilts_of(db, path, session)
    except sqlite3.Error as error:
        raise JournalError(f"journal '{path}' cannot be read ({error})") from error
    except OSError as error:
        raise JournalError(
            f"journal '{path}' cannot be copied to be read ({error.strerror}); see that you may "
            f"read it, and that '{tempfile.gettempdir()}' has room"
        ) from error


def _tilts_of(db: sqlite3.Connection, path: Path, session: str | None) -> Journalled:
    newest_first = "SELECT session FROM tilts GROUP BY session ORDER BY max(number) DESC"
    sessions = [row[0] for row in db.execute(newest_first)]
    if not sessions:
        raise ConfigError(f"journal '{path}' holds no tilt yet; wait until some were measured")
    wanted = sessions[0] if session is None else encodable(session)
    if wanted not in sessions:
        raise ConfigError(
            f"--session {session}: is not in journal '{path}'; its newest are {_listed(sessions)}"
        )
    query = "SELECT tilt, reading FROM tilts WHERE session = ? ORDER BY number"
    return db.execute(query, (wanted,)).fetchall()


def _listed(sessions: Sequence[str]) -> str:
    return ", ".join(f"'{one}'" for one in sessions[:_SHOWN])


def _copied(path: Path, folder: Path) -> Path:
    """Copy a journal and its log as of one moment, without a lock that its daemon would meet.

    The daemon only ever adds to the log, until it moves what is there into the journal: where that
    happened in the meantime, both are copied again. A last entry that is not whole yet is passed
    over by SQLite.
    """
    copy = folder / JOURNAL
    log = path.with_name(path.name + _LOG)
    for _ in range(_TRIES):
        before = _moment(path, log)
        shutil.copyfile(path, copy)
        copied_log = copy.with_name(copy.name + _LOG)
        copied_log.unlink(missing_ok=True)
        try:
            shutil.copyfile(log, copied_log)
        except FileNotFoundError:
            pass  # a daemon that ended well left none
        if _moment(path, log) == before:
            return copy
    raise JournalError(f"journal '{path}' is being rewritten all the time; try again")


def _moment(path: Path, log: Path) -> tuple[object, ...]:
    """What changes whenever the log is moved into the journal or begun anew."""
    stat = path.stat()
    try:
        with log.open("rb") as file:
            head = file.read(32)
    except FileNotFoundError:
        head = b""
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, head)
