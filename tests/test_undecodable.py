"""Exposures that are complete but whose pixels cannot be had."""

import struct
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from engines.errors import PixelsError
from engines.microscope import SerialEMStackWriter, write_frame_mdoc_movie
from monitor.errors import NotReady, SourceError, Unreadable
from monitor.model import Tilt, TiltId
from monitor.sources import AnySource, all_sources
from monitor.sources.complete import LASTING_S, ReadingFailures
from tests.landings import SETTLED_S, landed

WHEN = datetime(2026, 2, 1, 10, 0, 0)
SHAPE = (6, 10)
SECTION_BYTES = {3: 240, 4: 480, 16: 180, 101: 30, 7: 60}
UNKNOWN_MODE, PACKED_MODE = 7, 101
STACK, MOVIE = "s/L1.mrc", "s/L1_001_3.0.mrc"


def with_mode(path: Path, mode: int, sections: int) -> None:
    """Turn a file into one of another mode, with as many bytes as that takes."""
    raw = path.read_bytes()
    (extended,) = struct.unpack_from("<i", raw, 92)
    start = bytearray(raw[: 1024 + extended])
    struct.pack_into("<i", start, 12, mode)
    path.write_bytes(bytes(start) + bytes(sections * SECTION_BYTES[mode]))


def write_stack(root: Path, mode: int) -> str:
    (root / "s").mkdir()
    stack = SerialEMStackWriter(root / STACK, SHAPE, 2.0)
    for k in range(3):
        stack.add(np.zeros(SHAPE, np.int16), 3.0 * k, WHEN + timedelta(seconds=k))
    with_mode(stack.path, mode, 3)
    return STACK


def write_movie(root: Path, mode: int) -> str:
    (root / "s").mkdir()
    write_frame_mdoc_movie(root / MOVIE, np.zeros((4, *SHAPE), np.int16), 3.0, WHEN, 2.0)
    with_mode(root / MOVIE, mode, 4)
    return MOVIE


def listed(
    source: AnySource, root: Path, relative: str, quiet_s: float
) -> tuple[list[Tilt], SourceError | None]:
    found = []
    try:
        for tilt in source.new_tilts(landed(root, relative, quiet_s), lambda tilt_id: False):
            found.append(tilt)
    except SourceError as error:
        return found, error
    return found, None


@pytest.mark.parametrize("mode", [mode for mode in SECTION_BYTES if mode != PACKED_MODE])
@pytest.mark.parametrize("write", [write_stack, write_movie])
def test_pixels_of_a_mode_that_cannot_be_read_are_a_tilt_all_the_same(
    tmp_path: Path, write: object, mode: int
) -> None:
    assert callable(write)
    relative = write(tmp_path, mode)
    source = all_sources(tmp_path)
    tilts, error = listed(source, tmp_path, relative, SETTLED_S)
    assert error is None
    assert [tilt.angle_deg for tilt in tilts] == ([0.0, 3.0, 6.0] if relative == STACK else [3.0])
    for tilt in tilts:
        with pytest.raises(Unreadable, match=f"mode {mode}") as caught:
            source.pixels(tilt)
        assert caught.value.reason == "mode"


@pytest.mark.parametrize("mode", [4, 101])
def test_a_part_of_such_a_file_is_waited_for(tmp_path: Path, mode: int) -> None:
    path = tmp_path / write_movie(tmp_path, mode)
    path.write_bytes(path.read_bytes()[:-1])
    tilts, error = listed(all_sources(tmp_path), tmp_path, MOVIE, 2.0)
    assert tilts == [] and isinstance(error, NotReady)
    tilts, error = listed(all_sources(tmp_path), tmp_path, MOVIE, SETTLED_S)
    assert tilts == [] and isinstance(error, Unreadable) and error.reason == "truncated"


def test_a_movie_whose_size_nobody_can_tell_is_complete_once_it_is_quiet(tmp_path: Path) -> None:
    write_movie(tmp_path, UNKNOWN_MODE)
    tilts, error = listed(all_sources(tmp_path), tmp_path, MOVIE, 6.0)
    assert tilts == [] and isinstance(error, NotReady)
    assert len(listed(all_sources(tmp_path), tmp_path, MOVIE, SETTLED_S)[0]) == 1


def test_an_exposure_that_cannot_be_read_for_long_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "a.mrc").write_bytes(b"x")
    bad, good = TiltId("a", 0.0, None), TiltId("a", 3.0, None)
    error = PixelsError("Input/output error", "unreadable")
    failures = ReadingFailures()
    failures.listing(landed(tmp_path, "a.mrc", 5.0))
    assert isinstance(failures.error_for(bad, error), NotReady)
    failures.listing(landed(tmp_path, "a.mrc", 4.0 + LASTING_S))
    assert isinstance(failures.error_for(bad, error), NotReady)
    assert isinstance(failures.error_for(good, error), NotReady)
    failures.over(good)
    failures.listing(landed(tmp_path, "a.mrc", 5.0 + 2 * LASTING_S))
    assert isinstance(failures.error_for(good, error), NotReady), "it was read in between"
    changed = PixelsError("rewritten", "changed")
    assert isinstance(failures.error_for(bad, changed), NotReady)
    assert isinstance(failures.error_for(bad, error), Unreadable)
