"""Alignment: known moves are found, what has nothing in common is not aligned."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import float32, float64
from numpy.typing import NDArray

from engines.alignment import Reduced, Tilting, align, chained, inverse, reduced, scaled
from tests.alike import SIDE, all_valid, moved_by, seen, specimen

SHIFTS_PX = st.tuples(st.floats(-60.0, 60.0), st.floats(-60.0, 60.0))
SEEDS = st.integers(0, 3)
STEEPEST_STAGE_DEG = 70.0


@lru_cache(maxsize=4)
def whole(seed: int) -> NDArray[float32]:
    return specimen(seed)


def small(picture: NDArray[float32], angle_deg: float | None = None) -> Reduced:
    return reduced(picture, all_valid(picture), angle_deg)


def apart_px(one: NDArray[float64], other: NDArray[float64]) -> float:
    """Give the largest distance between where two maps take the middle half of a picture."""
    corners = [(x, y, 1.0) for x in (0.25 * SIDE, 0.75 * SIDE) for y in (0.25 * SIDE, 0.75 * SIDE)]
    return max(float(np.hypot(*((one - other) @ np.array(corner)))) for corner in corners)


@settings(deadline=None, max_examples=8)
@given(SEEDS, SHIFTS_PX, st.floats(-0.4, 0.4), st.sampled_from((40.0, 300.0)))
def test_shift_is_found_in_spite_of_a_small_turn(
    seed: int, shift: tuple[float, float], turn_deg: float, electrons: float
) -> None:
    move = moved_by(shift, turn_deg)
    earlier, later = seen(whole(seed), None, electrons, 1), seen(whole(seed), move, electrons, 2)
    found = align(small(earlier), small(later))
    assert found is not None
    assert apart_px(found.matrix, move) < 1.5 + math.radians(abs(turn_deg)) * SIDE / 2


@settings(deadline=None, max_examples=8)
@given(
    SEEDS,
    SHIFTS_PX,
    st.sampled_from((0.0, 90.0)),
    st.sampled_from((-1.0, 1.0)),
    st.floats(0.0, STEEPEST_STAGE_DEG),
    st.floats(3.0, 12.0),
    st.sampled_from((-10.0, 0.0, 10.0)),
)
def test_stretch_between_two_angles_is_found_without_knowing_the_axis(
    seed: int,
    shift: tuple[float, float],
    across_deg: float,
    side: float,
    outer_deg: float,
    step_deg: float,
    pretilt_deg: float,
) -> None:
    start_deg, end_deg = side * (outer_deg - step_deg), side * outer_deg
    before, after = (math.cos(math.radians(a - pretilt_deg)) for a in (start_deg, end_deg))
    move = moved_by(shift, stretch=after / before, across_deg=across_deg)
    earlier, later = seen(whole(seed), seed=1), seen(whole(seed), move, seed=2)
    found = align(small(earlier, start_deg), small(later, end_deg))
    assert found is not None
    assert apart_px(found.matrix, move) < 3.0


def test_an_axis_that_is_known_may_have_any_direction() -> None:
    move = moved_by((12.0, -7.0), stretch=0.7, across_deg=35.0)
    earlier, later = seen(whole(0), seed=1), seen(whole(0), move, seed=2)
    end_deg = math.degrees(math.acos(0.7))
    known = align(small(earlier, 0.0), small(later, end_deg), (Tilting(35.0),))
    assert known is not None and known.tilting == Tilting(35.0)
    assert apart_px(known.matrix, move) < 1.5


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10_000), st.floats(-60, 60), st.sampled_from((3.0, 300.0)))
def test_what_has_nothing_in_common_is_not_aligned(
    seed: int, angle_deg: float, electrons: float
) -> None:
    one = seen(whole(seed % 4), None, electrons, seed)
    other = seen(whole((seed + 1) % 4), None, electrons, seed + 1)
    assert align(small(one, angle_deg), small(other, angle_deg + 3.0)) is None


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10_000), st.floats(0.5, 1e4))
def test_noise_is_not_aligned(seed: int, mean: float) -> None:
    generator = np.random.default_rng(seed)
    one, other = (generator.poisson(mean, (SIDE, SIDE)).astype(float32) for _ in range(2))
    assert align(small(one), small(other)) is None


def test_scale_of_the_counts_does_not_matter() -> None:
    move = moved_by((10.0, 5.0))
    earlier, later = seen(whole(0), seed=1), seen(whole(0), move, seed=2)
    found = align(small(earlier), small(later / 300.0 - 5.0))
    assert found is not None
    assert apart_px(found.matrix, move) < 1.5


def test_what_is_not_valid_has_no_say() -> None:
    move = moved_by((10.0, 5.0))
    earlier, later = seen(whole(0), seed=1), seen(whole(0), move, seed=2)
    frame = all_valid(earlier)
    frame[:80], frame[:, :60] = False, False
    for picture in (earlier, later):  # a bar that does not move with the specimen
        picture[~frame] = seen(whole(1))[~frame] * 3.0
    found = align(reduced(earlier, frame), reduced(later, frame))
    assert found is not None
    assert apart_px(found.matrix, move) < 2.0


@pytest.mark.parametrize("side", [1, 7, 40, SIDE - 1])
def test_pictures_that_do_not_go_together_are_not_aligned(side: int) -> None:
    picture = seen(whole(0))
    cut = picture[:side]
    assert align(small(picture), small(cut)) is None
    flat = np.full(cut.shape, 7.0, float32)
    assert align(small(flat), small(flat)) is None
    nowhere = reduced(cut, np.zeros(cut.shape, bool))
    assert align(nowhere, nowhere) is None


MOVES = st.builds(
    moved_by, SHIFTS_PX, st.floats(-180, 180), st.floats(0.4, 2.5), st.floats(0.0, 180.0)
)


@settings(deadline=None, max_examples=30)
@given(MOVES, MOVES, st.sampled_from((2.0, 4.0)))
def test_maps_are_chained_turned_back_and_scaled(
    one: NDArray[float64], other: NDArray[float64], pixels: float
) -> None:
    point = np.array([31.0, 170.0])

    def at(matrix: NDArray[float64], place: NDArray[float64]) -> NDArray[float64]:
        return np.asarray(matrix @ np.append(place, 1.0))

    assert at(chained(one, other), point) == pytest.approx(at(other, at(one, point)))
    assert at(inverse(one), at(one, point)) == pytest.approx(point)
    coarse = (point + 0.5) / pixels - 0.5
    assert at(scaled(one, pixels), coarse) == pytest.approx((at(one, point) + 0.5) / pixels - 0.5)


def test_masks_can_be_laid_over_each_other_at_any_scale() -> None:
    move = moved_by((24.0, -16.0))
    mask = np.zeros((SIDE, SIDE), float32)
    mask[100:180, 60:140] = 1.0
    whole_moved = cv2.warpAffine(mask, move, (SIDE, SIDE))
    assert whole_moved[84:164, 84:164].min() == 1.0
    quarter = cv2.resize(mask, (SIDE // 4, SIDE // 4), interpolation=cv2.INTER_AREA)
    moved = cv2.warpAffine(quarter, scaled(move, 4.0), (SIDE // 4, SIDE // 4))
    assert moved[21:41, 21:41].min() == pytest.approx(1.0)
    assert moved.sum() == pytest.approx(400.0)
