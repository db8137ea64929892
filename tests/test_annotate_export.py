"""`icewatch annotate export`: which tilts are proposed, and what is written for CVAT."""

from __future__ import annotations

import json
import os
import resource
import zipfile
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.annotation import (
    TiltName,
    rasterise,
    read_export,
    truths_of_export,
    truths_of_masks,
)
from engines.icemap import Flag
from engines.readers.mrc import write_mrc
from monitor.annotate.candidates import Candidate
from monitor.annotate.export import Request, export
from monitor.annotate.proposals import propose
from monitor.errors import ConfigError
from monitor.journal import Journal
from monitor.model import Decision, IceReading, Tilt, TiltId
from tests import tiny_bundle
from tests.commands import icewatch
from tests.daemon import ANGLES_DEG, SHAPE, Daemon, Microscope, picture
from tests.privileges import as_nobody
from tests.waiting import wait_until

PERCENTS = (0.0, 4.0, 8.0, 12.0, 16.0)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.write(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture
def tilts(tmp_path: Path) -> Path:
    microscope = Microscope(tmp_path / "data")
    for angle_deg, percent in zip(ANGLES_DEG, PERCENTS, strict=True):
        microscope.add("session/L1", angle_deg, picture(percent))
        microscope.add("session/L2", angle_deg, picture(percent / 2.0, seed=1))
    return tmp_path / "data"


def candidate(
    lamella: str, angle_deg: float, percents: tuple[float, float, float], *flags: str
) -> Candidate:
    percent, low, high = percents
    tilt = Tilt(
        id=TiltId(f"s/{lamella}", angle_deg, None),
        session="s",
        grid="",
        lamella=f"s/{lamella}",
        series=lamella,
        path=f"s/{lamella}.mrc",
        section=round(angle_deg + 60.0),
        angle_deg=angle_deg,
    )
    reading = IceReading(percent, low, high, flags=flags, in_domain=True)
    return Candidate(tilt, reading, Path("/nowhere"), tilt.path)


def session() -> list[Candidate]:
    """Four lamellae, most tilts of which are clean and sure."""
    found = [
        candidate(lamella, angle, (1.0, 0.5, 1.9))
        for lamella in "ABCD"
        for angle in range(-60, 61, 3)
    ]
    found += [
        candidate("E", 0.0, (9.0, 4.0, 16.0)),
        candidate("F", 3.0, (31.0, 29.0, 33.0)),
        candidate("G", -9.0, (2.0, 0.0, 5.0), Flag.UNFAMILIAR),
        candidate("H", 12.0, (0.0, 0.0, 0.2)),
    ]
    return found


def test_each_proposal_has_a_reason_of_its_own() -> None:
    proposals = propose(session(), 5)
    assert [one.candidate.tilt.series for one in proposals[:4]] == ["E", "F", "G", "H"]
    assert [one.reason.split(":")[0] for one in proposals[:4]] == [
        "unsure",
        "much ice",
        "unfamiliar",
        "clean, for contrast",
    ]
    assert "4.0 to 16.0 % holds the limit of 10 %" in proposals[0].reason
    assert proposals[4].reason.startswith("steep")


def test_proposals_are_spread_over_lamellae_and_angles() -> None:
    series = [
        candidate(lamella, angle, (10.0 + angle / 100.0, 5.0, 15.0))
        for lamella in "AB"
        for angle in range(-60, 61, 3)
    ]
    chosen = [one.candidate.tilt for one in propose(series, 6)]
    assert sorted(one.lamella for one in chosen) == ["s/A"] * 3 + ["s/B"] * 3
    angles = [one.angle_deg or 0.0 for one in chosen]
    assert max(angles) - min(angles) >= 60.0
    assert len(set(angles)) == 6


def test_neighbours_are_proposed_only_when_asked_for() -> None:
    series = [candidate("A", 3.0 * k, (10.0, 5.0, 15.0)) for k in range(5)]
    apart = [one.candidate.tilt.angle_deg or 0.0 for one in propose(series, 5)]
    assert len(apart) <= 3
    assert np.diff(sorted(apart)).min() > 3.0
    assert len(propose(series, 5, neighbours=True)) == 5


def test_what_was_not_measured_or_has_the_name_of_another_is_not_proposed() -> None:
    one = candidate("A", 0.0, (10.0, 5.0, 15.0))
    none = Candidate(one.tilt, IceReading(None, None, None, flags=("blank",)), one.root, "x.mrc")
    assert propose([none], 5) == []
    twin = Candidate(one.tilt, one.reading, one.root, "other/A.mrc")
    assert len(propose([one, twin], 5, neighbours=True)) == 1


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_an_export_of_files_shows_what_the_network_saw(
    form: str,
    tmp_path: Path,
    tilts: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    out = tmp_path / "out"
    words = f"annotate export {out} {tilts} --all --format {form} --zip --model {bundle}"
    status, said, complaint = icewatch(words, monkeypatch, capsys)
    assert (status, complaint) == (0, "")
    assert "10 of 10 tilts are in" in said
    found = read_export(out)
    assert [one.name for one in found.images] == [
        f"L{lamella}_{section:03d}.png" for lamella in (1, 2) for section in range(5)
    ]
    for image, percent in zip(found.images, (*PERCENTS, *(p / 2.0 for p in PERCENTS)), strict=True):
        shown = cv2.imread(str(out / "images" / image.name), cv2.IMREAD_UNCHANGED)
        assert shown is not None and shown.shape == SHAPE and shown.dtype == np.uint8
        ice = rasterise(image, SHAPE, {"ice"})
        assert 100.0 * ice.mean() == pytest.approx(percent, abs=1.0)
        if percent:
            # its rectangle begins 10 rows below row 0, where the picture is dark
            assert ice[:9].sum() == 0 and shown[ice].mean() < 100 < shown[~ice].mean()
    assert "L1_003.png" in (out / "README.txt").read_text()
    assert json.loads((out / "labels.json").read_text())[0]["name"] == "ice"
    with zipfile.ZipFile(out / "dataset.zip") as packed:
        assert len(packed.namelist()) == 11
    assert read_export(out / "dataset.zip").images[0].name == "L1_000.png"


def test_the_journal_of_a_running_daemon_tells_what_to_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with closing(Daemon(tmp_path)) as daemon:
        microscope = Microscope(daemon.acquisition)
        for angle_deg, percent in zip(ANGLES_DEG, PERCENTS, strict=True):
            microscope.add("session/L1", angle_deg, picture(percent))
        before = microscope.digest()
        daemon.start()
        wait_until(lambda: daemon.status().get("last_seq", 0) >= 10, "all tilts", 50.0)
        words = f"annotate export {tmp_path / 'out'} --config {daemon.config} --count 2"
        status, said, complaint = icewatch(words, monkeypatch, capsys)
        assert (status, complaint) == (0, "")
        assert "2 of 5 tilts are in" in said and "session/L1" in said
        below = daemon.acquisition / "session" / "out"
        status, _, complaint = icewatch(
            f"annotate export {below} --config {daemon.config}", monkeypatch, capsys
        )
        assert status == 2 and "where tilts lie and icewatch never writes" in complaint
        status, _, complaint = icewatch(
            f"annotate export {tmp_path / 'no'} --config {daemon.config} --session other",
            monkeypatch,
            capsys,
        )
        assert status == 2 and "--session other: is not in journal" in complaint
        assert "'session'" in complaint
        assert microscope.digest() == before
        assert daemon.status()["state"] == "ready"
    assert len(read_export(tmp_path / "out").images) == 2
    assert not (tmp_path / "no").exists()


def test_a_journal_is_read_while_another_process_holds_it(
    tmp_path: Path, tilts: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    journal = Journal(tmp_path / "state", "m")
    for section, percent in enumerate(PERCENTS):
        one = candidate("L1", ANGLES_DEG[section], (percent, percent - 3.0, percent + 3.0))
        tilt = Tilt(
            id=one.tilt.id,
            session="session",
            grid="",
            lamella="session/L1",
            series="L1",
            path="session/L1.mrc" if section < 4 else "session/gone.mrc",
            section=section,
            angle_deg=ANGLES_DEG[section],
        )
        journal.add(tilt, one.reading, Decision.UNDECIDED, lambda seq: [("tilt", b"{}")])
    log = (tmp_path / "state" / "journal.sqlite3-wal").stat().st_size
    assert log > 0  # nothing of it is in the journal proper yet
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "state").iterdir()}
    words = f"annotate export out {tilts} --state state --model {bundle} --count 5 --neighbours"
    monkeypatch.chdir(tmp_path)
    status, said, complaint = icewatch(words, monkeypatch, capsys)
    assert status == 0
    assert "session/gone.mrc: cannot be read: No such file" in complaint
    assert "Only 4 of 5" in said and "gone" not in said
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "state").iterdir()} == files
    journal.close(cleanly=True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "name TILTS"),
        ("missing", "no such file"),
        ("data --session s", "--session is looked up"),
        ("data --format voc", "--format voc: is not known; choose coco or cvat"),
        ("data --model nothing", "--model nothing"),
        ("--state data", "--state needs one folder as TILTS"),
        ("data --state data", "holds no journal"),
        ("--config x.toml", "x.toml: there is no such file"),
        ("data --config x.toml", "name neither TILTS nor --state"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    words: str,
    says: str,
    tmp_path: Path,
    tilts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tilts.parent)
    status, said, complaint = icewatch(f"annotate export out {words}", monkeypatch, capsys)
    assert (status, said, complaint.count("\n")) == (2, "", 1)
    assert says in complaint
    assert not (tmp_path / "out").exists()


