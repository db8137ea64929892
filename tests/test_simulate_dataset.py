"""`icewatch simulate dataset`: data sets by a command, their summary and contact sheet."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.learning.contact_sheet import CONTACT_SHEET
from engines.learning.dataset import DatasetSettings, families_named, make_dataset
from engines.learning.shards import list_shards, read_about, read_scene
from engines.simulation import FAMILIES, HELD_OUT_FAMILIES
from engines.simulation.foreign import FOREIGN_FAMILIES, FOREIGN_KINDS, FOREIGN_TEST_FAMILIES
from tests.commands import icewatch
from tests.waiting import wait_until

SMALL = "--seed 3 --series 3 --tilts 2 --size-px 64 --families plunge,h8_matrix,foreign_atlas"


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_the_same_command_writes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        status, said, complaint = icewatch(f"simulate dataset {name} {SMALL}", monkeypatch, capsys)
        assert (status, complaint) == (0, "")
        assert "h8_matrix" in said
    one = digests(tmp_path / "one")
    assert one == digests(tmp_path / "two")
    assert {"dataset.json", CONTACT_SHEET, "series_000002.npz"} < set(one)
    status, _, _ = icewatch(f"simulate dataset one {SMALL}", monkeypatch, capsys)
    assert status == 0
    assert digests(tmp_path / "one") == one, "a data set that is whole is left as it is"


@pytest.mark.slow
def test_workers_write_what_one_process_writes(tmp_path: Path) -> None:
    settings = DatasetSettings(5, 6, ("f10987", "h8_matrix"), 2, 128)
    make_dataset(tmp_path / "one", settings)
    make_dataset(tmp_path / "two", settings, workers=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_the_summary_and_the_sheet_say_what_is_there(tmp_path: Path) -> None:
    families = ("h8_matrix", "h6_ice_free", "foreign_atlas")
    out = tmp_path / "set"
    summary = make_dataset(out, DatasetSettings(2, 6, families, 2, 96))
    about = json.loads((out / "dataset.json").read_text())
    assert about["summary"] == summary
    tilts = [tilt for path in list_shards(out) for tilt in read_about(path)]
    assert summary["tilts"] == len(tilts) == 2 * 2 + 2 * 2 + 2
    for name, own in summary["families"].items():
        percents = [tilt["ice_percent"] for tilt in tilts if tilt["family"] == name]
        assert own["series"] == 2
        assert own["mean_ice_percent"] == pytest.approx(np.mean(percents), abs=1e-3)
        assert own["ice_free_tilts"] == pytest.approx(np.mean(np.equal(percents, 0.0)), abs=1e-4)
    assert summary["families"]["h6_ice_free"]["mean_ice_percent"] == 0.0
    assert summary["families"]["h8_matrix"]["mean_ice_percent"] > 0.0
    sheet = np.asarray(cv2.imread(str(out / CONTACT_SHEET)))
    assert sheet.shape == (3 * 100, 2 * 100, 3)
    red = (sheet[..., 2] > 180) & (sheet[..., 1] < 90) & (sheet[..., 0] < 90)
    assert red[200:].sum() > red[100:200].sum(), "ice is outlined, and only where there is some"


def test_a_whole_set_of_families_or_some_by_name_can_be_had() -> None:
    assert families_named("train") == FAMILIES
    assert families_named("held-out") == HELD_OUT_FAMILIES
    assert families_named("foreign,plunge") == (*FOREIGN_FAMILIES, "plunge")
    assert len(FOREIGN_TEST_FAMILIES) == len(FOREIGN_KINDS) == 8


def test_foreign_pictures_come_one_by_one_without_truth(tmp_path: Path) -> None:
    settings = DatasetSettings(2, 16, (*FOREIGN_FAMILIES, *FOREIGN_TEST_FAMILIES), 3, 64)
    make_dataset(tmp_path / "set", settings)
    kinds = []
    for path in list_shards(tmp_path / "set"):
        (about,) = read_about(path)
        scene = read_scene(path, 0)
        assert not scene.label("0.06").any()
        assert not scene.distract.any()
        kinds.append(about["kind"])
    assert kinds == [*FOREIGN_KINDS, *FOREIGN_KINDS]


REFUSED = {
    "simulate dataset": "Missing argument",
    "simulate dataset OUT": "--seed",
    "simulate dataset OUT --seed 1": "--series",
    "simulate dataset OUT --seed 1 --series 0": "--series",
    "simulate dataset OUT --seed 1 --series 1 --size-px 1": "--size-px",
    "simulate dataset OUT --seed 1 --series 1 --families f1": "no family 'f1'",
    "simulate dataset OUT --seed 1 --series 1 --families ''": "none is named",
    "simulate dataset file --seed 1 --series 1": "is a file",
    "simulate dataset file/sub --seed 1 --series 1": "cannot be made",
    "simulate dataset /proc/nope --seed 1 --series 1": "cannot be made",
    "simulate dataset other --seed 1 --series 1": "other settings",
    "simulate dataset cut --seed 1 --series 1": "does not describe a data set",
    "simulate dataset list --seed 1 --series 1": "does not describe a data set",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_wrong_request_is_refused_in_one_line(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"nothing")
    for name, text in (("other", '{"seed": 7}'), ("cut", '{"se'), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    status, said, complaint = icewatch(words, monkeypatch, capsys)
    assert (status, said) == (2, "")
    assert complaint.count("\n") == 1, complaint
    assert REFUSED[words] in complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "file", "list", "other"]


def test_a_damaged_shard_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"simulate dataset {tmp_path / 'out'} {SMALL}"
    assert icewatch(words, monkeypatch, capsys)[0] == 0
    shard = tmp_path / "out" / "series_000001.npz"
    content = bytearray(shard.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 4)
    shard.write_bytes(content)
    status, _, complaint = icewatch(words, monkeypatch, capsys)
    assert status == 2
    assert complaint.count("\n") == 1
    assert f"{shard} cannot be read" in complaint
    shard.write_bytes(content[: len(content) // 2])
    assert icewatch(words, monkeypatch, capsys)[0] == 0, "one that was cut is made anew"


def _working(out: Path) -> tuple[subprocess.Popen[bytes], set[int]]:
    """Start a data set of many series with two workers; gives it and the processes below it."""
    words = f"simulate dataset {out} --seed 1 --series 5000 --tilts 2 --size-px 64 --workers 2"
    command = [sys.executable, "-m", "monitor", *words.split()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_until(lambda: len(list_shards(out)) >= 2, "two shards", timeout_s=60.0)
    below = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(below) >= 2
    return process, {int(pid) for pid in below}


def _alive(pids: set[int]) -> bool:
    states = [Path(f"/proc/{pid}/stat") for pid in pids]
    return any(one.exists() and one.read_text().rsplit(")")[-1].split()[0] != "Z" for one in states)


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_command(tmp_path: Path, signal_number: int) -> None:
    process, workers = _working(tmp_path / "out")
    try:
        process.send_signal(signal_number)
        _, complaint = process.communicate(timeout=20.0)
    finally:
        process.kill()
    assert process.returncode != 0
    assert b"Traceback" not in complaint
    wait_until(lambda: not _alive(workers), "the end of the workers", timeout_s=20.0)


@pytest.mark.slow
def test_a_killed_worker_ends_the_command_with_one_sentence(tmp_path: Path) -> None:
    process, workers = _working(tmp_path / "out")
    try:
        named = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers}
        os.kill(next(pid for pid, name in named.items() if b"spawn_main" in name), signal.SIGKILL)
        _, complaint = process.communicate(timeout=20.0)
    finally:
        process.kill()
    assert process.returncode == 1
    assert b"Traceback" not in complaint and b"a worker was killed" in complaint


def test_without_torch_one_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("monitor.simulate.dataset.find_spec", lambda name: None)
    words = f"simulate dataset {tmp_path / 'out'} --seed 1 --series 1"
    status, _, complaint = icewatch(words, monkeypatch, capsys)
    assert status == 2
    assert complaint.count("\n") == 1
    assert "icewatch[train]" in complaint
    assert not (tmp_path / "out").exists()


def test_both_helps_are_there_and_a_folder_may_be_called_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, both, _ = icewatch("simulate --help", monkeypatch, capsys)
    assert "--layout" in both
    assert "Example: icewatch simulate dataset OUT" in both
    _, own, _ = icewatch("simulate dataset --help", monkeypatch, capsys)
    assert "Example: icewatch simulate dataset OUT --seed" in own
    assert "--layout" not in own
    small = "--series 1 --tilts 1 --size 64 --interval 0 --speed 100"
    assert icewatch(f"simulate ./dataset {small}", monkeypatch, capsys)[0] == 0
    assert (tmp_path / "dataset").is_dir()
