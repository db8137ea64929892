"""Simulated series keep what the interface promises: exact truth, same seed same scene."""

from __future__ import annotations

import numpy as np
import pytest

from engines.simulation import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    SceneChoices,
    SimulatedSeries,
    random_camera,
    record,
    simulate_series,
)
from engines.simulation.camera import CameraChoices
from engines.simulation.truth import drop_small, label

SMALL = 160


@pytest.mark.parametrize("family", FAMILIES + HELD_OUT_FAMILIES)
def test_every_family_gives_sound_tilts(family: str) -> None:
    series = simulate_series(7, family, n_tilts=2, size_px=SMALL)
    assert series.family == family
    for tilt in series.tilts:
        assert tilt.expected.shape == (SMALL, SMALL)
        assert tilt.expected.dtype == np.float32
        assert np.isfinite(tilt.expected).all()
        assert tilt.expected.min() >= 0.0
        assert tilt.labels["0.06"].sum() >= tilt.labels["0.15"].sum()
        assert not (tilt.labels["0.10"].astype(bool) & ~tilt.valid).any()
        assert ((tilt.phase > 0) == (tilt.labels["0.06"] > 0)).all()
        area = 100.0 * (tilt.labels["0.10"][tilt.valid] > 0).mean() if tilt.valid.any() else 0.0
        assert tilt.ice_percent == pytest.approx(area)


def _icy(seed: int, kind: str, tilts: list[float]) -> SimulatedSeries:
    choices = SceneChoices(
        ice_kind=kind,
        ice_layout="whole",
        bragg_boost=0.0,
        distractor_level=0.0,
        thickness_angstrom=1500.0,
        pretilt_deg=0.0,
    )
    return simulate_series(
        seed, "f11166", n_tilts=len(tilts), size_px=SMALL, angles_deg=tilts, overrides=choices
    )


def test_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    first = simulate_series(11, "generic", n_tilts=2, size_px=SMALL)
    again = simulate_series(11, "generic", n_tilts=2, size_px=SMALL)
    other = simulate_series(12, "generic", n_tilts=2, size_px=SMALL)
    for a, b in zip(first.tilts, again.tilts, strict=True):
        assert np.array_equal(a.expected, b.expected)
        assert np.array_equal(a.labels["0.10"], b.labels["0.10"])
    assert not np.array_equal(first.tilts[0].expected, other.tilts[0].expected)


def test_without_ice_everything_else_stays() -> None:
    """Ice that does not diffract here leaves the picture as it is without ice."""
    for seed in range(3):
        shared = SceneChoices(ice_layout="band", ice_kind="cubic", phase_plate=False)
        bare = SceneChoices(ice_layout="band", ice_kind="none", phase_plate=False)
        icy = simulate_series(seed, "f10987", n_tilts=1, size_px=SMALL, overrides=shared).tilts[0]
        none = simulate_series(seed, "f10987", n_tilts=1, size_px=SMALL, overrides=bare).tilts[0]
        assert none.ice_percent == 0.0
        assert np.array_equal(icy.valid, none.valid)
        assert np.array_equal(icy.distract, none.distract)
        change = np.abs(icy.expected / np.maximum(none.expected, 1.0) - 1.0)
        assert (change < 0.05).mean() > 0.3
        assert change[icy.labels["0.10"] > 0].size == 0 or change.max() > 0.05


def test_ice_free_scenes_have_no_ice_whatever_else_is_there() -> None:
    crowded = SceneChoices(ice_kind="none", distractor_level=4.0)
    for family in ("generic", "plunge", "held_out_layout"):
        for tilt in simulate_series(5, family, n_tilts=2, size_px=SMALL, overrides=crowded).tilts:
            assert tilt.ice_percent == 0.0
            assert not tilt.labels["0.06"].any()


@pytest.mark.parametrize("kind", ["hexagonal", pytest.param("cubic", marks=pytest.mark.slow)])
def test_few_grains_flash_at_one_tilt_and_more_over_a_series(kind: str) -> None:
    tilts = [float(a) for a in range(-30, 31, 10)]
    shares, union = [], []
    for seed in range(4):
        series = _icy(seed, kind, tilts)
        masks = np.stack([tilt.labels["0.10"] for tilt in series.tilts])
        shares.append(np.mean([float(t.metadata["visible_share"]) for t in series.tilts]))
        union.append(float(masks.any(axis=0).mean()))
    typical = float(np.median(shares))
    assert 0.02 < typical < 0.15
    assert float(np.median(union)) > 2.5 * typical


def test_transmission_follows_beer_and_lambert() -> None:
    choices = SceneChoices(
        ice_kind="none",
        distractor_level=0.0,
        biology={},
        pretilt_deg=0.0,
        texture_level=1e-4,
        thickness_angstrom=2000.0,
        energy_filter=True,
    )
    angles = [0.0, 30.0, 50.0, 60.0]
    series = simulate_series(
        3, "f11166", n_tilts=4, size_px=SMALL, angles_deg=angles, overrides=choices
    )
    means = np.log([tilt.expected.mean() for tilt in series.tilts])
    path = float(series.tilts[0].metadata["mean_free_path_angstrom"])
    expected = -(2000.0 / path) / np.cos(np.radians(angles))
    assert np.allclose(means - means[0], expected - expected[0], atol=0.05)


def test_unknown_family_and_wrong_angles_are_refused() -> None:
    with pytest.raises(ValueError, match="no simulated family"):
        simulate_series(1, "f00000", n_tilts=1)
    with pytest.raises(ValueError, match="angles"):
        simulate_series(1, "generic", n_tilts=2, angles_deg=[0.0])


def test_recording_counts_electrons() -> None:
    expected = np.full((200, 200), 240.0, np.float32)
    counts = record(expected, np.random.default_rng(1))
    assert counts.mean() == pytest.approx(240.0, rel=0.005)
    assert counts.var() == pytest.approx(240.0, rel=0.05)
    few = record(expected / 40.0, np.random.default_rng(1))
    assert few.mean() == pytest.approx(6.0, rel=0.02)
    assert few.var() == pytest.approx(6.0, rel=0.05)


def test_every_camera_records_finite_pictures_that_keep_their_sign() -> None:
    ramp = np.tile(np.linspace(80.0, 320.0, 128, dtype=np.float32), (128, 1))
    for seed in range(60):
        generator = np.random.default_rng(seed)
        picture = record(ramp, generator, random_camera(generator))
        assert picture.shape == ramp.shape
        assert picture.dtype == np.float32
        assert np.isfinite(picture).all()
        assert picture[:, 96:].mean() > picture[:, :32].mean()
    flipped = record(ramp, np.random.default_rng(0), CameraChoices(flip_sign=True))
    assert flipped[:, 96:].mean() < flipped[:, :32].mean()


def test_label_closes_gaps_drops_specks_and_counts_ghosts() -> None:
    dark, bright = np.zeros((80, 80), np.float32), np.zeros((80, 80), np.float32)
    dark[20:40, 20:29] = 0.3
    dark[20:40, 31:40] = 0.3
    dark[60:62, 60:62] = 0.5
    bright[20:40, 50:65] = 0.2
    with_ghosts = label(dark, bright, 0.10, 13.5)
    assert with_ghosts[30, 30] == 1
    assert with_ghosts[61, 61] == 0
    assert with_ghosts[30, 57] == 1
    assert label(dark, bright, 0.10, 13.5, ghosts=False)[30, 57] == 0
    assert drop_small(np.zeros((5, 5), np.uint8), 2.0).sum() == 0
