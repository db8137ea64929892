"""A tilt that kills the daemon twice is left alone until somebody asks for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.errors import BackendError
from monitor.errors import MonitorError, NotReady
from monitor.journal import Journal
from monitor.retry import ask_again
from monitor.screen import show_status
from monitor.set_aside import SUSPECTED_FOR_S, SetAside
from monitor.settings import Settings
from tests.builders import tilt
from tests.daemon import PATIENCE_S, ROOT, Daemon, Microscope, Subscriber, picture
from tests.pipelines import Parts
from tests.waiting import wait_until


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Lives:
    """One state directory, and one daemon after the other in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.boots = 0
        self.clock = Clock()

    def start(self) -> SetAside:
        self.boots += 1
        self.journal = Journal(self.directory, "m")
        return SetAside(self.directory, self.journal, f"boot{self.boots}", self.clock)

    def end(self, *, orderly: bool = False) -> None:
        self.aside.close(orderly=orderly)
        self.journal.close(cleanly=orderly)

    def dies_in(self, *angles_deg: float) -> None:
        for angle_deg in angles_deg:
            self.aside = self.start()
            self.aside.begin(tilt(angle_deg))
            self.end()

    def listed(self) -> list[str]:
        self.aside = self.start()
        try:
            return [one["id"] for one in self.aside.listed()]
        finally:
            self.end(orderly=True)


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    return Lives(tmp_path)


def test_once_is_suspicious_twice_is_enough(lives: Lives) -> None:
    lives.dies_in(3.0)
    lives.aside = lives.start()
    assert lives.aside.is_suspect(tilt(3.0))
    assert not lives.aside.is_suspect(tilt(0.0))
    assert not lives.aside.is_set_aside(tilt(3.0))
    assert lives.aside.listed() == []
    assert not lives.aside.suspects_may_be_tried
    lives.clock.now_s += SUSPECTED_FOR_S
    assert lives.aside.suspects_may_be_tried
    lives.end()
    lives.dies_in(3.0)
    assert lives.listed() == [str(tilt(3.0).id)] == lives.listed()


@pytest.mark.parametrize(
    ("deaths", "aside"),
    [
        ([3.0, 0.0, 3.0], []),
        ([3.0, 0.0, 0.0], [0.0]),
        ([3.0, 3.0, 0.0, 0.0], [3.0, 0.0]),
        ([3.0, 3.0, 0.0, 6.0], [3.0]),
    ],
)
def test_only_deaths_in_a_row_count(lives: Lives, deaths: list[float], aside: list[float]) -> None:
    lives.dies_in(*deaths)
    assert lives.listed() == [str(tilt(angle_deg).id) for angle_deg in aside]


def test_success_clears_a_tilt(lives: Lives) -> None:
    lives.dies_in(3.0)
    lives.aside = lives.start()
    lives.aside.begin(tilt(3.0))
    lives.aside.over()
    lives.aside.survived(tilt(3.0))
    lives.end()
    lives.dies_in(3.0)
    assert lives.listed() == []


def test_an_orderly_stop_in_the_middle_of_a_tilt_is_no_death(lives: Lives) -> None:
    for _ in range(3):
        lives.aside = lives.start()
        assert not lives.aside.is_suspect(tilt(3.0))
        lives.aside.begin(tilt(3.0))
        lives.end(orderly=True)


def test_a_daemon_that_dies_at_its_start_counts_no_death_twice(lives: Lives) -> None:
    lives.dies_in(3.0)
    note = (lives.directory / "working").read_bytes()
    for _ in range(3):
        lives.aside = lives.start()
        lives.end()
        (lives.directory / "working").write_bytes(note)  # as if it had not come to clearing it
    assert lives.listed() == []


@pytest.mark.parametrize("note", [b"", b"{", b"\xff\n", b"[1]\n", b'{"id": 1}\n', b"null\n"])
def test_a_note_that_says_nothing_is_passed_over(lives: Lives, note: bytes) -> None:
    (lives.directory / "working").write_bytes(note)
    assert lives.listed() == []


def test_names_of_all_kinds_are_told_apart(lives: Lives) -> None:
    odd = replace(tilt(3.0, series="bad\udcff\n"), path="s1/bad\udcff\n.mrc")
    for _ in range(2):
        lives.aside = lives.start()
        lives.aside.begin(odd)
        lives.end()
    lives.aside = lives.start()
    assert lives.aside.is_set_aside(odd)
    json.dumps(lives.aside.listed()).encode()
    settings = settings_for(lives.directory)
    assert len(ask_again(settings, [odd.series])) == 1
    assert lives.aside.take_requests() == [odd.path]


def settings_for(state: Path) -> Settings:
    return Settings.model_validate(
        {"acquisition": {"directory": "/data/offload"}, "state": {"directory": state}}
    )


