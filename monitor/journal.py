"""SQLite journal: what was read, decided and sent; restart, replay and verdicts come from here.

One connection writes, under a lock, in WAL mode with full synchronisation: what is committed
survives a power cut. Nothing is sent that is not committed here first.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from monitor.errors import JournalError
from monitor.journal_damage import DamagedError, is_beyond_repair, mark_damaged
from monitor.journal_forget import (
    KeptSession,
    forget_session,
    gaps_from,
    name_key,
    sessions,
    used_bytes,
)
from monitor.journal_marks import UNSURE_S, Alive, hold_alone
from monitor.journal_open import open_journal, transaction
from monitor.journal_records import (
    reading_from,
    reading_text,
    tilt_from,
    tilt_text,
    tilts_expected,
)
from monitor.messages import encodable
from monitor.model import Decision, IceReading, LamellaHistory, Tilt, TiltId


@dataclass(frozen=True, slots=True)
class Committed:
    """A message as it was committed: these bytes are what every sink sends, now and later."""

    seq: int
    topic: str
    body: bytes


Answer = TypeVar("Answer")
Draft = tuple[str, bytes]
"""Topic and body of a message whose seq is already in the body."""


class Journal:
    """The memory of one microscope's daemon; safe to call from any of its threads."""

    def __init__(
        self, directory: Path, microscope: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open or create the journal; raises `JournalError` with the remedy."""
        self.path = directory / "journal.sqlite3"
        self._clock = clock
        self._alive = directory / "alive"
        self._sent = Alive(self._alive)
        self._lock = threading.RLock()
        self.damage = ""
        """What is wrong with this one, in one sentence; the process is to end and start again."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._held = hold_alone(directory)
        except OSError as error:
            raise JournalError(
                f"state.directory '{directory}' cannot be used ({error.strerror}); make it "
                "writable for the user that icewatch runs as"
            ) from error
        try:
            opened = open_journal(self.path, microscope, self._sent.newest())
        except BaseException:
            os.close(self._held)
            raise
        self._db, self._floor = opened.db, opened.floor
        self.aside = opened.aside
        """Where the journal lies that was found damaged at this start; None if none was."""
        self._newest_seq = self.last_seq()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, transaction(self._db):
            yield self._db

    def _query(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Run one statement and give its rows; whatever SQLite says becomes a `JournalError`."""
        try:
            with self._lock:
                return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed("be read or written", error) from error

    def _asked(self, ask: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Have something looked up; whatever SQLite says becomes a `JournalError`."""
        try:
            with self._lock:
                return ask(self._db)
        except sqlite3.Error as error:
            raise self._failed("be read", error) from error

    def _failed(self, what: str, error: sqlite3.Error) -> JournalError:
        if is_beyond_repair(error):
            return self.damaged(str(error))
        return JournalError(
            f"journal '{self.path}' cannot {what} ({error}); free space or mend the disk of "
            "state.directory"
        )

    def damaged(self, why: str) -> DamagedError:
        """Note that something in the journal cannot be right: the next start puts it aside.

        Where even that cannot be noted, the daemon goes on as well as it can.
        """
        sentence = f"journal '{self.path}' is damaged ({' '.join(why.split())[:200]})"
        if not self.damage and mark_damaged(self.path.parent, sentence):
            self.damage = sentence
        return DamagedError(sentence)

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
                number = self._insert(tilt, reading, now)
                self._db.executemany(
                    "INSERT INTO messages VALUES (?, ?, ?, ?, ?)",
                    [(one.seq, one.topic, one.body, now, number) for one in messages],
                )
                self._db.execute(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)",
                    (encodable(tilt.lamella), encodable(tilt.session), decision, messages[-1].seq),
                )
        except sqlite3.Error as error:
            raise self._failed("commit", error) from error
        self._newest_seq = messages[-1].seq
        self._sent.committed(self._newest_seq)
        return messages

    def _insert(self, tilt: Tilt, reading: IceReading, now: float) -> int | None:
        number = self._db.execute(
            "INSERT INTO tilts (id, session, lamella, movie, tilt, reading, committed_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                encodable(str(tilt.id)),
                encodable(tilt.session),
                encodable(tilt.lamella),
                encodable(tilt.movie),
                tilt_text(tilt),
                reading_text(reading),
                now,
            ),
        ).lastrowid
        # Under its own name it must be new; what it is called besides may be said of others, too.
        self._db.execute("INSERT INTO aliases VALUES (?, ?)", (encodable(str(tilt.id)), number))
        self._db.executemany(
            "INSERT OR IGNORE INTO aliases VALUES (?, ?)",
            [(encodable(str(alias)), number) for alias in tilt.aliases],
        )
        return number

    def knows(self, tilt_id: TiltId) -> bool:
        """Say whether this exposure was read before, under this identity or another."""
        name = encodable(str(tilt_id))
        if self._query("SELECT 1 FROM aliases WHERE alias = ?", (name,)):
            return True
        return bool(self._query("SELECT 1 FROM forgotten WHERE name = ?", (name_key(name),)))

    def came_again(self, tilt: Tilt, again: Tilt) -> None:
        """Note that a tilt that was added is the exposure that came again as `again`."""
        names = dict.fromkeys(encodable(str(one)) for one in (again.id, *again.aliases))
        query = "INSERT OR IGNORE INTO aliases SELECT ?, number FROM tilts WHERE id = ?"
        for name in names:
            self._query(query, (name, encodable(str(tilt.id))))

    def tilts_of_movie(self, movie: str) -> list[Tilt]:
        """Give the tilts of all sessions whose frames are in a movie of this name."""
        query = "SELECT tilt FROM tilts WHERE movie = ? AND movie <> ''"
        rows = self._query(query, (encodable(movie),))
        with self._decoding():
            return [tilt_from(text) for (text,) in rows]

    def history(self, lamella: str, session: str) -> LamellaHistory:
        """Give every reading of one lamella, in the order of arrival, and its last verdict."""
        key = (encodable(lamella), encodable(session))
        where = "WHERE lamella = ? AND session = ?"
        rows = self._query(f"SELECT tilt, reading FROM tilts {where} ORDER BY number", key)
        verdict = self._query(f"SELECT decision FROM verdicts {where}", key)
        with self._decoding():
            readings = tuple((tilt_from(tilt), reading_from(reading)) for tilt, reading in rows)
            return LamellaHistory(
                lamella=lamella,
                readings=readings,
                previous=Decision(verdict[0][0]) if verdict else Decision.UNDECIDED,
                tilts_expected=tilts_expected(tilt for tilt, _ in readings),
            )

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        """What was written as it should be and cannot be read any more was damaged."""
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self.damaged(f"a tilt cannot be read: {error}") from error

    def last_seq(self) -> int:
        """Give the seq of the newest message, 0 if there is none."""
        newest = self._query("SELECT max(seq) FROM messages")[0][0]
        return max(self._floor, int(newest or 0))

    def oldest_seq(self) -> int:
        """Give the seq of the oldest message that can be replayed; the next one if there is none.

        What came before was removed with its session, or lost with a journal that was damaged.
        """
        oldest = self._query("SELECT min(seq) FROM messages")[0][0]
        return self.last_seq() + 1 if oldest is None else int(oldest)

    def gaps_from(self, seq: int) -> list[tuple[int, int]]:
        """Give the ranges of seq, first and last, that cannot be replayed from `seq` on."""
        newest = self.last_seq()
        return self._asked(lambda db: gaps_from(db, seq, newest))

    def sessions(self) -> list[KeptSession]:
        """Give the sessions that are kept, that of the oldest last tilt first."""
        return self._asked(sessions)

    def used_bytes(self) -> int:
        """Give how much of the disk is needed for what is kept."""
        return self._asked(used_bytes)

    def forget(self, session: str) -> int:
        """Remove an old session; its tilts are still known, but not what was read.

        Returns how many tilts it had. Raises `JournalError`.
        """
        try:
            forgotten = forget_session(self._transaction, encodable(session))
            with self._lock:
                self._db.execute("PRAGMA incremental_vacuum").fetchall()
        except sqlite3.Error as error:
            raise self._failed("forget a session", error) from error
        return forgotten

    def messages_from(self, seq: int, limit: int) -> list[Committed]:
        """Give at most `limit` messages (-1: all) from `seq` on, oldest first, as sent."""
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

    def unsure_whether_sent(self) -> list[Committed]:
        """Give what was committed in the last seconds before the last death.

        A message may have been committed but not sent, or sent and lost in a buffer. Nothing is
        unsure after a clean stop.
        """
        if self.get("stopped_cleanly", "yes") == "yes":
            return []
        sent = self._sent.sent_up_to()
        if sent is None:  # an older icewatch left no word
            newest = "(SELECT max(committed_at) FROM messages)"
            query = f"SELECT max(seq) FROM messages WHERE committed_at < {newest} - {UNSURE_S}"
            sent = int(self._query(query)[0][0] or 0)
        return self.messages_from(sent + 1, -1)

    def mark_started(self) -> None:
        """Note that from now on a stop is a death unless `close` says otherwise."""
        if self.get("stopped_cleanly", "yes") == "yes":
            self._sent.all_sent(self._newest_seq)
        self.set("stopped_cleanly", "no")
        self.mark_alive()

    def mark_alive(self) -> None:
        """Note, without touching the database, that the daemon lives (called every second)."""
        self._sent.mark(self._clock(), self._newest_seq)

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
