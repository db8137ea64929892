"""Shares: nothing they do loses a tilt, doubles one, or ends the daemon."""

from __future__ import annotations

import errno
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engines.microscope import SerialEMStackWriter, write_frame_mdoc_movie
from monitor.intake import Intake
from monitor.sources import all_sources
from tests.daemon import PIXEL_SIZE_ANGSTROM, SHAPE, Daemon, Subscriber, picture
from tests.fuse_share import OPERATIONS, Faults, Share
from tests.pipelines import Parts
from tests.waiting import wait_until

WHEN = datetime(2026, 2, 1, 10, 0, 0)
CHUNK_BYTES = 5000
CHUNKS = SHAPE[0] * SHAPE[1] * 2 // CHUNK_BYTES
POLL_S = 0.5
"""Half as long without a change counts as rest, and nobody here writes with such pauses."""
HUNG_BEFORE_S = 0.3
"""What is asked for one tilt comes within this long after a share that hung answers again."""
LOOKED_BEFORE_S = 0.1
"""A file may be opened this long after somebody began to write to it: it was looked at before."""
ANSWERS_WITHIN_S = 0.5
"""How soon the daemon tells its state, on a machine that others use, too."""


class Microscope(threading.Thread):
    """Writes a stack and movies side by side behind the share, tilt by tilt, each taking a while.

    One that is stopped completes its tilt.
    """

    def __init__(
        self, folder: Path, tilts: int, writing_s: float = 0.25, pause_s: float = 0.25
    ) -> None:
        super().__init__(daemon=True)
        self.folder, self.tilts = folder, tilts
        self.writing_s, self.pause_s = writing_s, pause_s
        self.ended = threading.Event()
        self.done = 0
        self.written: dict[str, list[tuple[float, float]]] = {}
        """When each image was being written to."""
        (folder / "s").mkdir()
        self.stack = SerialEMStackWriter(
            folder / "s/L1.mrc", SHAPE, PIXEL_SIZE_ANGSTROM, chunk_bytes=CHUNK_BYTES
        )

    def run(self) -> None:
        while self.done < self.tilts and not self.ended.is_set():
            angle_deg = 2.0 * self.done - 40.0
            when = WHEN + timedelta(seconds=26 * self.done)
            self._grow_stack(angle_deg, when)
            self._write_movie(angle_deg, when)
            self.done += 1
            self.ended.wait(self.pause_s)

    def _grow_stack(self, angle_deg: float, when: datetime) -> None:
        began_s = time.monotonic()
        for step in self.stack.steps(picture(0.0, self.done), angle_deg, when):
            if step == "pixels":
                time.sleep(self.writing_s / CHUNKS)
            if step != "mdoc":
                ended_s = time.monotonic()
        self.written.setdefault("s/L1.mrc", []).append((began_s, ended_s))

    def _write_movie(self, angle_deg: float, when: datetime) -> None:
        name = f"s/TS_02_{self.done:03d}_{angle_deg:.1f}.mrc"
        before = self.folder.parent / "camera"
        before.mkdir(exist_ok=True)
        image = picture(0.0, 100 + self.done)
        write_frame_mdoc_movie(before / "m.mrc", image, angle_deg, when, PIXEL_SIZE_ANGSTROM)
        pixels, mdoc = (before / "m.mrc").read_bytes(), (before / "m.mrc.mdoc").read_bytes()
        began_s = time.monotonic()
        with (self.folder / name).open("wb", buffering=0) as movie:
            for start in range(0, len(pixels), CHUNK_BYTES):
                movie.write(pixels[start : start + CHUNK_BYTES])
                time.sleep(self.writing_s / CHUNKS)
        self.written[name] = [(began_s, time.monotonic())]
        mdoc = mdoc.replace(b"m.mrc", Path(name).name.encode())
        (self.folder / f"{name}.mdoc").write_bytes(mdoc)

    def opened_too_early(self, share: Share) -> list[str]:
        """List what was opened while it was being written to.

        What hung meanwhile was asked for before.
        """
        return [
            f"{one.path} at {one.at_s - began_s:.2f} of {ended_s - began_s:.2f} s"
            for one in share.opened()
            for began_s, ended_s in self.written.get(one.path, ())
            if began_s + LOOKED_BEFORE_S < one.at_s < ended_s
            and not any(0.0 < one.at_s - answered_s < HUNG_BEFORE_S for answered_s in share.answers)
        ]