@pytest.mark.parametrize(
    ("names", "freed"),
    [
        ([], [0.0, 3.0]),
        (["L1"], [0.0]),
        (["s1/L2"], [3.0]),
        (["s1/L2.mrc"], [3.0]),
        (["/data/offload/s1/L1.mrc", "L2"], [0.0, 3.0]),
        (["/data/offload/s1"], [0.0, 3.0]),
        ([str(tilt(3.0, "L2").id)], [3.0]),
    ],
)
def test_what_is_asked_for_is_tried_again(
    lives: Lives, names: Sequence[str], freed: list[float]
) -> None:
    tilts = {0.0: tilt(0.0, "L1"), 3.0: tilt(3.0, "L2")}
    for one in (tilts[0.0], tilts[0.0], tilts[3.0], tilts[3.0]):
        lives.aside = lives.start()
        lives.aside.begin(one)
        lives.end()
    assert len(lives.listed()) == 2
    asked = ask_again(settings_for(lives.directory), names)
    assert [one["id"] for one in asked] == [str(tilts[angle].id) for angle in freed]
    lives.aside = lives.start()
    assert lives.aside.take_requests() == [tilts[angle].path for angle in freed]
    assert lives.aside.take_requests() == []
    left = [str(one.id) for angle, one in tilts.items() if angle not in freed]
    assert [one["id"] for one in lives.aside.listed()] == left
    assert not any(lives.aside.is_suspect(tilts[angle]) for angle in freed)
    lives.end()
    assert lives.listed() == left


def test_what_cannot_be_asked_for_is_said(lives: Lives) -> None:
    settings = settings_for(lives.directory)
    with pytest.raises(MonitorError, match="no tilt is set aside"):
        ask_again(settings, [])
    lives.dies_in(3.0, 3.0)
    lives.listed()
    for name in ("L7", "/data/offload", "/data", "."):
        with pytest.raises(MonitorError, match="no tilt of it is set aside; there are some of L1"):
            ask_again(settings, [name])
    (lives.directory / "set_aside.json").write_text("{")
    with pytest.raises(MonitorError, match="cannot be read"):
        ask_again(settings, [])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ids": 3}', '{"ids": [[]]}'])
def test_requests_that_say_nothing_are_removed(lives: Lives, content: str) -> None:
    lives.dies_in(3.0, 3.0)
    lives.aside = lives.start()
    (lives.directory / "retry-1.json").write_text(content)
    (lives.directory / "retry-2.json").symlink_to("/etc/passwd")
    assert lives.aside.take_requests() == []
    assert len(lives.aside.listed()) == 1
    assert not (lives.directory / "retry-1.json").exists()


def test_requests_of_strangers_do_not_count(lives: Lives) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to write as somebody else")
    lives.dies_in(3.0, 3.0)
    lives.aside = lives.start()
    ask_again(settings_for(lives.directory), [])
    (request,) = lives.directory.glob("retry-*.json")
    os.chown(request, 65534, 65534)
    assert lives.aside.take_requests() == []
    assert len(lives.aside.listed()) == 1


def raising(error: BaseException) -> Callable[[], Any]:
    def read() -> Any:
        raise error

    return read


@pytest.mark.parametrize(
    ("error", "is_death"),
    [
        (BackendError("the engine fell over"), True),
        (KeyboardInterrupt(), True),
        (NotReady("changed", "changed"), False),
        (ValueError("a bug"), False),
        (MemoryError(), False),
    ],
)
def test_what_the_process_survives_is_no_death(
    tmp_path: Path, error: BaseException, is_death: bool
) -> None:
    parts = Parts(tmp_path)
    parts.told.pixels_of = {3.0: raising(error)}
    parts.told.tilts = [tilt(3.0)]
    if is_death:
        with pytest.raises(type(error)):
            parts.process()
    else:
        parts.process()
    parts.die()
    again = Parts(tmp_path)
    assert again.aside.is_suspect(tilt(3.0)) == is_death
    again.die()


