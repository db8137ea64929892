"""The tables of the journal, and how a journal that an older icewatch wrote is brought up to date.

Each step forward is kept for ever: every journal that was ever written can be opened.
"""

from __future__ import annotations

import sqlite3
from pathlib import PurePosixPath

from monitor.journal_records import tilt_from
from monitor.messages import encodable

SCHEMA_VERSION = 4
"""3 has the tables of 2; its readings tell of neighbours and occupancy, which an older icewatch
cannot read. 4 can forget old sessions: of their tilts it keeps only that they were read."""

_SCHEMA_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tilts (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    session TEXT NOT NULL,
    lamella TEXT NOT NULL,
    tilt TEXT NOT NULL,
    reading TEXT NOT NULL,
    committed_at REAL NOT NULL
);
CREATE INDEX tilts_by_lamella ON tilts (lamella, number);
CREATE TABLE verdicts (
    lamella TEXT PRIMARY KEY,
    session TEXT NOT NULL,
    decision TEXT NOT NULL,
    seq INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    body BLOB NOT NULL,
    committed_at REAL NOT NULL
);
"""
_SCHEMA_2 = """
ALTER TABLE tilts ADD COLUMN movie TEXT NOT NULL DEFAULT '';
CREATE INDEX tilts_by_movie ON tilts (movie) WHERE movie <> '';
CREATE TABLE aliases (alias TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO aliases SELECT id, number FROM tilts;
"""
_SCHEMA_4 = """
CREATE TABLE forgotten (name INTEGER PRIMARY KEY);
CREATE INDEX aliases_by_number ON aliases (number);
ALTER TABLE messages ADD COLUMN tilt INTEGER;
CREATE INDEX tilts_by_time ON tilts (committed_at);
UPDATE messages SET tilt = (
    SELECT min(number) FROM tilts WHERE tilts.committed_at = messages.committed_at
);
DROP INDEX tilts_by_time;
CREATE INDEX messages_by_tilt ON messages (tilt);
"""


def bring_up_to_date(db: sqlite3.Connection, version: int) -> None:
    """Take a journal from a schema version (0: an empty file) to the newest, in a transaction."""
    if version < 1:
        _run(db, _SCHEMA_1)
    if version < 2:
        _run(db, _SCHEMA_2)
        _name_movies(db)
    if version < 4:
        _run(db, _SCHEMA_4)
    # Noted twice, so that a flipped bit in one is not taken for another version.
    db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _run(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        db.execute(statement)


def _name_movies(db: sqlite3.Connection) -> None:
    """Note which movie old tilts came from: where a file gave one tilt, that was a movie."""
    sections: dict[str, list[int]] = {}
    for number, text in db.execute("SELECT number, tilt FROM tilts"):
        sections.setdefault(tilt_from(text).path, []).append(number)
    names = [
        (encodable(PurePosixPath(path).name), numbers[0])
        for path, numbers in sections.items()
        if len(numbers) == 1
    ]
    db.executemany("UPDATE tilts SET movie = ? WHERE number = ?", names)
