"""What a shadow read, each beside what was published of the same tilt: a small database apart.

It lies in the store, not in the journal: verdicts never come from here, an older icewatch can still
open the journal, and nothing is lost but a comparison where it is deleted.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from monitor.journal_records import reading_from, reading_text
from monitor.model import IceReading

FILE = "shadow.sqlite3"
MOST_TILTS = 20_000
"""The oldest go first; about 2 kB each."""
_BUSY_S = 5.0
_TABLES = """
CREATE TABLE IF NOT EXISTS readings (
    number INTEGER PRIMARY KEY,
    candidate TEXT NOT NULL,
    tilt TEXT NOT NULL,
    session TEXT NOT NULL,
    lamella TEXT NOT NULL,
    published TEXT NOT NULL,
    shadow TEXT NOT NULL,
    at REAL NOT NULL,
    UNIQUE (candidate, tilt)
);
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """One tilt that two bundles read."""

    tilt: str
    session: str
    lamella: str
    published: IceReading
    """What the active bundle said, and every message with it."""
    shadow: IceReading


def keep(store: Path, candidate: str, pair: Pair) -> None:
    """Keep what a candidate read; raises `sqlite3.Error`."""
    with closing(sqlite3.connect(store / FILE, timeout=_BUSY_S)) as db:
        db.executescript(_TABLES)
        with db:
            at = db.execute(
                "INSERT OR REPLACE INTO readings"
                " (candidate, tilt, session, lamella, published, shadow, at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    candidate,
                    pair.tilt,
                    pair.session,
                    pair.lamella,
                    reading_text(pair.published),
                    reading_text(pair.shadow),
                    time.time(),
                ),
            ).lastrowid
            db.execute("DELETE FROM readings WHERE number <= ?", ((at or 0) - MOST_TILTS,))


def candidates(store: Path) -> list[str]:
    """Name the bundles of which readings are kept, the latest first; raises `sqlite3.Error`."""
    query = "SELECT candidate FROM readings GROUP BY candidate ORDER BY max(number) DESC"
    with _opened(store) as db:
        return [row[0] for row in db.execute(query)] if db else []


def pairs(store: Path, candidate: str) -> list[Pair]:
    """Give what a candidate read, in the order of arrival; raises `sqlite3.Error`."""
    query = """
        SELECT tilt, session, lamella, published, shadow FROM readings WHERE candidate = ?
        ORDER BY number
    """
    with _opened(store) as db:
        rows = db.execute(query, (candidate,)).fetchall() if db else []
    return [
        Pair(tilt, session, lamella, reading_from(said), reading_from(would))
        for tilt, session, lamella, said, would in rows
    ]


def forget(store: Path, candidate: str) -> None:
    """Forget what a candidate read, that another bundle may have its name; raises nothing."""
    if (store / FILE).exists():
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(store / FILE, timeout=_BUSY_S)) as db,
            db,
        ):
            db.execute("DELETE FROM readings WHERE candidate = ?", (candidate,))


@contextmanager
def _opened(store: Path) -> Iterator[sqlite3.Connection | None]:
    path = store / FILE
    if not path.exists():
        yield None
        return
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as db:
        yield db
