"""`engines.domain_brightness`: how bright the tilts of a series should be."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.domain_brightness import SeriesBrightness, fit_transmission
from engines.icemap import IceMap
from engines.preprocess import Prepared
from engines.series import SeriesSoFar

ANGLES = np.arange(-51.0, 70.0, 3.0)


def film(angle_deg: float, depth: float, pretilt_deg: float, full: float = 150.0) -> float:
    """Give what comes through a film, by Beer and Lambert's law."""
    return full * math.exp(-depth / math.cos(math.radians(angle_deg - pretilt_deg)))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 1.2), st.integers(-15, 15), st.integers(0, 99))
def test_thickness_and_pretilt_are_found(depth: float, pretilt: int, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0.0, 0.004, len(ANGLES))
    values = np.array([film(a, depth, pretilt) for a in ANGLES]) * np.exp(noise)
    law = fit_transmission(ANGLES, values)
    assert law.depth == pytest.approx(depth, rel=0.1, abs=0.02)
    assert law.pretilt_deg == pytest.approx(pretilt, abs=4.0)
    assert math.exp(law.log_full) == pytest.approx(150.0, rel=0.1)
    assert math.exp(law.log_at(7.0)) == pytest.approx(film(7.0, depth, pretilt), rel=0.01)
    assert law.scatter < 0.01


def series(count: int, depth: float = 0.7, pretilt: float = 9.0) -> SeriesBrightness:
    """Record the first tilts of a dose-symmetric series."""
    so_far = SeriesBrightness()
    for k in range(count):
        angle = pretilt + 3.0 * ((k + 1) // 2) * (-1.0 if k % 2 else 1.0)
        so_far.add(angle, film(angle, depth, pretilt) * (1.0 + 0.02 * math.sin(7.0 * k)))
    return so_far


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 41), st.floats(0.2, 1.2), st.floats(-60.0, 60.0))
def test_a_film_is_never_odd(count: int, depth: float, angle: float) -> None:
    so_far = series(count, depth, 0.0)
    assert not so_far.is_odd(angle, film(angle, depth, 0.0))


ANY_TILT = st.tuples(st.floats(-90.0, 90.0), st.floats(1e-30, 1e30))


@settings(max_examples=100, deadline=None)
@given(st.lists(ANY_TILT, min_size=5, max_size=9), ANY_TILT)
def test_whatever_the_brightness_it_is_judged(
    others: list[tuple[float, float]], one: tuple[float, float]
) -> None:
    so_far = SeriesBrightness()
    for angle_deg, brightness in others:
        so_far.add(angle_deg, brightness)
    assert so_far.is_odd(*one) in (True, False)


def test_angles_symmetric_about_a_pretilt_say_nothing_of_depth_there() -> None:
    law = fit_transmission(np.array([-14.0, 14.0, -14.001, 14.001, 0.0]), np.geomspace(1, 9, 5))
    assert math.isfinite(law.log_full) and law.depth >= 0.0


@pytest.mark.parametrize("factor", [0.0003, 0.1, 0.4, 3.0, 100.0])
def test_a_lost_beam_or_a_bar_is_odd(factor: float) -> None:
    assert series(9).is_odd(12.0, factor * film(12.0, 0.7, 9.0))


def test_too_little_to_judge_by_is_never_odd() -> None:
    assert not series(4).is_odd(12.0, 1e-6)
    assert not series(9).is_odd(None, 1e-6) and not series(9).is_odd(12.0, 0.0)
    narrow = SeriesBrightness()
    for k in range(9):
        narrow.add(1.0 + 0.1 * k, 50.0)
    narrow.add(None, 3.0)
    narrow.add(20.0, -3.0)
    assert not narrow.is_odd(40.0, 5.0)


def test_a_series_says_which_of_its_tilts_is_odd() -> None:
    """Through the very object that the segmenter asks."""
    so_far = SeriesSoFar()
    rng = np.random.default_rng(0)
    valid = np.ones((96, 96), bool)
    for k in range(8):
        angle = 3.0 * ((k + 1) // 2) * (-1.0 if k % 2 else 1.0)
        picture = rng.poisson(film(angle, 0.7, 0.0), (96, 96)).astype(np.float32)
        prepared = Prepared(picture, valid, 13.5)
        assert not so_far.at(angle).is_odd(prepared)
        nothing = np.zeros((96, 96), bool)
        so_far.add(IceMap(picture, valid, nothing, picture * 0.0, 13.5, 0.0, 0.0, 1.0))
    dark = Prepared(picture * np.float32(0.3), valid, 13.5)
    assert so_far.at(15.0).is_odd(dark) and not so_far.at(None).is_odd(dark)
    standardised = Prepared(picture - picture.mean(), valid, 13.5)
    assert not so_far.at(15.0).is_odd(standardised)
