"""The real daemon with a journal that is damaged, or a state directory that cannot be written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from monitor.journal_damage import PUT_ASIDE
from monitor.journal_replay import is_notice
from monitor.journal_schema import SCHEMA_VERSION
from monitor.listen import listen
from monitor.messages import Message, StatusMessage, TiltMessage
from tests.daemon import Daemon, Microscope, picture
from tests.golden_journals import write_journal
from tests.waiting import wait_until

ANGLES_DEG = (0.0, 3.0, -3.0)


def test_a_damaged_journal_is_rebuilt_by_the_scan(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    microscope = Microscope(daemon.acquisition)
    for angle_deg in ANGLES_DEG:
        microscope.add("s/L1", angle_deg, picture(12.0))
    try:
        daemon.start()
        wait_until(lambda: daemon.status().get("last_seq") == 6, "three tilts", 50.0)
        daemon.signal(signal.SIGKILL)
        path = daemon.state / "journal.sqlite3"
        for name in ("journal.sqlite3-wal", "journal.sqlite3-shm"):
            (daemon.state / name).unlink()
        path.write_bytes(bytes(path.stat().st_size))
        daemon.start()
        heard: list[Message] = []
        tilts: dict[str, int] = {}
        for message, _ in listen(daemon.endpoint, 1, heard_within_s=50.0):
            heard.append(message)
            if isinstance(message, TiltMessage):
                tilts[message.tilt.id] = message.seq
            if len(tilts) == 3:
                break
        assert min(tilts.values()) > 6
        notices = [one for one in heard if isinstance(one, StatusMessage) and is_notice(one)]
        assert [one.seq for one in notices] == [min(tilts.values()) - 1]
        assert notices[0].reason.startswith("not kept: messages 1 to ")
        (aside,) = daemon.state.glob(f"{PUT_ASIDE}*.sqlite3")
        code, log = daemon.signal(signal.SIGTERM)
        assert code == 0
        assert f"put aside as '{aside.name}'" in log
    finally:
        daemon.stop()


@pytest.mark.slow
def test_damage_that_shows_while_it_runs_ends_one_boot_and_no_more(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    microscope = Microscope(daemon.acquisition)
    microscope.add("s/L1", 0.0, picture(12.0))
    try:
        daemon.start()
        wait_until(lambda: daemon.status().get("last_seq") == 2, "the first tilt", 50.0)
        spoil(daemon.state / "journal.sqlite3", "UPDATE tilts SET tilt = '{'")
        microscope.add("s/L1", 3.0, picture(12.0))
        code, log = daemon.wait()
        assert code == 1
        assert "is damaged (a tilt cannot be read" in log
        assert log.count("it is put aside at the next start") == 1
        daemon.start()
        status = wait_until(
            lambda: found if (found := daemon.status()).get("backlog") == 0 else None,
            "the start",
            50.0,
        )
        assert status["last_seq"] >= 4
        wait_until(
            lambda: (daemon.status().get("last_tilt") or {}).get("angle_deg") == 3.0, "both", 50.0
        )
        assert len(list(daemon.state.glob(f"{PUT_ASIDE}*.sqlite3"))) == 1
    finally:
        daemon.stop()


def spoil(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def test_a_newer_journal_ends_the_start_with_status_2(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    path = write_journal(daemon.state, SCHEMA_VERSION)
    spoil(path, "UPDATE meta SET value = '9' WHERE key = 'schema'", "PRAGMA user_version=9")
    code, log = daemon.start().wait()
    assert (code, log.count("\n")) == (2, 1)
    assert "written by a newer icewatch (schema 9" in log


@pytest.mark.slow
def test_the_journal_of_another_microscope_ends_the_start_with_status_2(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    write_journal(daemon.state, SCHEMA_VERSION)
    code, log = daemon.start().wait()
    assert (code, log.count("\n")) == (2, 1)
    assert "belongs to microscope 'krios1', not 'test'; name another state.directory" in log


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a file system in memory; skips where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_survived_and_nothing_is_lost(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    microscope = Microscope(daemon.acquisition)
    microscope.add("s/L1", 0.0, picture(12.0))
    with small_disk(daemon.state, "8m"):
        try:
            daemon.start()
            wait_until(lambda: daemon.status().get("last_seq") == 2, "the first tilt", 50.0)
            filler = daemon.state / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
            for number in range(1, 9):
                microscope.add("s/L1", 3.0 * number, picture(12.0))
            found = daemon.wait_for_state("degraded")
            assert "free" in found["reason"]
            filler.unlink()
            wait_until(lambda: daemon.status().get("last_seq") == 18, "all tilts", 50.0)
            daemon.wait_for_state("ready")
            code, _ = daemon.signal(signal.SIGTERM)
            assert code == 0
        finally:
            daemon.stop()


@pytest.mark.slow
def test_a_state_directory_that_turns_read_only_is_survived(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    microscope = Microscope(daemon.acquisition)
    microscope.add("s/L1", 0.0, picture(12.0))
    remount = ["mount", "-o"]
    with small_disk(daemon.state, "16m"):
        try:
            # a file system with open files cannot be remounted: a read-only cover, as a failing
            # disk gives, comes with a restart
            daemon.start()
            wait_until(lambda: daemon.status().get("last_seq") == 2, "the first tilt", 50.0)
            daemon.signal(signal.SIGTERM)
            subprocess.run([*remount, "remount,ro", str(daemon.state)], check=True)
            code, log = daemon.start().wait()
            assert (code, log.count("\n")) == (1, 1)
            assert "cannot be used (Read-only file system); make it writable" in log
            subprocess.run([*remount, "remount,rw", str(daemon.state)], check=True)
            microscope.add("s/L1", 3.0, picture(12.0))
            daemon.start()
            wait_until(lambda: daemon.status().get("last_seq") == 4, "the next tilt", 50.0)
        finally:
            daemon.stop()