def test_tilts_of_one_magnification_are_proposed(
    tmp_path: Path, tilts: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    write_mrc(tilts / "session" / "other.mrc", picture(10.0), 6.0)
    words = f"annotate export {tmp_path / 'out'} {tilts} --all --model {bundle}"
    status, said, complaint = icewatch(words, monkeypatch, capsys)
    assert status == 0 and "other" not in said
    assert "1 of 11 tilts have another pixel size than 13.5 Å" in complaint


def test_a_journal_that_is_damaged_is_told(
    tmp_path: Path, tilts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.sqlite3").write_bytes(b"no journal" * 1000)
    monkeypatch.chdir(tmp_path)
    status, said, complaint = icewatch(
        f"annotate export out {tilts} --state state", monkeypatch, capsys
    )
    assert (status, said, complaint.count("\n")) == (1, "", 1)
    assert "journal.sqlite3' cannot be read" in complaint
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, tilts: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    words = f"annotate export {tmp_path / 'new' / 'out'} {tilts} --model {bundle}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        status, said, complaint = icewatch(words, monkeypatch, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (status, said, complaint.count("\n")) == (1, "", 1)
    assert "cannot be written (File too large), and nothing was kept" in complaint
    assert not (tmp_path / "new").exists()


def test_a_folder_that_may_not_be_written_is_refused_before_the_work(
    tmp_path: Path, tilts: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path != Path(path.anchor):
            path.chmod(path.stat().st_mode | 0o055)
        if path.name.startswith("pytest-of-"):
            break

    def work() -> str:
        try:
            export(Request(tmp_path / "closed" / "out", (tilts,)))
        except ConfigError as error:
            return str(error)
        return "written"

    assert "closed/out: cannot be made: Permission denied" in as_nobody(work)


def test_the_first_drawing_is_what_score_writes_as_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """With the shipped network and its memory of neighbouring tilts, on simulated ice."""
    monkeypatch.chdir(tmp_path)
    simulate = (
        "simulate data --series 1 --tilts 2 --size 640 --pixel-size 6.75 --speed 1e6 --ice 15"
    )
    assert icewatch(simulate, monkeypatch, capsys)[0] == 0
    assert icewatch("score data --masks masks", monkeypatch, capsys)[0] == 0
    assert icewatch("annotate export out data --all", monkeypatch, capsys)[0] == 0
    drawn, told = truths_of_export(tmp_path / "out"), truths_of_masks(tmp_path / "masks")
    assert len(drawn) == len(told) == 2
    shape: tuple[int, int] = (320, 320)  # as the network sees them, at 13.5 Å
    share = []
    for section in range(2):
        polygons, mask = (one.find("", TiltName("TS_001", section)) for one in (drawn, told))
        assert polygons is not None and mask is not None
        ice, network = polygons.at(shape, shape)[0], mask.at(shape, shape)[0]
        share.append(float(network.mean()))
        assert (ice & network).sum() >= 0.98 * (ice | network).sum()
    assert max(share) > 0.03


@pytest.mark.parametrize("out", ["data/out", "link/out", "used"])
def test_nothing_is_written_where_tilts_lie_or_over_something(
    out: str, tmp_path: Path, tilts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tilts.parent)
    (tmp_path / "link").symlink_to(tilts)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    status, _, complaint = icewatch(f"annotate export {out} {tilts}", monkeypatch, capsys)
    assert status == 2
    assert "never writes" in complaint or "is there already" in complaint
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["mine.txt"]
    assert not (tilts / "out").exists()


def test_nothing_is_left_of_an_export_that_failed(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "data").mkdir()
    write_mrc(tmp_path / "data" / "blank.mrc", np.full(SHAPE, 7, np.int16), 13.5)
    monkeypatch.chdir(tmp_path)
    words = f"annotate export out data --model {bundle}"
    status, _, complaint = icewatch(words, monkeypatch, capsys)
    assert status == 1 and "none of 1 tilts could be measured (blank" in complaint
    assert not (tmp_path / "out").exists()
    # a picture without a first drawing can still be labelled
    status, _, _ = icewatch(f"{words} --all", monkeypatch, capsys)
    assert status == 0
    assert read_export(tmp_path / "out").images[0].shapes == ()
