"""When a growing stack and its mdoc are opened, and when they are left alone."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from engines.microscope import SerialEMStackWriter
from engines.readers.mrc import write_mrc
from monitor.errors import NotReady, SourceError
from monitor.model import Tilt, TiltId
from monitor.sources import all_sources
from monitor.sources.serialem_stack import SerialEMStack
from tests.landings import landed
from tests.opened import opened_below

WHEN = datetime(2026, 2, 1, 10, 0, 0)
RELATIVE = "s1/L1.mrc"


@pytest.fixture
def stack(tmp_path: Path) -> SerialEMStackWriter:
    (tmp_path / "s1").mkdir()
    return SerialEMStackWriter(tmp_path / RELATIVE, (5, 7), 2.0, chunk_bytes=20)


def add(stack: SerialEMStackWriter, k: int, movie: str = "") -> None:
    extra = {"SubFramePath": movie} if movie else {}
    for _ in stack.steps(
        np.full((5, 7), k), 3.0 * k, WHEN + timedelta(seconds=26 * k), extra=extra
    ):
        pass


class Reader:
    def __init__(self, root: Path, source: SerialEMStack | None = None) -> None:
        self.root = root
        self.source = source or SerialEMStack(root)
        self.seen: list[Tilt] = []
        self.opened: list[str] = []

    def _known(self, tilt_id: TiltId) -> bool:
        return any(tilt.id == tilt_id for tilt in self.seen)

    def _tilts(self, quiet_s: float) -> Iterator[Tilt]:
        offer = landed(self.root, RELATIVE, quiet_s)
        for tilt in self.source.new_tilts(offer, self._known):
            self.source.pixels(tilt)
            yield tilt

    def read(self, quiet_s: float = 0.0) -> str:
        """Read what there is; gives the reason why not all of it is ("" where it is)."""
        try:
            with opened_below(self.root) as self.opened:
                self.seen.extend(self._tilts(quiet_s))
        except SourceError as error:
            return error.reason
        return ""


def test_nothing_is_opened_while_a_section_is_written(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    add(stack, 0)
    reader = Reader(tmp_path)
    assert reader.read() == ""
    assert RELATIVE in reader.opened
    for step in stack.steps(np.ones((5, 7)), 3.0, WHEN + timedelta(seconds=26)):
        if step == "mdoc":
            break
        later = stack.mdoc_path.stat().st_mtime_ns + 1  # both may be of one tick of the clock
        os.utime(stack.path, ns=(later, later))
        assert reader.read() == "writing", step
        assert reader.opened == [], "neither the stack nor the mdoc, which did not change"


def test_an_mdoc_that_tells_nothing_new_is_not_opened_again(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    add(stack, 0)
    reader = Reader(tmp_path)
    reader.read()
    reader.read(2.0)
    assert f"{RELATIVE}.mdoc" not in reader.opened
    add(stack, 1)
    reader.read()
    assert reader.opened.count(f"{RELATIVE}.mdoc") == 1
    assert len(reader.seen) == 2


def test_a_stack_newer_than_its_mdoc_is_read_once_it_rests(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    add(stack, 1)
    later = stack.mdoc_path.stat().st_mtime_ns + 1_000_000_000
    os.utime(stack.path, ns=(later, later))
    reader = Reader(tmp_path)
    assert reader.read() == "writing"
    assert RELATIVE not in reader.opened
    assert reader.read(2.0) == ""
    assert len(reader.seen) == 1


def test_a_section_gives_way_to_its_movie_for_a_while(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    add(stack, 0, movie=r"X:\frames\L1_000_0.0.tif")
    reader = Reader(tmp_path, SerialEMStack(tmp_path, prefer="movie"))
    assert reader.read() == "movie_first"
    assert reader.read(9.0) == "movie_first"
    assert reader.read(10.5) == ""
    assert [tilt.movie for tilt in reader.seen] == ["L1_000_0.0.tif"]


def test_a_section_without_a_movie_does_not_wait(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    add(stack, 0)
    reader = Reader(tmp_path, SerialEMStack(tmp_path, prefer="movie"))
    assert reader.read() == ""
    assert len(reader.seen) == 1


def test_the_reader_is_told_before_pixels_are_read(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    add(stack, 0)
    asked: list[int] = []
    reader = Reader(tmp_path, SerialEMStack(tmp_path, pace=asked.append))
    reader.read()
    assert asked == [5 * 7 * 2]


def test_a_stack_that_grows_between_listing_and_reading_is_fine(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    add(stack, 0)
    source = SerialEMStack(tmp_path)
    (tilt,) = source.new_tilts(landed(tmp_path, RELATIVE), lambda _: False)
    add(stack, 1)
    assert source.pixels(tilt).max() == 0
    with pytest.raises(NotReady):
        stack.sort_by_angle()
        stack.path.unlink()
        source.pixels(tilt)


def test_zeros_that_a_copy_may_still_fill_are_waited_for(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    add(stack, 1)
    stack.add(np.zeros((5, 7)), 6.0, WHEN + timedelta(seconds=52))
    reader = Reader(tmp_path)
    later = stack.mdoc_path.stat().st_mtime_ns + 1_000_000_000
    os.utime(stack.path, ns=(later, later))
    assert reader.read(2.0) == "zeros"
    assert [tilt.angle_deg for tilt in reader.seen] == [3.0]
    assert reader.read(20.0) == "", "the camera may give zeros too"
    assert len(reader.seen) == 2


def test_zeros_that_the_microscope_wrote_do_not_wait(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    add(stack, 0)
    assert Reader(tmp_path).read() == ""


def test_a_section_that_is_overwritten_meanwhile_is_not_read(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    add(stack, 1)
    source = SerialEMStack(tmp_path)
    (tilt,) = source.new_tilts(landed(tmp_path, RELATIVE), lambda _: False)
    again = stack.steps(np.full((5, 7), 9), 3.0, WHEN + timedelta(seconds=60), section=0)
    assert next(again) == "pixels"
    with pytest.raises(NotReady):
        source.pixels(tilt)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_only_has_the_name_of_an_mdoc_is_none(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "s1").mkdir()
    write_mrc(tmp_path / "s1/L1_001_3.0.mrc", np.ones((5, 7), np.int16), 2.0)
    make(tmp_path / "s1/L1_001_3.0.mrc.mdoc")
    (tilt,) = all_sources(tmp_path).new_tilts(
        replace(landed(tmp_path, "s1/L1_001_3.0.mrc", 20.0), members={}), lambda _: False
    )
    assert tilt.angle_deg == 3.0


def test_a_series_faster_than_the_looks_is_read_after_a_while(
    tmp_path: Path, stack: SerialEMStackWriter
) -> None:
    source = SerialEMStack(tmp_path)
    for k, reasons in enumerate(("settling", "settling", "settling", "")):
        add(stack, k)
        offer = replace(landed(tmp_path, RELATIVE, 0.5), changed_s=1.9 * k, closed=False)
        if reasons:
            with pytest.raises(NotReady):
                next(source.new_tilts(offer, lambda _: False))
        else:
            assert len(list(source.new_tilts(offer, lambda _: False))) == 4
