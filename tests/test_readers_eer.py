import struct
import tracemalloc
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.microscope_eer import (
    eer_movie_steps,
    encode_electrons,
    split_into_electrons,
    write_eer_movie,
)
from engines.readers.eer_frames import LEGACY_END, pixel_size_angstrom
from engines.readers.movie import read_movie_header, sum_of_frames
from tests.test_mrc import reason_of

Codec = Literal[65000, 65001, 65002]
BITS = {65000: (8, 2, 2), 65001: (7, 2, 2)}


def electrons(shape: tuple[int, int], rate: float, frames: int, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((frames, *shape)) < rate


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    rate=st.sampled_from([0.0, 0.001, 0.05, 0.5, 1.0]),
    bits=st.sampled_from([(8, 2, 2), (7, 2, 2), (4, 4, 4), (9, 3, 4), (12, 2, 2), (5, 1, 3)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_the_encoder_agrees_with_the_decoder_of_imagecodecs(
    shape: tuple[int, int], rate: float, bits: tuple[int, int, int], seed: int
) -> None:
    frame = electrons(shape, rate, 1, seed)[0]
    stored = encode_electrons(frame, bits, np.random.default_rng(seed))
    np.testing.assert_array_equal(imagecodecs.eer_decode(stored, shape, *bits), frame)
    # With all of their position the electrons are somewhere in their own pixel.
    column_bits, row_bits = bits[1:]
    if column_bits == row_bits:
        side = 1 << column_bits
        fine_shape = (shape[0] * side, shape[1] * side)
        fine = imagecodecs.eer_decode(stored, fine_shape, *bits, superres=column_bits)
        blocks = fine.reshape(shape[0], side, shape[1], side).sum(axis=(1, 3))
        np.testing.assert_array_equal(blocks, frame)


@given(
    codec=st.sampled_from([65000, 65001, 65002]),
    bits=st.sampled_from([(7, 2, 2), (6, 3, 3), (9, 3, 4)]),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    frames=st.integers(1, 6),
    rate=st.sampled_from([0.0, 0.02, 0.5]),
    with_image=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_frames_add_up_as_tifffile_reads_them(
    tmp_path_factory: pytest.TempPathFactory,
    codec: Codec,
    bits: tuple[int, int, int],
    shape: tuple[int, int],
    frames: int,
    rate: float,
    with_image: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.eer"
    hits = electrons(shape, rate, frames)
    final = hits.sum(axis=0) if with_image else None
    write_eer_movie(path, hits, 1.97, codec=codec, bits=bits, final_image=final)
    header = read_movie_header(path)
    assert (header.kind, header.nx, header.ny) == ("eer", shape[1], shape[0])
    assert (header.frames, header.is_whole, header.readable) == (frames, True, True)
    assert (header.pixel_size_angstrom, header.counts_per_electron) == (1.97, 1.0)
    image = sum_of_frames(path, header)
    np.testing.assert_array_equal(image, hits.sum(axis=0))
    with tifffile.TiffFile(path) as oracle:
        pages = list(oracle.pages)[with_image:]
        theirs = sum(page.asarray().astype(int) for page in pages)
    np.testing.assert_array_equal(image, theirs)


def test_a_growing_movie_has_the_frames_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.eer"
    hits = electrons((20, 30), 0.1, 3)
    seen: list[int | str] = []
    for _ in eer_movie_steps(path, hits, 1.97):
        try:
            header = read_movie_header(path)
            seen.append(header.frames)
            np.testing.assert_array_equal(sum_of_frames(path), hits[: header.frames].sum(axis=0))
        except PixelsError as error:
            seen.append(error.reason)
    assert seen == ["truncated", "truncated", 1, 1, 2, 2, 3, 3]


def test_electrons_are_split_so_that_they_add_up() -> None:
    counts = np.random.default_rng(0).integers(0, 9, (30, 40))
    frames = list(split_into_electrons(counts, 8, np.random.default_rng(1)))
    assert len(frames) == 8
    np.testing.assert_array_equal(np.sum(frames, axis=0), counts)
    few = list(split_into_electrons(counts, 4, np.random.default_rng(1)))
    np.testing.assert_array_equal(np.sum(few, axis=0), np.minimum(counts, 4))


@pytest.mark.parametrize(
    ("metadata", "size"),
    [
        (b'<item name="sensorPixelSize.width" unit="m">7.06e-11</item>', 0.706),
        (b'<item unit="m" name="sensorPixelSize.width">7.06e-11</item>', 0.706),
        (b'<item name="sensorPixelSize.width" unit="m">1.4e-05</item>', None),
        (b'<item name="sensorPixelSize.width" unit="nm">0.07</item>', None),
        (b'<item name="sensorPixelSize.width" unit="m">1.2.3</item>', None),
        (b'<item name="sensorPixelSize.height" unit="m">7.06e-11</item>', None),
        (b"", None),
    ],
)
def test_pixel_size_from_the_metadata(metadata: bytes, size: float | None) -> None:
    assert pixel_size_angstrom(b"<metadata>" + metadata + b"</metadata>") == size


def test_codes_of_a_size_that_is_not_known_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.eer"
    write_eer_movie(path, electrons((9, 9), 0.1, 2), 1.97, codec=65002, bits=(3, 2, 2))
    assert not read_movie_header(path).readable
    assert reason_of(lambda: sum_of_frames(path)) == "mode"


def test_the_form_of_before_tiff_is_named(tmp_path: Path) -> None:
    path = tmp_path / "old.eer"
    frame = encode_electrons(electrons((64, 64), 0.1, 1)[0], (8, 2, 2))
    padded = frame + bytes(-len(frame) % 8)
    path.write_bytes((padded + struct.pack("<q", len(padded) // 8) + LEGACY_END) * 3)
    header = read_movie_header(path)
    assert (header.kind, header.readable, header.is_whole, header.frames) == ("eer", False, True, 3)
    with pytest.raises(PixelsError, match="written as EER in TIFF form") as caught:
        sum_of_frames(path)
    assert caught.value.reason == "mode"


def test_a_run_beyond_the_frame_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.eer"
    write_eer_movie(path, electrons((40, 40), 0.1, 1), 1.97)
    raw = bytearray(path.read_bytes())
    raw[16:60] = b"\xfe" * 44
    path.write_bytes(raw)
    assert reason_of(lambda: sum_of_frames(path)) == "decode"


def test_many_frames_take_one_image_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.eer"
    side = 512
    write_eer_movie(path, electrons((side, side), 0.02, 40), 1.97)
    sum_of_frames(path)
    tracemalloc.start()
    try:
        image: NDArray[Any] = sum_of_frames(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert image.dtype == np.uint16
    assert peak < image.nbytes + 300_000
