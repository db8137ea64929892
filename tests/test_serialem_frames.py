"""One movie per tilt, with SerialEM's metadata or a telling name."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.microscope import write_frame_mdoc_movie
from engines.readers.mrc import write_mrc
from monitor.errors import NotReady, Unreadable
from monitor.model import Tilt, TiltId
from monitor.sources.complete import WAIT_FOR_MDOC_S
from monitor.sources.movies import Movies
from monitor.sources.serialem_frames import SerialEMFrames
from tests.landings import SETTLED_S
from tests.reading import SEEN_TWICE_S, Reader

WHEN = datetime(2026, 2, 1, 10, 0, 0)


def frames(count: int = 4, dtype: str = "int16") -> NDArray[Any]:
    return np.random.default_rng(count).integers(-5, 900, (count, 6, 9)).astype(dtype)


def reader_of(root: Path, prefer: Literal["stack", "movie"] = "stack") -> Reader:
    return Reader(root, SerialEMFrames(Movies(root), prefer=prefer))


def test_a_movie_with_a_frame_mdoc(tmp_path: Path) -> None:
    folder = tmp_path / "s1" / "gridA"
    folder.mkdir(parents=True)
    path = folder / "TS_01_000_-3.0.mrc"
    write_frame_mdoc_movie(path, frames(), -2.987, WHEN, 1.971, exposure_dose_e_per_A2=2.3)
    reader = reader_of(tmp_path)
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
            tilts_expected=1,
            aliases=(TiltId("s1/gridA/TS_01", -3.0, None, "TS_01_000_-3.0.mrc#mdoc"),),
            movie="TS_01_000_-3.0.mrc",
        )
    ]
    np.testing.assert_array_equal(reader.source.pixels(reader.seen[0]), frames().sum(axis=0))
    assert reader.read("s1/gridA/TS_01_000_-3.0.mrc") is None
    assert len(reader.seen) == 1


def test_the_real_series(tmp_path: Path, realdata: Path) -> None:
    reader = reader_of(tmp_path)
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
    reader = reader_of(tmp_path)
    assert reader.read("a_001_0.0.mrc") is None
    assert (reader.source.pixels(reader.seen[0]) == 36_000).all()


def test_a_single_image_keeps_its_dtype(tmp_path: Path) -> None:
    write_frame_mdoc_movie(tmp_path / "a_001_0.0.mrc", frames()[0], 0.0, WHEN, 2.0)
    reader = reader_of(tmp_path)
    assert reader.read("a_001_0.0.mrc") is None
    assert reader.source.pixels(reader.seen[0]).dtype == np.int16


def test_order_goes_by_time_where_names_hold_no_number(tmp_path: Path) -> None:
    reader = reader_of(tmp_path)
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
    reader = reader_of(tmp_path)
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
    error = reader_of(tmp_path).read(path.name, SETTLED_S)
    assert isinstance(error, Unreadable)
    assert error.reason == "truncated"
    assert "'a_001_0.0.mrc' has" in str(error)


def test_the_mdoc_is_waited_for_and_does_not_double_the_tilt(tmp_path: Path) -> None:
    path = tmp_path / "TS_01_003_9.0.mrc"
    mdoc = tmp_path / "TS_01_003_9.0.mrc.mdoc"
    write_frame_mdoc_movie(path, frames(), 9.02, WHEN, 2.0)
    text = mdoc.read_bytes()
    mdoc.unlink()
    reader = reader_of(tmp_path)
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
    reader = reader_of(tmp_path)
    for minute in range(2):
        write_frame_mdoc_movie(path, frames(), 9.0, WHEN + timedelta(minutes=minute), 2.0)
        assert reader.read(path.name) is None
    assert len(reader.seen) == 2


def test_a_cut_mdoc_is_waited_for_and_then_believed_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "run_0003.mrc"
    write_frame_mdoc_movie(path, frames(), -52.0, WHEN, 2.0)
    mdoc = tmp_path / "run_0003.mrc.mdoc"
    text = mdoc.read_bytes()
    reader = reader_of(tmp_path)
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
    error = reader_of(tmp_path).read("square_7.mrc", SETTLED_S)
    assert isinstance(error, Unreadable)
    assert error.reason == "no_angle"


def test_missing_frames_are_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "a_001_0.0.mrc"
    write_frame_mdoc_movie(path, frames(10), 0.0, WHEN, 2.0)
    write_mrc(path, frames(3), 2.0)
    reader = reader_of(tmp_path)
    error = reader.read(path.name)
    assert isinstance(error, NotReady)
    assert error.reason == "frames"
    assert reader.read(path.name, WAIT_FOR_MDOC_S) is None, "the file may hold the sum only"


def test_a_movie_that_changes_under_the_reader_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a_001_0.0.mrc"
    write_frame_mdoc_movie(path, frames(), 0.0, WHEN, 2.0)
    reader = reader_of(tmp_path)
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
        ("s/TS_01_000_0.0.tif", "s/TS_01_000_0.0.tif"),
        ("s/TS_01_000_0.0.tiff.mdoc", "s/TS_01_000_0.0.tiff"),
        ("s/TS_01_000_0.0.eer", "s/TS_01_000_0.0.eer"),
        ("s/TS_01_000_0.0_EER.eer", "s/TS_01_000_0.0_EER.eer"),
        ("s/Position_1_001_0.00_20260201_100000_EER.eer", None),
        ("s/TS_01_gain.tiff", None),
        ("s/Position_1_override.mdoc", None),
        ("s/Position_1.mdoc", None),
    ],
)
def test_claims(relative: str, claimed: str | None) -> None:
    assert SerialEMFrames(Movies(Path("/nowhere"))).claims(relative) == claimed


def test_a_frame_mdoc_may_hold_the_section_of_a_stack_too(tmp_path: Path) -> None:
    path = tmp_path / "TS_01_000_3.0.mrc"
    write_frame_mdoc_movie(path, frames(), 3.01, WHEN, 2.0)
    mdoc = tmp_path / f"{path.name}.mdoc"
    section = "\n[ZValue = 4]\nTiltAngle = 44.0\nDateTime = 01-Feb-2026  11:00:00\n"
    mdoc.write_text(mdoc.read_text() + section)
    reader = reader_of(tmp_path)
    assert reader.read(path.name) is None
    assert [tilt.angle_deg for tilt in reader.seen] == [3.01]


def test_a_movie_is_not_published_again_when_its_mdoc_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "TS_01_003_9.0.mrc"
    write_frame_mdoc_movie(path, frames(), 9.02, WHEN, 2.0)
    reader = reader_of(tmp_path)
    assert reader.read(path.name) is None
    (tmp_path / f"{path.name}.mdoc").unlink()
    reader.source = SerialEMFrames(Movies(tmp_path))  # as after a restart
    for quiet_s in (SEEN_TWICE_S, WAIT_FOR_MDOC_S, SETTLED_S):
        assert reader.read(path.name, quiet_s) is None
    assert len(reader.seen) == 1


def test_a_movie_with_a_date_in_its_name_goes_by_that_too(tmp_path: Path) -> None:
    path = tmp_path / "2026-02-01_09.59.58_TS_01_003_9.0.mrc"
    write_frame_mdoc_movie(path, frames(), 9.02, WHEN, 2.0)
    reader = reader_of(tmp_path)
    assert reader.read(path.name) is None
    assert reader.seen[0].aliases == (TiltId("TS_01", 9.0, "2026-02-01T09:59:58"),)
    (tmp_path / f"{path.name}.mdoc").unlink()
    assert reader.read(path.name, SETTLED_S) is None
    assert len(reader.seen) == 1


@pytest.mark.parametrize("stack", ["s/TS_01.mrc", "s/frames/TS_01.st", "s/stacks/TS_01.mrc"])
def test_a_movie_gives_way_to_the_stack_of_its_series(tmp_path: Path, stack: str) -> None:
    movie = "s/frames/TS_01_003_9.0.mrc"
    for name in (stack, movie):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    write_frame_mdoc_movie(tmp_path / movie, frames(), 9.0, WHEN, 2.0)
    reader = reader_of(tmp_path)
    assert reader.read(movie) is None, "there is no stack"
    reader.known.clear()
    (tmp_path / stack).write_bytes(b"")
    error = reader.read(movie)
    assert isinstance(error, NotReady) and error.reason == "stack"
    assert reader.read(movie, WAIT_FOR_MDOC_S) is None
    assert reader_of(tmp_path, "movie").read(movie) is None, "the movie is preferred"


def test_the_stack_of_a_series_may_lack_the_label_of_the_navigator(tmp_path: Path) -> None:
    movie = "TS_001_29_00001_-10.0.mrc"
    write_frame_mdoc_movie(tmp_path / movie, frames(), -10.0, WHEN, 2.0)
    (tmp_path / "TS_001.mrc").write_bytes(b"")
    assert isinstance(reader_of(tmp_path).read(movie), NotReady)
    (tmp_path / "TS_001.mrc").rename(tmp_path / "TS_002.mrc")
    assert reader_of(tmp_path).read(movie) is None


def test_a_series_is_expected_to_have_as_many_tilts_as_are_announced(tmp_path: Path) -> None:
    reader = reader_of(tmp_path)
    counts = []
    for number, angle in enumerate((0.0, 3.0, -3.0)):
        path = tmp_path / f"TS_01_{number:03d}_{angle}.mrc"
        write_frame_mdoc_movie(path, frames(), angle, WHEN + timedelta(seconds=number), 2.0)
        write_frame_mdoc_movie(tmp_path / f"TS_02_{number:03d}_{angle}.mrc", frames(), 0, WHEN, 2.0)
        assert reader.read(path.name) is None
        counts.append(reader.seen[-1].tilts_expected)
    assert counts == [1, 2, 3]


def test_the_targets_of_pacetomo_share_a_lamella(tmp_path: Path) -> None:
    reader = reader_of(tmp_path)
    (tmp_path / "s").mkdir()
    for target in (1, 2):
        name = f"s/lam_ts_{target:03d}_tilt_001_angle_-3.0.mrc"
        write_frame_mdoc_movie(tmp_path / name, frames(), -3.0, WHEN, 2.0)
        assert reader.read(name) is None
    assert [tilt.series for tilt in reader.seen] == ["lam_ts_001", "lam_ts_002"]
    assert {tilt.lamella for tilt in reader.seen} == {"s/lam"}


def test_a_known_movie_whose_mdoc_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    write_mrc(tmp_path / "TS_01_003_9.0.mrc", frames(), 2.0)
    reader = reader_of(tmp_path)
    assert reader.read("TS_01_003_9.0.mrc", WAIT_FOR_MDOC_S) is None
    assert reader.read("TS_01_003_9.0.mrc") is None
    assert len(reader.seen) == 1


def test_every_real_mdoc_gives_the_right_tilt(tmp_path: Path, realdata: Path) -> None:
    mdocs = sorted((realdata / "serialem-frame-mdocs").iterdir())
    reader = reader_of(tmp_path)
    for mdoc in mdocs:
        write_mrc(tmp_path / mdoc.name.removesuffix(".mdoc"), frames(10), 1.971)
        (tmp_path / mdoc.name).write_bytes(mdoc.read_bytes())
    # As they may lie there after a restart: in no order.
    for mdoc in sorted(mdocs, key=lambda path: path.name[::-1]):
        assert reader.read(mdoc.name.removesuffix(".mdoc")) is None
    tilts = sorted(reader.seen, key=lambda tilt: tilt.order or 0)
    assert [tilt.order for tilt in tilts] == list(range(61))
    assert {(tilt.series, tilt.tilts_expected) for tilt in tilts} == {("TS_019", 61)}
    times = [tilt.acquired_at or "" for tilt in tilts]
    assert times == sorted(times) and (times[0], times[-1]) == (
        "2023-06-06T23:51:26",
        "2023-06-07T00:17:28",
    )
    for tilt, mdoc in zip(tilts, mdocs, strict=True):
        text = dict(line.split(" = ", 1) for line in mdoc.read_text().splitlines() if " = " in line)
        assert tilt.angle_deg == float(text["TiltAngle"])
        assert tilt.exposure_dose_e_per_A2 == float(text["ExposureDose"])
        assert tilt.pixel_size_angstrom == float(text["PixelSpacing"])
        assert tilt.movie == text["SubFramePath"].strip()
