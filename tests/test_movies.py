"""When a movie of any kind is complete, how seldom it is opened, and its gain correction."""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.microscope_eer import eer_movie_steps, write_eer_movie
from engines.microscope_frames import mrc_movie_steps, tiff_movie_steps, write_tiff_movie
from engines.microscope_movies import frame_mdoc
from engines.microscope_step import Step
from engines.readers.mrc import write_mrc
from monitor.errors import NotReady, Unreadable
from monitor.model import TiltId
from monitor.settings import GainSettings
from monitor.sources.at_rest import AT_REST_S, AtRest
from monitor.sources.complete import WAIT_FOR_MDOC_S
from monitor.sources.movies import Movies
from monitor.sources.serialem_frames import SerialEMFrames
from monitor.sources.tomography5 import Tomography5
from tests.landings import SETTLED_S, landed
from tests.opened_files import opened_below
from tests.reading import SEEN_TWICE_S, Reader

WHEN = datetime(2026, 2, 1, 10, 0, 0)
SHAPE = (8, 12)


def frames(count: int = 4) -> NDArray[Any]:
    return np.random.default_rng(count).integers(1, 9, (count, *SHAPE)).astype(np.uint8)


def write_mrc_frames(path: Path, movie: NDArray[Any]) -> None:
    write_mrc(path, movie.astype(np.int16), 2.0)


def write_lzw(path: Path, movie: NDArray[Any]) -> None:
    write_tiff_movie(path, movie, 2.0)


def write_packed(path: Path, movie: NDArray[Any]) -> None:
    write_tiff_movie(path, movie, 2.0, compression="zip", bits=4)


def write_electrons(path: Path, movie: NDArray[Any]) -> None:
    write_eer_movie(path, movie > 4, 2.0)


WRITERS = {
    "a_001_3.0.mrc": write_mrc_frames,
    "a_001_3.0.tif": write_lzw,
    "b_001_3.0.tiff": write_packed,
    "a_001_3.0.eer": write_electrons,
}
APPENDED = {name: write for name, write in WRITERS.items() if not name.endswith(".mrc")}
Write = Callable[[Path, NDArray[Any]], None]


def write_mdoc(path: Path, count: int) -> None:
    path.with_name(path.name + ".mdoc").write_text(frame_mdoc(path.name, count, 3.02, WHEN, 2.0))


def serialem(root: Path) -> Reader:
    return Reader(root, SerialEMFrames(Movies(root)))


@pytest.mark.parametrize(("name", "write"), WRITERS.items())
def test_movies_of_every_kind_are_summed(tmp_path: Path, name: str, write: Write) -> None:
    write(tmp_path / name, frames())
    write_mdoc(tmp_path / name, 4)
    reader = serialem(tmp_path)
    assert reader.read(name) is None
    (tilt,) = reader.seen
    assert (tilt.angle_deg, tilt.movie, tilt.series) == (3.02, name, name[0])
    expected = (frames() > 4) if name.endswith(".eer") else frames()
    np.testing.assert_array_equal(reader.source.pixels(tilt), expected.sum(axis=0))
    is_eer = name.endswith(".eer")
    assert tilt.counts_per_electron == (1.0 if is_eer else 221.663), "EER counts electrons"


@pytest.mark.parametrize(("name", "write"), WRITERS.items())
def test_nothing_is_opened_before_two_scans_saw_the_same(
    tmp_path: Path, name: str, write: Write
) -> None:
    write(tmp_path / name, frames())
    write_mdoc(tmp_path / name, 4)
    reader = serialem(tmp_path)
    with opened_below(tmp_path) as opened:
        error = reader.read(name, quiet_s=0.0)
        assert isinstance(error, NotReady) and error.reason == "settling"
        assert opened == []
        assert reader.read(name) is None
        assert opened == [f"{name}.mdoc", name], "the movie, and only after its mdoc"


