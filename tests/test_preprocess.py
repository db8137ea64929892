"""`engines.preprocess`: the one way from an image to the picture that a network sees."""

import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.preprocess import prepare, working_shape

DTYPES = ("?", "i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", "i8", "f2", "<f4", ">f4", "f8")
sides = st.integers(1, 120)
seeds = st.integers(0, 2**32 - 1)


def counts(shape: tuple[int, int], dtype: str, seed: int, mean: float = 40.0) -> NDArray[Any]:
    return np.random.default_rng(seed).poisson(mean, shape).clip(0, 120).astype(dtype)


def line_weights(native: int, count: int) -> NDArray[Any]:
    """Overlap of each working pixel with each native one, exactly as area averaging is defined."""
    edges = np.arange(count + 1) * native / count
    low, high = edges[:-1, None], edges[1:, None]
    index = np.arange(native)[None, :]
    overlap = (np.minimum(high, index + 1) - np.maximum(low, index)).clip(0.0)
    return np.asarray(overlap / overlap.sum(axis=1, keepdims=True))


def exact_average(image: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    rows, columns = (line_weights(n, m) for n, m in zip(image.shape, shape, strict=True))
    return np.asarray(rows @ image.astype(np.float64) @ columns.T)


@settings(deadline=None, max_examples=80)
@given(sides, sides, st.floats(0.02, 1.0), st.sampled_from(DTYPES), seeds)
def test_finer_images_are_averaged_exactly(
    rows: int, columns: int, ratio: float, dtype: str, seed: int
) -> None:
    image = counts((rows, columns), dtype, seed)
    before = image.copy()
    prepared = prepare(image, 13.5 * ratio, 13.5)
    shape = working_shape((rows, columns), 13.5 * ratio, 13.5)
    assert prepared.picture.shape == prepared.valid.shape == shape
    assert prepared.picture.dtype == np.float32 and prepared.valid.dtype == bool
    np.testing.assert_allclose(prepared.picture, exact_average(image, shape), rtol=2e-5, atol=1e-4)
    assert prepared.picture.mean() == pytest.approx(image.mean(dtype=np.float64), rel=1e-4)
    np.testing.assert_array_equal(image, before)


@settings(deadline=None, max_examples=40)
@given(sides, sides, st.floats(0.02, 1.0), seeds)
def test_agrees_with_the_area_average_of_opencv(
    rows: int, columns: int, ratio: float, seed: int
) -> None:
    image = counts((rows, columns), "i2", seed)
    prepared = prepare(image, 13.5 * ratio, 13.5)
    height, width = prepared.picture.shape
    area = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    # OpenCV drops the share of a native pixel where it is under 1e-3.
    np.testing.assert_allclose(prepared.picture, np.reshape(area, (height, width)), atol=0.25)


def test_camera_frame_equals_opencv_to_rounding() -> None:
    image = counts((4096, 4096), "<i2", 3, mean=11.0)
    area = cv2.resize(image.astype(np.float32), (598, 598), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(prepare(image, 1.97, 13.5).picture, area, rtol=2e-6)


def test_camera_frame_is_never_copied_whole_to_float() -> None:
    image = counts((4096, 4096), "<i2", 3, mean=11.0)
    tracemalloc.start()
    try:
        prepare(image, 1.97, 13.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32e6  # a float copy alone is 67 MB


def test_offset_shows_no_stripes() -> None:
    image = np.full((1000, 1003), 32768.0, np.float32)
    image[500, 500] += 1
    picture = prepare(image, 13.5 * 0.1371, 13.5).picture
    assert np.ptp(picture) < 0.1


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 60), st.integers(2, 60), st.floats(1.01, 2.5), seeds)
def test_coarser_images_are_interpolated(rows: int, columns: int, ratio: float, seed: int) -> None:
    image = counts((rows, columns), "u2", seed)
    prepared = prepare(image, 13.5 * ratio, 13.5)
    assert prepared.picture.shape == (round(rows * ratio), round(columns * ratio))
    assert image.min() <= prepared.picture.min() and prepared.picture.max() <= image.max()
    assert prepared.picture.mean() == pytest.approx(image.mean(), rel=0.2)


@settings(deadline=None, max_examples=40)
@given(st.integers(64, 200), st.integers(64, 200), st.floats(0.1, 1.5), seeds)
def test_says_the_pixel_size_that_comes_out(
    rows: int, columns: int, ratio: float, seed: int
) -> None:
    prepared = prepare(counts((rows, columns), "i2", seed), 13.5 * ratio, 13.5)
    field = rows * columns * (13.5 * ratio) ** 2
    assert prepared.picture.size * prepared.pixel_size_angstrom**2 == pytest.approx(field)
    assert prepared.pixel_size_angstrom == pytest.approx(13.5, rel=0.08)


def test_low_dose_is_not_rounded_away() -> None:
    image = np.random.default_rng(0).poisson(0.3, (512, 512)).astype(np.int16)
    picture = prepare(image, 2.0, 13.5).picture
    assert picture.mean() == pytest.approx(0.3, rel=0.01)
    assert 0 < picture.std() < 0.15


def test_strides_do_not_matter() -> None:
    image = counts((200, 300), "i2", 1)
    plain = prepare(image, 3.0, 13.5).picture
    for view in (np.asfortranarray(image), np.repeat(image, 2, axis=0)[::2], image[::-1][::-1]):
        np.testing.assert_array_equal(prepare(view, 3.0, 13.5).picture, plain)


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*[st.integers(0, 40)] * 4),
    st.sampled_from(("<i2", ">f4", "u1")),
    st.floats(0.1, 1.6),
    st.integers(0, 90),
    seeds,
)
def test_borders_of_one_value_are_not_valid(
    pads: tuple[int, int, int, int], dtype: str, ratio: float, value: int, seed: int
) -> None:
    top, bottom, left, right = pads
    inner = counts((150, 170), dtype, seed)
    image = np.pad(inner, ((top, bottom), (left, right)), constant_values=value)
    valid = prepare(image, 13.5 * ratio, 13.5).valid
    for axis, (before, after) in enumerate(((top, bottom), (left, right))):
        native, count = image.shape[axis], valid.shape[axis]
        lines = np.asarray(valid.any(axis=1 - axis), bool).reshape(-1)
        centre = (np.arange(count) + 0.5) * native / count
        padding = (centre < before) | (centre > native - after)
        reach = max(native / count, 1.0)
        clear = (centre - reach >= before) & (centre + reach <= native - after)
        assert not lines[padding].any()
        if before + after:
            assert lines[clear].all()
    if not any(pads):
        assert valid.all()


