"""The journal: what is committed survives a kill, is replayed byte for byte, and counts on."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from monitor.errors import JournalError
from monitor.journal import Draft, Journal
from monitor.journal_schema import SCHEMA_VERSION
from monitor.model import Decision, Tilt, TiltId
from tests.builders import reading, tilt


def draft(first: int) -> list[Draft]:
    return [("tilt", b"t%d" % first), ("lamella", b"l%d" % (first + 1))]


def test_what_was_added_is_known_and_replayed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    for angle in (0.0, 3.0, -3.0):
        assert not journal.knows(tilt(angle).id)
        journal.add(tilt(angle), reading(5.0), Decision.UNDECIDED, draft)
        assert journal.knows(tilt(angle).id)
    journal.close(cleanly=True)
    again = Journal(tmp_path, "m")
    assert again.last_seq() == 6
    assert [one.body for one in again.messages_from(3, 100)] == [b"t3", b"l4", b"t5", b"l6"]
    assert [one.seq for one in again.messages_from(0, 2)] == [1, 2]
    history = again.history(tilt().lamella, tilt().session)
    assert [pair[0] for pair in history.readings] == [tilt(0.0), tilt(3.0), tilt(-3.0)]
    assert history.readings[0][1] == reading(5.0)
    assert history.previous is Decision.UNDECIDED


def test_a_failed_draft_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")

    def failing(first: int) -> list[Draft]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        journal.add(tilt(), reading(1.0), Decision.KEEP, failing)
    assert not journal.knows(tilt().id)
    assert journal.last_seq() == 0


def test_a_full_disk_loses_nothing_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    journal.add(tilt(0.0), reading(1.0), Decision.KEEP, draft)
    pages = int(journal._db.execute("PRAGMA page_count").fetchone()[0])
    journal._db.execute(f"PRAGMA max_page_count={pages}")
    big = "x" * 50_000
    with pytest.raises(JournalError, match="full"):
        journal.add(tilt(3.0, series=big), reading(1.0), Decision.KEEP, draft)
    assert journal.last_seq() == 2
    assert not journal.knows(tilt(3.0, series=big).id)
    journal._db.execute("PRAGMA max_page_count=100000")
    journal.add(tilt(3.0, series=big), reading(1.0), Decision.KEEP, draft)
    assert journal.last_seq() == 4


def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    journal._db.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    journal._db.execute(
        "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
    )
    journal._db.execute("PRAGMA foreign_keys=ON")

    def failing_at_commit(first: int) -> list[Draft]:
        journal._db.execute("INSERT INTO child VALUES (1)")
        return draft(first)

    with pytest.raises(JournalError, match="cannot commit"):
        journal.add(tilt(), reading(1.0), Decision.KEEP, failing_at_commit)
    assert not journal.knows(tilt().id)
    journal.add(tilt(), reading(1.0), Decision.KEEP, draft)
    assert journal.last_seq() == 2


def test_the_same_exposure_cannot_be_added_twice(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    journal.add(tilt(), reading(1.0), Decision.KEEP, draft)
    with pytest.raises(JournalError):
        journal.add(tilt(), reading(1.0), Decision.KEEP, draft)
    assert journal.last_seq() == 2


def test_after_a_clean_stop_nothing_is_sent_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    journal.mark_started()
    journal.add(tilt(), reading(1.0), Decision.KEEP, draft)
    journal.close(cleanly=True)
    assert Journal(tmp_path, "m").unsure_whether_sent() == []


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def lived(path: Path, *, pause_s: float, after_s: float) -> None:
    """Two tilts come, some time apart; the daemon dies some time after the second."""
    clock = Clock()
    journal = Journal(path, "m", clock)
    journal.mark_started()
    for angle_deg, then_s in ((0.0, pause_s), (3.0, after_s)):
        journal.add(tilt(angle_deg), reading(1.0), Decision.KEEP, draft)
        for _ in range(int(then_s)):
            journal.mark_alive()
            clock.now_s += 1.0
    journal.close(cleanly=False)


@pytest.mark.parametrize(
    ("pause_s", "after_s", "unsure"),
    [
        (0, 0, [b"t1", b"l2", b"t3", b"l4"]),
        (60, 3, [b"t3", b"l4"]),
        (60, 60, []),
    ],
)
@pytest.mark.parametrize("wall_clock_jumps_s", [0, 86_400, -86_400])
def test_after_a_death_the_last_seconds_are_sent_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pause_s: float,
    after_s: float,
    unsure: list[bytes],
    wall_clock_jumps_s: float,
) -> None:
    walls = iter([1e9, 1e9 + wall_clock_jumps_s])
    monkeypatch.setattr("monitor.journal.time.time", lambda: next(walls))
    lived(tmp_path, pause_s=pause_s, after_s=after_s)
    for _ in range(2):
        journal = Journal(tmp_path, "m")
        assert [one.body for one in journal.unsure_whether_sent()] == unsure
        journal.mark_started()
        journal.close(cleanly=False)
    journal = Journal(tmp_path, "m")
    journal.mark_started()
    journal.close(cleanly=True)
    journal = Journal(tmp_path, "m")
    journal.mark_started()
    journal.close(cleanly=False)
    assert Journal(tmp_path, "m").unsure_whether_sent() == [], "all was sent before that stop"


_WRITER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.builders import reading, tilt
from monitor.journal import Journal
from monitor.model import Decision
journal = Journal(Path(sys.argv[1]), "m")
journal.mark_started()
for number in range(10**6):
    seqs = journal.add(
        tilt(number / 100, series=f"L{{number}}"), reading(1.0), Decision.KEEP,
        lambda first: [("tilt", b"t%d" % first), ("lamella", b"l%d" % (first + 1))],
    )
    print(seqs[-1].seq, flush=True)
"""


