"""What keeps the simulator honest: calibration against a real lamella, chance against physics."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.simulation import (
    EMPIAR_LIKE,
    FAMILIES,
    HELD_OUT_DOMAINS,
    HELD_OUT_FAMILIES,
    SceneChoices,
    SimulatedTilt,
    simulate_series,
)
from engines.simulation.bragg import Beamline, diffract
from engines.simulation.canvas import Canvas
from engines.simulation.crystals import CrystalBuilder
from engines.simulation.distractors import DRAWERS as DECOYS
from engines.simulation.draws import Draws
from engines.simulation.geometry import TiltGeometry
from engines.simulation.grains import Grains
from engines.simulation.mosaics import voronoi
from engines.simulation.parameters import TEST, TRAINING
from engines.simulation.priors import draw_parameters
from engines.simulation.second import mosaic as second_mosaic
from tests.single_thread import one_thread  # noqa: F401

PIXEL = 13.5
BARE = SceneChoices(
    ice_kind="none",
    distractor_level=0.0,
    biology={},
    texture_level=0.0081,
    texture_slope=1.4,
    wedge=0.0,
    curtain=0.0,
    energy_filter=True,
)
"""A real lamella's texture and nothing else."""
GENERATORS = ("f10987", "test_f10987")


@pytest.mark.parametrize("family", GENERATORS)
@pytest.mark.parametrize(
    ("depth", "pretilt"), [(0.708, 9.0), pytest.param(0.446, 6.0, marks=pytest.mark.slow)]
)
def test_mean_over_tilts_follows_the_real_curve(family: str, depth: float, pretilt: float) -> None:
    """Two real series of lamellae fit exp(-depth / cos(angle - pretilt)) to 0.5 % rms; so do ours.

    One has 41 tilts, -51 to 69 degrees, the other 60.
    """
    angles = [float(a) for a in range(-51, 70, 15)]
    path = draw_parameters(Draws(5, family), family, BARE).mean_free_path_angstrom
    lamella = replace(BARE, thickness_angstrom=depth * path, pretilt_deg=pretilt)
    series = simulate_series(
        5, family, n_tilts=len(angles), size_px=160, angles_deg=angles, overrides=lamella
    )
    means = np.array([float(tilt.expected.mean()) for tilt in series.tilts])
    curve = np.exp(-depth / np.cos(np.radians(np.array(angles) - pretilt)))
    assert float(np.log(means / curve).std()) < 0.005


MEASURED = ((350.0, 0.020), (175.0, 0.0081), (105.0, 0.0045), (75.0, 0.0025), (58.0, 0.0014))
"""Structure of a real lamella tilt: power per 13.12 A pixel over the mean squared, by period."""
LAW = tuple((period, 0.0081 * (175.0 / period) ** -1.4) for period in (1500.0, 1000.0, 700.0))
"""Longer periods, from the law k^-1.4 that was fitted to the same tilt."""


def _powers(picture: NDArray[np.float32]) -> list[float]:
    n = picture.shape[0]
    window = np.hanning(n)[:, None] * np.hanning(n)[None, :]
    relative = (picture / picture.mean() - 1.0) * window / math.sqrt(float((window**2).mean()))
    power = np.abs(np.fft.fft2(relative)) ** 2 / n**2
    frequency = np.fft.fftfreq(n, 13.12)
    k = np.hypot(frequency[:, None], frequency[None, :])
    near = [np.abs(k * period - 1.0) < (0.1 if period < 600.0 else 0.2) for period, _ in BANDS]
    return [float(power[ring].mean()) for ring in near]


BANDS = (*LAW, *MEASURED)


@pytest.mark.parametrize("family", GENERATORS)
def test_power_spectrum_is_that_of_a_real_lamella(family: str) -> None:
    """Through absorption, tilt and lens, both generators' textures keep what was measured."""
    found = []
    for seed in range(4):
        series = simulate_series(
            seed,
            family,
            n_tilts=1,
            size_px=256,
            pixel_size_angstrom=13.12,
            angles_deg=[9.0],
            overrides=BARE,
        )
        found.append(_powers(series.tilts[0].expected))
    for power, (_, expected) in zip(np.median(found, axis=0), BANDS, strict=True):
        assert expected / 2 < power < expected * 2


