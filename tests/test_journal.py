"""The journal: what is committed survives a kill, is replayed byte for byte, and counts on."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.errors import JournalError
from monitor.journal import SCHEMA_VERSION, Draft, Journal
from monitor.model import Decision
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


def test_after_a_death_the_last_seconds_are_sent_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    journal.mark_started()
    journal.add(tilt(0.0), reading(1.0), Decision.KEEP, draft)
    journal.add(tilt(3.0), reading(1.0), Decision.KEEP, draft)
    journal._db.execute("UPDATE messages SET committed_at = committed_at - 60 WHERE seq < 3")
    journal.close(cleanly=False)
    assert [one.body for one in Journal(tmp_path, "m").unsure_whether_sent()] == [b"t3", b"l4"]


def test_nothing_is_unsure_where_the_death_came_long_after_the_last_commit(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    journal.mark_started()
    journal.add(tilt(0.0), reading(1.0), Decision.KEEP, draft)
    journal._db.execute("UPDATE messages SET committed_at = committed_at - 60")
    journal.mark_alive()
    journal.close(cleanly=False)
    assert Journal(tmp_path, "m").unsure_whether_sent() == []


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
    db.close()
    with pytest.raises(JournalError, match="newer icewatch"):
        Journal(tmp_path, "krios1")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "journal.sqlite3").write_bytes(b"nonsense" * 1000)
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / "broken", "m")


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "m")
    odd = tilt(0.0, series="bad\udcff\nname")
    journal.add(odd, reading(1.0), Decision.KEEP, draft)
    assert journal.knows(odd.id)
    assert journal.history(odd.lamella, odd.session).readings[0][0] == odd
