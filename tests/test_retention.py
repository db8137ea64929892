"""What is kept stays within its limits: the oldest goes first, never the running session."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engines.plans.folder import RECORD
from monitor.journal import Draft, Journal
from monitor.journal_damage import PUT_ASIDE
from monitor.journal_replay import KeptPast, is_notice
from monitor.messages import StatusMessage, parse
from monitor.model import Decision, Tilt
from monitor.retention import Retention
from monitor.settings import StateSettings
from tests.builders import reading, tilt

DAY_S = 86_400.0
NOW_S = 1_800_000_000.0


def draft(first: int) -> list[Draft]:
    bodies = [json.dumps({"seq": seq, "fill": "x" * 900}).encode() for seq in (first, first + 1)]
    return [("tilt", bodies[0]), ("lamella", bodies[1])]


class Store:
    """A state directory that fills, with clocks that only the test moves."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, **limits: float) -> None:
        self.folder = folder
        self.now_s = NOW_S
        self.clock_s = 0.0
        patch.setattr("monitor.journal.time.time", lambda: self.now_s)
        self.journal = Journal(folder, "m")
        self.counted: list[tuple[str, int, int]] = []
        self.used: dict[str, int] = {}
        self.retention = self.again(**limits)

    def again(self, **limits: float) -> Retention:
        """Start again with these limits."""
        settings = StateSettings(directory=self.folder, **limits)
        self.retention = Retention(
            self.journal,
            settings,
            lambda kind, count, size: self.counted.append((kind, count, size)),
            self.used.__setitem__,
            lambda: self.now_s,
            lambda: self.clock_s,
        )
        return self.retention

    def pass_days(self, days: float) -> None:
        self.now_s += days * DAY_S
        self.clock_s += days * DAY_S

    def add(self, session: str, tilts: int = 3) -> list[Tilt]:
        added = []
        for number in range(tilts):
            self.now_s += 1.0
            one = tilt(float(number), "L1", session)
            self.journal.add(one, reading(5.0), Decision.KEEP, draft)
            self.file(f"overlays/{session}/L1_{number:04d}.overlay.png", 20_000)
            added.append(one)
        return added

    def file(self, name: str, size: int = 1000) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        os.utime(path, (self.now_s, self.now_s))
        return path

    def overlays(self) -> list[str]:
        found = (self.folder / "overlays").rglob("*.png")
        return sorted({path.parent.name for path in found})

    def sessions(self) -> list[str]:
        return [one.name for one in self.journal.sessions()]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(tmp_path, monkeypatch)