@pytest.mark.parametrize(("name", "write"), WRITERS.items())
def test_an_incomplete_file_is_opened_twice_at_most_while_it_does_not_change(
    tmp_path: Path, name: str, write: Write
) -> None:
    path = tmp_path / name
    write(path, frames())
    write_mdoc(path, 4)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    reader = serialem(tmp_path)
    with opened_below(tmp_path) as opened:
        for second in range(2, 14):
            error = reader.read(name, second)
            assert isinstance(error, NotReady) and error.reason == "truncated"
        assert opened.count(name) == 1
        for second in range(15, 60, 5):
            error = reader.read(name, second)
            assert isinstance(error, Unreadable) and error.reason == "truncated"
        assert opened.count(name) == 2, "once more when nothing more is to be expected"
    path.write_bytes(whole)
    assert reader.read(name) is None


def test_a_file_that_changed_since_it_was_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "a_001_3.0.mrc"
    write_mrc_frames(path, frames())
    write_mdoc(path, 4)
    source = SerialEMFrames(Movies(tmp_path))
    offer = landed(tmp_path, path.name, SEEN_TWICE_S)
    write_mrc_frames(path, frames(5))
    with pytest.raises(NotReady, match="only just changed"):
        list(source.new_tilts(offer, lambda tilt_id: False))


def growing_mrc(path: Path, movie: NDArray[Any]) -> Iterator[Step]:
    # As of K2 and K3: the header announces more frames than will come, and is put right last.
    return mrc_movie_steps(path, movie.astype(np.int16), 2.0, len(movie) + 2, chunk_bytes=50)


def growing_tiff(path: Path, movie: NDArray[Any]) -> Iterator[Step]:
    return tiff_movie_steps(path, movie, 2.0)


def growing_eer(path: Path, movie: NDArray[Any]) -> Iterator[Step]:
    return eer_movie_steps(path, movie > 4, 2.0)


@pytest.mark.parametrize(
    ("name", "grow"),
    [("a_1_3.0.mrc", growing_mrc), ("a_1_3.0.tif", growing_tiff), ("a_1_3.0.eer", growing_eer)],
)
def test_no_part_of_a_movie_is_taken_for_all_of_it(
    tmp_path: Path, name: str, grow: Callable[[Path, NDArray[Any]], Iterator[Step]]
) -> None:
    # The mdoc precedes the end of the movie, and the writer pauses after every write.
    write_mdoc(tmp_path / name, 4)
    reader = serialem(tmp_path)
    steps = list(grow(tmp_path / "count", frames()))
    for number, _ in enumerate(grow(tmp_path / name, frames()), start=1):
        error = reader.read(name, 14.0)
        is_all = (tmp_path / name).read_bytes() == (tmp_path / "count").read_bytes()
        if not is_all and number < len(steps):
            assert isinstance(error, NotReady), (number, error)
            assert reader.seen == []
    assert reader.read(name, 14.0) is None
    expected = (frames() > 4) if name.endswith(".eer") else frames()
    np.testing.assert_array_equal(reader.source.pixels(reader.seen[0]), expected.sum(axis=0))
    assert len(reader.seen) == 1


@pytest.mark.parametrize(("name", "write"), APPENDED.items())
def test_pages_are_counted_where_the_mdoc_tells_how_many(
    tmp_path: Path, name: str, write: Write
) -> None:
    write(tmp_path / name, frames(3))
    write_mdoc(tmp_path / name, 4)
    reader = serialem(tmp_path)
    for quiet_s in (SEEN_TWICE_S, WAIT_FOR_MDOC_S + 1, 14.0):
        error = reader.read(name, quiet_s)
        assert isinstance(error, NotReady) and error.reason == "frames"
    write(tmp_path / name, frames(4))
    assert reader.read(name) is None


@pytest.mark.parametrize(("name", "write"), APPENDED.items())
def test_fewer_pages_than_told_are_a_tilt_when_no_more_come(
    tmp_path: Path, name: str, write: Write
) -> None:
    write(tmp_path / name, frames(3))
    write_mdoc(tmp_path / name, 4)
    assert serialem(tmp_path).read(name, SETTLED_S) is None