def _mosaic(kind: str, size: float, thickness: float, seed: int, second: bool = False) -> Grains:
    """Return a field full of grains turned at random; `second` takes the test generator's."""
    n = 192
    choices = SceneChoices(bragg_boost=0.0, ice_kind=kind)
    parameters = draw_parameters(Draws(seed, "f11166"), "f11166", choices)
    builder = CrystalBuilder(parameters, Canvas.empty(n, PIXEL, 6, thickness, 3500.0), [])
    generator = np.random.default_rng(seed)
    ids = voronoi(generator, n, size / PIXEL, 1.3, 0.2)
    if second:
        ids = second_mosaic.grains(generator, n, size / PIXEL, 1.3, kind)
    builder.add(generator, kind, ids, np.full((n, n), thickness, np.float32), 0.0)
    flat = torch.zeros(n, n)
    return Grains.on("cpu", builder.levels, builder.table(), flat, flat)


@pytest.mark.parametrize(
    ("kind", "size", "thickness"),
    [
        ("hexagonal", 800.0, 1000.0),
        ("cubic", 350.0, 350.0),
        ("stacking", 700.0, 500.0),
        pytest.param("hexagonal", 1500.0, 1500.0, marks=pytest.mark.slow),
        pytest.param("cubic", 350.0, 500.0, marks=pytest.mark.slow),
    ],
)
def test_few_grains_flash_at_one_tilt_and_most_over_a_series(
    kind: str, size: float, thickness: float
) -> None:
    """At one tilt 3 to 11 % of crystalline area is dark; over 41 tilts three grains in four."""
    shares, unions = [], []
    for seed in range(2):
        grains = _mosaic(kind, size, thickness, seed)
        share, flashed = _flashes(grains)
        shares.append(share)
        unions.append(flashed)
    assert 0.03 < np.mean(shares) < 0.11
    assert np.mean(unions) > 0.75


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size", "thickness"), [("hexagonal", 800.0, 1000.0), ("cubic", 350.0, 350.0)]
)
def test_grains_of_the_test_generator_flash_as_often(
    kind: str, size: float, thickness: float
) -> None:
    found = [_flashes(_mosaic(kind, size, thickness, seed, second=True)) for seed in range(4)]
    assert 0.03 < np.mean([share for share, _ in found]) < 0.11
    assert np.mean([flashed for _, flashed in found]) > 0.75


def _flashes(grains: Grains) -> tuple[float, float]:
    """Return the mean dark share of a tilt, and the share of grains that were dark in any."""
    side, count = 128, len(grains.phase)
    ever, most, shares = torch.zeros(count), torch.zeros(count), []
    for angle in range(-60, 61, 3):
        geometry = TiltGeometry(side, 192, PIXEL, float(angle), 0.0)
        beamline = Beamline(300.0, 4e4, 0.75, 1.0, PIXEL)
        seen = diffract(grains, geometry, beamline, torch.ones(side, side))
        dark = (1.0 - seen.direct).flatten() > 0.10
        shares.append(float(dark.float().mean()))
        grain = grains.levels[0].ids[geometry.nearest(0.0).flatten()]
        area = torch.bincount(grain, minlength=count)
        ever = torch.maximum(ever, torch.bincount(grain[dark], minlength=count) / area.clamp_min(1))
        most = torch.maximum(most, area)
    return float(np.mean(shares)), float((ever[most > 20] > 0.1).float().mean())


