import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from engines.microscope import SerialEMStackWriter, write_frame_mdoc_movie
from monitor.errors import NotReady, SourceError
from monitor.intake import Intake
from monitor.model import Landed, Tilt, TiltId
from monitor.sources import all_sources
from tests.waiting import wait_until

WHEN = datetime(2026, 2, 1, 10, 0, 0)
Watch = Literal["auto", "events", "poll"]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


class Stepped:
    """An intake that is driven by hand, with a clock of its own."""

    def __init__(self, root: Path, poll_interval_s: float = 2.0) -> None:
        self.clock = Clock()
        self.intake = Intake(
            root,
            all_sources(root),
            poll_interval_s=poll_interval_s,
            watch="poll",
            clock=self.clock,
        )

    def after(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.intake.step()

    def offered(self) -> list[Landed]:
        """Take and finish all that waits."""
        found = []
        while (offer := self.intake.next(0.0)) is not None:
            found.append(offer.landed)
            self.intake.done(offer.landed)
        return found

    def names(self) -> list[str]:
        return [landed.relative for landed in self.offered()]


def test_every_file_is_offered_once_oldest_first(tmp_path: Path) -> None:
    fill(tmp_path, "s/b.mrc", "s/a.mrc", "s/a.mrc.mdoc", "loose.mrc", "s/notes.txt")
    os.utime(tmp_path / "s/a.mrc", ns=(1, 1))
    os.utime(tmp_path / "loose.mrc", ns=(2, 2))
    stepped = Stepped(tmp_path)
    stepped.after(0)
    assert stepped.names() == ["s/a.mrc", "loose.mrc", "s/b.mrc"]
    for _ in range(50):
        stepped.after(2)
    assert stepped.names() == []
    status = stepped.intake.status()
    assert (status.files_seen, status.files_ignored, status.backlog) == (5, 1, 0)
    assert (status.stalled, status.reason, status.watching) == (False, "", "poll")
    assert status.last_scan_s_ago == 0.0


def test_growth_in_place_is_seen_by_the_next_scan(tmp_path: Path) -> None:
    fill(tmp_path, "s/a.mrc", "s/a.mrc.mdoc")
    stepped = Stepped(tmp_path)
    stepped.after(0)
    stepped.offered()
    for member in ("s/a.mrc", "s/a.mrc.mdoc"):
        with (tmp_path / member).open("ab") as file:
            file.write(b"y")
        stepped.after(2)
        assert stepped.names() == ["s/a.mrc"]


def test_an_old_file_that_grows_again_is_seen_within_half_a_minute(tmp_path: Path) -> None:
    fill(tmp_path, "s/old.mrc", "s/new.mrc")
    os.utime(tmp_path / "s/old.mrc", (0, 0))
    stepped = Stepped(tmp_path)
    stepped.after(0)
    stepped.after(2)
    stepped.offered()
    with (tmp_path / "s/old.mrc").open("ab") as file:
        file.write(b"y")
    os.utime(tmp_path / "s/old.mrc", (1, 1))
    seconds = 0
    while not (names := stepped.names()):
        stepped.after(2)
        seconds += 2
    assert names == ["s/old.mrc"]
    assert seconds <= 30


def test_incomplete_files_are_looked_at_often_however_rare_the_scans(tmp_path: Path) -> None:
    fill(tmp_path, "s/a.mrc")
    stepped = Stepped(tmp_path, poll_interval_s=600.0)
    stepped.after(0)
    quiet = []
    for _ in range(4):
        offer = stepped.intake.next(0.0)
        assert offer is not None
        quiet.append((offer.landed.quiet_s, offer.landed.unchanged_scans))
        stepped.intake.retry(offer.landed)
        stepped.after(2)
    assert quiet == [(0, 0), (2, 1), (4, 2), (6, 3)]
    assert stepped.intake.status().backlog == 1


def test_a_missing_directory_stalls_and_is_waited_for(tmp_path: Path) -> None:
    root = tmp_path / "data"
    stepped = Stepped(root)
    stepped.after(0)
    status = stepped.intake.status()
    assert status.stalled
    assert str(root) in status.reason
    assert status.last_scan_s_ago is None
    fill(root, "s/a.mrc")
    stepped.after(2)
    assert not stepped.intake.status().stalled
    assert stepped.names() == ["s/a.mrc"]
    shutil.rmtree(root)
    stepped.after(2)
    assert stepped.intake.status().stalled
    fill(root, "s/b.mrc")
    stepped.after(2)
    assert stepped.names() == ["s/b.mrc"]


def test_a_share_that_blinks_loses_and_doubles_nothing(tmp_path: Path) -> None:
    root, away = tmp_path / "data", tmp_path / "away"
    fill(root, "s/a.mrc", "s/b.mrc")
    stepped = Stepped(root)
    stepped.after(0)
    stepped.offered()
    for _ in range(3):
        (root / "s").rename(away)
        stepped.after(2)
        assert stepped.intake.status().stalled
        away.rename(root / "s")
        stepped.after(2)
        assert not stepped.intake.status().stalled
        assert stepped.names() == []


def test_a_share_that_does_not_answer_is_said_to_stall(tmp_path: Path) -> None:
    """The scan hangs in the kernel; the status must still be told, and tell of it."""
    fill(tmp_path, "s/a.mrc")
    clock = Clock()
    reached, answer = threading.Event(), threading.Event()

    class Source:
        kind = "hanging"

        def __init__(self) -> None:
            inner = all_sources(tmp_path)
            self.new_tilts, self.pixels = inner.new_tilts, inner.pixels

        def claims(self, relative: str) -> str | None:
            reached.set()
            answer.wait(10.0)
            return relative

    intake = Intake(tmp_path, Source(), watch="poll", clock=clock)
    stop = threading.Event()
    thread = threading.Thread(target=intake.run, args=(stop,))
    thread.start()
    try:
        assert reached.wait(10.0)
        assert not intake.status().stalled
        clock.now_s += 60
        status = intake.status()
        assert status.stalled
        assert "has not answered for 60 s" in status.reason
        answer.set()
        wait_until(lambda: not intake.status().stalled, "the share to answer")
    finally:
        answer.set()
        stop.set()
        thread.join(10.0)


@contextmanager
def running(root: Path, watch: Watch, poll_interval_s: float = 0.05) -> Iterator[Intake]:
    intake = Intake(root, all_sources(root), poll_interval_s=poll_interval_s, watch=watch)
    stop = threading.Event()
    thread = threading.Thread(target=intake.run, args=(stop,))
    thread.start()
    try:
        yield intake
    finally:
        stop.set()
        thread.join(10.0)
        assert not thread.is_alive()


class Worker(threading.Thread):
    """The smallest pipeline: reads each offered file and remembers what it found."""

    def __init__(self, intake: Intake, found: list[Tilt]) -> None:
        super().__init__(daemon=True)
        self.intake, self.found = intake, found
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            offer = self.intake.next(0.05)
            if offer is None:
                continue
            try:
                for tilt in offer.source.new_tilts(offer.landed, self.known):
                    offer.source.pixels(tilt)
                    self.found.append(tilt)
            except NotReady:
                self.intake.retry(offer.landed)
                continue
            except SourceError:
                pass
            self.intake.done(offer.landed)

    def known(self, tilt_id: TiltId) -> bool:
        return any(tilt.id == tilt_id for tilt in self.found)


def image(k: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.random.default_rng(k).integers(0, 900, (16, 16)).astype(np.int16)


@pytest.mark.parametrize("watch", ["events", "poll"])
def test_series_that_grow_side_by_side_are_found_tilt_by_tilt(tmp_path: Path, watch: Watch) -> None:
    root = tmp_path / "data"
    (root / "s").mkdir(parents=True)
    found: list[Tilt] = []
    with running(root, watch) as intake:
        worker = Worker(intake, found)
        worker.start()
        stacks = [SerialEMStackWriter(root / f"s/L{n}.mrc", (16, 16), 2.0) for n in range(3)]
        for k in range(8):
            when = WHEN + timedelta(seconds=k)
            for stack in stacks:
                stack.add(image(k), 3.0 * k, when)
            name = f"s/TS_01_{k:03d}_{3.0 * k}.mrc"
            write_frame_mdoc_movie(root / name, image(k), 3.0 * k, when, 2.0)
        wait_until(lambda: len(found) >= 32, f"32 tilts, found {len(found)}", 20.0)
        worker.stop.set()
        worker.join(10.0)
    assert len({tilt.id for tilt in found}) == len(found) == 32


def test_a_restart_finds_what_came_meanwhile_and_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    stack = SerialEMStackWriter(tmp_path / "s/L1.mrc", (16, 16), 2.0)
    found: list[Tilt] = []
    for start in range(3):
        stack.add(image(start), 3.0 * start, WHEN + timedelta(seconds=start))
        with running(tmp_path, "auto") as intake:
            worker = Worker(intake, found)
            worker.start()
            wait_until(lambda start=start: len(found) == start + 1, "the tilt")  # type: ignore[misc]
            worker.stop.set()
            worker.join(10.0)
    assert [tilt.angle_deg for tilt in found] == [0.0, 3.0, 6.0]


def test_an_event_brings_a_file_long_before_the_next_scan(tmp_path: Path) -> None:
    fill(tmp_path, "s/first.mrc")
    with running(tmp_path, "events", poll_interval_s=600.0) as intake:
        assert intake.next(10.0) is not None
        wait_until(lambda: intake.status().watching == "events", "events")
        fill(tmp_path, "s/a.mrc")
        offer = intake.next(10.0)
        assert offer is not None
        assert offer.landed.relative == "s/a.mrc"
        fill(tmp_path, "new/session/b.mrc")
        offer = intake.next(10.0)
        assert offer is not None
        assert offer.landed.relative == "new/session/b.mrc"


def test_events_go_on_after_the_directory_was_replaced(tmp_path: Path) -> None:
    root = tmp_path / "data"
    fill(root, "s/a.mrc")
    with running(root, "events") as intake:
        assert intake.next(10.0) is not None
        root.rename(tmp_path / "old")
        wait_until(lambda: intake.status().stalled, "the intake to stall")
        fill(root, "s/b.mrc")
        offer = intake.next(10.0)
        assert offer is not None
        assert offer.landed.relative == "s/b.mrc"
        wait_until(lambda: not intake.status().stalled, "the intake to go on")


def test_a_burst_of_files_is_found_whole(tmp_path: Path) -> None:
    names = {f"s{n % 7}/f{n:04d}.mrc" for n in range(3000)}
    with running(tmp_path, "auto") as intake:
        fill(tmp_path, *names)
        found: set[str] = set()

        def collect() -> bool:
            while (offer := intake.next(0.0)) is not None:
                found.add(offer.landed.relative)
                intake.done(offer.landed)
            return found == names

        wait_until(collect, "all files of the burst", 30.0)


def test_nothing_below_the_directory_is_opened_or_changed(tmp_path: Path) -> None:
    """Files that cannot be opened at all are found just the same."""
    os.mkfifo(tmp_path / "pipe.mrc")
    fill(tmp_path, "s/a.mrc")
    (tmp_path / "s/a.mrc").chmod(0o000)
    before = [(path, path.lstat()) for path in sorted(tmp_path.rglob("*"))]
    stepped = Stepped(tmp_path)
    stepped.after(0)
    assert stepped.names() == ["s/a.mrc"]
    for path, stat in before:
        now = path.lstat()
        assert (now.st_atime_ns, now.st_ctime_ns) == (
            stat.st_atime_ns,
            stat.st_ctime_ns,
        ) or path.is_dir()


def test_what_lands_comes_before_what_lay_there(tmp_path: Path) -> None:
    fill(tmp_path, *(f"s/old{number}.mrc" for number in range(3)))
    stepped = Stepped(tmp_path)
    stepped.after(0)
    stepped.after(2)
    first = stepped.intake.next(0.0)
    assert first is not None
    fill(tmp_path, "s/new.mrc")
    with (tmp_path / "s/old1.mrc").open("ab") as file:
        file.write(b"y")
    stepped.after(2)
    assert stepped.intake.waiting == 3
    assert stepped.intake.make_way(first.landed)
    stepped.intake.retry(first.landed)
    assert stepped.names() == ["s/new.mrc", "s/old1.mrc", "s/old0.mrc", "s/old2.mrc"]


def test_a_file_that_waited_is_offered_as_it_is_now(tmp_path: Path) -> None:
    fill(tmp_path, "s/a.mrc", "s/a.mrc.mdoc", "s/b.mrc")
    stepped = Stepped(tmp_path)
    stepped.after(0)
    with (tmp_path / "s/a.mrc").open("ab") as file:
        file.write(b"y")
    stepped.clock.now_s += 20
    offers = {landed.relative: landed for landed in stepped.offered()}
    assert offers["s/a.mrc"].stat.size == 2
    assert (offers["s/a.mrc"].quiet_s, offers["s/a.mrc"].unchanged_scans) == (0, 0)
    assert (offers["s/b.mrc"].quiet_s, offers["s/b.mrc"].unchanged_scans) == (20, 10)
    with (tmp_path / "s/a.mrc.mdoc").open("ab") as file:
        file.write(b"y")
    stepped.after(4)
    (offer,) = stepped.offered()
    assert (offer.quiet_s, offer.image_quiet_s) == (0, 4)


def test_a_file_that_went_while_it_waited_is_not_offered(tmp_path: Path) -> None:
    fill(tmp_path, "s/a.mrc", "s/b.mrc")
    gone: list[str] = []
    stepped = Stepped(tmp_path)
    stepped.intake._on_gone = gone.append
    stepped.after(0)
    (tmp_path / "s/a.mrc").unlink()
    assert stepped.names() == ["s/b.mrc"]
    fill(tmp_path, "s/a.mrc")
    stepped.after(2)
    assert stepped.names() == ["s/a.mrc"], "it was only away"
    (tmp_path / "s/a.mrc").unlink()
    stepped.after(2)
    assert stepped.names() == []
    assert gone == ["s/a.mrc"]
    assert stepped.intake.status().incomplete == 0


@pytest.mark.parametrize("remote", [True, False])
def test_another_mount_of_the_same_share_raises_no_storm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    monkeypatch.setattr("monitor.intake.has_remote_writers", lambda path: remote)
    root = tmp_path / "data"
    fill(root, *(f"s/{name}.mrc" for name in "abc"))
    stepped = Stepped(root)
    stepped.after(0)
    assert len(stepped.names()) == 3
    shutil.copytree(root, tmp_path / "again")  # with the times, but other inodes
    root.rename(tmp_path / "before")
    (tmp_path / "again").rename(root)
    (root / "s/b.mrc").write_bytes(b"xy")
    fill(root, "s/d.mrc")
    stepped.after(2)
    changed = ["s/b.mrc", "s/d.mrc"]
    assert sorted(stepped.names()) == (changed if remote else [f"s/{name}.mrc" for name in "abcd"])
    stepped.after(2)
    assert stepped.names() == []


def test_a_folder_that_fails_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "s/a.mrc", "t/b.mrc", "u/c.mrc")
    real = os.scandir

    def broken(path: Path) -> object:
        if Path(path).name == "t":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    monkeypatch.setattr(os, "scandir", broken)
    stepped = Stepped(tmp_path)
    stepped.after(0)
    assert sorted(stepped.names()) == ["s/a.mrc", "u/c.mrc"]
    assert "Input/output error" in stepped.intake.status().reason
    fill(tmp_path, "s/d.mrc")
    stepped.after(2)
    assert stepped.names() == ["s/d.mrc"]
    monkeypatch.undo()
    stepped.after(2)
    assert not stepped.intake.status().stalled
    assert stepped.names() == ["t/b.mrc"]


def test_a_worker_that_hangs_at_a_look_is_said_to_stall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "s/a.mrc")
    stepped = Stepped(tmp_path)
    stepped.after(0)
    reached, answer = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        reached.set()
        answer.wait(10.0)

    monkeypatch.setattr("monitor.intake.stat_now", hang)
    worker = threading.Thread(target=stepped.intake.next, args=(0.0,))
    worker.start()
    try:
        assert reached.wait(10.0)
        stepped.clock.now_s += 11
        assert "has not answered for 11 s" in stepped.intake.status().reason
    finally:
        answer.set()
        worker.join(10.0)
    assert not stepped.intake.status().stalled


def test_a_tilt_reaches_the_worker_within_a_second(tmp_path: Path) -> None:
    """From the last line of its mdoc to the moment in which its pixels are asked for."""
    root = tmp_path / "data"
    (root / "s").mkdir(parents=True)
    found: list[Tilt] = []
    waited_s = []
    with running(root, "auto", poll_interval_s=2.0) as intake:
        wait_until(lambda: intake.status().watching == "events", "events")
        worker = Worker(intake, found)
        worker.start()
        stack = SerialEMStackWriter(root / "s/L1.mrc", (16, 16), 2.0)
        for k in range(20):
            stack.add(image(k), 3.0 * k, WHEN + timedelta(seconds=k))
            complete_s = time.monotonic()
            wait_until(lambda k=k: len(found) == k + 1, "the tilt")  # type: ignore[misc]
            waited_s.append(time.monotonic() - complete_s)
        worker.stop.set()
        worker.join(10.0)
    assert sorted(waited_s)[18] <= 1.0, waited_s