def test_thin_border_within_one_working_pixel_is_not_valid() -> None:
    image = counts((512, 512), "i2", 5)
    image[:, :3] = 0
    valid = prepare(image, 2.0, 13.5).valid
    assert not valid[:, 0].any() and valid[:, 1:].all()


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_value_all_over_is_not_valid(dtype: str, value: int) -> None:
    prepared = prepare(np.full((300, 200), value, dtype), 5.0, 13.5)
    assert not prepared.valid.any()
    np.testing.assert_allclose(prepared.picture, float(np.asarray(value, dtype)), rtol=1e-6)


def test_corners_that_turning_left_are_not_valid() -> None:
    image = counts((700, 700), "f4", 2)
    y, x = np.mgrid[:700, :700]
    corner = (x + y < 200) | (x + y > 1200)
    image[corner] = image.mean()
    valid = prepare(image, 4.0, 13.5).valid
    share = exact_average(corner, (valid.shape[0], valid.shape[1]))
    assert not valid[share >= 0.5].any()
    assert valid[share == 0].mean() > 0.97


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(("f2", ">f4", "f8")),
    st.sampled_from((np.nan, np.inf, -np.inf)),
    st.floats(0.001, 0.999),
    st.floats(0.1, 1.6),
    seeds,
)
def test_values_that_are_no_numbers_are_replaced(
    dtype: str, bad: float, share: float, ratio: float, seed: int
) -> None:
    image = counts((90, 110), dtype, seed)
    missing = np.random.default_rng(seed).random(image.shape) < share
    image[missing] = bad
    prepared = prepare(image, 13.5 * ratio, 13.5)
    assert np.isfinite(prepared.picture).all()
    assume(missing.any() and not missing.all())
    good = image[~missing].astype(np.float64)
    assert good.min() - 0.1 <= prepared.picture.min()
    assert prepared.picture.max() <= good.max() + 0.1


def test_holes_are_not_valid_and_the_rest_is_untouched() -> None:
    image = counts((540, 540), "f4", 4)
    whole = prepare(image, 2.7, 13.5)
    image[100:150, 200:300] = np.nan
    image[400, 400] = np.inf
    prepared = prepare(image, 2.7, 13.5)
    hole = np.zeros((108, 108), bool)
    hole[20:30, 40:60] = True
    np.testing.assert_array_equal(prepared.valid, ~hole)
    touched = hole.copy()
    touched[80, 80] = True
    np.testing.assert_array_equal(prepared.picture[~touched], whole.picture[~touched])
    assert prepared.picture[hole] == pytest.approx(np.median(whole.picture), rel=0.02)


