"""Pictures that no reading belongs to: each kind from both generators, alike in seed and scale."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.simulation import random_camera, record
from engines.simulation.foreign import (
    FOREIGN_FAMILIES,
    FOREIGN_KINDS,
    FOREIGN_TEST_FAMILIES,
    foreign_picture,
    simulate_foreign,
)
from tests.single_thread import one_thread  # noqa: F401

GENERATORS = ("training", "test")
SIZE = 160


def several(kind: str, generator: str, count: int = 12) -> list[NDArray[np.float32]]:
    return [foreign_picture(s, kind, generator, size_px=SIZE).expected for s in range(count)]


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("kind", FOREIGN_KINDS)
def test_each_kind_is_finite_and_varied_and_its_seed_the_same(kind: str, generator: str) -> None:
    pictures = several(kind, generator, 6)
    for picture in pictures:
        assert picture.shape == (SIZE, SIZE)
        assert picture.dtype == np.float32
        assert np.isfinite(picture).all()
        assert picture.min() >= 0.0
        assert picture.max() > 0.0
        camera = np.random.default_rng(1)
        assert np.isfinite(record(picture, camera, random_camera(camera))).all()
    again = foreign_picture(2, kind, generator, size_px=SIZE)
    assert np.array_equal(again.expected, pictures[2])
    assert again.metadata["kind"] == kind
    assert len({float(picture.mean()) for picture in pictures}) == len(pictures)


@pytest.mark.parametrize("kind", FOREIGN_KINDS)
def test_the_generators_share_no_picture(kind: str) -> None:
    for first, second in zip(several(kind, "training", 3), several(kind, "test", 3), strict=True):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.95


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_bar_leaves_little_of_the_field_open(generator: str) -> None:
    for picture in several("grid_bar", generator):
        lit = picture > 0.1 * picture.max()
        if picture.max() > 30.0 * np.median(picture):
            assert lit.mean() < 0.6
    median = [np.median(p) / max(p.max(), 1e-9) for p in several("grid_bar", generator)]
    assert np.mean(np.array(median) < 0.05) > 0.7


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_closed_shutter_lets_hardly_anything_through(generator: str) -> None:
    dark = np.median([np.median(p) for p in several("closed_shutter", generator)])
    for kind in ("beam_without_specimen", "negative_stain"):
        assert dark < 0.1 * np.median([np.median(p) for p in several(kind, generator)])


@pytest.mark.parametrize("generator", GENERATORS)
def test_diffraction_falls_from_its_middle_over_orders_of_magnitude(generator: str) -> None:
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    near, far = np.hypot(x, y) < 0.2 * SIZE, np.hypot(x, y) > 0.45 * SIZE
    falls = [p[near].mean() / p[far].mean() for p in several("diffraction", generator)]
    assert np.median(falls) > 5.0


@pytest.mark.parametrize("generator", GENERATORS)
def test_stain_is_darker_than_what_it_surrounds(generator: str) -> None:
    """Logarithms of stained fields are skewed less towards dark than contamination makes them."""
    spreads = [np.std(np.log(p + 1e-6)) for p in several("negative_stain", generator)]
    assert np.median(spreads) > 0.08


def test_scale_of_the_picture_and_unknown_kinds() -> None:
    assert foreign_picture(1, "atlas", size_px=96).expected.shape == (96, 96)
    with pytest.raises(ValueError, match="kind 'cloud'"):
        foreign_picture(1, "cloud")
    with pytest.raises(ValueError, match="'real' picture"):
        foreign_picture(1, "atlas", "real")


def test_families_give_series_of_one_tilt_without_ice() -> None:
    for family in (*FOREIGN_FAMILIES, *FOREIGN_TEST_FAMILIES):
        series = simulate_foreign(4, family, 64)
        (tilt,) = series.tilts
        assert family.endswith(str(tilt.metadata["kind"]))
        assert tilt.metadata["generator"] == ("test" if "_test_" in family else "training")
        assert tilt.ice_percent == series.occupancy_percent == 0.0
        assert not any(mask.any() for mask in tilt.labels.values())
