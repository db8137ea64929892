import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import PixelsError
from engines.microscope_eer import write_eer_movie
from engines.microscope_frames import (
    mrc_movie_steps,
    split_into_frames,
    write_mrc_movie_growing,
    write_tiff_movie,
)
from engines.readers.movie import EXTENSIONS, read_movie_header, sum_of_frames
from engines.readers.mrc import write_mrc
from tests.test_mrc import header_bytes, reason_of, write_file

COUNTS = np.random.default_rng(0).integers(0, 15, (20, 30)).astype(np.int16)


def frames(count: int = 3) -> list[Any]:
    return list(split_into_frames(COUNTS, count, np.random.default_rng(1)))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_kind_is_told_by_what_is_in_the_file(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"movie{extension}"
    write_tiff_movie(path, frames(), 2.0)
    assert read_movie_header(path).kind == "tiff"
    write_eer_movie(path, frames(), 2.0)
    assert read_movie_header(path).kind == "eer"
    write_mrc_movie_growing(path, frames(), 2.0, 3)
    header = read_movie_header(path)
    assert (header.kind, header.frames, header.size_known) == ("mrc", 3, True)
    np.testing.assert_array_equal(sum_of_frames(path, header), COUNTS)


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_mrc_movies_add_up(tmp_path: Path, bits: Any, count: int) -> None:
    path = tmp_path / "a.mrc"
    write_mrc_movie_growing(path, frames(count), 2.0, count, bits=bits)
    header = read_movie_header(path)
    assert (header.nx, header.ny, header.frames) == (30, 20, count)
    assert header.pixel_size_angstrom == 2.0
    np.testing.assert_array_equal(sum_of_frames(path, header), COUNTS)


@given(dtype=st.sampled_from(["int8", "int16", "float32"]), count=st.integers(2, 4))
@settings(max_examples=20, deadline=None)
def test_the_extremes_of_a_kind_of_pixels_do_not_overflow(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, count: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "extreme.mrc"
    extreme = -1e30 if dtype == "float32" else np.iinfo(dtype).min
    write_mrc(path, np.full((count, 2, 3), extreme, dtype), 2.0)
    expected = np.full((2, 3), float(extreme) * count)
    np.testing.assert_allclose(sum_of_frames(path).astype("f8"), expected, rtol=1e-6)


def test_a_growing_mrc_movie_is_whole_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    seen: list[bool | str] = []
    for _ in mrc_movie_steps(path, frames(), 2.0, 5):
        try:
            seen.append(read_movie_header(path).is_whole)
        except PixelsError as error:
            seen.append(error.reason)
        if seen[-1] is False:
            assert reason_of(lambda: sum_of_frames(path)) == "truncated"
    # Fewer frames came than were announced; the header says so at the very end.
    assert seen == ["truncated", "truncated", False, False, False, True]


def test_pixels_that_cannot_be_read_are_named_though_complete(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mrc", header_bytes(mode=4), np.zeros(2 * 24 * 8, "u1"))
    header = read_movie_header(path)
    assert header.is_whole and header.size_known and not header.readable
    assert reason_of(lambda: sum_of_frames(path, header)) == "mode"
    unknown = write_file(tmp_path / "b.mrc", header_bytes(mode=7), np.zeros(48, "u1"))
    assert not read_movie_header(unknown).size_known


@pytest.mark.parametrize("write", [write_tiff_movie, write_eer_movie])
def test_a_movie_that_was_replaced_is_refused(tmp_path: Path, write: Any) -> None:
    path, other = tmp_path / "movie", tmp_path / "other"
    write(path, frames(), 2.0)
    header = read_movie_header(path)
    write(other, frames(), 2.0)
    other.replace(path)
    assert reason_of(lambda: sum_of_frames(path, header)) == "changed"


def test_mrc_movies_are_read_at_a_pace(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_mrc_movie_growing(path, frames(), 2.0, 3)
    pieces: list[int] = []
    sum_of_frames(path, pace=pieces.append)
    assert pieces == [1200] * 3
    write_mrc(path, np.zeros((3000, 4096), np.int16), 2.0)
    pieces.clear()
    sum_of_frames(path, pace=pieces.append)
    assert sum(pieces) == 3000 * 4096 * 2
    assert len(pieces) == 3 and max(pieces) == 8 << 20


def test_an_mrc_movie_that_changes_under_the_reader_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_mrc_movie_growing(path, frames(), 2.0, 3)
    header = read_movie_header(path)
    os.utime(path, ns=(header.modified_ns, header.modified_ns + 1))
    assert reason_of(lambda: sum_of_frames(path, header)) == "changed"

    def rewrite(_piece_bytes: int) -> None:
        os.utime(path, ns=(1, 1))

    assert reason_of(lambda: sum_of_frames(path, pace=rewrite)) == "changed"


def test_who_reads_only_mrc_loads_no_codec() -> None:
    code = (
        "import sys, engines.readers.movie, engines.readers.gain\n"
        "sys.exit(any(name in sys.modules for name in ('tifffile', 'imagecodecs')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
