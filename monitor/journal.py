"""SQLite journal: what was read, decided and sent; restart, replay and verdicts come from here.

One connection writes, under a lock, in WAL mode with full synchronisation: what is committed
survives a power cut. Nothing is sent that is not committed here first.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monitor.errors import JournalError
from monitor.messages import encodable
from monitor.model import Decision, IceReading, LamellaHistory, Tilt, TiltId

SCHEMA_VERSION = 1

_SCHEMA = """
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


@dataclass(frozen=True, slots=True)
class Committed:
    """A message as it was committed: these bytes are what every sink sends, now and later."""

    seq: int
    topic: str
    body: bytes


Draft = tuple[str, bytes]
"""Topic and body of a message whose seq is already in the body."""


class Journal:
    """The memory of one microscope's daemon; safe to call from any of its threads."""

    def __init__(self, directory: Path, microscope: str) -> None:
        """Open or create the journal; raises `JournalError` with the remedy."""
        self.path = directory / "journal.sqlite3"
        self._alive = directory / "alive"
        self._lock = threading.RLock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._held = _hold_alone(directory)
        except OSError as error:
            raise JournalError(
                f"state.directory '{directory}' cannot be used ({error.strerror}); make it "
                "writable for the user that icewatch runs as"
            ) from error
        try:
            self._db = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=10.0
            )
            self._open(microscope)
        except sqlite3.Error as error:
            os.close(self._held)
            raise JournalError(
                f"journal '{self.path}' cannot be opened ({error}); see that the user that "
                "icewatch runs as may write it, else move it away and start again"
            ) from error
        except JournalError:
            os.close(self._held)
            raise

    def _open(self, microscope: str) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"journal '{self.path}' was written by a newer icewatch (schema {version}, this "
                f"one knows {SCHEMA_VERSION}); update icewatch or name another state.directory"
            )
        if version == 0:
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                self.set("microscope", microscope)
        owner = self.get("microscope", microscope)
        if owner != microscope:
            raise JournalError(
                f"journal '{self.path}' belongs to microscope '{owner}', not '{microscope}'; "
                "name another state.directory, or the right microscope"
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                # A full disk ends some transactions by itself and leaves others open.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _query(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Run one statement and give its rows; whatever SQLite says becomes a `JournalError`."""
        try:
            with self._lock:
                return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(
                f"journal '{self.path}' cannot be read or written ({error}); free space or mend "
                "the disk of state.directory"
            ) from error

    def add(
        self,
        tilt: Tilt,
        reading: IceReading,
        decision: Decision,
        draft: Callable[[int], Sequence[Draft]],
    ) -> list[Committed]:
        """Commit a reading, its verdict and their messages in one transaction.

        `draft` gets the next free seq and returns the messages that use it and the ones after
        it. Raises `JournalError` where the commit fails; then nothing was changed.
        """
        try:
            with self._transaction():
                now = time.time()
                first = self.last_seq() + 1
                messages = [
                    Committed(first + offset, topic, body)
                    for offset, (topic, body) in enumerate(draft(first))
                ]
                self._db.execute(
                    "INSERT INTO tilts (id, session, lamella, tilt, reading, committed_at)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        encodable(str(tilt.id)),
                        encodable(tilt.session),
                        encodable(tilt.lamella),
                        json.dumps(asdict(tilt)),
                        json.dumps(asdict(reading)),
                        now,
                    ),
                )
                self._db.executemany(
                    "INSERT INTO messages VALUES (?, ?, ?, ?)",
                    [(message.seq, message.topic, message.body, now) for message in messages],
                )
                self._db.execute(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)",
                    (encodable(tilt.lamella), encodable(tilt.session), decision, messages[-1].seq),
                )
        except sqlite3.Error as error:
            raise JournalError(
                f"journal '{self.path}' cannot commit ({error}); free space or mend the disk of "
                "state.directory"
            ) from error
        return messages

    def knows(self, tilt_id: TiltId) -> bool:
        """Say whether this exposure was read before."""
        return bool(self._query("SELECT 1 FROM tilts WHERE id = ?", (encodable(str(tilt_id)),)))

    def history(self, lamella: str, session: str) -> LamellaHistory:
        """Give every reading of one lamella, in the order of arrival, and its last verdict."""
        key = (encodable(lamella), encodable(session))
        where = "WHERE lamella = ? AND session = ?"
        rows = self._query(f"SELECT tilt, reading FROM tilts {where} ORDER BY number", key)
        verdict = self._query(f"SELECT decision FROM verdicts {where}", key)
        readings = tuple((_tilt(json.loads(t)), _reading(json.loads(r))) for t, r in rows)
        expected = [tilt.tilts_expected for tilt, _ in readings if tilt.tilts_expected]
        return LamellaHistory(
            lamella=lamella,
            readings=readings,
            previous=Decision(verdict[0][0]) if verdict else Decision.UNDECIDED,
            tilts_expected=expected[-1] if expected else None,
        )

    def last_seq(self) -> int:
        """Give the seq of the newest message, 0 if there is none."""
        return int(self._query("SELECT max(seq) FROM messages")[0][0] or 0)

    def messages_from(self, seq: int, limit: int) -> list[Committed]:
        """Give at most `limit` messages from `seq` on, oldest first, as they were sent."""
        query = "SELECT seq, topic, body FROM messages WHERE seq >= ? ORDER BY seq LIMIT ?"
        return [Committed(*row) for row in self._query(query, (seq, limit))]

    def running_session(self) -> str:
        """Name the session that was last written to ("" before the first tilt)."""
        rows = self._query("SELECT session FROM tilts ORDER BY number DESC LIMIT 1")
        return str(rows[0][0]) if rows else ""

    def lamella_messages(self, session: str) -> list[Committed]:
        """Give the newest message of every lamella of a session."""
        query = """
            SELECT messages.seq, topic, body FROM verdicts JOIN messages USING (seq)
            WHERE session = ? ORDER BY messages.seq
        """
        return [Committed(*row) for row in self._query(query, (encodable(session),))]

    def unsure_whether_sent(self, window_s: float = 10.0) -> list[Committed]:
        """Give what was committed in the last seconds before the last death.

        A message may have been committed but not sent, or sent and lost in a buffer. The time of
        death is when the daemon last marked itself alive. Nothing is unsure after a clean stop.
        """
        if self.get("stopped_cleanly", "yes") == "yes":
            return []
        newest = self._query("SELECT max(committed_at) FROM messages")[0][0]
        alive = self._alive.stat().st_mtime if self._alive.exists() else 0.0
        died = max(float(newest or 0.0), alive)
        query = "SELECT seq, topic, body FROM messages WHERE committed_at >= ? ORDER BY seq"
        return [Committed(*row) for row in self._query(query, (died - window_s,))]

    def mark_started(self) -> None:
        """Note that from now on a stop is a death unless `close` says otherwise."""
        self.set("stopped_cleanly", "no")
        self.mark_alive()

    def mark_alive(self) -> None:
        """Note, without touching the database, that the daemon lives (called every second)."""
        try:
            self._alive.touch()
            os.utime(self._alive)
        except OSError:
            return  # a full or read-only disk shows at the next commit, with its sentence

    def get(self, key: str, default: str) -> str:
        """Give a remembered word, or the default."""
        rows = self._query("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else default

    def set(self, key: str, value: str) -> None:
        """Remember a word under a key."""
        self._query("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def close(self, *, cleanly: bool) -> None:
        """Close the journal; `cleanly` says that everything committed was also sent."""
        with self._lock:
            try:
                if cleanly:
                    self.set("stopped_cleanly", "yes")
            finally:
                self._db.close()
                os.close(self._held)


def _hold_alone(directory: Path) -> int:
    """Lock the state directory for this process; the kernel lets go of it at any death."""
    held = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        raise JournalError(
            f"state.directory '{directory}' is in use by another icewatch; stop that one, or name "
            "another directory"
        ) from error
    return held


def _tilt(raw: dict[str, Any]) -> Tilt:
    raw["id"] = TiltId(**raw["id"])
    raw["flags"] = tuple(raw["flags"])
    return Tilt(**raw)


def _reading(raw: dict[str, Any]) -> IceReading:
    raw["flags"] = tuple(raw["flags"])
    return IceReading(**raw)
