"""Journals of every age and state: old ones open, foreign ones stay, broken ones give way."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from monitor.errors import ConfigError, JournalError
from monitor.journal import Draft, Journal
from monitor.journal_damage import MARK, PUT_ASIDE, DamagedError
from monitor.journal_schema import SCHEMA_VERSION
from monitor.messages import parse
from monitor.model import Decision
from tests.builders import reading, tilt
from tests.golden_journals import GOLDEN, MESSAGES, MICROSCOPE, write_journal


def draft(first: int) -> list[Draft]:
    return [("tilt", b"t%d" % first), ("lamella", b"l%d" % (first + 1))]


def use(journal: Journal) -> None:
    """Do all that a daemon asks of it; raises nothing but `JournalError`."""
    journal.mark_started()
    for session in {"s1", "s2", journal.running_session()}:
        for one in journal.lamella_messages(session):
            assert one.seq <= journal.last_seq()
        for lamella in ("s1/L1", "s1/L2", "s2/odd\udcff"):
            journal.history(lamella, session)
    journal.unsure_whether_sent()
    journal.messages_from(0, -1)
    journal.gaps_from(0)
    journal.tilts_of_movie("odd\udcff_3.0.tif")
    journal.get("deaths", "[]")
    new = tilt(60.0, "new", "s9")
    assert not journal.knows(new.id)
    journal.add(new, reading(1.0), Decision.KEEP, draft)
    journal.mark_alive()


def asides(state: Path) -> list[Path]:
    return sorted(state.glob(f"{PUT_ASIDE}*.sqlite3"))


@pytest.mark.parametrize("schema", range(1, SCHEMA_VERSION + 1))
def test_the_journal_of_every_schema_opens(tmp_path: Path, schema: int) -> None:
    write_journal(tmp_path, schema)
    for _ in range(2):
        journal = Journal(tmp_path, MICROSCOPE)
        assert [one.seq for one in journal.messages_from(0, -1)] == list(range(1, MESSAGES + 1))
        assert all(parse(one.topic, one.body) for one in journal.messages_from(0, -1))
        found = journal.history("s1/L1", "s1")
        assert [pair[0].section for pair in found.readings] == [0, 1, 2, 3, 4]
        assert [pair[1].percent for pair in found.readings] == [20.0, 20.0, 20.0, None, 20.0]
        assert found.previous is Decision.SKIP
        assert all(journal.knows(one.id) for one, _ in found.readings)
        assert journal.running_session() == "s2"
        assert journal.aside is None and not asides(tmp_path)
        journal.close(cleanly=True)
    journal = Journal(tmp_path, MICROSCOPE)
    use(journal)
    assert journal.last_seq() == MESSAGES + 2


def test_every_schema_has_its_golden_journal() -> None:
    assert len(list(GOLDEN.glob("journal_*.sql"))) == SCHEMA_VERSION


def digest(state: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in state.glob("journal.sqlite3*")
    }


@pytest.mark.parametrize("notes_it", [True, False])
def test_a_newer_journal_is_refused_and_left_as_it_is(tmp_path: Path, notes_it: bool) -> None:
    path = write_journal(tmp_path, SCHEMA_VERSION)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
        if notes_it:
            db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
        else:
            db.execute("DELETE FROM meta WHERE key = 'schema'")
        db.execute("PRAGMA user_version=99")
    before = digest(tmp_path)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"newer icewatch \(schema 99, .*; update") as caught:
            Journal(tmp_path, MICROSCOPE)
        assert "\n" not in str(caught.value)
    assert digest(tmp_path) == before


def test_the_journal_of_another_microscope_is_refused_and_kept(tmp_path: Path) -> None:
    write_journal(tmp_path, SCHEMA_VERSION)
    with pytest.raises(ConfigError, match="belongs to microscope 'krios1', not 'glacios'; name"):
        Journal(tmp_path, "glacios")
    assert not asides(tmp_path)
    assert Journal(tmp_path, MICROSCOPE).last_seq() == MESSAGES


def test_a_flipped_letter_is_not_another_microscope(tmp_path: Path) -> None:
    path = write_journal(tmp_path, SCHEMA_VERSION)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = 'krios9' WHERE key = 'microscope'")
    assert Journal(tmp_path, MICROSCOPE).aside is not None


@pytest.mark.parametrize("version", [0, 2, 5, 2**20])
def test_a_flipped_version_is_not_another_schema(tmp_path: Path, version: int) -> None:
    path = write_journal(tmp_path, SCHEMA_VERSION)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA user_version={version}")
    journal = Journal(tmp_path, MICROSCOPE)
    assert journal.aside in asides(tmp_path)
    assert journal.last_seq() >= MESSAGES


BREAKERS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut in the header": lambda path: os.truncate(path, 50),
    "cut to a page": lambda path: os.truncate(path, 4096),
    "cut in a page": lambda path: os.truncate(path, path.stat().st_size // 2 + 17),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "half zeroed": lambda path: path.write_bytes(
        path.read_bytes()[: path.stat().st_size // 2] + bytes(path.stat().st_size // 2)
    ),
    "nonsense": lambda path: path.write_bytes(b"nonsense" * 5000),
}


@pytest.mark.parametrize("how", BREAKERS)
def test_a_broken_journal_gives_way_and_the_count_goes_on(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path, MICROSCOPE)
    for angle_deg in (0.0, 3.0, 6.0):
        journal.add(tilt(angle_deg), reading(1.0), Decision.KEEP, draft)
    journal.close(cleanly=True)
    content = journal.path.read_bytes()
    BREAKERS[how](journal.path)
    broken = journal.path.read_bytes()
    journal = Journal(tmp_path, MICROSCOPE)
    if how == "empty":
        assert "the journal is gone" in caplog.text
    else:
        assert journal.aside is not None
        assert journal.aside.read_bytes() == broken != content
        assert caplog.text.count("put aside as") == 1
    assert not journal.knows(tilt(0.0).id), "the scan finds it again"
    assert journal.last_seq() > 6
    assert journal.gaps_from(1) == [(1, journal.last_seq())]
    first = journal.last_seq() + 1
    journal.add(tilt(0.0), reading(1.0), Decision.KEEP, draft)
    assert journal.gaps_from(1) == [(1, first - 1)]
    assert journal.oldest_seq() == first
    journal.close(cleanly=True)
    again = Journal(tmp_path, MICROSCOPE)
    assert (again.aside, again.last_seq()) == (None, first + 1)


def test_where_nothing_tells_how_far_the_count_was_it_jumps(tmp_path: Path) -> None:
    path = write_journal(tmp_path, SCHEMA_VERSION)
    path.write_bytes(bytes(4096))
    assert Journal(tmp_path, MICROSCOPE).last_seq() > 1_000_000_000


def test_damage_that_shows_later_is_noted_for_the_next_start(tmp_path: Path) -> None:
    path = write_journal(tmp_path, SCHEMA_VERSION)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE tilts SET tilt = substr(tilt, 2) WHERE lamella = 's1/L1'")
    journal = Journal(tmp_path, MICROSCOPE)
    assert not journal.damage
    with pytest.raises(DamagedError, match="a tilt cannot be read"):
        journal.history("s1/L1", "s1")
    assert "is damaged" in journal.damage
    assert (tmp_path / MARK).exists()
    journal.close(cleanly=False)
    journal = Journal(tmp_path, MICROSCOPE)
    assert journal.aside is not None and not (tmp_path / MARK).exists()
    use(journal)


def flipped(content: bytes, position: int) -> bytes:
    byte, bit = divmod(position, 8)
    return content[:byte] + bytes([content[byte] ^ 1 << bit]) + content[byte + 1 :]


def survives(state: Path) -> str:
    """Start again and again, as systemd would; says how it went, in which start it worked."""
    for start in range(3):
        journal = None
        try:
            journal = Journal(state, MICROSCOPE)
            assert journal.last_seq() >= 0
            use(journal)
            newest = journal.last_seq()
        except DamagedError:
            continue
        finally:
            if journal is not None:
                journal.close(cleanly=False)
        if asides(state):
            assert newest > MESSAGES, "the count must not go backwards"
            return f"put aside, start {start}"
        return f"as it was, start {start}"
    raise AssertionError("three starts in vain")


def flips(content: bytes, count: int) -> Iterator[int]:
    generator = random.Random(13)
    yield from (8 * 60 + bit for bit in range(min(32, count // 4)))  # the version in the header
    for _ in range(count - min(32, count // 4)):
        yield generator.randrange(len(content) * 8)


def survives_flips(tmp_path: Path, count: int) -> dict[str, int]:
    content = write_journal(tmp_path / "whole", SCHEMA_VERSION).read_bytes()
    seen: dict[str, int] = {}
    for number, position in enumerate(flips(content, count)):
        state = tmp_path / str(number)
        state.mkdir()
        (state / "journal.sqlite3").write_bytes(flipped(content, position))
        (state / "alive").write_text(f"{MESSAGES:020d}\n{MESSAGES:020d}\n")
        how = survives(state)
        seen[how] = seen.get(how, 0) + 1
    return seen


def test_flipped_bits_make_no_crash_loop(tmp_path: Path) -> None:
    seen = survives_flips(tmp_path, 24)
    assert sum(count for how, count in seen.items() if how.startswith("put aside")) >= 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_flipped_bits_at_1000_positions_make_no_crash_loop(tmp_path: Path) -> None:
    seen = survives_flips(tmp_path, 1000)
    print(seen)
    assert sum(seen.values()) == 1000


def test_flipped_bits_in_the_log_make_no_crash_loop(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "whole", MICROSCOPE)
    for angle_deg in range(8):
        journal.add(tilt(float(angle_deg)), reading(1.0), Decision.KEEP, draft)
    kept = {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir() if path.is_file()
    }
    generator = random.Random(7)
    for number in range(20):
        state = tmp_path / str(number)
        state.mkdir()
        for name, content in kept.items():
            (state / name).write_bytes(content)
        log = kept["journal.sqlite3-wal"]
        position = generator.randrange(len(log) * 8)
        (state / "journal.sqlite3-wal").write_bytes(flipped(log, position))
        again = Journal(state, MICROSCOPE)
        assert again.last_seq() >= 0
        use(again)


def test_a_state_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    path = write_journal(tmp_path, SCHEMA_VERSION)
    path.write_bytes(bytes(4096))
    (tmp_path / "journal.sqlite3").rename(tmp_path / "journal.sqlite3-not")
    (tmp_path / "journal.sqlite3").mkdir()
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path, MICROSCOPE)
