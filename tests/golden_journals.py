"""Journals as every schema so far left them, kept as SQL in `golden/`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
MICROSCOPE = "krios1"
MESSAGES = 30
"""In each of them: five tilts of two lamellae in session s1, and of one in s2."""


def write_journal(state: Path, schema: int) -> Path:
    """Write the journal of a schema into a state directory."""
    state.mkdir(parents=True, exist_ok=True)
    path = state / "journal.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((GOLDEN / f"journal_{schema}.sql").read_text("utf-8"))
        db.execute("PRAGMA journal_mode=WAL")
    return path
