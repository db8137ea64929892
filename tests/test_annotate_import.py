"""`icewatch annotate import`: what comes back from CVAT is checked, shown, or refused."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engines.annotation import AnnotationError, archive, read_export
from engines.readers.mrc import write_mrc
from tests import tiny_bundle
from tests.commands import icewatch
from tests.daemon import ANGLES_DEG, SHAPE, Microscope, picture
from tests.drawn import Ring, write_coco, write_cvat

SIZE = (SHAPE[1], SHAPE[0])
LABELS = ("ice", "cubic", "distractor", "ignore")
SQUARE = [(20.0, 10.0), (60.0, 10.0), (60.0, 50.0), (20.0, 50.0)]
Capture = pytest.CaptureFixture[str]
Drawn = dict[str, list[tuple[str, Ring]]]


class Importing:
    """Runs the command in a folder of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capture: Capture) -> None:
        self.folder = folder
        self._patch, self._capture = patch, capture
        patch.chdir(folder)

    def __call__(self, words: str) -> tuple[int, str, str]:
        return icewatch(f"annotate import {words}", self._patch, self._capture)

    def refused(self, words: str, says: str, status: int = 2) -> None:
        found, said, complaint = self(words)
        assert (found, said) == (status, "")
        assert complaint.count("\n") == 1
        assert re.search(says, complaint), complaint


@pytest.fixture
def importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Importing:
    return Importing(tmp_path, monkeypatch, capsys)


def moved(ring: Ring, x: float, y: float = 0.0) -> Ring:
    return [(a + x, b + y) for a, b in ring]


def tilts_of(folder: Path, name: str = "session/L1", count: int = 2) -> Path:
    microscope = Microscope(folder)
    for angle_deg in ANGLES_DEG[:count]:
        microscope.add(name, angle_deg, picture(5.0))
    return folder


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path


@pytest.mark.parametrize("write", [write_coco, write_cvat])
def test_each_picture_has_its_row_and_its_preview(write: Any, importing: Importing) -> None:
    drawn: Drawn = {
        "L1_000.png": [
            ("ice", SQUARE),
            ("cubic", moved(SQUARE, 60.0)),
            ("ignore", moved(SQUARE, 60.0, 60.0)),
        ],
        "L1_001.png": [],
    }
    write(importing.folder / "export", SIZE, drawn, LABELS)
    tilts_of(importing.folder / "data")
    status, said, complaint = importing("export --tilts data --preview shown")
    assert (status, complaint) == (0, "")
    first, second = said.splitlines()[1:3]
    told = SHAPE[0] * SHAPE[1] - 1600
    assert f"{100 * 3200 / told:.1f} %" in first
    assert "ice 1, cubic 1, ignore 1" in first
    assert "0.0 %" in second and "says there is no ice" in second
    assert "2 pictures, 1 with ice" in said
    shown = cv2.imread(str(importing.folder / "shown" / "L1_000.jpg"))
    assert shown is not None and shown.shape == (*SHAPE, 3)
    blue, _, red = (int(shown[30, 40, channel]) for channel in range(3))
    assert red > blue + 20  # ice is tinted where it was drawn, row 0 on top
    assert np.ptp(shown[30, 150].astype(int)) < 20


def test_a_packed_export_is_read_as_it_is(importing: Importing) -> None:
    folder = write_cvat(importing.folder / "export", SIZE, {"L1_000.png": [("ice", SQUARE)]})
    content = (folder / "annotations.xml").read_bytes()
    done, png = cv2.imencode(".png", np.full(SHAPE, 90, np.uint8))
    assert done
    files = {"annotations.xml": content, "images/L1_000.png": png.tobytes()}
    packed(importing.folder / "flat.zip", files)
    nested = {f"my task/{name}": data for name, data in files.items()}
    packed(importing.folder / "nested.zip", {**nested, "my task/notes.txt": b"mine"})
    for name in ("flat.zip", "nested.zip"):
        status, said, complaint = importing(f"{name} --preview {name}.shown")
        assert (status, complaint) == (0, "")
        assert "1 picture, 1 with ice" in said
        assert (importing.folder / f"{name}.shown" / "L1_000.jpg").is_file()


def test_another_subset_of_coco_is_read(importing: Importing) -> None:
    folder = write_coco(importing.folder / "export", SIZE, {"L1_000.png": [("ice", SQUARE)]})
    path = folder / "annotations" / "instances_default.json"
    path.rename(path.with_name("instances_Train.json"))
    assert importing("export")[0] == 0
    path.with_name("instances_Test.json").write_bytes(b"{}")
    importing.refused("export", "holds both annotations/instances_Test.json")


