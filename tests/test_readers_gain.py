from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.microscope_frames import write_tiff_movie
from engines.readers.gain import Gain, GainOrientation
from engines.readers.movie import sum_of_frames
from engines.readers.mrc import write_mrc
from tests.test_mrc import reason_of

OPERATIONS = ("multiply", "divide")


def reference(shape: tuple[int, int], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0.5, 1.5, shape).astype(np.float32)


def turned(image: NDArray[Any], rotate_deg: int, flip: str) -> NDArray[Any]:
    """The turn and flip element by element, as MotionCor2 describes them."""
    rows, columns = image.shape
    shape = (columns, rows) if rotate_deg in (90, 270) else (rows, columns)
    result = np.zeros(shape, image.dtype)
    for y in range(rows):
        for x in range(columns):
            place = {
                0: (y, x),
                90: (columns - 1 - x, y),
                180: (rows - 1 - y, columns - 1 - x),
                270: (x, rows - 1 - y),
            }[rotate_deg]
            if flip == "rows":
                place = (shape[0] - 1 - place[0], place[1])
            elif flip == "columns":
                place = (place[0], shape[1] - 1 - place[1])
            result[place] = image[y, x]
    return result


@given(
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    operation=st.sampled_from(OPERATIONS),
    rotate_deg=st.sampled_from([0, 90, 180, 270]),
    flip=st.sampled_from(["none", "rows", "columns"]),
    kind=st.sampled_from(["mrc", "tiff"]),
)
@settings(max_examples=80, deadline=None)
def test_a_reference_evens_out_the_camera(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    columns: int,
    operation: Any,
    rotate_deg: Any,
    flip: Any,
    kind: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / f"reference.{kind}"
    stored = reference((rows, columns))
    if kind == "mrc":
        write_mrc(path, stored, None)
    else:
        tifffile.imwrite(path, stored)
    gain = Gain.load(path, operation=operation, rotate_deg=rotate_deg, flip=flip)
    factor = turned(stored, rotate_deg, flip)
    image = np.full(factor.shape, 100.0) / factor if operation == "multiply" else 100.0 * factor
    assert gain.shape == factor.shape
    corrected = gain.apply(image)
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(corrected, 100.0, rtol=1e-5)


def test_a_gain_file_of_thermo_fisher_is_tiff(tmp_path: Path) -> None:
    path = tmp_path / "20260105_100000_EER_GainReference.gain"
    tifffile.imwrite(path, reference((6, 8)))
    assert Gain.load(path).shape == (6, 8)


def test_only_the_first_image_of_a_reference_counts(tmp_path: Path) -> None:
    stored = reference((6, 8))
    with tifffile.TiffWriter(tmp_path / "a.gain") as writer:
        writer.write(stored, metadata=None)
        writer.write(np.zeros((3, 3), np.uint8), metadata=None)
    np.testing.assert_array_equal(Gain.load(tmp_path / "a.gain").apply(np.ones((6, 8))), stored)
    write_mrc(tmp_path / "a.mrc", np.stack([stored, stored]), None)
    np.testing.assert_array_equal(Gain.load(tmp_path / "a.mrc").apply(np.ones((6, 8))), stored)
    tifffile.imwrite(tmp_path / "rgb.gain", np.zeros((6, 8, 3), np.uint8), photometric="rgb")
    assert reason_of(lambda: Gain.load(tmp_path / "rgb.gain")) == "gain"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_defects_take_the_mean_of_their_sound_neighbours(tmp_path: Path, operation: Any) -> None:
    factor = np.ones((6, 8), np.float32)
    factor[0, 0] = 0.0
    factor[3, 4], factor[3, 5] = np.nan, -1.0
    write_mrc(tmp_path / "a.mrc", factor, None)
    gain = Gain.load(tmp_path / "a.mrc", operation=operation)
    image = np.arange(48).reshape(6, 8)
    corrected = gain.apply(image)
    sound = factor == 1.0
    np.testing.assert_array_equal(corrected[sound], image[sound])
    assert corrected[0, 0] == pytest.approx((1 + 8 + 9) / 3)
    around = [image[y, x] for y in (2, 3, 4) for x in (3, 4, 5) if sound[y, x]]
    assert corrected[3, 4] == pytest.approx(np.mean(around))


def test_a_defect_without_sound_neighbours_takes_the_mean_of_the_image(tmp_path: Path) -> None:
    factor = np.ones((9, 9), np.float32)
    factor[2:7, 2:7] = 0.0
    write_mrc(tmp_path / "a.mrc", factor, None)
    image = np.random.default_rng(0).poisson(50, (9, 9))
    corrected = Gain.load(tmp_path / "a.mrc").apply(image)
    assert corrected[4, 4] == pytest.approx(image[factor == 1.0].mean())
    assert np.isfinite(corrected).all()


def test_references_of_twice_and_half_the_size_fit(tmp_path: Path) -> None:
    fine = reference((1200, 12))
    fine[0, 0] = 0.0
    write_mrc(tmp_path / "fine.mrc", fine, None)
    quads = np.where(fine > 0, fine, np.nan).reshape(600, 2, 6, 2)
    binned = np.nanmean(quads, axis=(1, 3))
    ones = np.ones((600, 6))
    np.testing.assert_allclose(Gain.load(tmp_path / "fine.mrc").apply(ones), binned, rtol=1e-5)
    coarse = reference((300, 6))
    write_mrc(tmp_path / "coarse.mrc", coarse, None)
    repeated = np.kron(coarse, np.ones((2, 2)))
    found = Gain.load(tmp_path / "coarse.mrc").apply(np.ones((600, 12)))
    np.testing.assert_allclose(found, repeated, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((6, 4), "of 4 x 6 once turned"), ((5, 6), "does not fit"), ((12, 18), "does not fit")],
)
def test_a_reference_of_another_size_is_refused(
    tmp_path: Path, shape: tuple[int, int], words: str
) -> None:
    write_mrc(tmp_path / "a.mrc", reference((4, 6)), None)
    gain = Gain.load(tmp_path / "a.mrc")
    with pytest.raises(PixelsError) as caught:
        gain.apply(np.ones(shape))
    assert caught.value.reason == "gain"
    assert words in str(caught.value)


def test_what_is_no_reference_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.dm4").write_bytes(bytes(100))
    with pytest.raises(PixelsError, match=r"dm2mrc a\.dm4 a\.mrc") as caught:
        Gain.load(tmp_path / "a.dm4")
    assert caught.value.reason == "gain"
    write_mrc(tmp_path / "dark.mrc", np.zeros((4, 4), np.float32), None)
    (tmp_path / "junk.mrc").write_bytes(b"\xff" * 2000)
    for name in ("dark.mrc", "junk.mrc", "nowhere.mrc"):
        assert reason_of(lambda name=name: Gain.load(tmp_path / name)) == "gain"  # type: ignore[misc]


def test_a_movie_is_corrected_as_it_is_summed(tmp_path: Path) -> None:
    even = np.full((6, 8), 30, np.uint8)
    stored = np.full((6, 8), 2.0, np.float32)
    write_tiff_movie(tmp_path / "movie.tif", [even, even], 1.97)
    write_mrc(tmp_path / "gain.mrc", stored, None)
    orientation = GainOrientation("divide", 180, "rows")
    gain = Gain.load(
        tmp_path / "gain.mrc",
        operation=orientation.operation,
        rotate_deg=orientation.rotate_deg,
        flip=orientation.flip,
    )
    np.testing.assert_array_equal(sum_of_frames(tmp_path / "movie.tif", gain=gain), 30.0)
