"""`engines.overlay`: masks for other programs, pictures for people."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.icemap import Flag, IceMap
from engines.overlay import ICE, NO_ICE, NOT_VALID, bar_length_nm, mask_at_tilt_size, overlay_png


def icemap_of(
    rows: int = 300, columns: int = 400, pixel_size: float | None = 13.5, measured: bool = True
) -> IceMap:
    """Ice at the top left of the array, an invalid strip at its right, brighter downwards."""
    picture = np.linspace(10, 20, rows)[:, None] + np.random.default_rng(0).normal(
        0, 0.5, (rows, columns)
    )
    ice = np.zeros((rows, columns), bool)
    valid = np.zeros((rows, columns), bool)
    if measured:
        ice[rows // 10 : rows // 3, columns // 10 : columns // 3] = True
        valid[:, : columns * 9 // 10] = True
    return IceMap(
        picture=picture.astype(np.float32),
        valid=valid,
        ice=ice,
        probability=ice.astype(np.float32),
        pixel_size_angstrom=pixel_size,
        percent=5.0 if measured else None,
        percent_low=4.0 if measured else None,
        percent_high=6.0 if measured else None,
        flags=() if measured else (Flag.BLANK,),
    )


def decoded(png: bytes) -> NDArray[np.uint8]:
    assert png.startswith(b"\x89PNG")
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(image, np.uint8)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 300), st.integers(1, 300))
def test_mask_has_the_size_and_values_of_the_nearest_pixels(
    rows: int, columns: int, tilt_rows: int, tilt_columns: int
) -> None:
    icemap = icemap_of(rows, columns)
    mask = mask_at_tilt_size(icemap, (tilt_rows, tilt_columns))
    assert mask.shape == (tilt_rows, tilt_columns) and mask.dtype == np.int8
    row = ((np.arange(tilt_rows) + 0.5) * rows / tilt_rows).astype(int)
    column = ((np.arange(tilt_columns) + 0.5) * columns / tilt_columns).astype(int)
    small = np.where(icemap.valid, icemap.ice, -1)
    expected = small[row[:, None], column[None, :]]
    assert np.mean(mask != expected) <= 0.05  # ties between two pixels may go either way


def test_mask_keeps_row_order() -> None:
    mask = mask_at_tilt_size(icemap_of(), (3000, 4000))
    assert mask[600, 800] == ICE and mask[2400, 800] == NO_ICE and mask[600, 3900] == NOT_VALID
    share = np.mean(mask == ICE)
    assert share == pytest.approx(icemap_of().ice.mean(), rel=0.01)


def test_mask_of_what_was_not_measured() -> None:
    assert (mask_at_tilt_size(icemap_of(measured=False), (50, 70)) == NOT_VALID).all()
    nothing = icemap_of(1, 1, None, measured=False)
    assert (mask_at_tilt_size(nothing, (50, 70)) == NOT_VALID).all()


def test_overlay_shows_row_zero_at_the_bottom() -> None:
    image = decoded(overlay_png(icemap_of())).astype(float)
    assert image.shape == (300, 400, 3)
    colour = image[:, :, 2] - image[:, :, 0]
    assert colour[300 - 60, 100] > 20, "ice of the first rows is orange at the bottom"
    assert abs(colour[60, 100]) < 5
    assert image[20, 200].mean() > image[250, 200].mean(), "last rows are brighter"


def test_overlay_outlines_ice() -> None:
    image = decoded(overlay_png(icemap_of(pixel_size=None)))
    outline = (image == (40, 140, 255)).all(axis=2)
    icemap = icemap_of()
    height, width = (np.ptp(axis) + 1 for axis in np.nonzero(icemap.ice))
    assert outline.sum() == pytest.approx(2 * (height + width), rel=0.05)
    assert not (icemap.ice[::-1] ^ outline)[~icemap.ice[::-1]].any()


def test_overlay_hatches_what_is_not_valid() -> None:
    image = decoded(overlay_png(icemap_of()))
    strip, rest = image[:, 362:], image[:200, :350]
    assert strip.mean() < 0.6 * rest.mean()
    assert 0.1 < (strip == (110, 90, 90)).all(axis=2).mean() < 0.25


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 900),
    st.integers(1, 900),
    st.sampled_from((None, 0.3, 13.5, 1e4)),
    st.booleans(),
    st.integers(16, 900),
)
def test_overlay_of_anything(
    rows: int, columns: int, pixel_size: float | None, measured: bool, max_px: int
) -> None:
    image = decoded(overlay_png(icemap_of(rows, columns, pixel_size, measured), max_px))
    assert max(image.shape[:2]) == min(max_px, max(rows, columns))
    scale = max(image.shape[:2]) / max(rows, columns)
    assert image.shape[:2] == pytest.approx((rows * scale, columns * scale), abs=1.0)


def test_scale_bar_has_its_length() -> None:
    with_bar, without = (decoded(overlay_png(icemap_of(pixel_size=p))) for p in (13.5, None))
    changed = (with_bar != without).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 250 and columns.max() < 120
    bar = (with_bar == 255).all(axis=2)[287]
    assert bar.sum() == pytest.approx(100.0 / 1.35, abs=4)


@pytest.mark.parametrize(
    ("at_most", "length"), [(1.0, 1), (4.9, 2), (108.0, 100), (500.0, 500), (0.3, 0.2)]
)
def test_bars_are_round_numbers(at_most: float, length: float) -> None:
    assert bar_length_nm(at_most) == pytest.approx(length)


@given(st.floats(1e-6, 1e9))
def test_bars_are_not_much_shorter_than_asked(at_most: float) -> None:
    assert at_most / 2.51 <= bar_length_nm(at_most) <= at_most