def test_a_suspect_comes_last_and_alone(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.aside.begin(tilt(3.0))
    parts.die()
    parts = Parts(tmp_path)
    parts.told.tilts = [tilt(angle_deg) for angle_deg in (0.0, 3.0, 6.0)]
    assert not parts.process(), "it is to be looked at again"
    assert parts.angles() == [0.0, 6.0]
    assert not parts.process()
    assert parts.angles() == [0.0, 6.0], "too soon after the start"
    parts.clock.now_s += SUSPECTED_FOR_S
    parts.waiting = 1
    assert not parts.process()
    assert parts.angles() == [0.0, 6.0], "something else waits"
    parts.waiting = 0
    parts.told.tilts.append(tilt(9.0))
    assert parts.process()
    assert parts.angles() == [0.0, 6.0, 3.0, 9.0]
    parts.die()
    again = Parts(tmp_path)
    assert not again.aside.is_suspect(tilt(3.0))
    again.die()


def test_what_is_set_aside_is_not_read(tmp_path: Path) -> None:
    for _ in range(2):
        parts = Parts(tmp_path)
        parts.aside.begin(tilt(3.0))
        parts.die()
    parts = Parts(tmp_path)
    parts.clock.now_s += 100.0
    parts.told.tilts = [tilt(angle_deg) for angle_deg in (0.0, 3.0, 6.0)]
    for _ in range(3):
        assert parts.process(), "nothing is left to be done with the file"
    assert parts.angles() == [0.0, 6.0]
    ask_again(settings_for(parts.state), [])
    assert parts.aside.take_requests() == ["s1/L1.mrc"]
    assert parts.process()
    assert parts.angles() == [0.0, 6.0, 3.0]
    parts.die()


_DEADLY = """
import os, signal, sys
import monitor.app, monitor.set_aside
from pathlib import Path
from monitor.settings import load
monitor.set_aside.SUSPECTED_FOR_S = 0.3
armed = Path(sys.argv[2])
read = monitor.app.Engine.read

def read_or_die(self, image, *more):
    if image[0, 0] == 31337 and armed.exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, image, *more)

monitor.app.Engine.read = read_or_die
sys.exit(monitor.app.run(load(Path(sys.argv[1]))))
"""


class DeadlyDaemon(Daemon):
    """Kills itself at one tilt, as long as it is armed."""

    def start(self, *under: str) -> Daemon:
        self.armed = self.folder / "armed"
        command = [*under, sys.executable, "-c", _DEADLY, str(self.config), str(self.armed)]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        return self

    def retry(self, *names: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "monitor", "retry", "--config", str(self.config), *names]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


@pytest.mark.timeout(300)  # seven processes start, one after the other
def test_a_tilt_that_kills_the_daemon_stops_nothing_else(tmp_path: Path) -> None:
    daemon = DeadlyDaemon(tmp_path)
    (tmp_path / "armed").touch()
    microscope = Microscope(daemon.acquisition)
    for index in range(5):
        image = picture(10.0, seed=index)
        if index == 2:
            image[0, 0] = 31337
        microscope.add("session/L1", 3.0 * index, image)
    subscriber = Subscriber(daemon.endpoint)
    try:
        for _ in range(2):
            assert daemon.start().wait()[0] == -signal.SIGKILL
        daemon.start()
        wait_until(lambda: daemon.status().get("last_seq") == 8, "the other tilts", PATIENCE_S)
        subscriber.wait_for("tilt", 4)
        microscope.add("session/L1", 15.0, picture(10.0, seed=9))
        assert sorted(one["tilt"]["angle_deg"] for one in subscriber.wait_for("tilt", 5)) == [
            0.0,
            3.0,
            9.0,
            12.0,
            15.0,
        ]
        status = daemon.wait_for_state("ready")
        assert "1 tilt is set aside" in status["reason"]
        ((path, section),) = [(one["path"], one["section"]) for one in status["set_aside"]]
        assert (path, section) == ("session/L1.mrc", 2)
        assert 'icewatch_tilts_set_aside{microscope="test"} 1.0' in daemon.metrics()
        assert "L7" in daemon.retry("L7").stderr
        (tmp_path / "armed").unlink()
        asked = daemon.retry("L1")
        beats = len(subscriber.messages("status"))
        assert (asked.returncode, asked.stderr) == (0, "")
        assert asked.stdout == "tried again: session/L1.mrc, section 2\n"
        subscriber.wait_for("tilt", 6)
        # The request is seen at the next heartbeat, and nothing else is waited for.
        assert len(subscriber.messages("status")) <= beats + 5
        angles = [one["tilt"]["angle_deg"] for one in subscriber.messages("tilt")]
        assert sorted(angles) == [0.0, 3.0, 6.0, 9.0, 12.0, 15.0]
        none = daemon.retry()
        assert (none.returncode, none.stdout) == (1, "")
        assert none.stderr == "icewatch: no tilt is set aside: there is nothing to try again\n"
        assert daemon.status()["reason"] == ""
        assert daemon.signal(signal.SIGTERM)[0] == 0
    finally:
        subscriber.close()
        daemon.stop()


def test_status_names_what_is_set_aside(capsys: pytest.CaptureFixture[str]) -> None:
    show_status(
        {
            "microscope": "m",
            "state": "ready",
            "reason": "",
            "version": "1",
            "backend": "test",
            "uptime_s": 1.0,
            "last_seq": 2,
            "backlog": 0,
            "lamellae": [],
            "problems": [],
            "set_aside": [{"path": "s/\x1b[31mL1.mrc", "section": 2, "reason": "It died."}],
        }
    )
    assert "set aside: s/\N{REPLACEMENT CHARACTER}[31mL1.mrc, section 2: It died.\n" in (
        capsys.readouterr().out
    )
