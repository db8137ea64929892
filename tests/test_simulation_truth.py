"""What a simulated tilt says is true of it: labels, what to ignore, areas, occupancy, people."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.simulation import Distractor, SceneChoices, SimulatedSeries, simulate_series
from engines.simulation.annotator import Annotator, annotate, annotate_series, random_annotator
from engines.simulation.truth import CURVE, THRESHOLDS, drop_small, label
from tests.single_thread import one_thread  # noqa: F401

SIZE = 128


@pytest.fixture(scope="module")
def icy() -> SimulatedSeries:
    """A field full of ice, some of which shines at each of four tilts, and dirty surfaces."""
    choices = SceneChoices(
        ice_kind="hexagonal",
        ice_layout="whole",
        bragg_boost=0.5,
        grain_size_angstrom=500.0,
        thickness_angstrom=1500.0,
        distractors={"diffracting_surface": 2.0, "soft_ice": 1.0},
        biology={},
        pretilt_deg=0.0,
        dose_fade=False,
        aperture_blocks_ice=False,
    )
    angles = [-20.0, 0.0, 20.0, 40.0]
    return simulate_series(
        4, "f11166", n_tilts=4, size_px=SIZE, angles_deg=angles, overrides=choices
    )


def test_labels_follow_from_the_contrast_that_is_given(icy: SimulatedSeries) -> None:
    for tilt in icy.tilts:
        dark = tilt.contrast_dark.astype(np.float32)
        bright = tilt.contrast_bright.astype(np.float32)
        for name, threshold in THRESHOLDS.items():
            again = label(dark, bright, threshold, icy.pixel_size_angstrom)
            inner = (slice(20, -20), slice(20, -20))
            agree = again[inner] == (tilt.labels[name][inner] | ~tilt.valid[inner])
            assert agree.mean() > 0.97
        assert ((tilt.phase > 0) == (tilt.labels["0.06"] > 0)).all()
        strong = (dark > 0.3) & tilt.valid
        assert (tilt.present[strong] > 0).mean() > 0.9


def test_area_falls_with_the_threshold(icy: SimulatedSeries) -> None:
    tilt = icy.tilts[1]
    areas = [float(tilt.metadata[f"area_{t:.2f}"]) for t in CURVE]
    assert len(areas) == 8
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[-1] > 0.0
    assert areas[CURVE.index(0.10)] == pytest.approx(tilt.ice_percent, abs=0.7)


def test_what_is_faint_on_a_border_or_on_the_surface_is_ignored(icy: SimulatedSeries) -> None:
    surface = 0
    for tilt in icy.tilts:
        contrast = np.maximum(tilt.contrast_dark, tilt.contrast_bright)
        ice = tilt.labels["0.10"] > 0
        faint = (tilt.present > 0) & (contrast > 0.055) & (contrast < 0.095) & ~ice & tilt.valid
        assert tilt.ignore[faint].all()
        soft = (tilt.distract & int(Distractor.SOFT_ICE)) != 0
        assert tilt.ignore[soft].all()
        assert tilt.ignore[:2].all()
        assert tilt.ignore[:, -2:].all()
        clear = ~ice & ~tilt.ignore & tilt.valid
        assert float(contrast[clear].max()) < 0.10
        sure = ice & ~tilt.ignore
        assert sure.any()
        diffracting = (tilt.distract & int(Distractor.DIFFRACTING_SURFACE)) != 0
        surface += int((diffracting & tilt.ignore & ~ice & ~soft & (contrast < 0.05)).sum())
    assert surface > 50


def test_occupancy_is_the_union_of_what_flashed(icy: SimulatedSeries) -> None:
    percents = [tilt.ice_percent for tilt in icy.tilts]
    single = simulate_series(
        3,
        "f11166",
        n_tilts=1,
        size_px=SIZE,
        angles_deg=[0.0],
        overrides=SceneChoices(ice_kind="none", distractor_level=0.0),
    )
    assert single.occupancy_percent == 0.0
    assert max(percents) * 0.5 < icy.occupancy_percent <= min(100.0, sum(percents) * 1.6)
    assert icy.present_percent > 90.0
    assert icy.occupancy_percent < icy.present_percent


def test_metadata_says_how_a_tilt_was_made(icy: SimulatedSeries) -> None:
    for index, tilt in enumerate(icy.tilts):
        about = tilt.metadata
        assert about["tilt_index"] == index
        assert about["family"] == icy.family
        assert about["thickness_angstrom"] == 1500.0
        assert float(about["share_hexagonal"]) == 1.0
        assert float(about["dose_before_e_per_A2"]) >= 0.0
        assert all(isinstance(value, float | int | str) for value in about.values())


def test_a_person_draws_coarse_outlines_of_about_the_same_ice(icy: SimulatedSeries) -> None:
    careful = Annotator(0.10, True, 0.0, (5, 10), 50.0, 0.0, False)
    for tilt in icy.tilts:
        drawn = annotate(tilt, careful, np.random.default_rng(1), icy.pixel_size_angstrom)
        truth = tilt.labels["0.10"]
        assert (drawn & truth).sum() > 0.6 * truth.sum()
        assert not (drawn.astype(bool) & ~tilt.valid).any()
    blind = Annotator(0.35, False, 1.0, (5, 10), 50.0, 0.0, True)
    few = annotate(icy.tilts[1], blind, np.random.default_rng(1), icy.pixel_size_angstrom)
    assert few.sum() < icy.tilts[1].labels["0.10"].sum()


def test_people_differ_and_one_person_draws_a_series_alike(icy: SimulatedSeries) -> None:
    generator = np.random.default_rng(4)
    people = [random_annotator(generator) for _ in range(200)]
    thresholds = np.log([person.threshold for person in people])
    assert np.exp(np.median(thresholds)) == pytest.approx(0.10, rel=0.15)
    assert 0.35 < thresholds.std() < 0.6
    masks: list[NDArray[np.uint8]] = annotate_series(icy, people[0], np.random.default_rng(2))
    again = annotate_series(icy, people[0], np.random.default_rng(2))
    assert len(masks) == len(icy.tilts)
    assert all(np.array_equal(a, b) for a, b in zip(masks, again, strict=True))


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
