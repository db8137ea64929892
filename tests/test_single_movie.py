import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.microscope import write_frame_mdoc_movie, write_tomography5_movie
from engines.readers.mrc import write_mrc
from monitor.errors import NotReady, SourceError, Unreadable
from monitor.model import Tilt, TiltId
from monitor.sources.complete import WAIT_FOR_MDOC_S
from monitor.sources.single_movie import SingleMovie
from tests.landings import SETTLED_S, landed

WHEN = datetime(2026, 2, 1, 10, 0, 0)
SEEN_TWICE_S = 2.0


def frames(count: int = 4, dtype: str = "int16") -> NDArray[Any]:
    return np.random.default_rng(count).integers(-5, 900, (count, 6, 9)).astype(dtype)


class Reader:
    """A worker with a memory instead of a journal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = SingleMovie(root)
        self.seen: list[Tilt] = []

    def read(self, relative: str, quiet_s: float = SEEN_TWICE_S) -> SourceError | None:
        known = {tilt.id for tilt in self.seen}
        try:
            for tilt in self.source.new_tilts(
                landed(self.root, relative, quiet_s), known.__contains__
            ):
                self.seen.append(tilt)
        except SourceError as error:
            return error
        return None


def test_a_movie_with_a_frame_mdoc(tmp_path: Path) -> None:
    folder = tmp_path / "s1" / "gridA"
    folder.mkdir(parents=True)
    path = folder / "TS_01_000_-3.0.mrc"
    write_frame_mdoc_movie(path, frames(), -2.987, WHEN, 1.971, exposure_dose_e_per_A2=2.3)
    reader = Reader(tmp_path)
    assert reader.read("s1/gridA/TS_01_000_-3.0.mrc") is None
    assert reader.seen == [
        Tilt(
            id=TiltId("s1/gridA/TS_01", -2.99, WHEN.isoformat()),
            session="s1",
            grid="gridA",
            lamella="s1/gridA/TS_01",
            series="TS_01",
            path="s1/gridA/TS_01_000_-3.0.mrc",
            section=0,
            angle_deg=-2.987,
            order=0,
            acquired_at=WHEN.isoformat(),
            pixel_size_angstrom=1.971,
            exposure_dose_e_per_A2=2.3,
            counts_per_electron=221.663,
        )
    ]
    np.testing.assert_array_equal(reader.source.pixels(reader.seen[0]), frames().sum(axis=0))
    assert reader.read("s1/gridA/TS_01_000_-3.0.mrc") is None
    assert len(reader.seen) == 1


def test_the_real_series(tmp_path: Path, realdata: Path) -> None:
    reader = Reader(tmp_path)
    for mdoc in sorted((realdata / "serialem-frame-mdocs").iterdir()):
        name = mdoc.name.removesuffix(".mdoc")
        write_mrc(tmp_path / name, frames(10), 1.971)
        (tmp_path / mdoc.name).write_bytes(mdoc.read_bytes())
        assert reader.read(name) is None
    assert [tilt.order for tilt in reader.seen] == list(range(61))
    assert {tilt.series for tilt in reader.seen} == {"TS_019"}
    assert [round(tilt.angle_deg or 0.0) + 0 for tilt in reader.seen[:6]] == [8, 10, 12, 6, 4, 14]
    assert str(reader.seen[0].id) == "TS_019@+7.97@2023-06-06T23:51:26"


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32"])
def test_frames_are_summed_without_overflow(tmp_path: Path, dtype: str) -> None:
    movie = np.full((300, 6, 9), 120, dtype)
    write_frame_mdoc_movie(tmp_path / "a_001_0.0.mrc", movie, 0.0, WHEN, 2.0)
    reader = Reader(tmp_path)
    assert reader.read("a_001_0.0.mrc") is None
    assert (reader.source.pixels(reader.seen[0]) == 36_000).all()


def test_a_single_image_keeps_its_dtype(tmp_path: Path) -> None:
    write_frame_mdoc_movie(tmp_path / "a_001_0.0.mrc", frames()[0], 0.0, WHEN, 2.0)
    reader = Reader(tmp_path)
    assert reader.read("a_001_0.0.mrc") is None
    assert reader.source.pixels(reader.seen[0]).dtype == np.int16


def test_tomography5_says_all_in_the_name(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for number, angle in enumerate((0.0, 3.0, -3.0), start=1):
        when = WHEN + timedelta(seconds=30 * number)
        path = write_tomography5_movie(
            tmp_path, "Position_9_2", number, angle, when, frames(2), 2.6
        )
        assert reader.read(path.name) is None, "no mdoc is waited for"
    assert [(tilt.angle_deg, tilt.order) for tilt in reader.seen] == [(0.0, 0), (3.0, 1), (-3.0, 2)]
    assert {tilt.lamella for tilt in reader.seen} == {"Position_9_2"}
    assert reader.seen[1].acquired_at == "2026-02-01T10:01:00"
    assert str(reader.seen[1].id) == "Position_9_2@+3.00@2026-02-01T10:01:00"
    assert reader.seen[0].pixel_size_angstrom == 2.6
    assert reader.seen[0].exposure_dose_e_per_A2 is None


def test_order_goes_by_time_where_names_hold_no_number(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for second, angle in enumerate((0.0, 3.0, -3.0)):
        name = f"2024-04-14_17.54.0{second}_TS_001_{angle}.mrc"
        write_frame_mdoc_movie(tmp_path / name, frames(2), angle, WHEN, 2.0)
    for path in sorted(tmp_path.glob("*.mrc"), reverse=True):
        assert reader.read(path.name) is None
    assert {(tilt.angle_deg, tilt.order) for tilt in reader.seen} == {(0, 0), (3, 1), (-3, 2)}


def test_a_movie_is_read_only_when_it_is_as_long_as_announced_and_at_rest(tmp_path: Path) -> None:
    path = tmp_path / "a_001_0.0.mrc"
    write_frame_mdoc_movie(path, frames(), 0.0, WHEN, 2.0)
    whole = path.read_bytes()
    reader = Reader(tmp_path)
    for length in (0, 500, 1024, 1024 + 6 * 9 * 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        error = reader.read(path.name)
        assert isinstance(error, NotReady)
        assert error.reason == "truncated"
    path.write_bytes(whole + b"x")
    assert isinstance(reader.read(path.name), NotReady)
    path.write_bytes(whole)
    error = reader.read(path.name, quiet_s=0.0)
    assert isinstance(error, NotReady)
    assert error.reason == "settling"
    assert reader.read(path.name) is None
    assert len(reader.seen) == 1


def test_a_movie_that_stays_cut_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a_001_0.0.mrc"
    write_frame_mdoc_movie(path, frames(), 0.0, WHEN, 2.0)
    os.truncate(path, path.stat().st_size - 1)
    error = Reader(tmp_path).read(path.name, SETTLED_S)
    assert isinstance(error, Unreadable)
    assert error.reason == "truncated"
    assert "'a_001_0.0.mrc' has" in str(error)


def test_the_mdoc_is_waited_for_and_does_not_double_the_tilt(tmp_path: Path) -> None:
    path = tmp_path / "TS_01_003_9.0.mrc"
    mdoc = tmp_path / "TS_01_003_9.0.mrc.mdoc"
    write_frame_mdoc_movie(path, frames(), 9.02, WHEN, 2.0)
    text = mdoc.read_bytes()
    mdoc.unlink()
    reader = Reader(tmp_path)
    error = reader.read(path.name, WAIT_FOR_MDOC_S - 0.1)
    assert isinstance(error, NotReady)
    assert error.reason == "no_mdoc"
    assert reader.read(path.name, WAIT_FOR_MDOC_S) is None
    assert reader.seen[0].angle_deg == 9.0
    assert reader.seen[0].acquired_at is None
    mdoc.write_bytes(text)
    assert reader.read(path.name) is None
    assert len(reader.seen) == 1


def test_a_movie_taken_again_under_its_old_name_is_a_new_tilt(tmp_path: Path) -> None:
    path = tmp_path / "TS_01_003_9.0.mrc"
    reader = Reader(tmp_path)
    for minute in range(2):
        write_frame_mdoc_movie(path, frames(), 9.0, WHEN + timedelta(minutes=minute), 2.0)
        assert reader.read(path.name) is None
    assert len(reader.seen) == 2


def test_a_cut_mdoc_is_waited_for_and_then_believed_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "run_0003.mrc"
    write_frame_mdoc_movie(path, frames(), -52.0, WHEN, 2.0)
    mdoc = tmp_path / "run_0003.mrc.mdoc"
    text = mdoc.read_bytes()
    reader = Reader(tmp_path)
    mdoc.write_bytes(text[: text.index(b"TiltAngle = -5") + len(b"TiltAngle = -5")])
    assert isinstance(reader.read(path.name), NotReady)
    error = reader.read(path.name, SETTLED_S)
    assert isinstance(error, Unreadable)
    assert error.reason == "no_angle"
    mdoc.write_bytes(text[: text.index(b"DateTime")])
    assert isinstance(reader.read(path.name), NotReady)
    assert reader.read(path.name, WAIT_FOR_MDOC_S) is None
    mdoc.write_bytes(text)
    assert reader.read(path.name) is None
    assert [tilt.angle_deg for tilt in reader.seen] == [-52.0]


def test_without_any_angle_it_is_no_tilt(tmp_path: Path) -> None:
    write_mrc(tmp_path / "square_7.mrc", frames()[0], 20.0)
    error = Reader(tmp_path).read("square_7.mrc", SETTLED_S)
    assert isinstance(error, Unreadable)
    assert error.reason == "no_angle"


def test_missing_frames_are_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "a_001_0.0.mrc"
    write_frame_mdoc_movie(path, frames(10), 0.0, WHEN, 2.0)
    write_mrc(path, frames(3), 2.0)
    reader = Reader(tmp_path)
    error = reader.read(path.name)
    assert isinstance(error, NotReady)
    assert error.reason == "frames"
    assert reader.read(path.name, WAIT_FOR_MDOC_S) is None, "the file may hold the sum only"


def test_a_movie_that_changes_under_the_reader_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a_001_0.0.mrc"
    write_frame_mdoc_movie(path, frames(), 0.0, WHEN, 2.0)
    reader = Reader(tmp_path)
    assert reader.read(path.name) is None
    os.truncate(path, 1500)
    with pytest.raises(NotReady):
        reader.source.pixels(reader.seen[0])
    path.unlink()
    with pytest.raises(NotReady):
        reader.source.pixels(reader.seen[0])


@pytest.mark.parametrize(
    ("relative", "claimed"),
    [
        ("s/TS_01_000_0.0.mrc", "s/TS_01_000_0.0.mrc"),
        ("s/TS_01_000_0.0.mrc.mdoc", "s/TS_01_000_0.0.mrc"),
        ("s/TS_01_000_0.0.mrcs", "s/TS_01_000_0.0.mrcs"),
        ("s/TS_01_000_0.0.tif", None),
        ("s/TS_01_000_0.0.eer", None),
        ("s/Position_1_override.mdoc", None),
        ("s/Position_1.mdoc", None),
    ],
)
def test_claims(relative: str, claimed: str | None) -> None:
    assert SingleMovie(Path("/nowhere")).claims(relative) == claimed
