"""Contact sheets show simulated pictures beside real ones, in one sampling."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.readers.mrc import write_mrc
from engines.simulation import simulate_series
from engines.simulation.sheet import draw_sheet, draw_tile, main, tone
from tests.single_thread import one_thread  # noqa: F401


def test_sheet_has_a_row_for_each_family_and_each_folder(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(10.0, 200.0, 128, dtype=np.float32), (128, 1))
    (tmp_path / "real").mkdir()
    write_mrc(tmp_path / "real" / "one.mrc", ramp, 6.75)
    out = tmp_path / "sheet.png"
    draw_sheet(out, ["plunge", "h6_ice_free"], [1, 2], 96, real=[(tmp_path / "real", 6.75)])
    sheet = np.asarray(cv2.imread(str(out)))
    assert sheet.shape == (3 * 96, 2 * 96, 3)
    real = sheet[:64, :64, 0].astype(float)
    assert real[:, 50].mean() > real[:, 10].mean() + 50
    assert not sheet[70, :96].any()


def test_command_writes_a_sheet(tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    main([str(out), "--families", "h6_ice_free", "--seeds", "3"])
    assert np.asarray(cv2.imread(str(out))).shape == (320, 320, 3)


def test_tone_and_outlines() -> None:
    even = np.full((8, 8), 3.0, np.float32)
    assert np.isfinite(tone(even)).all()
    tilt = simulate_series(1, "h8_matrix", n_tilts=1, size_px=96).tilts[0]
    tile = draw_tile(tilt, np.random.default_rng(1), "x")
    red = (tile[..., 2] == 255) & (tile[..., 0] == 0) & (tile[..., 1] == 0)
    assert red.any() == (tilt.labels["0.10"].any())


@pytest.mark.gpu
def test_gpu_renders_the_same_scene() -> None:
    on_cpu = simulate_series(4, "f10987", n_tilts=2, size_px=160).tilts
    on_gpu = simulate_series(4, "f10987", n_tilts=2, size_px=160, device="cuda").tilts
    for a, b in zip(on_cpu, on_gpu, strict=True):
        close = np.isclose(a.expected, b.expected, rtol=0.02)
        assert close.mean() > 0.99
        assert (a.labels["0.10"] == b.labels["0.10"]).mean() > 0.995