@pytest.mark.parametrize("commits", [1, 7, 40])
def test_a_kill_loses_nothing_that_was_committed(tmp_path: Path, commits: int) -> None:
    code = _WRITER.format(path=str(Path(__file__).resolve().parents[1]))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        for _ in range(commits):
            acknowledged = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
    journal = Journal(tmp_path, "m")
    assert journal.last_seq() >= acknowledged
    seqs = [one.seq for one in journal.messages_from(0, 10**6)]
    assert seqs == list(range(1, journal.last_seq() + 1))
    assert {one.seq for one in journal.unsure_whether_sent()} >= {acknowledged}


def test_the_running_session_is_the_one_written_to_last(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    assert journal.running_session() == ""
    for session, series in (("old", "A"), ("new", "B"), ("new", "C")):
        journal.add(tilt(0.0, series, session), reading(1.0), Decision.KEEP, draft)
    assert journal.running_session() == "new"
    assert [one.seq for one in journal.lamella_messages("new")] == [4, 6]
    assert [one.seq for one in journal.lamella_messages("old")] == [2]


def test_a_second_daemon_is_kept_out_until_the_first_is_gone(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    with pytest.raises(JournalError, match="in use by another icewatch"):
        Journal(tmp_path, "m")
    journal.close(cleanly=True)
    Journal(tmp_path, "m").close(cleanly=True)


def test_a_locked_database_is_a_journal_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    journal._db.execute("PRAGMA busy_timeout=10")
    with sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            journal.set("key", "value")
        with pytest.raises(JournalError, match="locked"):
            journal.add(tilt(), reading(1.0), Decision.KEEP, draft)
        other.execute("ROLLBACK")
    other.close()
    journal.add(tilt(), reading(1.0), Decision.KEEP, draft)


def test_journals_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    Journal(tmp_path, "krios1").close(cleanly=True)
    with pytest.raises(JournalError, match="belongs to microscope 'krios1'"):
        Journal(tmp_path, "krios2")
    with sqlite3.connect(tmp_path / "journal.sqlite3") as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(SCHEMA_VERSION + 1),))
    db.close()
    with pytest.raises(JournalError, match="newer icewatch"):
        Journal(tmp_path, "krios1")


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    odd = tilt(0.0, series="bad\udcff\nname")
    journal.add(odd, reading(1.0), Decision.KEEP, draft)
    assert journal.knows(odd.id)
    assert journal.history(odd.lamella, odd.session).readings[0][0] == odd


