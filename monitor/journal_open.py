"""Opens a journal: refuses what is not ours, puts aside what is damaged, brings up the rest."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import JournalError
from monitor.journal_damage import (
    DamagedError,
    ForeignJournalError,
    check_whole,
    is_damage,
    is_marked,
    newer,
    put_aside,
    refuse_newer,
    seq_after,
)
from monitor.journal_schema import SCHEMA_VERSION, bring_up_to_date

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A journal that can be used."""

    db: sqlite3.Connection
    floor: int
    """No message has a seq up to this one but those that lie here."""
    aside: Path | None
    """Where the journal lies that was found damaged; None where none was."""


def open_journal(path: Path, microscope: str, noted_seq: int | None) -> Opened:
    """Open or create a journal; one that is damaged is put aside, and a new one begun.

    `noted_seq` is the newest seq that is known from elsewhere. Raises `JournalError`.
    """
    try:
        refuse_newer(path, SCHEMA_VERSION)
        if is_marked(path.parent):
            raise DamagedError(f"journal '{path}' was found damaged")
        return _connected(path, microscope, _seq_if_new(path, noted_seq), None)
    except DamagedError as error:
        damage = str(error)
    except (sqlite3.Error, OSError) as error:
        raise _cannot_open(path, error) from error
    try:
        aside = put_aside(path, damage)
        return _connected(path, microscope, seq_after(aside, noted_seq), aside)
    except (sqlite3.Error, OSError) as error:
        raise _cannot_open(path, error) from error


def _seq_if_new(path: Path, noted_seq: int | None) -> int:
    """Give from where a journal counts that has to be begun; what was sent is not sent again."""
    if not noted_seq or (path.exists() and path.stat().st_size):
        return 0
    logger.error(
        "the journal is gone: '%s' is begun anew; what is still in the acquisition directory is "
        "measured and published again",
        path,
    )
    return seq_after(path, noted_seq)


def _cannot_open(path: Path, error: Exception) -> JournalError:
    return JournalError(
        f"journal '{path}' cannot be opened ({error}); see that the user that icewatch runs as may "
        "write it and that its disk has room, else move it away and start again"
    )


BUSY_S = 2.0
"""Waiting for a lock keeps the other threads from the journal: heartbeats and status pages."""


def _connected(path: Path, microscope: str, floor: int, aside: Path | None) -> Opened:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    try:
        _check_schema(db, path)
        check_whole(db, path)
        _settle(db, path, microscope, floor)
        return Opened(db, int(_read(db, "seq_floor", "0")), aside)
    except sqlite3.Error as error:
        db.close()
        if is_damage(error):
            raise DamagedError(f"journal '{path}' is damaged ({error})") from error
        raise
    except ValueError as error:
        db.close()
        raise DamagedError(f"journal '{path}' is damaged ({error})") from error
    except BaseException:
        db.close()
        raise


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    """Compare the two places that name the schema; a flipped bit is not a newer icewatch."""
    version = _version(db)
    if _is_new(db):
        return
    noted = _noted_version(db, path)
    if version > SCHEMA_VERSION and noted in (None, version):
        raise ForeignJournalError(newer(path, version, SCHEMA_VERSION))
    if version < 1 or noted not in (None, version):
        raise DamagedError(f"journal '{path}' is damaged (it names two schemas)")


def _settle(db: sqlite3.Connection, path: Path, microscope: str, floor: int) -> None:
    """See whose it is, and bring it up to date."""
    version, is_new = _version(db), _is_new(db)
    if is_new:
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")
    else:
        _refuse_stranger(db, path, microscope)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    if version == SCHEMA_VERSION:
        return
    with transaction(db):
        bring_up_to_date(db, version)
        if is_new:
            words = (("microscope", microscope), ("seq_floor", str(floor)))
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", words)


def _refuse_stranger(db: sqlite3.Connection, path: Path, microscope: str) -> None:
    owner = _read(db, "microscope", microscope)
    if owner == microscope:
        return
    newest = db.execute("SELECT body FROM messages ORDER BY seq DESC LIMIT 1").fetchone()
    if newest and _microscope_of(newest[0]) == microscope:
        raise DamagedError(f"journal '{path}' is damaged (it names two microscopes)")
    raise ForeignJournalError(
        f"journal '{path}' belongs to microscope '{owner}', not '{microscope}'; name another "
        "state.directory, or the right microscope"
    )


def _microscope_of(body: bytes) -> str:
    """Give the microscope that a message names; empty where it is none."""
    try:
        return str(json.loads(body)["microscope"])
    except (ValueError, TypeError, KeyError):
        return ""


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _is_new(db: sqlite3.Connection) -> bool:
    return not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _noted_version(db: sqlite3.Connection, path: Path) -> int | None:
    """Give the schema that the journal notes besides; None where it is too old to do so."""
    try:
        found = _read(db, "schema", "")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # no such table, or column
            raise DamagedError(f"journal '{path}' is damaged ({error})") from error
        raise
    return int(found) if found else None


def _read(db: sqlite3.Connection, key: str, default: str) -> str:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(row[0]) if row else default


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit all or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        # A full disk ends some transactions by itself and leaves others open.
        if db.in_transaction:
            db.execute("ROLLBACK")
