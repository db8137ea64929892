import os
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.microscope_frames import (
    split_into_frames,
    tiff_movie_steps,
    write_tiff_movie,
)
from engines.readers.movie import read_movie_header, sum_of_frames
from engines.readers.tiff_frames import sum_dtype
from engines.readers.tiff_walk import MAX_PAGES
from tests.test_mrc import reason_of

DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8")


def movie(dtype: str, shape: tuple[int, int, int], seed: int = 0) -> NDArray[Any]:
    """Frames over the whole range of whole numbers, or round floats that add up exactly."""
    generator = np.random.default_rng(seed)
    if dtype[0] == "f":
        return generator.integers(-100, 100, shape).astype(dtype)
    range_ = np.iinfo(dtype)
    return generator.integers(range_.min, range_.max, shape, np.dtype(dtype), endpoint=True)


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    dtype = draw(st.sampled_from(DTYPES))
    compression = draw(st.sampled_from([None, "lzw", "zlib"]))
    byteorder = draw(st.sampled_from("<>"))
    predictable = dtype != "f2" and not (dtype[0] == "f" and byteorder == ">")
    tile = draw(st.sampled_from([None, (16, 16), (32, 16)]))
    return {
        "dtype": dtype,
        "shape": (draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 40))),
        "bigtiff": draw(st.booleans()),
        "byteorder": byteorder,
        "compression": compression,
        "predictor": bool(compression) and predictable and draw(st.booleans()),
        "tile": tile,
        "rowsperstrip": None if tile else draw(st.integers(1, 40)),
    }


def write_as(path: Path, frames: NDArray[Any], layout: dict[str, Any]) -> None:
    with tifffile.TiffWriter(
        path, bigtiff=layout["bigtiff"], byteorder=layout["byteorder"]
    ) as writer:
        for frame in frames:
            writer.write(
                frame,
                compression=layout["compression"],
                predictor=layout["predictor"],
                tile=layout["tile"],
                rowsperstrip=layout["rowsperstrip"],
                photometric="minisblack",
                contiguous=False,
                metadata=None,
            )