@pytest.mark.parametrize(
    ("drawn", "says"),
    [
        ({}, "lists no picture"),
        ({"L1.png": [("ice", SQUARE)]}, "does not tell its tilt"),
        ({"a/L1_000.png": [("ice", SQUARE)], "b/L1_0000.png": []}, "two pictures of L1, section 0"),
        ({"L1_000.png": [], "L1_001.png": []}, "no ice on any of its 2 pictures"),
        ({"L1_000.png": [("ignore", SQUARE)]}, "no ice on any"),
        ({"L1_000.png": [("ice", SQUARE), ("ignore", SQUARE)]}, "100 % of the ice is labelled 'ig"),
        ({"L1_000.png": [("ice", SQUARE), ("distractor", SQUARE)]}, "delete one of the two"),
    ],
)
@pytest.mark.parametrize("write", [write_coco, write_cvat])
def test_a_set_that_teaches_nothing_is_refused(
    write: Any, drawn: Drawn, says: str, importing: Importing
) -> None:
    write(importing.folder / "export", SIZE, drawn, LABELS)
    importing.refused("export --preview shown", says)
    assert not (importing.folder / "shown").exists()


def test_a_label_that_nobody_knows_is_refused_with_the_nearest(importing: Importing) -> None:
    folder = importing.folder / "export"
    write_cvat(
        folder,
        SIZE,
        {"L1_000.png": [("ice", SQUARE), ("hexagnal", SQUARE)]},
        ("ice", "hexagnal", "car"),
    )
    importing.refused("export", "labelled 'hexagnal'.*did you mean 'hexagonal'")
    assert importing("export --ice-label ice --ice-label hexagnal")[0] == 0
    importing.refused("export --ice-label snow", "no label 'snow'")


def test_a_little_contradiction_is_told_and_left_out(importing: Importing) -> None:
    beside = moved(SQUARE, 30.0)
    drawn: Drawn = {"L1_000.png": [("ice", SQUARE), ("ignore", beside)]}
    write_cvat(importing.folder / "export", SIZE, drawn, LABELS)
    status, said, _ = importing("export")
    assert status == 0
    assert "25 % of the ice is ignore too: left out" in said
    told = SHAPE[0] * SHAPE[1] - 1600
    assert f"{100 * 1200 / told:.1f} %" in said


def test_odd_outlines_are_told(importing: Importing) -> None:
    crossing = [(20.0, 100.0), (60.0, 140.0), (60.0, 100.0), (20.0, 140.0)]
    outside = [(200.0, 20.0), (260.0, 20.0), (260.0, 40.0), (200.0, 40.0)]
    flat = [(100.0, 20.0), (120.0, 20.0), (110.0, 20.0)]
    drawn: Drawn = {"L1_000.png": [("ice", ring) for ring in (SQUARE, crossing, outside, flat)]}
    write_coco(importing.folder / "export", SIZE, drawn)
    status, said, _ = importing("export")
    assert status == 0
    row = " ".join(said.split())
    assert "1 outline outside, cut off" in row
    assert "1 area without extent" in row
    assert "1 outline crossing itself" in row


def test_tilts_that_do_not_fit_are_refused(importing: Importing) -> None:
    drawn: Drawn = {"L1_000.png": [("ice", SQUARE)], "L7_000.png": [("ice", SQUARE)]}
    write_cvat(importing.folder / "export", SIZE, drawn)
    importing.refused("export --tilts nowhere", "no such file")
    tilts_of(importing.folder / "data")
    status, said, _ = importing("export --tilts data")
    assert status == 0 and "no tilt of this name was given" in said
    tilts_of(importing.folder / "twice", "a/L1")
    tilts_of(importing.folder / "twice", "b/L1")
    importing.refused("export --tilts twice", "both have the name of one picture")
    tilts_of(importing.folder / "others", "session/L9")
    importing.refused("export --tilts others", "None of the 2 pictures")
    (importing.folder / "turned").mkdir()
    write_mrc(importing.folder / "turned" / "L1.mrc", np.ones((224, 192), np.int16), 13.5)
    importing.refused("export --tilts turned", "aspect ratio")
    importing.refused("export --tilts data --preview data/shown", "never writes")
    assert not (importing.folder / "data" / "shown").exists()


def test_tilts_of_two_magnifications_are_refused(importing: Importing) -> None:
    (importing.folder / "data").mkdir()
    drawn: Drawn = {}
    for name, size in (("L1", 13.5), ("L2", 13.55), ("L3", 6.7)):
        write_mrc(importing.folder / "data" / f"{name}.mrc", picture(4.0), size)
        drawn[f"{name}_000.png"] = [("ice", SQUARE)]
    write_cvat(importing.folder / "export", SIZE, drawn)
    importing.refused("export --tilts data", r"different pixel sizes \(1 of 6.7 Å, 1 of 13.5 Å")
    (importing.folder / "data" / "L3.mrc").unlink()
    assert importing("export --tilts data")[0] == 0