def test_enormous_values_are_no_numbers() -> None:
    image = counts((300, 300), "f8", 4)
    image[:50] = 1e300
    prepared = prepare(image, 5.0, 13.5)
    assert np.isfinite(prepared.picture).all() and prepared.picture.max() < 100
    assert not prepared.valid[:18].any() and prepared.valid[19:].all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("bad", [2e30, 6e26, 1e17, -3e38])
def test_enormous_values_are_no_numbers_however_few(dtype: str, bad: float) -> None:
    image = counts((540, 540), dtype, 4)
    whole = prepare(image, 2.7, 13.5)
    image[400, 400] = bad
    lone = prepare(image, 2.7, 13.5)
    assert lone.valid.all() and 0 <= lone.picture.min() and lone.picture.max() < 100
    image[:50] = bad
    prepared = prepare(image, 2.7, 13.5)
    assert not prepared.valid[:10].any() and prepared.valid[10:].all()
    assert 0 <= prepared.picture.min() and prepared.picture.max() < 100
    rest = np.ones((108, 108), bool)
    rest[:10] = rest[80, 80] = False
    np.testing.assert_array_equal(prepared.picture[rest], whole.picture[rest])


def test_nothing_but_enormous_values() -> None:
    prepared = prepare(counts((300, 300), "f4", 4) * np.float32(1e35), 5.0, 13.5)
    assert not prepared.valid.any()
    assert (prepared.picture == 0).all()


def test_nothing_but_nan() -> None:
    prepared = prepare(np.full((100, 100), np.nan, np.float32), 5.0, 13.5)
    assert not prepared.valid.any()
    assert (prepared.picture == 0).all()


def bar(mean: float = 30.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """A field with a grid bar across its left quarter, and where that is."""
    y, x = np.mgrid[:1000, :1000]
    dark = x + 0.2 * y < 250
    electrons = np.where(dark, 0.005 * mean, mean)
    return np.random.default_rng(0).poisson(electrons).astype(np.int16), dark


def test_grid_bar_is_not_valid() -> None:
    image, dark = bar()
    valid = prepare(image, 3.0, 13.5).valid
    share = exact_average(dark, (valid.shape[0], valid.shape[1]))
    assert not valid[share > 0.5].any()
    assert valid[share == 0].mean() > 0.97


@pytest.mark.parametrize("offset", [-20.0, 5.0, 1000.0])
def test_counts_without_a_meaningful_zero_have_no_opaque_parts(offset: float) -> None:
    image, _ = bar()
    assert prepare(image + offset, 3.0, 13.5).valid.all()


def test_dark_grain_stays_valid() -> None:
    y, x = np.mgrid[:1000, :1000]
    grain = (x - 400) ** 2 + (y - 500) ** 2 < 60**2
    image = np.random.default_rng(0).poisson(np.where(grain, 0.3, 30.0)).astype(np.int16)
    assert prepare(image, 3.0, 13.5).valid.all()


def test_eight_bit_picture_stays_valid() -> None:
    y, x = np.mgrid[:512, :512]
    grey = 130 + 40 * np.sin(x / 37.0) * np.sin(y / 23.0)
    noisy = grey + np.random.default_rng(0).normal(0, 20, grey.shape)
    scaled = (noisy - noisy.min()) / np.ptp(noisy) * 255
    assert prepare(scaled.astype(np.uint8), 7.8, 13.5).valid.all()


def test_same_image_gives_the_same_bytes() -> None:
    image = counts((777, 555), ">i2", 9)
    first, second = prepare(image, 3.3, 13.5), prepare(image, 3.3, 13.5)
    assert first.picture.tobytes() == second.picture.tobytes()
    assert first.valid.tobytes() == second.valid.tobytes()


@pytest.mark.parametrize(
    ("image", "pixel_size", "reason", "word"),
    [
        (np.zeros((2, 30, 30)), 2.0, "mode", "shape"),
        (np.zeros((0, 30)), 2.0, "mode", "shape"),
        (np.zeros((30, 30), complex), 2.0, "mode", "complex"),
        (np.zeros((30, 30)), 0.0, "header", "pixel size"),
        (np.zeros((30, 30)), -1.0, "header", "pixel size"),
        (np.zeros((30, 30)), float("nan"), "header", "pixel size"),
        (np.zeros((30, 30)), float("inf"), "header", "pixel size"),
        (np.zeros((30, 30)), 1e7, "header", "pixel size"),
    ],
)
def test_what_is_no_image_is_refused(
    image: NDArray[Any], pixel_size: float, reason: str, word: str
) -> None:
    with pytest.raises(PixelsError, match=word) as caught:
        prepare(image, pixel_size, 13.5)
    assert caught.value.reason == reason