class OnShare:
    """The daemon, a share that it watches, and who writes to the share."""

    def __init__(self, folder: Path, share: Share, tilts: int) -> None:
        self.share = share
        self.daemon = Daemon(folder)
        text = self.daemon.config.read_text()
        text = text.replace("poll_interval_s = 0.2", f"poll_interval_s = {POLL_S}")
        self.daemon.config.write_text(
            text.replace(f'"{self.daemon.acquisition}"', f'"{self.share.mount_point}"')
        )
        self.microscope = Microscope(self.share.behind, tilts)
        self.subscriber = Subscriber(self.daemon.endpoint)
        self.slowest_s = 0.0

    def asked(self, page: str) -> None:
        """See how soon a page is there."""
        began_s = time.monotonic()
        url = f"http://{self.daemon.web_address}/{page}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            answer.read()
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    def wait_for_state(self, state: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Wait for a state, asking for the pages all the while."""

        def reached() -> dict[str, Any] | None:
            self.asked("live")
            self.asked("status")
            found = self.daemon.status()
            return found if found["state"] == state else None

        return wait_until(reached, f"state {state}", timeout_s)

    def wait_for_all(self, timeout_s: float = 60.0, *, at_rest: bool = True) -> None:
        """See that every exposure is published exactly once, and what was opened was at rest."""
        self.microscope.join(timeout_s)
        wanted = 2 * self.microscope.done
        tilts = self.subscriber.wait_for("tilt", wanted, timeout_s)
        wait_until(lambda: self.daemon.status()["last_seq"] == 2 * wanted, "the last verdict")
        assert len({one["tilt"]["id"] for one in tilts}) == len(tilts) == wanted
        assert [one for one in tilts if one["ice"]["percent"] is None] == []
        self.wait_for_state("ready")
        assert {one.path for one in self.share.opened()} > self.microscope.written.keys()
        if at_rest:
            assert self.microscope.opened_too_early(self.share) == []
        assert self.slowest_s < ANSWERS_WITHIN_S

    def close(self) -> None:
        self.microscope.ended.set()
        self.share.faults(Faults())
        self.subscriber.close()
        self.daemon.stop()


@contextmanager
def on_share(folder: Path, tilts: int) -> Iterator[OnShare]:
    with Share(folder / "mounted") as share:
        found = OnShare(folder, share, tilts)
        try:
            found.daemon.start().wait_for_state("ready")
            assert found.daemon.status()["watching"] == "poll"
            found.microscope.start()
            yield found
        finally:
            found.close()


EVERYTHING_FAILS = Faults(fails=dict.fromkeys(OPERATIONS, errno.EIO))


def test_a_share_that_blinks_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with on_share(tmp_path, 7) as scene:
        wait_until(lambda: scene.microscope.done, "the first tilt")
        for faults in (
            EVERYTHING_FAILS,
            Faults(is_empty=True),
            Faults(fails={"read": errno.ESTALE}),
        ):
            with scene.share.failing(faults):
                assert scene.wait_for_state("stalled")["reason"]
            scene.wait_for_state("ready")
        scene.share.unmount()
        assert "mount" in scene.wait_for_state("stalled")["reason"]
        scene.share.mount()
        scene.wait_for_all()


@pytest.mark.parametrize("operation", ["readdir", "read"])
def test_a_share_that_does_not_answer_is_said_to_stall(tmp_path: Path, operation: str) -> None:
    """All of it in this process: how long is too long can then be said."""
    with Share(tmp_path) as share:
        root = share.mount_point
        microscope = Microscope(share.behind, 3, writing_s=0.05, pause_s=0.05)
        source = all_sources(root)
        parts = Parts(tmp_path, source=source)
        intake = Intake(root, source, poll_interval_s=0.2, no_answer_s=0.3)
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                offer = intake.next(0.05)
                if offer is not None:
                    done = parts.process(offer.landed)
                    (intake.done if done else intake.retry)(offer.landed)

        threads = [threading.Thread(target=one) for one in (work, lambda: intake.run(stop))]
        for thread in threads:
            thread.start()

        def waits() -> bool:
            since_s = parts.pipeline.reading_since_s
            return since_s is not None and time.monotonic() - since_s > 0.3

        try:
            share.faults(Faults(hangs=(operation,)))
            microscope.run()
            wait_until(lambda: intake.status().stalled or waits(), "the stall to be told")
            assert parts.published == 0
            share.faults(Faults())
            wait_until(lambda: parts.published == 6, "all tilts")
            wait_until(lambda: not intake.status().stalled, "the end of the stall")
            assert not waits()
        finally:
            share.faults(Faults())
            stop.set()
            for thread in threads:
                thread.join(10.0)
            parts.die()
        assert microscope.opened_too_early(share) == []


@pytest.mark.slow
@pytest.mark.parametrize("operation", [*OPERATIONS, "everything"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_whatever_fails_all_is_found(tmp_path: Path, operation: str, number: int) -> None:
    operations = OPERATIONS if operation == "everything" else (operation,)
    with on_share(tmp_path, 30) as scene:
        for _ in range(3):
            with scene.share.failing(Faults(fails=dict.fromkeys(operations, number))):
                assert scene.wait_for_state("stalled")["reason"]
                until_s = time.monotonic() + 3.0
                while time.monotonic() < until_s:
                    scene.asked("live")
                    scene.asked("status")
            scene.wait_for_state("ready")
        scene.wait_for_all()


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_however_long_it_hangs_all_is_found(tmp_path: Path, operation: str) -> None:
    with on_share(tmp_path, 40) as scene:
        for stall_s in (1.0, 20.0):
            with scene.share.failing(Faults(hangs=(operation,))):
                until_s = time.monotonic() + stall_s
                while time.monotonic() < until_s:
                    scene.asked("live")
                    scene.asked("status")
                if stall_s > 12.0:
                    assert "see to its share" in scene.wait_for_state("stalled")["reason"]
            scene.wait_for_state("ready")
        scene.wait_for_all()


@pytest.mark.slow
@pytest.mark.parametrize("stale_s", [1.0, 5.0])
def test_old_listings_and_attributes_only_delay(tmp_path: Path, stale_s: float) -> None:
    with on_share(tmp_path, 20) as scene:
        with scene.share.failing(Faults(stale_s=stale_s)):
            scene.microscope.join(60.0)
            wait_until(lambda: scene.daemon.status()["last_seq"] > 20, "some tilts", 60.0)
        # From attributes that old nobody can tell that a file is being written to.
        scene.wait_for_all(at_rest=False)


@pytest.mark.slow
def test_a_share_that_goes_and_comes_back_all_the_time(tmp_path: Path) -> None:
    with on_share(tmp_path, 40) as scene:
        for turn in range(6):
            scene.share.unmount()
            assert scene.wait_for_state("stalled")["reason"]
            scene.share.mount()
            if turn % 2:
                scene.wait_for_state("ready")
        scene.wait_for_all()
