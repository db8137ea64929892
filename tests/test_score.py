"""`icewatch score` on files and folders: tables, JSON, masks, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import mrcfile  # type: ignore[import-untyped]
import numpy as np
import pytest
from numpy import int16
from numpy.typing import NDArray

from engines.readers.mrc import write_mrc
from monitor.errors import ConfigError, MonitorError
from monitor.score import Request, score_paths
from tests import tiny_bundle
from tests.daemon import ANGLES_DEG, PIXEL_SIZE_ANGSTROM, SHAPE, Microscope, picture
from tests.privileges import as_nobody


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(tiny_bundle.write(tmp_path / "bundle"))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, dict[str, object]]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_series_is_scored_as_the_daemon_would(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    microscope = Microscope(tmp_path / "data")
    for index, angle_deg in enumerate(ANGLES_DEG):
        microscope.add("grid1/L1", angle_deg, picture(4.0 * index))
    assert score_paths(Request((tmp_path / "data",), as_json=True, bundle=bundle)) == 0
    found = lines(capsys)
    assert [one["tilt"]["angle_deg"] for one in found] == list(ANGLES_DEG)
    assert [one["ice"]["percent"] for one in found] == pytest.approx([0, 4, 8, 12, 16], abs=1.0)
    assert all(one["tilt"]["lamella"] == "grid1/L1" for one in found)
    assert set(found[0]) == {"tilt", "ice", "quality", "model"}


def test_an_exposure_in_both_forms_is_scored_once(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    microscope = Microscope(tmp_path / "data")
    for angle_deg in ANGLES_DEG:
        microscope.add("grid1/L1", angle_deg, picture(4.0))
    mdoc = tmp_path / "data/grid1/L1.mrc.mdoc"
    sections = mdoc.read_text().split("DateTime")
    movies = [f"L1_{k:03d}_{angle_deg:.1f}.mrc" for k, angle_deg in enumerate(ANGLES_DEG)]
    named = [f"{part}SubFramePath = {name}\n" for part, name in zip(sections, movies, strict=False)]
    mdoc.write_text("DateTime".join([*named, sections[-1]]))
    (tmp_path / "data/grid1/frames").mkdir()
    for name in movies:
        write_mrc(tmp_path / "data/grid1/frames" / name, picture(4.0), PIXEL_SIZE_ANGSTROM)
    assert score_paths(Request((tmp_path / "data",), as_json=True, bundle=bundle)) == 0
    assert len(lines(capsys)) == len(ANGLES_DEG)


def test_images_without_any_metadata(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mrcfile.write(tmp_path / "plain.mrc", picture(10.0), overwrite=True)
    request = Request((tmp_path / "plain.mrc",), as_json=True, bundle=bundle)
    assert score_paths(request) == 0
    unknown = lines(capsys)[0]
    assert unknown["quality"]["flags"] == ["pixel_size_unknown"]
    assert unknown["ice"]["percent"] is None
    assert unknown["tilt"]["angle_deg"] is None
    told = Request((tmp_path / "plain.mrc",), as_json=True, bundle=bundle, pixel_size_angstrom=13.5)
    assert score_paths(told) == 0
    assert lines(capsys)[0]["ice"]["percent"] == pytest.approx(10.0, abs=1.0)


def test_masks_cover_the_field_of_the_tilt(tmp_path: Path, bundle: str) -> None:
    microscope = Microscope(tmp_path / "data")
    upper_left = picture(10.0)
    microscope.add("grid1/L1", 0.0, picture(0.0))
    microscope.add("grid1/L1", 3.0, upper_left)
    masks = tmp_path / "masks"
    assert score_paths(Request((tmp_path / "data",), masks=masks, bundle=bundle)) == 0
    with mrcfile.open(masks / "grid1" / "L1_0001.mask.mrc") as file:
        mask = file.data
        assert mask.dtype == np.int8
        assert mask.shape == SHAPE
        assert file.voxel_size.x == pytest.approx(PIXEL_SIZE_ANGSTROM, rel=1e-4)
        dark = upper_left < 120
        assert mask[dark].mean() > 0.9, "ice where the picture is dark, row for row"
        assert set(np.unique(mask)) <= {-1, 0, 1}
    assert (masks / "grid1" / "L1_0000.overlay.png").read_bytes().startswith(b"\x89PNG")


def test_a_reduced_mask_keeps_the_rows(tmp_path: Path, bundle: str) -> None:
    image: NDArray[int16] = np.kron(picture(10.0), np.ones((4, 4), np.int16)).astype(int16)
    write_mrc(tmp_path / "big.mrc", image, PIXEL_SIZE_ANGSTROM / 4)
    score_paths(Request((tmp_path / "big.mrc",), masks=tmp_path / "masks", bundle=bundle))
    with mrcfile.open(tmp_path / "masks" / "big_0000.mask.mrc") as file:
        assert file.data.shape == image.shape
        assert file.data[: image.shape[0] // 2].sum() == pytest.approx(
            file.data[image.shape[0] // 2 :].sum(), rel=0.4
        )
        assert file.data[:, : image.shape[1] // 2].sum() > 0
        assert file.data[:, image.shape[1] // 2 :].max() <= 0


def test_one_bad_file_does_not_hide_the_others(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    write_mrc(tmp_path / "data" / "good.mrc", picture(10.0), PIXEL_SIZE_ANGSTROM)
    (tmp_path / "data" / "bad.mrc").write_bytes(b"\x01" * 5000)
    (tmp_path / "data" / "empty.mrc").write_bytes(b"")
    assert score_paths(Request((tmp_path / "data",), as_json=True, bundle=bundle)) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    complaints = captured.err.splitlines()
    assert len(complaints) == 2
    assert all("bad.mrc" in line or "empty.mrc" in line for line in complaints)


def test_nothing_to_score_is_a_failure(tmp_path: Path, bundle: str) -> None:
    (tmp_path / "bad.mrc").write_bytes(b"\x01" * 5000)
    with pytest.raises(MonitorError, match="nothing could be scored"):
        score_paths(Request((tmp_path / "bad.mrc",), bundle=bundle))
    with pytest.raises(ConfigError, match="no such file"):
        score_paths(Request((tmp_path / "none",), bundle=bundle))


def test_the_shipped_network_on_real_micrographs(
    realdata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = Request((realdata / "images",), as_json=True, pixel_size_angstrom=5.0)
    assert score_paths(request) == 0
    percents = {Path(str(one["tilt"]["path"])).stem: one["ice"]["percent"] for one in lines(capsys)}
    for name in ("leginon_tilt1", "leginon_tilt2"):
        assert percents[name] is not None
        assert float(str(percents[name])) < 1.0


def flat(path: Path, percent: float = 20.0) -> Path:
    """Write an image of which only the pixel size is known."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, picture(percent), PIXEL_SIZE_ANGSTROM)
    return path