def test_old_sessions_go_with_their_overlays(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store.again(keep_days=30.0)
    old = store.add("old")
    store.pass_days(20.0)
    store.add("newer")
    store.pass_days(15.0)
    running = store.add("running")
    store.retention.sweep()
    assert store.sessions() == store.overlays() == ["newer", "running"]
    assert [kind for kind, count, _ in store.counted] == ["overlays", "journal"]
    assert {kind: count for kind, count, _ in store.counted} == {"overlays": 3, "journal": 1}
    assert all(size > 0 for *_, size in store.counted)
    said = [one.message for one in caplog.records if one.message.startswith("removed ")]
    assert len(said) == 2
    assert all("older than state.keep_days = 30" in line for line in said)
    assert "'old'" in said[1]
    assert all(store.journal.knows(one.id) for one in (*old, *running)), "none is read again"
    assert store.journal.history("old/L1", "old").readings == ()
    assert store.journal.lamella_messages("old") == []


def test_replay_says_what_is_not_there_any_more(store: Store) -> None:
    store.again(keep_days=30.0)
    store.add("a")
    store.pass_days(31.0)
    store.add("b")
    store.retention.sweep()
    journal = store.journal
    assert journal.oldest_seq() == 7
    assert journal.gaps_from(1) == [(1, 6)]
    assert journal.gaps_from(4) == [(4, 6)]
    assert journal.gaps_from(8) == []
    assert journal.last_seq() == 12
    assert [one.seq for one in journal.messages_from(1, -1)] == [7, 8, 9, 10, 11, 12]


def test_sessions_in_turns_leave_gaps_in_between(store: Store) -> None:
    store.again(keep_days=30.0)
    store.add("a", 1)
    store.add("running", 1)
    store.journal.add(tilt(9.0, "L9", "a"), reading(1.0), Decision.KEEP, draft)
    store.pass_days(31.0)
    store.journal.add(tilt(9.0, "L9", "running"), reading(1.0), Decision.KEEP, draft)
    store.retention.sweep()
    assert store.journal.gaps_from(1) == [(1, 2), (5, 6)]


def test_a_forgotten_tilt_stays_known_over_restarts(store: Store) -> None:
    store.again(keep_days=1.0)
    old = store.add("old")
    store.pass_days(2.0)
    store.add("running")
    store.retention.sweep()
    store.journal.close(cleanly=True)
    journal = Journal(store.folder, "m")
    assert all(journal.knows(one.id) for one in old)
    assert not journal.knows(tilt(7.0, "L1", "old").id)
    assert journal.last_seq() == 12


def test_too_much_goes_from_the_oldest_on(store: Store) -> None:
    for number in range(6):
        store.add(f"s{number}", 5)
        store.pass_days(1.0)
    store.retention.sweep()
    assert len(store.sessions()) == 6
    assert sum(store.used.values()) > 600_000
    store.again(max_size_gb=0.0004).sweep()
    kept = store.overlays()
    assert kept and kept[-1] == "s5"
    assert kept == sorted(kept) and "s0" not in kept
    assert sum(store.used.values()) <= 400_000 + 20_000


def test_the_running_session_is_never_touched(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.add("running", 10)
    store.pass_days(1000.0)
    store.again(max_size_gb=1e-9, keep_days=0.001)
    for _ in range(2):
        store.retention.sweep()
    assert store.sessions() == store.overlays() == ["running"]
    assert len(list((store.folder / "overlays/running").iterdir())) == 10
    assert caplog.text.count("what must stay, the running session above all") == 1


def test_overlays_of_loose_files_are_told_by_their_time(store: Store) -> None:
    store.file("overlays/early.overlay.png")
    store.pass_days(31.0)
    store.add("2026-01-01 10:00")
    loose = store.file("overlays/late.overlay.png")
    store.pass_days(40.0)
    store.again(keep_days=30.0).sweep()
    assert not (store.folder / "overlays/early.overlay.png").exists()
    assert loose.exists()


def test_journals_that_were_put_aside_and_old_plans_go(store: Store) -> None:
    aside = store.file(f"{PUT_ASIDE}20260101T000000Z.sqlite3")
    old = store.file("engines/" + "a" * 32 + ".plan", 5000)
    record = store.file(f"engines/{old.name}{RECORD}")
    store.pass_days(40.0)
    serving = store.file("engines/" + "b" * 32 + ".plan", 5000)
    store.pass_days(300.0)
    store.add("running")
    store.again(keep_days=100.0).sweep()
    assert not any(path.exists() for path in (aside, old, record))
    assert serving.exists(), "the newest serves, however old"
    assert {kind for kind, *_ in store.counted} == {"engines", "damaged_journals"}


def test_what_was_never_ours_stays(store: Store) -> None:
    others = [store.file(name) for name in ("working", "note.txt", "engines/readme", "engine")]
    store.pass_days(1000.0)
    store.add("running")
    store.again(keep_days=1.0, max_size_gb=1e-9).sweep()
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("jump_days", [400.0, -400.0])
def test_a_clock_that_jumps_makes_nothing_old(
    store: Store, jump_days: float, caplog: pytest.LogCaptureFixture
) -> None:
    store.again(keep_days=100.0)
    store.add("old")
    store.add("running")
    store.retention.sweep()
    store.now_s += jump_days * DAY_S
    store.add("jumped")
    store.retention.sweep()
    assert "the clock jumped" in caplog.text
    store.now_s -= jump_days * DAY_S  # somebody sets it right
    store.retention.sweep()
    store.add("right")
    store.pass_days(2.0)
    store.retention.sweep()
    assert "old" in store.sessions()
    assert "running" in store.sessions()


def test_a_clock_that_is_wrong_at_the_start_makes_nothing_old(store: Store) -> None:
    store.again(keep_days=100.0)
    store.add("old")
    store.add("running")
    store.retention.sweep()
    store.now_s += 400 * DAY_S
    store.again(keep_days=100.0)
    store.add("after the start")
    store.retention.sweep()
    assert "old" in store.sessions()
    store.pass_days(1.1)
    store.retention.sweep()
    assert "old" not in store.sessions(), "after a day the clock is believed"


def test_a_folder_that_cannot_be_read_ends_nothing(store: Store) -> None:
    (store.folder / "overlays").write_text("no folder")
    (store.folder / "engines").write_text("no folder")
    store.retention.sweep()


def test_a_session_of_several_steps_is_forgotten_whole(store: Store) -> None:
    store.journal._db.execute("PRAGMA synchronous=OFF")
    for number in range(700):
        one = tilt(number / 10, f"L{number // 61}", "old")
        store.now_s += 1.0
        store.journal.add(one, reading(5.0), Decision.KEEP, draft)
    store.add("running", 1)
    before = store.journal.used_bytes()
    assert store.journal.forget("old") == 700
    assert store.journal.used_bytes() < before / 5
    assert store.sessions() == ["running"]
    assert store.journal.knows(tilt(0.0, "L0", "old").id)


def heartbeat(last_seq: int) -> StatusMessage:
    return StatusMessage(
        seq=last_seq,
        boot_id="b",
        time="2026-01-01T10:00:00.000Z",
        microscope="m",
        state="ready",
        reason="",
        backend="onnxruntime",
        last_seq=last_seq,
        backlog=0,
        oldest_unprocessed_s=0.0,
        replay_endpoint="",
    )


def test_a_subscriber_is_told_of_every_gap(store: Store) -> None:
    store.again(keep_days=30.0)
    store.add("a", 1)
    store.add("running", 1)
    store.journal.add(tilt(9.0, "L9", "a"), reading(1.0), Decision.KEEP, draft)
    store.pass_days(31.0)
    store.journal.add(tilt(9.0, "L9", "running"), reading(1.0), Decision.KEEP, draft)
    past = KeptPast(store.journal, lambda: heartbeat(8))
    assert past.messages_from(0, 500) == store.journal.messages_from(0, 500)
    store.retention.sweep()
    told = past.messages_from(0, 500)
    assert [(one.seq, one.topic) for one in told] == [
        (2, "status"),
        (3, "tilt"),
        (4, "lamella"),
        (6, "status"),
        (7, "tilt"),
        (8, "lamella"),
    ]
    notice = parse("status", told[3].body)
    assert isinstance(notice, StatusMessage) and is_notice(notice)
    assert (notice.seq, notice.last_seq) == (6, 8)
    assert notice.reason.startswith("not kept: messages 5 to 6 are gone")
    assert [one.seq for one in past.messages_from(3, 2)] == [3, 4]
    assert [one.seq for one in past.messages_from(6, 500)] == [6, 7, 8]
    assert past.messages_from(9, 500) == []


def test_a_subscriber_is_told_where_all_is_gone(tmp_path: Path) -> None:
    (tmp_path / "alive").write_text(f"{41:020d}\n{42:020d}\n")
    journal = Journal(tmp_path, "m")
    past = KeptPast(journal, lambda: heartbeat(journal.last_seq()))
    (only,) = past.messages_from(7, 500)
    assert (only.seq, only.topic) == (journal.last_seq(), "status")
    assert b"not kept: messages 7 to " in only.body
    assert past.messages_from(journal.last_seq() + 1, 500) == []