def test_a_picture_of_another_size_than_its_annotations_is_refused(importing: Importing) -> None:
    folder = write_coco(importing.folder / "export", SIZE, {"L1_000.png": [("ice", SQUARE)]})
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "L1_000.png"), np.zeros((90, 100), np.uint8))
    importing.refused("export", "has 100 x 90 pixels, its annotations are for 224 x 192")
    (folder / "images" / "L1_000.png").write_bytes(b"\x89PNG cut")
    importing.refused("export", "cannot be read as a picture")


def test_previews_need_pictures(importing: Importing) -> None:
    write_coco(importing.folder / "export", SIZE, {"L1_000.png": [("ice", SQUARE)]})
    importing.refused("export --preview shown", "holds no pictures to draw on")


@pytest.mark.parametrize("write", [write_coco, write_cvat])
def test_pictures_larger_than_any_camera_are_refused(write: Any, importing: Importing) -> None:
    write(importing.folder / "export", (60_000, 60_000), {"L1_000.png": [("ice", SQUARE)]})
    importing.refused("export", "60000 x 60000 pixels, more than any camera")


@pytest.mark.parametrize("write", [write_coco, write_cvat])
def test_an_export_that_was_cut_is_refused(write: Any, importing: Importing) -> None:
    folder = write(importing.folder / "export", SIZE, {"L1_000.png": [("ice", SQUARE)]})
    (path,) = (one for one in folder.rglob("*") if one.is_file())
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, max(1, len(whole) // 9)):
        path.write_bytes(whole[:length])
        importing.refused("export", "export it again|is empty")
    archive_bytes = io.BytesIO()
    with zipfile.ZipFile(archive_bytes, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(path.relative_to(folder).as_posix(), whole)
    whole = archive_bytes.getvalue()
    cut = importing.folder / "cut.zip"
    for length in range(0, len(whole), max(1, len(whole) // 6)):
        cut.write_bytes(whole[:length])
        importing.refused("cut.zip", "is cut or no ZIP file")
    damaged = bytearray(whole)
    damaged[60:64] = b"\xff\x00\xff\x00"
    cut.write_bytes(damaged)
    importing.refused("cut.zip", "is cut or no ZIP file")


@pytest.mark.parametrize(
    "name", ["../annotations.xml", "/etc/annotations.xml", "a/../../x.png", "..\\x.png", "C:/x.png"]
)
def test_a_zip_that_climbs_out_is_refused(name: str, importing: Importing) -> None:
    packed(importing.folder / "bad.zip", {"annotations.xml": b"<annotations/>", name: b"x"})
    importing.refused("bad.zip", "would lie outside of it")
    assert sorted(path.name for path in importing.folder.iterdir()) == ["bad.zip"]


def test_a_zip_that_would_fill_the_disk_is_refused(
    importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 20)
    packed(importing.folder / "bomb.zip", {"annotations.xml": b" " * (2 << 20)})
    importing.refused("bomb.zip", "would unpack to 1 files of 0.0 GB")
    packed(importing.folder / "none.zip", {})
    importing.refused("none.zip", "is an empty ZIP file")


def test_a_zip_that_says_less_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "liar.zip", {"annotations.xml": b"x" * 100_000})
    whole = path.read_bytes()
    size = (100_000).to_bytes(4, "little")
    assert whole.count(size) == 2
    path.write_bytes(whole.replace(size, (50).to_bytes(4, "little")))
    with pytest.raises(AnnotationError, match=r"is cut or no ZIP file|not XML"):
        read_export(path)


def test_an_export_goes_there_and_back(
    importing: Importing, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    bundle = tiny_bundle.write(importing.folder / "bundle")
    tilts_of(importing.folder / "data", count=3)
    for form in ("coco", "cvat"):
        words = f"annotate export {form} data --all --format {form} --model {bundle}"
        assert icewatch(words, monkeypatch, capsys)[0] == 0
        status, said, complaint = importing(f"{form} --tilts data --preview {form}-shown")
        assert (status, complaint) == (0, "")
        assert "crossing" not in said
        percents = [float(one) for one in re.findall(r"(\d+\.\d) %", said)]
        assert percents == pytest.approx([5.0] * 3, abs=0.5)
        assert len(list((importing.folder / f"{form}-shown").iterdir())) == 3
    content = json.loads((importing.folder / "coco/annotations/instances_default.json").read_text())
    assert {one["iscrowd"] for one in content["annotations"]} == {0}