def test_names_are_shown_as_they_are(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flat(tmp_path / "data" / "grid[red]" / "TS [b] :ice:.mrc")
    flat(tmp_path / "data" / "a[" / "b].mrc")
    assert score_paths(Request((tmp_path / "data",), bundle=bundle)) == 0
    shown = capsys.readouterr().out
    for name in (
        "grid[red]/TS [b] :ice:.mrc [0]",
        "grid[red]/TS [b] :ice: ",
        "a[/b].mrc",
        "a[/b] ",
    ):
        assert name in shown


def test_folders_of_the_same_layout_are_kept_apart(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = (tmp_path / "gridA", tmp_path / "gridB")
    for root, percent in zip(roots, (0.0, 30.0), strict=True):
        flat(root / "s1" / "TS_001.mrc", percent)
    masks = tmp_path / "masks"
    assert score_paths(Request((*roots, roots[0]), True, masks, bundle)) == 0
    tilts = [line["tilt"] for line in lines(capsys)]
    assert [tilt["lamella"] for tilt in tilts] == ["gridA/s1/TS_001", "gridB/s1/TS_001"]
    assert [tilt["path"] for tilt in tilts] == ["gridA/s1/TS_001.mrc", "gridB/s1/TS_001.mrc"]
    assert [(tilt["session"], tilt["grid"]) for tilt in tilts] == [("gridA", "s1"), ("gridB", "s1")]
    assert len({tilt["id"] for tilt in tilts}) == 2
    for grid, highest in (("gridA", 0), ("gridB", 1)):
        assert mrcfile.read(masks / grid / "s1" / "TS_001_0000.mask.mrc").max() == highest


def test_folders_of_one_name_are_told_apart_by_those_above(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [flat(tmp_path / name / "frames" / "x.mrc") for name in ("s1", "s2")]
    assert score_paths(Request(tuple(files), True, None, bundle)) == 0
    found = [line["tilt"]["lamella"] for line in lines(capsys)]
    assert found == ["s1_frames/x", "s2_frames/x"]


def test_masks_lie_directly_below_their_directory_where_no_names_clash(
    tmp_path: Path, bundle: str
) -> None:
    for roots in (("a", "b"), ("c", "c")):
        files = [flat(tmp_path / root / f"{n}.mrc") for n, root in enumerate(roots)]
        masks = tmp_path / f"masks of {roots}"
        assert score_paths(Request(tuple(files), True, masks, bundle)) == 0
        found = sorted(path.name for path in masks.glob("*.mrc"))
        assert found == ["0_0000.mask.mrc", "1_0000.mask.mrc"]


def test_a_mask_that_cannot_be_written_costs_no_reading(
    tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flat(tmp_path / "data" / "L1" / "x.mrc")
    flat(tmp_path / "data" / "y.mrc")
    flat(tmp_path / "data" / "y.st")
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "L1").write_text("in the way")
    assert score_paths(Request((tmp_path / "data",), True, masks, bundle)) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    complaints = captured.err.splitlines()
    assert len(complaints) == 2
    assert all("mask is not written" in line for line in complaints)
    assert {path.name for path in masks.glob("*.mrc")} == {"y_0000.mask.mrc"}


def test_a_directory_for_masks_that_cannot_be_used_is_refused(tmp_path: Path, bundle: str) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    data = flat(tmp_path / "x.mrc")
    for masks in (file, file / "below"):
        with pytest.raises(ConfigError, match=r"--masks .*file"):
            score_paths(Request((data,), masks=masks, bundle=bundle))


def test_a_failing_backend_ends_the_work_but_not_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = tiny_bundle.tiny_graph()
    for node in graph.graph.node:
        if node.output[0] == "unit":  # NaN where the mean is below 0
            node.op_type = "Sqrt"
            node.ClearField("input")
            node.input.append("mean")
    broken = tiny_bundle.write(tmp_path / "broken", graph.SerializeToString())
    flat(tmp_path / "data" / "1.mrc")
    write_mrc(tmp_path / "data" / "2.mrc", picture(20.0) - int16(20000), PIXEL_SIZE_ANGSTROM)
    with pytest.raises(MonitorError, match="NaN") as caught:
        score_paths(Request((tmp_path / "data",), bundle=str(broken)))
    assert not isinstance(caught.value, ConfigError)
    assert "1.mrc [0]" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["empty", "notes.txt", "lam_view.mrc", "pipe.mrc"])
def test_every_path_without_a_tilt_has_its_line(
    name: str, tmp_path: Path, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    flat(tmp_path / "empty" / ".hidden" / "x.mrc")
    (tmp_path / "notes.txt").write_text("x")
    flat(tmp_path / "lam_view.mrc")
    os.mkfifo(tmp_path / "pipe.mrc")
    with pytest.raises(MonitorError, match="see the lines above"):
        score_paths(Request((tmp_path / name,), bundle=bundle))
    complaints = capsys.readouterr().err.splitlines()
    assert len(complaints) == 1
    assert str(tmp_path / name) in complaints[0]


def test_without_the_right_to_read_or_to_write(nobodys_path: Path) -> None:
    bundle = str(tiny_bundle.write(nobodys_path / "bundle"))
    data = flat(nobodys_path / "data" / "x.mrc").parent
    locked = flat(data / "locked" / "y.mrc").parent
    closed = nobodys_path / "closed"
    (closed / "inside").mkdir(parents=True)
    locked.chmod(0)
    closed.chmod(0)

    def score() -> tuple[list[str], int, str]:
        refused = []
        for paths, masks in (((closed / "inside",), None), ((data,), closed)):
            try:
                score_paths(Request(paths, True, masks, bundle))
            except ConfigError as error:
                refused.append(str(error))
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = score_paths(Request((data,), True, None, bundle))
        return refused, status, said.getvalue()

    try:
        refused, status, said = as_nobody(score)
    finally:
        for folder in (locked, closed):
            folder.chmod(0o755)
    assert len(refused) == 2
    assert str(closed / "inside") in refused[0]
    assert refused[1].startswith(f"--masks {closed}")
    assert status == 0
    assert said == f"icewatch: {locked}: cannot be read: Permission denied\n"
