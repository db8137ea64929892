"""`engines.domain_values`, `domain_polarity`, `domain_widening`: how values were stored."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.domain_polarity import has_no_zero, is_negated, turned
from engines.domain_values import value_flags
from engines.domain_widening import FACTORS, widening_factor
from engines.icemap import AMBER, Flag, Level

SIDE = 160


def counts(electrons: float, gain: float = 1.0, seed: int = 0) -> NDArray[Any]:
    """Expose an uneven field with a dark ball in it: what a camera counts."""
    y, x = np.mgrid[:SIDE, :SIDE]
    field = 1.0 + 0.1 * np.sin(x / 17.0) * np.sin(y / 23.0)
    field[(y - 60) ** 2 + (x - 90) ** 2 < 600] *= 0.5
    drawn = np.random.default_rng(seed).poisson(electrons * field)
    return np.asarray(np.rint(drawn * gain))


def as_bytes(image: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    return np.asarray(np.clip(np.rint((image - low) * 255.0 / (high - low)), 0, 255))


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.02, 3000.0),
    st.sampled_from([1.0, 7.3, 32.0]),
    st.sampled_from(["uint16", "int16", "int32", "float32"]),
    st.integers(0, 5),
)
def test_counts_as_they_come_have_no_flag(
    electrons: float, gain: float, dtype: str, seed: int
) -> None:
    image = counts(electrons, gain, seed)
    if image.max() < np.iinfo(np.int16).max:
        assert value_flags(image.astype(dtype)) == ()


@settings(max_examples=12, deadline=None)
@given(st.floats(0.5, 40.0), st.floats(-1e4, 1e4), st.floats(0.01, 100.0))
def test_floats_of_any_offset_and_scale_have_no_flag(
    electrons: float, offset: float, scale: float
) -> None:
    noise = np.random.default_rng(1).normal(0.0, 1.0, (SIDE, SIDE))
    image = counts(electrons) + noise
    image = (image - image.mean()) / image.std() * scale + offset
    assert value_flags(image.astype(np.float32)) == ()


@settings(max_examples=12, deadline=None)
@given(st.floats(20.0, 3000.0), st.sampled_from(["uint8", "int16", "float32"]))
def test_bytes_that_were_scaled_are_told_from_counts(electrons: float, dtype: str) -> None:
    image = counts(electrons)
    scaled = as_bytes(image, image.min(), image.max())
    assert value_flags(scaled.astype(dtype)) == (Flag.SCALED_BYTES,)
    assert value_flags((scaled - 128.0).astype("int8")) == (Flag.SCALED_BYTES,)


@settings(max_examples=15, deadline=None)
@given(st.floats(100.0, 3000.0), st.floats(0.02, 0.2), st.booleans(), st.booleans())
def test_values_that_were_cut_pile_up(
    electrons: float, share: float, bright: bool, whole: bool
) -> None:
    image = counts(electrons) + (0.0 if whole else np.random.default_rng(2).random((SIDE, SIDE)))
    if bright:
        cut = np.minimum(image, np.quantile(image, 1.0 - share))
    else:
        cut = np.maximum(image, np.quantile(image, share) + 1.0)
    assert value_flags(cut) == (Flag.CLIPPED,)
    assert value_flags(cut, (Flag.PARTLY_SATURATED,)) == ()


def test_hot_and_dead_pixels_are_not_clipped() -> None:
    image = counts(100.0)
    image[::64, ::64] = 60_000.0
    image[5::64, 5::64] = 0.0
    assert value_flags(image) == ()


def test_a_few_values_are_not_judged() -> None:
    assert value_flags(np.zeros((3, 3))) == () == value_flags(np.full((300, 300), 7.0))
    assert value_flags(np.full((300, 300), np.nan)) == ()


@settings(max_examples=15, deadline=None)
@given(st.floats(1.0, 500.0), st.floats(-1e3, 1e3), st.integers(0, 9))
def test_turning_twice_gives_the_picture_back_but_for_an_offset(
    electrons: float, offset: float, seed: int
) -> None:
    image = (counts(electrons, seed=seed) + offset).astype(np.float32)
    once = turned(image)
    assert np.corrcoef(once.ravel(), image.ravel())[0, 1] < -0.999
    assert np.ptp(turned(once) - image) < 1e-3


def test_negated_counts_become_counts_again() -> None:
    image = counts(50.0).astype(np.float32)
    assert is_negated(-image) and not is_negated(image) and not is_negated(0.0 * image)
    np.testing.assert_array_equal(turned(-image), image)
    assert not is_negated(image - 32768.0)


def test_values_without_a_zero_are_told_from_counts() -> None:
    image = counts(50.0).astype(np.float32)
    valid = np.ones(image.shape, bool)
    for moved in (image - 32768.0, (image - image.mean()) / image.std(), -image):
        assert has_no_zero(moved, valid)
    dark_subtracted = image + np.random.default_rng(0).normal(0.0, 8.0, image.shape)
    assert dark_subtracted.min() < 0.0
    for kept in (image, image + 1000.0, dark_subtracted.astype(np.float32)):
        assert not has_no_zero(kept, valid)
    assert not has_no_zero(image - 900.0, ~valid)


def test_what_is_not_finite_stays_so() -> None:
    image = counts(50.0)
    image[3, 4] = np.nan
    assert np.isnan(turned(image)[3, 4]) and np.isfinite(turned(image)).sum() == image.size - 1
    assert np.isnan(turned(np.full((4, 4), np.nan))).all()


def test_each_flag_that_leaves_a_number_widens_its_interval() -> None:
    assert set(FACTORS) == AMBER
    assert widening_factor((), Level.GREEN) == 1.0 == widening_factor((Flag.BLANK,), Level.GREEN)
    for flag in AMBER:
        assert widening_factor((flag,), Level.GREEN) == pytest.approx(FACTORS[flag])
        assert FACTORS[flag] > 1.0
    assert widening_factor((), Level.AMBER) == widening_factor((Flag.UNFAMILIAR,), Level.AMBER)


@given(st.sets(st.sampled_from(sorted(AMBER))), st.sampled_from(sorted(AMBER)))
def test_one_more_flag_never_narrows_an_interval(flags: set[Flag], more: Flag) -> None:
    before, after = (widening_factor(some, Level.GREEN) for some in (flags, flags | {more}))
    assert 1.0 <= before <= after <= 3.0


def test_the_readme_names_every_flag_and_whether_it_leaves_a_number() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (null|wider) \|", text, re.M))
    assert rows.pop("decoding_failed") == "null"  # said by the daemon, of what no engine saw
    assert rows == {str(flag): "wider" if flag in AMBER else "null" for flag in Flag}
