"""`icewatch score` on files and folders: tables, JSON, masks, and what it refuses."""

from __future__ import annotations

import json
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