@given(layout=layouts(), seed=st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_every_layout_of_tifffile_adds_up(
    tmp_path_factory: pytest.TempPathFactory, layout: dict[str, Any], seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tif"
    frames = movie(layout["dtype"], layout["shape"], seed)
    write_as(path, frames, layout)
    header = read_movie_header(path)
    count, rows, columns = layout["shape"]
    assert (header.kind, header.nx, header.ny, header.frames) == ("tiff", columns, rows, count)
    assert header.is_whole and header.readable and not header.size_known
    image = sum_of_frames(path, header)
    np.testing.assert_array_equal(image.astype("f8"), frames.sum(axis=0, dtype="f8"))
    assert image.dtype.isnative


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("compression", ["none", "lzw", "zip"])
def test_what_the_pretend_microscope_writes_is_read_by_tifffile_and_here(
    tmp_path: Path, compression: Any, bits: Any
) -> None:
    counts = np.random.default_rng(2).integers(0, 12, (601, 33)).astype(np.int16)
    frames = list(split_into_frames(counts, 3, np.random.default_rng(3)))
    path = tmp_path / "a.tif"
    write_tiff_movie(path, frames, 1.97, compression=compression, bits=bits)
    np.testing.assert_array_equal(sum_of_frames(path), counts)
    np.testing.assert_array_equal(tifffile.imread(path).sum(axis=0), counts)
    assert read_movie_header(path).pixel_size_angstrom == pytest.approx(1.97, rel=1e-6)


def test_packed_frames_of_super_resolution_have_no_mark(tmp_path: Path) -> None:
    some = np.random.default_rng(4).integers(0, 16, (742, 7676), np.uint8)
    frame = np.tile(some, (10, 1))
    path = tmp_path / "k2.tif"
    write_tiff_movie(path, [frame], 0.9, compression="none", bits=4)
    with tifffile.TiffFile(path) as oracle:
        assert oracle.pages[0].shape == (7420, 3838)
    header = read_movie_header(path)
    assert (header.nx, header.ny, header.pixel_size_angstrom) == (7676, 7420, None)
    assert np.array_equal(sum_of_frames(path), frame)


def test_a_growing_movie_is_never_taken_for_more_than_it_is(tmp_path: Path) -> None:
    frames = [np.full((40, 30), value, np.uint8) for value in (1, 2, 3)]
    path = tmp_path / "a.tif"
    seen: list[tuple[int, bool] | str] = []
    for _ in tiff_movie_steps(path, frames, 2.0):
        try:
            header = read_movie_header(path)
            seen.append((header.frames, header.is_whole))
            assert (sum_of_frames(path)[0, 0]) == sum(range(header.frames + 1))
        except PixelsError as error:
            seen.append(error.reason)
    # Before the first directory nothing is there; the bytes of the next page change nothing yet.
    first = ["truncated", "truncated"]
    assert seen == [*first, *((n, True) for n in (1, 1, 2, 2, 3, 3))]


def test_a_cut_movie_has_the_frames_before_the_cut_and_is_not_whole(tmp_path: Path) -> None:
    whole = tmp_path / "a.tif"
    write_tiff_movie(whole, movie("u1", (3, 8, 8)), None, compression="none")
    raw = whole.read_bytes()
    counts = []
    for length in range(len(raw)):
        path = tmp_path / "cut.tif"
        path.write_bytes(raw[:length])
        try:
            header = read_movie_header(path)
        except PixelsError as error:
            assert error.reason in ("truncated", "header")
            continue
        assert not header.is_whole
        assert reason_of(lambda: sum_of_frames(tmp_path / "cut.tif")) == "truncated"
        counts.append(header.frames)
    assert sorted(counts) == counts and set(counts) == {1, 2}


@pytest.mark.parametrize(
    ("settings_", "size"),
    [
        ({"resolution": (1e8 / 1.97, 1e8 / 1.97), "resolutionunit": "CENTIMETER"}, 1.97),
        ({"resolution": (2.54e8 / 1.97, 2.54e8 / 1.97), "resolutionunit": "INCH"}, 1.97),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (1e8 / 1.97, 1e8 / 1.97), "resolutionunit": "NONE"}, None),
        ({"resolution": (5.0, 5.0), "description": "ImageJ=1.53\nunit=nm\n"}, 2.0),
        ({"resolution": (0.5, 0.5), "description": "ImageJ=1.53\nunit=Angstrom\n"}, 2.0),
        ({"resolution": (5.0, 5.0), "description": "ImageJ=1.53\nunit=pixel\n"}, None),
        ({"resolution": (5.0, 5.0), "description": "ImageJ=1.53\n"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("bigtiff", [False, True])
def test_pixel_size_only_where_it_can_be_nothing_else(
    tmp_path: Path, settings_: dict[str, Any], size: float | None, bigtiff: bool
) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        writer.write(np.ones((8, 8), np.uint8), metadata=None, **settings_)
    found = read_movie_header(path).pixel_size_angstrom
    assert found == (None if size is None else pytest.approx(size, rel=1e-5))


@pytest.mark.parametrize(
    ("image", "how"),
    [
        (np.zeros((8, 8, 3), np.uint8), {"photometric": "rgb"}),
        (np.zeros((8, 8), np.uint8), {"compression": "packbits"}),
        (np.zeros((8, 8), np.complex64), {}),
        (np.zeros((8, 8), np.uint64), {}),
    ],
)
def test_pixels_of_other_kinds_are_named(tmp_path: Path, image: Any, how: dict[str, Any]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, metadata=None, **how)
    header = read_movie_header(path)
    assert not header.readable and header.is_whole
    assert reason_of(lambda: sum_of_frames(path)) == "mode"


def test_frames_of_several_sizes_are_no_movie(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for side in (16, 8):
            writer.write(np.zeros((side, side), np.uint8), metadata=None, contiguous=False)
    assert reason_of(lambda: read_movie_header(path)) == "header"


def test_a_last_strip_padded_to_full_height_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    image = np.arange(7 * 5, dtype=np.uint8).reshape(7, 5)
    write_tiff_movie(path, [image], None, compression="none")
    raw = bytearray(path.read_bytes())
    # Two strips of 4 rows instead of one, of which the last is as long as the first.
    with tifffile.TiffFile(path) as oracle:
        start = oracle.pages[0].dataoffsets[0]
        tags = {tag.code: tag for tag in oracle.pages[0].tags}  # type: ignore[union-attr]
    image_at = len(raw)
    raw += image.tobytes() + bytes(5)
    tables_at = len(raw)
    raw += struct.pack("<4I", image_at, image_at + 20, 20, 20)
    for code, where in ((273, tables_at), (279, tables_at + 8)):
        struct.pack_into("<2I", raw, tags[code].offset + 4, 2, where)
    struct.pack_into("<I", raw, tags[278].offset + 8, 4)
    path.write_bytes(raw)
    assert start != image_at
    np.testing.assert_array_equal(sum_of_frames(path), image)


@pytest.mark.parametrize("compression", ["lzw", "zip"])
def test_damage_within_a_frame_is_said(tmp_path: Path, compression: Any) -> None:
    path = tmp_path / "a.tif"
    write_tiff_movie(path, movie("u1", (2, 50, 50)), 2.0, compression=compression)
    raw = bytearray(path.read_bytes())
    raw[8:40] = bytes(32)
    path.write_bytes(raw)
    assert reason_of(lambda: sum_of_frames(path)) == "decode"


def test_a_movie_that_was_written_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_tiff_movie(path, movie("u1", (2, 8, 8)), 2.0)
    header = read_movie_header(path)
    os.utime(path, ns=(header.modified_ns, header.modified_ns + 1))
    assert reason_of(lambda: sum_of_frames(path, header)) == "changed"


def test_a_movie_that_changes_under_the_reader_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_tiff_movie(path, movie("u1", (2, 8, 8)), 2.0)

    def meddle(_piece_bytes: int) -> None:
        os.utime(path, ns=(1, 1))

    assert reason_of(lambda: sum_of_frames(path, pace=meddle)) == "changed"

    def replace(_piece_bytes: int) -> None:
        if not (tmp_path / "old.tif").exists():
            path.rename(tmp_path / "old.tif")
            path.write_bytes((tmp_path / "old.tif").read_bytes())

    assert reason_of(lambda: sum_of_frames(path, pace=replace)) == "changed"


def test_frames_are_read_at_a_pace(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_tiff_movie(path, movie("u1", (3, 40, 40)), 2.0, compression="none")
    pieces: list[int] = []
    sum_of_frames(path, pace=pieces.append)
    assert pieces == [1600] * 3


@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_pieces_of_a_frame_are_decoded_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int] | None
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    frames = movie("u2", (3, 100, 70))
    path = tmp_path / "a.tif"
    layout = {"bigtiff": False, "byteorder": "<", "compression": "lzw", "predictor": True}
    write_as(path, frames, {**layout, "tile": tile, "rowsperstrip": None if tile else 7})
    np.testing.assert_array_equal(sum_of_frames(path), frames.sum(axis=0, dtype="u4"))
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as oracle:
        start = oracle.pages[1].dataoffsets[2]
    raw[start : start + 20] = bytes(20)
    path.write_bytes(raw)
    assert reason_of(lambda: sum_of_frames(path)) == "decode"


def steady_frames(count: int, side: int) -> Iterator[NDArray[np.uint8]]:
    pattern = np.random.default_rng(5).integers(0, 4, (side, side), np.uint8)
    for shift in range(count):
        yield np.roll(pattern, shift, axis=0)


def test_never_more_than_one_frame_beside_the_sum(tmp_path: Path) -> None:
    side = 1024
    path = tmp_path / "a.tif"
    write_tiff_movie(path, steady_frames(12, side), 2.0, compression="zip")
    sum_of_frames(path)  # what is imported once does not count
    tracemalloc.start()
    try:
        image = sum_of_frames(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    one_frame = side * side
    assert peak < image.nbytes + 3 * one_frame  # the frame, as stored and unpacked, and the blocks


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frames", [1, 257, 258, MAX_PAGES])
def test_no_sum_overflows(dtype: str, frames: int) -> None:
    found = sum_dtype(np.dtype(dtype), frames)
    if dtype[0] == "f":
        assert found.kind == "f" and found.itemsize >= min(np.dtype(dtype).itemsize, 4)
        return
    range_ = np.iinfo(dtype)
    for extreme in (range_.min, range_.max):
        assert int(np.array(extreme * frames).astype(found)) == extreme * frames