@pytest.mark.parametrize(("name", "write"), APPENDED.items())
def test_pages_without_any_mdoc_are_waited_for_longer(
    tmp_path: Path, name: str, write: Write
) -> None:
    write(tmp_path / name, frames())
    reader = serialem(tmp_path)
    error = reader.read(name, WAIT_FOR_MDOC_S - 0.1)
    assert isinstance(error, NotReady) and error.reason == "no_mdoc"
    assert reader.read(name, WAIT_FOR_MDOC_S) is None
    assert reader.seen[0].id == TiltId(name[0], 3.0, None, name)


def test_more_frames_than_told_are_no_proof_at_first(tmp_path: Path) -> None:
    # The mdoc of an EER movie may tell of the fractions that the program was to make of it.
    reader = serialem(tmp_path)
    for number in (1, 2):
        name = f"a_{number:03d}_3.0.eer"
        write_electrons(tmp_path / name, frames(6))
        write_mdoc(tmp_path / name, 3)
        if number == 1:
            error = reader.read(name)
            assert isinstance(error, NotReady) and error.reason == "frames"
            assert reader.read(name, WAIT_FOR_MDOC_S) is None
            reader.known.clear()
        else:
            assert reader.read(name) is None, "as many as the one before"


def test_as_many_frames_as_the_movies_before_are_enough(tmp_path: Path) -> None:
    names = [f"Position_1_{number:03d}_{number}.00_20260201_10000{number}_fractions.tiff"
             for number in range(1, 4)]  # fmt: skip
    reader = Reader(tmp_path, Tomography5(Movies(tmp_path)))
    write_lzw(tmp_path / names[0], frames(4))
    error = reader.read(names[0])
    assert isinstance(error, NotReady) and error.reason == "frames"
    assert reader.read(names[0], WAIT_FOR_MDOC_S) is None
    write_lzw(tmp_path / names[1], frames(3))
    assert isinstance(reader.read(names[1]), NotReady)
    write_lzw(tmp_path / names[1], frames(4))
    assert reader.read(names[1]) is None, "without waiting"
    write_lzw(tmp_path / names[2], frames(3))
    assert isinstance(reader.read(names[2], WAIT_FOR_MDOC_S), NotReady), "it may have stalled"
    assert reader.read(names[2], 9.0) is None


def test_a_movie_full_of_zeros_from_the_start_is_waited_for(tmp_path: Path) -> None:
    # Some programs reserve all the space before they copy.
    path = tmp_path / "a_001_3.0.mrc"
    movie = np.ones((4, 40, 60), np.int16)
    write_mrc_frames(path, movie)
    write_mdoc(path, 4)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 4800] + bytes(4800))
    reader = serialem(tmp_path)
    assert reader.read(path.name) is None
    with pytest.raises(NotReady, match="zeros"):
        reader.source.pixels(reader.seen.pop())
    reader.known.clear()
    assert reader.read(path.name, SETTLED_S) is None
    assert reader.source.pixels(reader.seen[0]).shape == (40, 60), "and then taken as it is"


def test_damaged_pixels_are_given_up_only_when_nobody_writes(tmp_path: Path) -> None:
    path = tmp_path / "a_001_3.0.tif"
    write_lzw(path, frames())
    write_mdoc(path, 4)
    raw = bytearray(path.read_bytes())
    raw[8:40] = b"\xff" * 32
    path.write_bytes(raw)
    reader = serialem(tmp_path)
    assert reader.read(path.name) is None
    with pytest.raises(NotReady) as waiting:
        reader.source.pixels(reader.seen.pop())
    assert waiting.value.reason == "decode"
    reader.known.clear()
    assert reader.read(path.name, SETTLED_S) is None
    with pytest.raises(Unreadable):
        reader.source.pixels(reader.seen[0])


