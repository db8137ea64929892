"""The daemon under strace while every layout lands: it only reads, and only what is at rest."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.microscope_step import Step
from monitor.simulate.driver import Driver
from monitor.simulate.layouts import SCRIPTS
from monitor.simulate.request import LAYOUTS
from monitor.simulate.script import Taken
from monitor.simulate.session import Session
from tests.daemon import Daemon, Subscriber
from tests.simulated import check_published, request, truth_of
from tests.traced import STRACE, Call, Spans, calls, under_strace, violations
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(STRACE is None, reason="needs Debian package strace")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(tmp_path)
    found.acquisition.mkdir()
    yield found
    found.stop()


def digest(root: Path) -> str:
    """Names, sizes, contents, times and modes of all that lies below a directory."""
    found = hashlib.sha256()
    for path in [root, *sorted(root.rglob("*"))]:
        now = path.lstat()
        facts = (str(path), now.st_ino, now.st_mode, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        found.update(repr(facts).encode())
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()


def trace(
    daemon: Daemon, layouts: dict[str, tuple[str, ...]], *, step_s: float, tilts: int = 4
) -> list[str]:
    """Let sessions land in front of a traced daemon; returns what it did that it must not.

    The microscope pauses after each single write, so that most of the time a file is unsettled.
    """
    pause = threading.Event()

    def on_step(step: Step, began_s: float, ended_s: float) -> None:
        spans.on_step(step, began_s, ended_s)
        pause.wait(step_s)

    file, spans, taken = daemon.folder / "strace.txt", Spans(), list[Taken]()
    subscriber = Subscriber(daemon.endpoint)
    try:
        daemon.start(*under_strace(file)).wait_for_state("ready")
        for layout, faults in layouts.items():
            wanted = request(
                daemon.acquisition, layout, *faults, series=2, tilts=tilts, speed=100.0
            )
            driver = Driver(
                wanted.out,
                speed=wanted.speed,
                on_step=on_step,
                on_taken=lambda one, done: taken.append(one),
            )
            driver.run(SCRIPTS[layout](Session(wanted)))
        spans.close(time.time() + 3600.0)
        at_rest = digest(daemon.acquisition)
        expected = [truth_of(one, daemon.acquisition) for one in taken]
        subscriber.wait_for("tilt", sum(one.complete and one.kept for one in expected), 60.0)
        beats = len(subscriber.messages("status"))
        subscriber.wait_for("status", beats + 2)
        check_published(expected, [one["tilt"] for one in subscriber.messages("tilt")])
        assert daemon.process is not None
        end = f"{daemon.process.pid} "
        assert daemon.signal(signal.SIGTERM)[0] == 0
        wait_until(lambda: _has_ended(file, end), "strace to write its last line")
    finally:
        subscriber.close()
    assert digest(daemon.acquisition) == at_rest
    done = calls(file, daemon.acquisition)
    assert any(call.name == "openat" and not call.failed for call in done), "nothing was traced"
    assert len(spans) > len(expected)
    return violations(done, daemon.acquisition, spans)


def _has_ended(file: Path, thread: str) -> bool:
    lines = file.read_text(errors="replace").splitlines()
    return any(line.startswith(thread) and "+++ exited" in line for line in lines[-20:])


def assert_none(found: list[str]) -> None:
    assert not found, "\n".join([f"{len(found)} violations:", *found[:40]])


def test_two_layouts_are_only_read_and_only_at_rest(daemon: Daemon) -> None:
    layouts = {"pacetomo": (), "frames-mrc": ("stall",)}
    assert_none(trace(daemon, layouts, step_s=0.01, tilts=3))


@pytest.mark.slow
@pytest.mark.parametrize("layout", [one for one in LAYOUTS if one != "custom"])
def test_every_layout_is_only_read_and_only_at_rest(layout: str, daemon: Daemon) -> None:
    assert_none(trace(daemon, {layout: ()}, step_s=0.04))


OFFENDER = """
import fcntl, mmap, os, sys
os.chdir(sys.argv[1])
print("go", flush=True)
sys.stdin.readline()
for name in ("unsettled", "settled"):
    os.close(os.open(os.path.join(sys.argv[1], name), os.O_RDONLY))
os.close(os.open("settled", os.O_RDWR))
file = os.open("settled", os.O_RDONLY)
fcntl.flock(file, fcntl.LOCK_SH)
fcntl.lockf(file, fcntl.LOCK_SH)
mmap.mmap(file, 0, prot=mmap.PROT_READ)
os.utime(os.path.join(sys.argv[1], "settled"))
os.chmod(file, 0o600)
os.rename(os.path.join(sys.argv[1], "settled"), os.path.join(sys.argv[1], "renamed"))
os.mkdir(os.path.join(sys.argv[1], "made"))
os.unlink(os.path.join(sys.argv[1], "unsettled"))
"""


def test_the_trace_shows_what_must_not_be_done(tmp_path: Path) -> None:
    root, file, spans = tmp_path / "data", tmp_path / "strace.txt", Spans()
    root.mkdir()
    for name in ("unsettled", "settled"):
        (root / name).write_bytes(b"1234")
    offender = subprocess.Popen(
        [*under_strace(file), sys.executable, "-c", OFFENDER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert offender.stdout is not None
    assert offender.stdout.readline() == "go\n"
    now = time.time()
    for name in ("unsettled", "settled"):
        spans.on_step(Step(root / name, "pixels", 4), now, now)
    spans.on_step(Step(root / "settled", "pixels", 4, (root / "settled",)), now, now)
    offender.communicate("\n")
    assert offender.returncode == 0
    wait_until(lambda: _has_ended(file, f"{offender.pid} "), "strace to write its last line")
    spans.close(time.time())
    found = violations(calls(file, root), root, spans)
    kinds = [one.split(":")[0] for one in found if "of writing" not in one]
    assert kinds == [
        "opened for writing",
        *["locked"] * 2,
        "mapped",
        *["changed"] * 5,
        "held open",
    ]
    assert [str(root / "unsettled") in one for one in found if "of writing" in one] == [True]


@pytest.mark.parametrize(
    ("looked_s", "opened_s", "is_wrong"),
    [
        (9.0, 10.01, False),
        (9.0, 10.2, True),
        (10.005, 10.007, False),
        (10.02, 10.03, True),
        (9.0, 11.1, False),
    ],
)
def test_only_a_file_that_was_just_seen_at_rest_may_be_opened(
    tmp_path: Path, looked_s: float, opened_s: float, *, is_wrong: bool
) -> None:
    path, spans = tmp_path / "a", Spans()
    spans.on_step(Step(path, "pixels", 1), 9.9, 10.0)
    spans.on_step(Step(path, "header", 1, (path,)), 11.0, 11.1)
    look = Call(1, looked_s, "newfstatat", (str(path),), "", failed=False, descriptor="0")
    opening = Call(1, opened_s, "openat", (str(path),), "O_RDONLY", failed=False, descriptor="3")
    closing = Call(1, opened_s, "close", (str(path),), "3<a>", failed=False, descriptor="0")
    assert bool(violations([look, opening, closing], tmp_path, spans)) == is_wrong