def _pair(seed: int, family: str) -> tuple[SimulatedTilt, SimulatedTilt]:
    """Return the same tilt with ice and without."""
    shared = SceneChoices(ice_layout="band", ice_kind="cubic")
    with_ice, without = (
        simulate_series(
            seed, family, n_tilts=1, size_px=128, overrides=replace(shared, ice_kind=kind)
        ).tilts[0]
        for kind in ("cubic", "none")
    )
    return with_ice, without


@pytest.mark.parametrize("family", GENERATORS)
def test_ice_changes_nothing_but_ice(family: str) -> None:
    for seed in range(2):
        icy, bare = _pair(seed, family)
        assert bare.ice_percent == 0.0
        assert not bare.present.any()
        assert np.array_equal(icy.valid, bare.valid)
        assert np.array_equal(icy.distract, bare.distract)
        own = ("ice_kind", "visible_share", "present_percent")
        for name, value in bare.metadata.items():
            if not name.startswith(("area_", "share_")) and name not in own:
                assert icy.metadata[name] == value, name
        change = np.abs(icy.expected / np.maximum(bare.expected, 1.0) - 1.0)
        far = np.ones(change.shape, bool)
        for row, column in np.argwhere(icy.present > 0)[::7]:
            far[max(0, row - 30) : row + 31, max(0, column - 30) : column + 31] = False
        assert float(np.percentile(change[far], 95)) < 0.02 if far.sum() > 500 else True


def test_one_seed_is_one_scene_in_every_generator() -> None:
    for family in (*GENERATORS, "generic"):
        first, again, other = (
            simulate_series(seed, family, n_tilts=2, size_px=64) for seed in (11, 11, 12)
        )
        for a, b in zip(first.tilts, again.tilts, strict=True):
            assert np.array_equal(a.expected, b.expected)
            assert np.array_equal(a.labels["0.10"], b.labels["0.10"])
            assert np.array_equal(a.ignore, b.ignore)
            assert a.metadata == b.metadata
        assert not np.array_equal(first.tilts[0].expected, other.tilts[0].expected)


def test_generators_differ_and_training_never_draws_what_is_held_out() -> None:
    assert not set(FAMILIES) & set(HELD_OUT_FAMILIES)
    assert set(EMPIAR_LIKE) | set(HELD_OUT_DOMAINS) < set(HELD_OUT_FAMILIES)
    for family in (*FAMILIES, *HELD_OUT_FAMILIES):
        for seed in range(40):
            drawn = draw_parameters(Draws(seed, family), family)
            trained = family in FAMILIES
            assert drawn.generator == (TRAINING if trained or family == "f11830" else TEST)
            unfiltered_200 = drawn.voltage_kv == 200.0 and not drawn.energy_filter
            if trained:
                # amplitude contrast of thick specimens; a phase plate starts at twice as much
                most_rad = 0.12 * math.pi if family == "near_focus" else 0.0
                assert drawn.phase_shift_rad <= most_rad
                assert not unfiltered_200
            if family == "h3_unfiltered_200kv":
                assert unfiltered_200
                assert drawn.haze > 0.05
            if family == "h4_phase_plate":
                assert drawn.phase_shift_rad > 0.5
            if family == "h6_ice_free":
                assert drawn.ice_kind == "none"
            if family == "h9_small_aperture":
                assert drawn.aperture_per_angstrom < 1 / 3.9


def test_crowded_scenes_without_ice_are_common_in_training() -> None:
    crowded, icefree = 0, 0
    seen: Counter[str] = Counter()
    for seed in range(300):
        family = ("generic", "plunge")[seed % 2]
        drawn = draw_parameters(Draws(seed, family), family)
        expected = sum(drawn.distractors.values())
        icefree += drawn.ice_kind == "none"
        crowded += drawn.ice_kind == "none" and expected > 6.0
        if drawn.ice_kind == "none":
            seen.update(drawn.distractors)
    assert 0.35 < icefree / 300 < 0.65
    assert crowded / 300 > 0.12
    elsewhere = {"grid_bar"}
    assert set(DECOYS) | elsewhere == set(seen) | elsewhere, "every decoy is shown without ice too"