def test_frames_are_asked_for_at_the_pace_that_is_given(tmp_path: Path) -> None:
    asked: list[int] = []
    source = SerialEMFrames(Movies(tmp_path, pace=asked.append))
    reader = Reader(tmp_path, source)
    for name, write in WRITERS.items():
        write(tmp_path / name, frames())
        write_mdoc(tmp_path / name, 4)
        assert reader.read(name) is None
        asked.clear()
        source.pixels(reader.seen[-1])
        assert sum(asked) > 0, name


class Clock:
    """Our own monotonic clock, in our own hands."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def gained(root: Path, reference: Path, clock: Clock) -> Reader:
    settings = GainSettings(reference=reference)
    reader = Reader(root, SerialEMFrames(Movies(root, settings, at_rest=AtRest(clock=clock))))
    clock.now_s += AT_REST_S
    return reader


def add_movie(root: Path, angle: float) -> str:
    name = f"a_{abs(int(angle)):03d}_{angle:.1f}.mrc"
    write_mrc_frames(root / name, frames())
    (root / f"{name}.mdoc").write_text(frame_mdoc(name, 4, angle, WHEN, 2.0))
    return name


def write_gain(path: Path, value: float) -> None:
    write_mrc(path, np.full(SHAPE, value, np.float32), None)


def test_a_gain_reference_is_applied_and_loaded_anew_when_it_changes(tmp_path: Path) -> None:
    root, reference, clock = tmp_path / "data", tmp_path / "gain.mrc", Clock()
    root.mkdir()
    write_gain(reference, 2.0)
    reader = gained(root, reference, clock)

    def factor_of_next(angle: float) -> float:
        assert reader.read(add_movie(root, angle)) is None
        corrected = reader.source.pixels(reader.seen[-1])
        factors = corrected / frames().sum(axis=0)
        assert factors.min() == factors.max()
        return float(factors[0, 0])

    assert factor_of_next(1.0) == 2.0
    write_gain(reference, 3.0)
    assert factor_of_next(2.0) == 2.0, "the new one may still be written to"
    clock.now_s += AT_REST_S
    assert factor_of_next(3.0) == 3.0
    reference.unlink()
    assert factor_of_next(4.0) == 1.0
    assert [tilt.flags for tilt in reader.seen] == [(), (), (), ("gain_missing",)]
    write_gain(reference, 4.0)
    assert isinstance(reader.read(add_movie(root, 5.0)), NotReady)
    clock.now_s += AT_REST_S
    assert factor_of_next(6.0) == 4.0
    assert reader.seen[-1].flags == ()


def test_the_first_reference_is_waited_for_but_not_for_long(tmp_path: Path) -> None:
    root, reference, clock = tmp_path / "data", tmp_path / "gain.mrc", Clock()
    root.mkdir()
    reader = gained(root, reference, clock)
    write_gain(reference, 2.0)
    name = add_movie(root, 1.0)
    with opened_below(tmp_path) as opened:
        error = reader.read(name)
        assert isinstance(error, NotReady) and error.reason == "gain"
        assert "gain.mrc" not in opened
    assert reader.read(name, WAIT_FOR_MDOC_S) is None
    assert reader.seen[0].flags == ("gain_missing",)


@pytest.mark.parametrize("trouble", ["missing", "garbage", "size"])
def test_without_a_usable_reference_movies_are_read_as_they_are(
    tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    root, reference = tmp_path / "data", tmp_path / "gain.mrc"
    root.mkdir()
    if trouble == "garbage":
        reference.write_bytes(b"x" * 5000)
    elif trouble == "size":
        write_mrc(reference, np.ones((5, 7), np.float32), None)
    reader = gained(root, reference, Clock())
    caplog.set_level(logging.WARNING)
    for angle in (1.0, 2.0, 3.0):
        assert reader.read(add_movie(root, angle)) is None
        tilt = reader.seen[-1]
        assert tilt.flags == ("gain_missing",)
        np.testing.assert_array_equal(reader.source.pixels(tilt), frames().sum(axis=0))
    assert len(caplog.records) == 1, "said once"
