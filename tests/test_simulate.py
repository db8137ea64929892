"""The pretend microscope as a command: its layouts, faults, help, and refusals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.microscope_step import Step
from engines.readers.mrc import read_header, read_section
from monitor.errors import ConfigError
from monitor.simulate.command import simulate
from monitor.simulate.custom import PATTERN
from monitor.simulate.driver import Driver
from monitor.simulate.layouts import SCRIPTS
from monitor.simulate.request import LAYOUTS
from monitor.simulate.script import Wait
from monitor.simulate.session import Session
from tests.commands import icewatch
from tests.daemon import PATIENCE_S, Daemon, Subscriber
from tests.simulated import (
    check_disk,
    check_published,
    digest,
    faults_of,
    on_disk,
    request,
    truths,
    write,
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_exposure_of_a_layout_is_found_once(layout: str, tmp_path: Path) -> None:
    expected = write(request(tmp_path / "out", layout))
    assert len([one for one in expected if one.kept]) == (30 if layout == "mixed" else 15)
    check_disk(expected, on_disk(tmp_path / "out", layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_faults_at_once_by_the_same_seed(layout: str, tmp_path: Path) -> None:
    faults = faults_of(layout)
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        wanted = request(tmp_path / name, layout, *faults, series=2, tilts=4, seed=seed)
        expected = write(wanted)
        check_disk(expected, on_disk(wanted.out, layout))
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert digest(tmp_path / "one") != digest(tmp_path / "other")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "fault"), [(one, fault) for one in LAYOUTS for fault in faults_of(one)]
)
def test_every_exposure_is_found_once_whatever_goes_wrong(
    layout: str, fault: str, tmp_path: Path
) -> None:
    expected = write(request(tmp_path / fault, layout, fault, series=2, tilts=4))
    check_disk(expected, on_disk(tmp_path / fault, layout))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(tmp_path)
    yield found
    found.stop()


def watch(daemon: Daemon, layout: str, *faults: str, **changes: object) -> None:
    """Let a session land in front of a running daemon, and see what it published."""
    subscriber = Subscriber(daemon.endpoint)
    daemon.acquisition.mkdir()
    if layout == "custom":
        keys = f"layout = \"custom\"\ncustom.pattern = '{PATTERN}'\n[model]"
        daemon.config.write_text(daemon.config.read_text().replace("[model]", keys))
    try:
        daemon.start().wait_for_state("ready")
        wanted = request(daemon.acquisition, layout, *faults, **changes)
        expected = write(wanted)
        subscriber.wait_for("tilt", sum(one.complete and one.kept for one in expected), 60.0)
        beats = len(subscriber.messages("status"))
        subscriber.wait_for("status", beats + 2)
        check_published(expected, [one["tilt"] for one in subscriber.messages("tilt")])
        assert daemon.signal(signal.SIGTERM)[0] == 0
    finally:
        subscriber.close()


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_daemon_finds_every_exposure_of_a_layout(layout: str, daemon: Daemon) -> None:
    watch(daemon, layout, series=6 if layout == "mixed" else 2, speed=100.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "fault"), [(one, fault) for one in LAYOUTS for fault in faults_of(one)]
)
def test_a_daemon_finds_every_exposure_whatever_goes_wrong(
    layout: str, fault: str, daemon: Daemon
) -> None:
    watch(daemon, layout, fault, series=6 if layout == "mixed" else 2, tilts=4, speed=20.0)


def test_the_examples_of_the_help_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = "--series 1 --tilts 3 --size 64 --interval 0.1"
    for name, more in (("simulate", small), ("replay", "")):
        _, text, _ = icewatch(f"{name} --help", monkeypatch, capsys)
        example = " ".join(text.split()).split("Example: icewatch ")[1]
        example = example.replace("/data/finished", "OUT").replace("/data/offload", "AGAIN")
        status, _, said = icewatch(f"{example} {more}", monkeypatch, capsys)
        assert status == 0, said
        assert "3 exposures of 1 series" in said.splitlines()[-1]
    assert len((tmp_path / "truth.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "AGAIN/2026-01-01_simulated/grid_1/lam_01_ts_001.mrc").is_file()


REFUSED = {
    "simulate OUT --layout tomography6": "did you mean 'tomography5'?",
    "simulate OUT --layout x": "choose from serialem,",
    "simulate OUT --fault stal": "did you mean 'stall'?",
    "simulate OUT --fault no-mdoc": "cannot happen with --layout serialem",
    "simulate full": "is not empty",
    "simulate file": "is a file",
    "simulate OUT --truth OUT/truth.jsonl": "lies below OUT",
    "simulate OUT --truth nowhere/truth.jsonl": "--truth nowhere/truth.jsonl: No such file",
    "simulate OUT --images nowhere": "--images nowhere: cannot be read",
    "simulate OUT --images empty": "holds no image",
    "simulate OUT --images bad": "'a.png' cannot be read as an image",
    "simulate OUT --images worse": "'a.mrc' ends within its 1024-byte header",
    "simulate OUT --tilts 0": "--tilts",
    "simulate OUT --speed 0": "--speed",
    "simulate OUT --ice 101": "--ice",
    "simulate": "Missing argument",
    "replay nowhere --to OUT": "there is no such directory",
    "replay full --to full": "is not empty",
    "replay full --to full/below": "must lie outside",
    "replay full/deep --to .": "is not empty",
    "replay empty --to OUT": "holds no files",
    "replay full": "--to",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_wrong_request_is_refused_in_one_line(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("full/deep", "empty", "bad", "worse"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("full/deep/a", "file", "bad/a.png", "worse/a.mrc"):
        (tmp_path / file).write_bytes(b"nothing")
    before = digest(tmp_path)
    monkeypatch.chdir(tmp_path)
    status, _, complaint = icewatch(words, monkeypatch, capsys)
    assert status == 2
    assert complaint.count("\n") == 1, complaint
    assert REFUSED[words] in complaint
    assert digest(tmp_path) == before


def test_a_session_is_added_to_those_that_are_there(tmp_path: Path) -> None:
    write(request(tmp_path / "out", "serialem", series=1))
    with pytest.raises(ConfigError, match="not empty"):
        simulate(request(tmp_path / "out", "frames-mrc", series=1))
    expected = write(request(tmp_path / "out", "frames-mrc", series=1, append=True))
    check_disk(expected, on_disk(tmp_path / "out"))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["2026-01-01_simulated", "2026-01-01_simulated_2"]


def test_an_interrupt_ends_a_session_where_it_is(tmp_path: Path) -> None:
    words = ["simulate", "out", "--interval", "0.3", "--size", "64", "--truth", "truth.jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-m", "monitor", *words], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stderr is not None
    assert "1/123" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 1
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("stopped: ")
    taken = len((tmp_path / "truth.jsonl").read_text().splitlines())
    assert f"stopped: {taken} exposure" in rest
    expected = truths(request(tmp_path / "out", "serialem", truth=tmp_path / "truth.jsonl"))
    check_disk(expected, on_disk(tmp_path / "out"))


def test_given_images_are_shown_in_turn(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pictures = [np.full((40, 60), grey, np.uint8) for grey in (10, 200)]
    for name, picture in zip("ab", pictures, strict=True):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), picture)
    wanted = request(
        tmp_path / "out", "serialem-bidirectional", series=1, images=tmp_path / "images"
    )
    write(wanted)
    stack = next((tmp_path / "out").rglob("TS_001.mrc"))
    means = [float(read_section(stack, k).mean()) for k in range(read_header(stack).nz)]
    assert sorted(means) == [10, 10, 10, 200, 200]


def test_the_ice_is_what_was_wanted(tmp_path: Path) -> None:
    wanted = request(tmp_path / "out", "serialem", series=4, tilts=2, ice_percent=(0.0, 25.0))
    write(wanted)
    assert wanted.truth is not None
    lines = [json.loads(line) for line in wanted.truth.read_text().splitlines()]
    ice = [[one["ice_percent"] for one in lines if one["series"] == f"TS_{k:03d}"] for k in (1, 2)]
    assert max(ice[0]) < 1.0
    assert min(ice[1]) > 10.0


def test_time_passes_as_it_should(tmp_path: Path) -> None:
    slept: list[float] = []
    wanted = request(tmp_path / "out", "serialem", series=1, tilts=20, speed=2.0)
    driver = Driver(wanted.out, speed=2.0, write_mb_per_s=0.5, sleep=slept.append)
    done = driver.run(SCRIPTS["serialem"](Session(wanted)))
    assert sum(slept) >= done.bytes_written / 1e6
    waits = [event for event in SCRIPTS["serialem"](Session(wanted)) if isinstance(event, Wait)]
    gaps = np.diff([wait.until_s for wait in waits[:-1]])
    assert gaps.min() >= 22.8
    assert gaps.max() <= 32.0
    assert gaps.mean() == pytest.approx(26.0, abs=1.5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_is_at_rest_at_the_end(layout: str, tmp_path: Path) -> None:
    steps: list[Step] = []
    wanted = request(tmp_path / "out", layout, truth=None)
    driver = Driver(wanted.out, on_step=lambda step, began, ended: steps.append(step), speed=1e6)
    driver.run(SCRIPTS[layout](Session(wanted)))
    unsettled: set[Path] = set()
    for step in steps:
        unsettled.add(step.path)
        unsettled -= set(step.settles)
    assert not unsettled
    written = {path for path in wanted.out.rglob("*") if path.is_file()}
    told = {path for step in steps for path in (step.path, *step.settles)}
    assert written <= told, "every file that is written is told of"
