"""A journal that cannot be trusted: how it is told from a foreign one, and where it goes.

Nothing of a damaged journal is used any more: it is put aside under another name, and the scan
finds again what is still in the acquisition directory. What is newer, or another microscope's, is
left exactly as it is.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from monitor.errors import ConfigError, JournalError

logger = logging.getLogger(__name__)

PUT_ASIDE = "journal.damaged-"
"""How the name of a journal begins that was put aside."""
MARK = "journal.damaged"
"""Lies in the state directory once damage was noticed: the next start puts the journal aside."""
_SEQ_MARGIN = 1000
"""What is skipped after damage: no number may be used twice, even if the last are unknown."""
_HEADER_BYTES, _VERSION_AT = 100, 60
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_NOTHING_ELSE = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_INTERNAL})
"""Our own statements are right: a table that lacks a column, say, was damaged."""
_SUFFIXES = ("", "-wal", "-shm")


class ForeignJournalError(JournalError, ConfigError):
    """Raised when a journal is whole but not this daemon's: newer, or of another microscope."""


class DamagedError(JournalError):
    """Raised when a journal holds what cannot be right; the next start puts it aside."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is broken, rather than that it cannot be had now."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # not said by SQLite itself: text that is no UTF-8, say
        return not isinstance(error, sqlite3.ProgrammingError)
    return (code & 0xFF) in _DAMAGE


def is_beyond_repair(error: sqlite3.Error) -> bool:
    """Whether tables are not what they must be; only to be asked of a journal of our schema."""
    code = getattr(error, "sqlite_errorcode", 0)
    return is_damage(error) or (code & 0xFF) in _NOTHING_ELSE


def version_on_disk(path: Path) -> int:
    """Give the schema version that the file names, without SQLite, which might write; 0: none."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return 0
    if not header.startswith(b"SQLite format 3\0") or len(header) < _HEADER_BYTES:
        return 0
    return int.from_bytes(header[_VERSION_AT : _VERSION_AT + 4], "big", signed=True)


def refuse_newer(path: Path, known: int) -> None:
    """Refuse a journal of a newer icewatch before anything of it is touched."""
    version = version_on_disk(path)
    if version <= known or _second_opinion(path) <= known:
        return  # what follows finds out what is wrong with it
    raise ForeignJournalError(newer(path, version, known))


def newer(path: Path, version: int, known: int) -> str:
    """Say what to do with a journal of a newer icewatch."""
    return (
        f"journal '{path}' was written by a newer icewatch (schema {version}, this one knows "
        f"{known}); update icewatch or name another state.directory"
    )


def _second_opinion(path: Path) -> int:
    """Give the version that the journal notes besides; a large number where it does not.

    A single flipped bit must not pass for a newer icewatch, which would be waited for in vain.
    """
    unknown = 1 << 30
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            return int(row[0]) if row else unknown
    except (sqlite3.Error, ValueError):
        return unknown


def check_whole(db: sqlite3.Connection, path: Path) -> None:
    """Read the whole file once (0.2 s for 150 MB); raises `DamagedError`."""
    said = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
    if said != "ok":
        raise DamagedError(f"journal '{path}' is damaged ({' '.join(said.split())[:200]})")


def mark_damaged(directory: Path, sentence: str) -> bool:
    """Have the next start put the journal aside; False where that cannot be noted."""
    try:
        (directory / MARK).write_text(sentence + "\n", "utf-8", "backslashreplace")
    except OSError:
        return False
    return True


def is_marked(directory: Path) -> bool:
    """Whether a daemon noticed damage and ended."""
    return (directory / MARK).exists()


def put_aside(path: Path, sentence: str) -> Path:
    """Rename a journal and what belongs to it; raises OSError. The mark goes last."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = path.with_name(f"{PUT_ASIDE}{stamp}.sqlite3")
    number = 1
    while any(_beside(target, suffix).exists() for suffix in _SUFFIXES):
        number += 1
        target = path.with_name(f"{PUT_ASIDE}{stamp}-{number}.sqlite3")
    for suffix in reversed(_SUFFIXES):  # the journal itself last: it must not lose its log before
        with suppress(FileNotFoundError):
            os.replace(_beside(path, suffix), _beside(target, suffix))  # noqa: PTH105
    (path.parent / MARK).unlink(missing_ok=True)
    logger.error(
        "%s: put aside as '%s'; what is still in the acquisition directory is measured and "
        "published again",
        sentence,
        target.name,
    )
    return target


def seq_after(aside: Path, noted: int | None) -> int:
    """Give a seq that no message of the damaged journal can have reached.

    From what can still be read of it and from what was noted beside it, with a margin for what
    neither knows; where both are gone, the seconds since 1970, faster than which none counts.
    """
    found = _newest_in(aside)
    if noted is not None:  # a flipped bit makes numbers that no daemon reached since
        found = found if found <= noted + _SEQ_MARGIN else noted
    known = max(found, noted or 0)
    if not known:
        return int(time.time())
    return (known // _SEQ_MARGIN + 2) * _SEQ_MARGIN


def _newest_in(aside: Path) -> int:
    try:
        with closing(sqlite3.connect(f"{aside.as_uri()}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT max(seq) FROM messages").fetchone()[0]
    except (sqlite3.Error, OSError):
        return 0
    return found if isinstance(found, int) and 0 <= found < 2**40 else 0


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
