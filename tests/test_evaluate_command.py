"""`icewatch evaluate` on files and folders, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engines.readers.mrc import write_mrc
from monitor.cli import app
from monitor.errors import ConfigError
from monitor.evaluate import Annotated, Output, evaluate_annotated, evaluate_pictures
from monitor.evaluate import evaluate_simulated as evaluate_simulated_tilts
from monitor.evaluate_pictures import split_size
from monitor.score import Request, score_paths
from tests import tiny_bundle
from tests.daemon import PIXEL_SIZE_ANGSTROM, SHAPE, Microscope, picture
from tests.drawn import write_coco, write_cvat
from tests.made_shards import made_tilt, write_shard
from tests.test_cli import icewatch

ANGLES_DEG = (0.0, 3.0)
PERCENTS = (10.0, 4.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_bundle.write(tmp_path_factory.mktemp("bundle") / "bundle"))


@pytest.fixture
def tilts(tmp_path: Path) -> Path:
    microscope = Microscope(tmp_path / "data")
    for angle_deg, percent in zip(ANGLES_DEG, PERCENTS, strict=True):
        microscope.add("grid1/L1", angle_deg, picture(percent))
    return tmp_path / "data"


def figures(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "figures.json").read_text())
    return found


def rectangle(percent: float) -> list[tuple[float, float]]:
    """Outline of the dark rectangle that `picture` draws."""
    rows, columns = SHAPE
    height = int(rows * 0.8)
    right = 10.0 + round(rows * columns * percent / 100.0 / height)
    return [(10.0, 10.0), (right, 10.0), (right, 10.0 + height), (10.0, 10.0 + height)]


def test_masks_that_score_wrote_agree_with_the_bundle(
    tmp_path: Path, tilts: Path, bundle: str
) -> None:
    masks, out = tmp_path / "masks", tmp_path / "out"
    assert score_paths(Request((tilts,), masks=masks, bundle=bundle)) == 0
    assert evaluate_annotated(Annotated((tilts,), masks), Output(out, bundle)) == 0
    told = figures(out)
    (family,) = told["families"]
    assert (family["tilts"], family["iou"], family["mean_absolute_error"]) == (2, 1.0, 0.0)
    (lamella,) = told["lamellae"]
    assert (lamella["series"], lamella["tilts"]) == ("grid1/L1", 2)
    assert lamella["low"] <= lamella["true_percent"] <= lamella["high"]
    assert (out / "worst.jpg").stat().st_size > 5000


@pytest.mark.parametrize("write", [write_coco, write_cvat])
def test_drawings_on_reduced_pictures(
    tmp_path: Path, tilts: Path, bundle: str, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    half = (SHAPE[1] // 2, SHAPE[0] // 2)
    outlines = [[(x / 2, y / 2) for x, y in rectangle(percent)] for percent in PERCENTS]
    drawn = {f"L1_{section:03d}.png": [("ice", ring)] for section, ring in enumerate(outlines)}
    drawn["L9_000.png"] = []
    export = write(tmp_path / "export", half, drawn)
    out = tmp_path / "out"
    asked = Annotated((tilts,), cvat=export)
    assert evaluate_annotated(asked, Output(out, bundle, as_json=True, draw=False)) == 0
    printed = capsys.readouterr()
    says = "1 of 3 annotations belong to no tilt that was named (the first: L9_0000)"
    assert says in printed.err
    told = json.loads(printed.out)
    assert told == figures(out)
    assert [one["figures"]["true_percent"] for one in told["tilts"]] == pytest.approx(
        PERCENTS, abs=0.3
    )
    assert told["families"][0]["iou"] > 0.85
    assert [one["figures"]["angle_deg"] for one in told["tilts"]] == list(ANGLES_DEG)


def test_what_is_to_be_ignored_counts_neither_way(tmp_path: Path, tilts: Path, bundle: str) -> None:
    """All ice is to be ignored, and nothing is drawn on the rest."""
    outlines = [rectangle(percent) for percent in PERCENTS]
    drawn = {f"L1_{section:03d}.png": [("ignore", ring)] for section, ring in enumerate(outlines)}
    export = write_coco(tmp_path / "export", (SHAPE[1], SHAPE[0]), drawn, ("ice", "ignore"))
    out = tmp_path / "out"
    asked = Annotated((tilts,), cvat=export)
    assert evaluate_annotated(asked, Output(out, bundle, draw=False)) == 0
    for one in figures(out)["tilts"]:
        assert one["figures"]["true_percent"] == 0.0
        assert one["figures"]["percent"] > 1.0
        assert one["figures"]["found_px"] < 0.003 * SHAPE[0] * SHAPE[1]


def test_pictures_with_labels(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for name, percent in (("a.mrc", 10.0), ("b.mrc", 0.0)):
        write_mrc(folder / name, picture(percent), PIXEL_SIZE_ANGSTROM)
    cv2.imwrite(str(folder / "c.png"), picture(5.0).clip(0, 255).astype(np.uint8))
    write_mrc(folder / "other.contamination_mask.mrc", np.zeros(SHAPE, np.int8), 13.5)
    (folder / "labels.csv").write_text("file,label\na.mrc,crystalline\nb.mrc,great\n")
    given = f"{folder}={PIXEL_SIZE_ANGSTROM}"
    assert evaluate_pictures([given], Output(out, bundle)) == 0
    says = "AUROC of the percentage, crystalline against all other labels: 1.000"
    assert says in capsys.readouterr().out
    told = figures(out)
    assert [one["file"] for one in told["pictures"]] == ["a.mrc", "b.mrc", "c.png"]
    assert [one["percent"] for one in told["pictures"]] == pytest.approx([10.0, 0.0, 5.0], abs=1.0)
    assert {one["label"]: one["pictures"] for one in told["classes"]} == {
        "crystalline": 1,
        "great": 1,
        "no label": 1,
    }
    assert (out / "pictures.jpg").stat().st_size > 5000
    assert (out / "classes.png").stat().st_size > 5000


def test_simulated_tilts_are_judged_as_the_daemon_judges(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tilts = [made_tilt(20.0, 3.0 * k) for k in range(5)]
    write_shard(tmp_path / "data", 0, "h8_matrix", *tilts)
    data, output = [tmp_path / "data"], Output(tmp_path / "out", bundle, draw=False)
    assert evaluate_simulated_tilts(data, output, None, 1) == 0
    (lamella,) = figures(tmp_path / "out")["lamellae"]
    assert lamella["verdict"] in ("skip", "undecided")
    assert lamella["low"] < lamella["percent"] < lamella["high"]
    assert not list((tmp_path / "out").glob("*.png"))
    assert lamella["true_occupancy_percent"] == 20.0
    printed = capsys.readouterr().out
    assert "Lamellae: over 10 % or not" in printed
    assert all(len(line) <= 140 for line in printed.splitlines())


@pytest.mark.parametrize("kept", [0.5, 0.99, 0.0])
def test_a_damaged_series_is_named(tmp_path: Path, bundle: str, kept: float) -> None:
    write_shard(tmp_path / "data", 0, "h8_matrix", made_tilt(20.0, 0.0))
    write_shard(tmp_path / "data", 1, "h8_matrix", made_tilt(20.0, 0.0))
    shard = tmp_path / "data" / "series_000001.npz"
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept * len(content))])
    output = Output(tmp_path / "out", bundle, draw=False)
    with pytest.raises(ConfigError, match=r"series_000001\.npz cannot be read") as error:
        evaluate_simulated_tilts([tmp_path / "data"], output, None, 1)
    assert "\n" not in str(error.value)


def test_pixels_of_a_series_that_are_damaged_are_told(tmp_path: Path, bundle: str) -> None:
    write_shard(tmp_path / "data", 0, "h8_matrix", made_tilt(20.0, 0.0))
    shard = tmp_path / "data" / "series_000000.npz"
    content = bytearray(shard.read_bytes())
    content[100:200] = bytes(100)
    shard.write_bytes(content)
    output = Output(tmp_path / "out", bundle, draw=False)
    with pytest.raises(ConfigError, match=r"series_000000\.npz cannot be read"):
        evaluate_simulated_tilts([tmp_path / "data"], output, None, 1)


def test_a_picture_that_cannot_be_read_is_passed_over(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "pictures", Output(tmp_path / "out", bundle, draw=False)
    folder.mkdir()
    (folder / "bad.mrc").write_bytes(b"not a picture")
    (folder / "bad.png").write_bytes(b"not a picture")
    given = f"{folder}={PIXEL_SIZE_ANGSTROM}"
    with pytest.raises(ConfigError, match="none of the pictures can be read"):
        evaluate_pictures([given], output)
    capsys.readouterr()
    write_mrc(folder / "good.mrc", picture(10.0), PIXEL_SIZE_ANGSTROM)
    assert evaluate_pictures([given], output) == 0
    complaints = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in complaints] == ["bad.mrc", "bad.png"]
    told = figures(tmp_path / "out")
    assert [one["file"] for one in told["pictures"]] == ["good.mrc"]
    assert told["notes"] == ["2 of 3 pictures could not be read"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("simulated", "/nowhere"), "no such file or folder"),
        (("simulated", "{empty}"), "holds no simulated series"),
        (("pictures", "/nowhere"), "no such file or folder"),
        (("pictures", "{empty}"), "holds no picture"),
        (("pictures", "{empty}=x"), "no pixel size"),
        (("annotated", "{empty}"), "either --masks or --cvat"),
        (("annotated", "{empty}", "--masks", "{empty}"), "holds no mask"),
        (("annotated", "{empty}", "--cvat", "{empty}"), "holds neither"),
        (("annotated", "{empty}", "--masks", "{masks}"), "none of 0 tilts is annotated"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    tmp_path: Path,
    bundle: str,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "A_0000.png"), np.zeros(SHAPE, np.uint8))
    given = [a.format(empty=tmp_path / "empty", masks=tmp_path / "masks") for a in arguments]
    with pytest.raises(ConfigError, match=says) as error:
        run(given, Output(tmp_path / "out", bundle, draw=False))
    assert "\n" not in str(error.value)


def run(given: list[str], output: Output) -> int:
    kind, first, *options = given
    if kind == "simulated":
        return evaluate_simulated_tilts([Path(first)], output, 1, 0)
    if kind == "pictures":
        return evaluate_pictures([first], output)
    named = dict(zip(options[::2], (Path(one) for one in options[1::2]), strict=True))
    return evaluate_annotated(
        Annotated((Path(first),), named.get("--masks"), named.get("--cvat")), output
    )


def test_a_mask_of_another_shape_is_refused(tmp_path: Path, tilts: Path, bundle: str) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    cv2.imwrite(str(masks / "L1_0000.png"), np.zeros((SHAPE[1], SHAPE[0]), np.uint8))
    with pytest.raises(ConfigError, match="aspect ratio"):
        evaluate_annotated(Annotated((tilts,), masks), Output(tmp_path / "out", bundle, draw=False))


def test_an_equals_sign_may_be_part_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "dose=3"
    folder.mkdir()
    assert split_size(str(folder)) == (folder, None)
    assert split_size(f"{folder}=7.8") == (folder, 7.8)


@pytest.mark.parametrize("command", ["simulated", "pictures", "annotated"])
def test_every_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["evaluate", command, "--help"], standalone_mode=False) == 0
    assert f"Example: icewatch evaluate {command}" in capsys.readouterr().out


def test_wrong_usage_is_one_line() -> None:
    found = icewatch("evaluate")
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1)


@pytest.mark.timeout(300)
def test_pictures_and_annotations_need_no_torch(tmp_path: Path, tilts: Path, bundle: str) -> None:
    masks = tmp_path / "masks"
    score_paths(Request((tilts,), masks=masks, bundle=bundle))
    code = (
        "import sys\n"
        "for name in ('torch', 'matplotlib'): sys.modules[name] = None\n"
        "from importlib.util import find_spec\n"
        "import engines.learning.plots as plots\n"
        "plots.find_spec = lambda name: None\n"
        "from monitor.cli import main\n"
        "main()"
    )
    command = ["evaluate", "annotated", str(tilts), "--masks", str(masks), "--model", bundle]
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing is drawn without matplotlib" in done.stderr
    assert figures(tmp_path / "out")["families"][0]["iou"] == 1.0


@pytest.mark.slow
def test_the_shipped_bundle_on_real_pictures(tmp_path: Path, realdata: Path) -> None:
    assert evaluate_pictures([str(realdata / "crystalline-ice")], Output(tmp_path)) == 0
    told = figures(tmp_path)
    assert len(told["pictures"]) == 12
    assert sum(one["strong_grains"] for one in told["pictures"]) == 12
    assert [one["pictures"] for one in told["classes"]] == [2] * 6
