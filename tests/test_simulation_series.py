"""Simulated series keep what the interface promises, in every family; cameras record them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines.simulation import (
    FAMILIES,
    HELD_OUT_FAMILIES,
    Distractor,
    SceneChoices,
    random_camera,
    record,
    simulate_series,
)
from engines.simulation.camera import KERNELS, STORAGES, CameraChoices
from engines.simulation.contents import CELL, FILM, FILM_CONTENT, LAMELLA
from engines.simulation.domains import DOMAINS
from engines.simulation.drawing import draw_all
from engines.simulation.draws import Draws
from engines.simulation.priors import draw_parameters
from engines.simulation.scene import GENERATORS, empty_canvas
from engines.simulation.tilting import visits
from tests.single_thread import one_thread  # noqa: F401

SMALL = 96


@pytest.mark.parametrize("family", FAMILIES + HELD_OUT_FAMILIES)
def test_every_family_gives_sound_tilts(family: str) -> None:
    series = simulate_series(7, family, n_tilts=1, size_px=SMALL)
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
        for plane in (tilt.present, tilt.contrast_dark, tilt.contrast_bright, tilt.ignore):
            assert plane.shape == (SMALL, SMALL)
            assert np.isfinite(plane).all()


@pytest.mark.parametrize("generator", sorted(GENERATORS))
def test_every_content_can_be_drawn_and_leaves_a_mark(generator: str) -> None:
    cell, dirt = GENERATORS[generator]
    wanted = {**CELL, **FILM, **FILM_CONTENT, **LAMELLA}
    wanted = {name: 1.0 for family in DOMAINS.values() for name in family.distractors} | wanted
    drawn_elsewhere = {"grid_bar"}
    unknown = set(wanted) - set(cell) - set(dirt) - drawn_elsewhere
    strange = {"ferns", "ribbons", "striped_bodies"}
    own = {"training": {"meniscus"}, "test": {"smears", "exposed_discs"} | strange}
    assert unknown <= own[generator], "only the other generator draws these"
    for name, drawer in {**cell, **dirt}.items():
        marked = 0
        for seed in range(3):
            canvas = empty_canvas(128, 13.5, 1500.0, 3500.0)
            draw_all(canvas, Draws(seed), "x", {name: drawer}, {name: 2.0})
            planes = (canvas.tau, canvas.phase, canvas.matter_tau, canvas.damage_tau)
            assert all(np.isfinite(plane).all() for plane in planes), name
            changed = any(bool(plane.any()) for plane in planes) or canvas.presence.min() < 1.0
            marked += changed
        assert marked >= 2, name


def test_ice_free_scenes_have_no_ice_whatever_else_is_there() -> None:
    crowded = SceneChoices(ice_kind="none", distractor_level=4.0)
    for family in ("generic", "plunge", "held_out_layout"):
        for tilt in simulate_series(5, family, n_tilts=1, size_px=160, overrides=crowded).tilts:
            assert tilt.ice_percent == 0.0
            assert not tilt.labels["0.06"].any()
            assert not tilt.present.any()


def test_bubbles_grow_with_the_dose() -> None:
    """The same scene and tilt, late in a series of low and of high dose."""
    seen = []
    for dose in (0.5, 6.0):
        choices = SceneChoices(
            ice_kind="none",
            distractors={"beam_damage": 4.0},
            biology={},
            pretilt_deg=-30.0,
            dose_e_per_A2=dose,
        )
        tilt = simulate_series(
            2, "f11058", n_tilts=1, size_px=128, angles_deg=[0.0], overrides=choices
        ).tilts[0]
        seen.append(tilt.expected / dose)
    bubbly = (tilt.distract & int(Distractor.BUBBLE)) != 0
    assert bubbly.any()
    brighter = seen[1] / seen[0]
    assert float(brighter[bubbly].mean()) > 1.02 * float(brighter[~bubbly].mean())


def test_dose_before_a_tilt_follows_the_scheme() -> None:
    drawn = draw_parameters(Draws(1, "f11166"), "f11166")
    drawn = replace(drawn, pretilt_deg=0.0, axis_step_deg=3.0, dose_e_per_A2=3.0)
    angles = [0.0, 3.0, -3.0, 30.0, -30.0]
    symmetric = visits(Draws(1), replace(drawn, scheme="dose_symmetric"), angles)
    assert [v.dose_before_e_per_A2 for v in symmetric] == [0.0, 6.0, 6.0, 60.0, 60.0]
    one_way = visits(Draws(1), replace(drawn, scheme="bidirectional"), angles)
    first, later = sorted((one_way[3].dose_before_e_per_A2, one_way[4].dose_before_e_per_A2))
    assert first == 30.0
    assert later == 90.0
    level = visits(Draws(1), replace(drawn, scheme="level"), angles)
    assert all(v.dose_before_e_per_A2 == 0.0 for v in level)


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


@pytest.mark.parametrize("family", ["", "h10_resampled"])
def test_every_camera_records_finite_pictures_that_keep_their_sign(family: str) -> None:
    ramp = np.tile(np.linspace(80.0, 320.0, 128, dtype=np.float32), (128, 1))
    for seed in range(60):
        generator = np.random.default_rng(seed)
        picture = record(ramp, generator, random_camera(generator, family))
        assert picture.shape == ramp.shape
        assert picture.dtype == np.float32
        assert np.isfinite(picture).all()
        assert picture[:, 96:].mean() > picture[:, :32].mean()
    flipped = record(ramp, np.random.default_rng(0), CameraChoices(flip_sign=True))
    assert flipped[:, 96:].mean() < flipped[:, :32].mean()


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_keep_the_mean_and_change_the_noise(kernel: str) -> None:
    expected = np.full((160, 160), 200.0, np.float32)
    camera = CameraChoices(kernel=kernel, alias_gain=2.0)
    picture = record(expected, np.random.default_rng(3), camera)
    assert picture.mean() == pytest.approx(200.0, rel=0.01)
    ratio = float(picture.var()) / 200.0
    usual = {"area": (0.95, 1.05), "aliased": (3.0, 5.0), "lanczos": (1.05, 1.6)}
    low, high = usual.get(kernel, (0.1, 0.95))
    assert low < ratio < high


@pytest.mark.parametrize("storage", STORAGES)
def test_storage_keeps_order_whatever_it_does_to_values(storage: str) -> None:
    ramp = np.tile(np.linspace(80.0, 320.0, 128, dtype=np.float32), (128, 1))
    camera = CameraChoices(storage=storage, counts_per_electron=0.05, hot_pixels=20)
    picture = record(ramp, np.random.default_rng(5), camera)
    assert np.corrcoef(picture[4], ramp[4])[0, 1] > 0.5
    if storage.endswith("bytes"):
        assert picture.min() >= 0.0
        assert picture.max() <= 255.0
        assert np.array_equal(picture, np.rint(picture))


def test_hot_pixels_squeeze_bytes_scaled_from_least_to_most() -> None:
    even = np.full((128, 128), 200.0, np.float32)
    clean = CameraChoices(storage="minmax_bytes")
    spoiled = CameraChoices(storage="minmax_bytes", hot_pixels=30, spikes=3)
    levels = [
        float(record(even, np.random.default_rng(6), camera).std()) for camera in (clean, spoiled)
    ]
    assert levels[1] < 0.5 * levels[0]