def add(journal: Journal, one: Tilt) -> None:
    journal.add(one, reading(5.0), Decision.UNDECIDED, draft)


def test_an_exposure_is_known_by_its_other_names(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    by_name, again = TiltId("s1/L1", 3.0, None, "L1_001_3.0.tif"), TiltId("s1/L1", 3.0, "later")
    one = replace(tilt(3.0), aliases=(by_name, tilt(3.0).id))
    add(journal, one)
    assert journal.knows(one.id)
    assert journal.knows(by_name)
    assert not journal.knows(again)
    with pytest.raises(JournalError):
        add(journal, replace(tilt(3.0), id=by_name))
    journal.came_again(one, replace(tilt(9.0), id=again, aliases=(TiltId("x", 1.0, None),)))
    for _ in range(2):
        assert journal.knows(again)
        assert journal.knows(TiltId("x", 1.0, None))
        assert not journal.knows(tilt(9.0).id)
        journal.close(cleanly=True)
        journal = Journal(tmp_path, "m")
    assert journal.history("s1/L1", "s1").readings[0][0] == one


def test_two_exposures_may_be_called_alike_besides(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    shared = TiltId("s1/L1", 0.0, None, "again.tif")
    add(journal, replace(tilt(0.0), aliases=(shared,)))
    add(journal, replace(tilt(3.0), aliases=(shared,)))
    assert journal.last_seq() == 4


def test_the_tilts_of_a_movie_are_found_by_its_name(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    odd = "bad\udcff\n.tif"
    for number, movie in enumerate(("a.tif", "b.tif", "", odd, "a.tif")):
        add(journal, replace(tilt(3.0 * number), movie=movie))
    add(journal, replace(tilt(0.0, session="s2"), movie="a.tif"))
    assert [one.angle_deg for one in journal.tilts_of_movie("a.tif")] == [0.0, 12.0, 0.0]
    assert [one.movie for one in journal.tilts_of_movie(odd)] == [odd]
    assert journal.tilts_of_movie("") == journal.tilts_of_movie("c.tif") == []
    plan = journal._db.execute(
        "EXPLAIN QUERY PLAN SELECT tilt FROM tilts WHERE movie = 'm' AND movie <> ''"
    ).fetchall()
    assert "tilts_by_movie" in plan[0][3]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([("A", 41), ("A", 41)], 41),
        ([("A", 41), ("A", None)], 41),
        ([("A", 41), ("A", 39), ("B", 30)], 69),
        ([("A", 41), ("B", None)], None),
        ([("A", 1), ("A", 1), ("A", 2)], 3),
        ([("A", 1), ("A", 1), ("B", 5)], 7),
        ([("A", None)], None),
        ([], None),
    ],
)
def test_a_lamella_is_to_have_the_tilts_of_all_its_series(
    tmp_path: Path, said: list[tuple[str, int | None]], expected: int | None
) -> None:
    journal = Journal(tmp_path, "m")
    for number, (series, tilts) in enumerate(said):
        one = tilt(float(number), series)
        add(journal, replace(one, lamella="s1/lamella", tilts_expected=tilts))
    assert journal.history("s1/lamella", "s1").tilts_expected == expected


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


def written_by_schema_1(path: Path, tilts: list[Tilt]) -> None:
    """Write a journal as the first icewatch did; its tilts knew neither movie nor aliases."""
    path.mkdir()
    with sqlite3.connect(path / "journal.sqlite3") as db:
        db.executescript(_SCHEMA_1)
        db.execute("INSERT INTO meta VALUES ('microscope', 'm')")
        for number, one in enumerate(tilts, 1):
            raw = asdict(one)
            del raw["movie"], raw["aliases"]
            row = (str(one.id), one.session, one.lamella, json.dumps(raw))
            values = tuple(text.encode("utf-8", "backslashreplace").decode() for text in row)
            read = json.dumps(asdict(reading(5.0)))
            db.execute(
                "INSERT INTO tilts (id, session, lamella, tilt, reading, committed_at)"
                " VALUES (?, ?, ?, ?, ?, 1.0)",
                (*values, read),
            )
            db.execute("INSERT INTO messages VALUES (?, 'tilt', ?, 1.0)", (number, b"t%d" % number))
            db.execute(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, 'keep', ?)",
                (values[2], values[1], number),
            )
        db.execute("PRAGMA user_version=1")
    db.close()


