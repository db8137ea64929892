"""Removes old sessions from the journal; of their tilts it stays known that they were read.

A tilt that is still in the acquisition directory must not be measured and published anew because
its session was removed: 8 bytes of a hash of each of its names are kept for good.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

BATCH = 300
"""Tilts of one transaction, so that a tilt that lands meanwhile waits for milliseconds only."""

Transaction = Callable[[], AbstractContextManager[sqlite3.Connection]]


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session in the journal."""

    name: str
    tilts: int
    oldest_s: float
    """When its first tilt was committed, seconds since 1970."""
    newest_s: float
    """When its last tilt was committed, seconds since 1970."""


def name_key(name: str) -> int:
    """Give the 64 bits by which a forgotten name is known again."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def sessions(db: sqlite3.Connection) -> list[KeptSession]:
    """Give all sessions, that of the oldest last tilt first."""
    query = """
        SELECT session, count(*), min(committed_at), max(committed_at) AS newest FROM tilts
        GROUP BY session ORDER BY newest
    """
    return [KeptSession(*row) for row in db.execute(query)]


def used_bytes(db: sqlite3.Connection) -> int:
    """Give what the journal holds, without pages that are free to be used again."""
    pages, free, size = (
        int(db.execute(f"PRAGMA {word}").fetchone()[0])
        for word in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def forget_session(transaction: Transaction, session: str) -> int:
    """Remove a session but for what its tilts were called; returns how many tilts that were."""
    forgotten = 0
    while True:
        with transaction() as db:
            count = _forget_some(db, session)
            if not count:
                db.execute("DELETE FROM verdicts WHERE session = ?", (session,))
                return forgotten
        forgotten += count


def _forget_some(db: sqlite3.Connection, session: str) -> int:
    query = "SELECT number FROM tilts WHERE session = ? ORDER BY number LIMIT ?"
    found = db.execute(query, (session, BATCH)).fetchall()
    for (number,) in found:
        names = db.execute("SELECT alias FROM aliases WHERE number = ?", (number,)).fetchall()
        keys = [(name_key(name),) for (name,) in names]
        db.executemany("INSERT OR IGNORE INTO forgotten VALUES (?)", keys)
        db.executemany("DELETE FROM aliases WHERE alias = ?", names)
        db.execute("DELETE FROM messages WHERE tilt = ?", (number,))
        db.execute("DELETE FROM tilts WHERE number = ?", (number,))
    return len(found)


def gaps_from(db: sqlite3.Connection, seq: int, newest: int) -> list[tuple[int, int]]:
    """Give the ranges of seq, first and last, that cannot be replayed from `seq` to `newest`."""
    query = """
        SELECT seq, next FROM (
            SELECT seq, lead(seq) OVER (ORDER BY seq) AS next FROM messages WHERE seq >= ?
        ) WHERE next > seq + 1
    """
    inner = [(int(low) + 1, int(high) - 1) for low, high in db.execute(query, (seq,))]
    first, last = db.execute(
        "SELECT min(seq), max(seq) FROM messages WHERE seq >= ?", (seq,)
    ).fetchone()
    begin = max(1, seq)
    if first is None:
        return [(begin, newest)] if newest >= begin else []
    before = [(begin, int(first) - 1)] if first > begin else []
    after = [(int(last) + 1, newest)] if last < newest else []
    return before + inner + after