def test_a_journal_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    stack = [replace(tilt(3.0 * k), section=k) for k in range(3)]
    movie = replace(tilt(9.0, series="bad\udcff"), path="s1/frames/bad\udcff_9.0.mrc")
    written_by_schema_1(tmp_path / "old", [*stack, movie])
    for _ in range(2):
        journal = Journal(tmp_path / "old", "m")
        assert [one.body for one in journal.messages_from(0, 10)] == [b"t1", b"t2", b"t3", b"t4"]
        assert all(journal.knows(one.id) for one in (*stack, movie))
        assert [pair[0] for pair in journal.history("s1/L1", "s1").readings] == stack
        assert journal.tilts_of_movie("bad\udcff_9.0.mrc") == [movie]
        assert journal.tilts_of_movie("L1.mrc") == []
        journal.close(cleanly=True)
    journal = Journal(tmp_path / "old", "m")
    with pytest.raises(JournalError):
        add(journal, stack[0])
    add(journal, tilt(30.0))
    assert journal.last_seq() == 6


def test_readings_of_the_second_schema_say_nothing_of_neighbours(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    add(journal, tilt(0.0))
    journal.close(cleanly=True)
    with sqlite3.connect(tmp_path / "journal.sqlite3") as db:
        raw = json.loads(db.execute("SELECT reading FROM tilts").fetchone()[0])
        del raw["used_neighbours"], raw["occupancy_percent"]
        db.execute("UPDATE tilts SET reading = ?", (json.dumps(raw),))
        for name in ("TABLE forgotten", "INDEX messages_by_tilt", "INDEX aliases_by_number"):
            db.execute(f"DROP {name}")
        db.execute("ALTER TABLE messages DROP COLUMN tilt")
        db.execute("DELETE FROM meta WHERE key IN ('schema', 'seq_floor')")
        db.execute("PRAGMA user_version=2")
    db.close()
    journal = Journal(tmp_path, "m")
    ((_, old),) = journal.history("s1/L1", "s1").readings
    assert (old.used_neighbours, old.occupancy_percent) == (False, None)
    add(journal, tilt(3.0))
    assert journal.last_seq() == 4
    journal.close(cleanly=True)


def test_a_step_forward_that_fails_changes_nothing(tmp_path: Path) -> None:
    written_by_schema_1(tmp_path / "old", [tilt(0.0)])
    with sqlite3.connect(tmp_path / "old" / "journal.sqlite3") as db:
        db.execute("CREATE TABLE aliases (foreign_words TEXT)")
        before = db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    with pytest.raises(JournalError, match="aliases"):
        Journal(tmp_path / "old", "m")
    assert db.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == before
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    db.close()


def test_what_the_first_icewatch_left_unsent_is_told_by_its_times(tmp_path: Path) -> None:
    written_by_schema_1(tmp_path / "old", [tilt(3.0 * k) for k in range(3)])
    (tmp_path / "old" / "alive").touch()
    with sqlite3.connect(tmp_path / "old" / "journal.sqlite3") as db:
        db.execute("UPDATE messages SET committed_at = 60.0 * seq")
        db.execute("INSERT INTO meta VALUES ('stopped_cleanly', 'no')")
    db.close()
    journal = Journal(tmp_path / "old", "m")
    assert [one.body for one in journal.unsure_whether_sent()] == [b"t3"]


def opened_in_s(make: Callable[[], Journal]) -> float:
    start = time.process_time()  # on a busy computer the wall clock tells of the others
    make().close(cleanly=True)
    return time.process_time() - start


@pytest.mark.slow
def test_a_large_journal_is_opened_quickly(tmp_path: Path) -> None:
    tilts = [tilt(k / 100, f"L{k // 61}") for k in range(50_000)]
    written_by_schema_1(tmp_path / "old", tilts)
    assert opened_in_s(lambda: Journal(tmp_path / "old", "m")) < 10.0, "the one step forward"
    assert opened_in_s(lambda: Journal(tmp_path / "old", "m")) < 1.0
