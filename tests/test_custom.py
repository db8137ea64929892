"""Files that a user's own pattern or table explains."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.microscope_frames import write_tiff_movie
from engines.readers.mrc import write_mrc
from monitor.errors import NotReady, Unreadable
from monitor.model import TiltId
from monitor.settings import AcquisitionSettings, CustomSettings
from monitor.sources import all_sources
from monitor.sources.angle_table import angle_in, parse_table
from monitor.sources.at_rest import AT_REST_S, AtRest
from monitor.sources.complete import GIVE_UP_AFTER_S
from monitor.sources.custom import Custom
from monitor.sources.movies import Movies
from monitor.sources.name_pattern import (
    LONGEST_PATH,
    CustomName,
    NamePattern,
    is_fast_enough,
    time_in,
)
from tests.landings import SETTLED_S
from tests.reading import Reader

IMAGE = np.ones((6, 9), np.int16)


class Clock:
    """Our own monotonic clock, in our own hands."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def patterned(root: Path, pattern: str) -> Reader:
    return Reader(root, Custom(Movies(root), CustomSettings(pattern=pattern)))


def tabled(root: Path, table: Path, clock: Clock) -> Reader:
    movies = Movies(root, at_rest=AtRest(clock=clock))
    reader = Reader(root, Custom(movies, CustomSettings(table=table)))
    clock.now_s += AT_REST_S
    return reader


def test_a_pattern_says_all_there_is_to_know(tmp_path: Path) -> None:
    folder = tmp_path / "day1" / "raw"
    folder.mkdir(parents=True)
    pattern = (
        r"(?P<session>[^/]+)/raw/(?P<grid>g\d)-(?P<lamella>[a-z]+)(?P<series>\d)"
        r"_(?P<number>\d+)_(?P<time>\d{8}T\d{6})_(?P<angle>[-+]?\d+(?:[.,]\d+)?)deg"
    )
    reader = patterned(tmp_path, pattern)
    for number, angle in ((5, "0"), (6, "-3,5")):
        name = f"day1/raw/g1-lam2_{number}_20260201T10000{number}_{angle}deg.tif"
        write_tiff_movie(tmp_path / name, [IMAGE.astype(np.uint8)] * 3, 2.0)
        assert reader.source.claims(name) == name
        assert reader.read(name, SETTLED_S) is None
    tilt = reader.seen[1]
    assert tilt.id == TiltId("day1/raw/g1/2", -3.5, "2026-02-01T10:00:06")
    assert (tilt.session, tilt.grid, tilt.series) == ("day1", "g1", "2")
    assert tilt.lamella == "day1/raw/g1/lam"
    assert (tilt.order, tilt.tilts_expected, tilt.angle_deg) == (1, 2, -3.5)
    np.testing.assert_array_equal(reader.source.pixels(tilt), 3 * IMAGE)


@pytest.mark.parametrize(
    ("pattern", "relative", "expected"),
    [
        (r"(?P<series>.+)_(?P<angle>.+)\.mrc", "s/a_b_3.0.mrc", CustomName("a_b", 3.0)),
        (r"(?P<series>.+)_(?P<angle>.+)", "s/a_b_3.0.mrc", CustomName("a_b", 3.0)),
        (r"(?P<series>TS_\d+)_(?P<angle>-?\d+\.\d)", "s/TS_1_-3.0.eer", CustomName("TS_1", -3.0)),
        (r"s/(?P<series>\w+)/(?P<angle>.+)", "s/TS_1/-10p5.tif", CustomName("TS_1", -10.5)),
        (r"(?P<series>\w+)/(?P<angle>.+)", "s/TS_1/3.0.tif", CustomName("s", None)),
        (r"(?P<series>\w+?)_(?P<angle>\d\.\d)", "TS_13.0.tif", None),
        (r"(?P<series>\w+?)_(?P<angle>[a-z]+)", "TS_abc.tif", CustomName("TS", None)),
        (r"(?P<series>\w+?)_(?P<angle>\d+)", "TS_91.tif", CustomName("TS", None)),
        (r"(?P<series>.*)_(?P<angle>\d+)", "_9.tif", None),
        (r"(?P<series>.+)_(?P<angle>.+)", "x" * LONGEST_PATH + "_3.0.mrc", None),
    ],
)
def test_what_patterns_find(pattern: str, relative: str, expected: CustomName | None) -> None:
    assert NamePattern(pattern).read(relative) == expected


@given(
    series=st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,8}", fullmatch=True),
    number=st.integers(0, 999),
    angle=st.integers(-9000, 9000).map(lambda hundredths: hundredths / 100),
)
def test_what_is_joined_is_taken_apart(series: str, number: int, angle: float) -> None:
    pattern = NamePattern(r"(?P<series>\w+)-(?P<number>\d+)@(?P<angle>[^@]+)")
    for text in (f"{angle:+.2f}", f"{angle:.2f}".replace(".", ",")):
        found = pattern.read(f"s/{series}-{number:03d}@{text}.mrc")
        assert found == CustomName(series, angle, number)


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("(", "is no regular expression"),
        ("(?P<series>a){99999999999999999999}", "is no regular expression"),
        ("(?P<series>.*)", "lacks the group (?P<angle>...)"),
        ("(?P<angle>.*)", "lacks the group (?P<series>...)"),
        ("(?P<series>a)(?P<angle>b)(?P<tilt>c)", "has the unknown group 'tilt'"),
    ],
)
def test_patterns_that_are_refused(pattern: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        NamePattern(pattern)


def test_a_pattern_that_may_take_years_is_found_out() -> None:
    assert not is_fast_enough(r"(?P<series>(\w+)+)=(?P<angle>.*)")
    assert not is_fast_enough(r"TS-(?P<series>(?:[a-z0-9]+-?)*)_(?P<angle>.*)!")
    assert is_fast_enough(r"(?P<session>.*)/(?P<series>.*)_(?P<number>\d+)_(?P<angle>.*)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20260201_100005", "2026-02-01T10:00:05"),
        ("2026-02-01T10:00:05", "2026-02-01T10:00:05"),
        ("2026-02-01_10.00.05", "2026-02-01T10:00:05"),
        ("01-Feb-2026  10:00:05", "2026-02-01T10:00:05"),
        ("20261301100005", None),
        ("10:00:05", None),
        ("", None),
    ],
)
def test_times_in_names(text: str, expected: str | None) -> None:
    assert time_in(text) == expected


def test_what_is_no_angle_is_no_tilt(tmp_path: Path) -> None:
    write_mrc(tmp_path / "TS_abc.mrc", IMAGE, 2.0)
    reader = patterned(tmp_path, r"(?P<series>\w+?)_(?P<angle>\w+)")
    error = reader.read("TS_abc.mrc", SETTLED_S)
    assert isinstance(error, Unreadable) and error.reason == "no_angle"


def test_only_what_fits_is_claimed() -> None:
    source = patterned(Path("/nowhere"), r"(?P<series>TS_\d+)_(?P<angle>-?\d+\.\d)").source
    for relative in ("s/other.mrc", "s/TS_1_3.0.jpg", "s/.TS_1_3.0.mrc", "s/TS_1_3.0.mrc~"):
        assert source.claims(relative) is None
    assert source.claims("s/TS_1_3.0.mrc") == "s/TS_1_3.0.mrc"


TABLE = """\ufeff# angles of the night
file name; tilt angle (deg)

TS_1_0001.mrc;-3,0
TS_1_0002; 0
"C:\\data\\night\\TS_1_0003.mrc";+3.5
/mnt/x/TS_1_0004.frames.mrc;[6.0]
TS_1_0005.tif;\u22123.5
"""


def test_a_table_however_it_is_written() -> None:
    table = parse_table(TABLE)
    assert table.bad_lines == []
    angles = [table.angle_deg(f"TS_1_000{number}.mrc") for number in range(7)]
    assert angles == [None, -3.0, 0.0, 3.5, 6.0, -3.5, None]
    assert table.angle_deg("s/TS_1_0001.mrc") == -3.0
    assert table.angle_deg("s/TS_1_0003.eer") is None, "the line is of another folder"
    assert table.angle_deg("s/night/TS_1_0003.eer") is None
    assert table.angle_deg("night/TS_1_0003.eer") == 3.5


@pytest.mark.parametrize(
    ("text", "angle"),
    [
        ("x.mrc,3.5", 3.5),
        ("x.mrc\t-3,5", -3.5),
        ("x.mrc   -3.5", -3.5),
        ('x.mrc,"-3,5"', -3.5),
        ("name,angle\nx.mrc,-3,5", -3.5),
        ("angle,dose,image\n-3.5,2,x.mrc", -3.5),
        ("x.mrc,1\nx.mrc,-3.5", -3.5),
        ("x.mrc;-3.5;", -3.5),
        ("x.mrc,-3.5\r\ny.mrc,2\r\n", -3.5),
    ],
)
def test_lines_that_are_understood(text: str, angle: float) -> None:
    table = parse_table(text)
    assert (table.bad_lines, table.angle_deg("x.mrc")) == ([], angle)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("x.mrc,abc", 1),
        ("a,1\nx.mrc,95", 2),
        ("x.mrc", 1),
        ("x.mrc,-3,5", 1),
        ("name,angle,dose\nx.mrc,3", 2),
        (";3.0", 1),
        ("x.mrc,nan", 1),
        ("x.mrc,1e1", 1),
    ],
)
def test_lines_that_are_refused_with_their_number(text: str, number: int) -> None:
    table = parse_table(text)
    assert [one.number for one in table.bad_lines] == [number]
    assert table.angle_deg("x.mrc") is None
    assert str(table.bad_lines[0]).startswith(f"line {number}: ")


def test_one_name_in_two_folders() -> None:
    table = parse_table("a/x.mrc,1\nb/x.mrc,2\n")
    assert (table.angle_deg("s/a/x.mrc"), table.angle_deg("s/b/x.mrc")) == (1.0, 2.0)
    assert table.angle_deg("s/c/x.mrc") is None
    assert table.angle_deg("x.mrc") is None, "it could be either"


def test_a_last_line_may_be_cut() -> None:
    text = "x.mrc,3\ny.mrc,-5"
    assert parse_table(text, is_settled=False).angle_deg("y.mrc") is None
    assert parse_table(text).angle_deg("y.mrc") == -5.0


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    parse_table(text).angle_deg("x.mrc")
    angle = angle_in(text)
    assert angle is None or abs(angle) <= 90.0
    time_in(text)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,12}", fullmatch=True),
        st.integers(-9000, 9000).map(lambda hundredths: hundredths / 100),
        max_size=8,
    ),
    st.sampled_from([";", "\t"]),
    st.booleans(),
)
def test_tables_are_read_back(angles: dict[str, float], delimiter: str, comma: bool) -> None:
    lines = [f"{name}.mrc{delimiter}{angle:.2f}" for name, angle in angles.items()]
    text = "\n".join(line.replace(".", ",") if comma else line for line in lines)
    text = text.replace(",mrc", ".mrc")
    table = parse_table(text)
    assert not table.bad_lines
    assert {name: table.angle_deg(f"s/{name}.tif") for name in angles} == angles


def test_a_table_may_grow_while_files_wait(tmp_path: Path) -> None:
    root, path, clock = tmp_path / "data", tmp_path / "angles.csv", Clock()
    root.mkdir()
    for number in (1, 2):
        write_mrc(root / f"n_000{number}.mrc", IMAGE, 2.0)
    path.write_text("name,angle\nn_0001,3.0\n")
    reader = tabled(root, path, clock)
    assert reader.read("n_0001.mrc", SETTLED_S) is None
    for quiet_s in (2.0, 1000.0):
        error = reader.read("n_0002.mrc", quiet_s)
        assert isinstance(error, NotReady) and error.reason == "no_angle", "for as long as it takes"
    with path.open("a") as table:
        table.write("n_0002,-3.0")
    assert isinstance(reader.read("n_0002.mrc", 2.0), NotReady)
    clock.now_s += AT_REST_S
    assert isinstance(reader.read("n_0002.mrc", 2.0), NotReady), "the line may not be whole"
    clock.now_s += GIVE_UP_AFTER_S
    assert reader.read("n_0002.mrc", 2.0) is None
    assert [tilt.angle_deg for tilt in reader.seen] == [3.0, -3.0]
    assert [tilt.order for tilt in reader.seen] == [0, 1]
    assert {tilt.series for tilt in reader.seen} == {"n"}


def test_a_line_that_was_put_right_brings_no_tilt_twice(tmp_path: Path) -> None:
    path, clock = tmp_path / "angles.csv", Clock()
    write_mrc(tmp_path / "n_0001.mrc", IMAGE, 2.0)
    path.write_text("n_0001,3.0\n")
    reader = tabled(tmp_path, path, clock)
    assert reader.read("n_0001.mrc") is None
    path.write_text("n_0001,-3.0\n")
    reader.read("n_0001.mrc")
    clock.now_s += AT_REST_S
    assert reader.read("n_0001.mrc") is None
    assert [tilt.angle_deg for tilt in reader.seen] == [3.0]


def test_a_table_that_breaks_later_keeps_its_last_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "angles.csv", Clock()
    write_mrc(tmp_path / "n_0001.mrc", IMAGE, 2.0)
    path.write_text("n_0001,3.0\n")
    reader = tabled(tmp_path, path, clock)
    path.unlink()
    caplog.set_level(logging.WARNING)
    assert reader.read("n_0001.mrc") is None or path.exists() is False
    path.write_text("bad line\nn_0001,3.0\n")
    reader.read("n_0001.mrc")
    clock.now_s += AT_REST_S
    for _ in range(3):
        reader.read("n_0001.mrc")
    assert [tilt.angle_deg for tilt in reader.seen] == [3.0]
    assert len(caplog.records) == 2, "each said once"
    assert "line 1" in caplog.text


def test_the_layout_is_chosen_in_the_settings(tmp_path: Path) -> None:
    settings = AcquisitionSettings(
        directory=tmp_path,
        layout="custom",
        custom=CustomSettings(pattern=r"(?P<series>.+)_at_(?P<angle>.+)"),
    )
    write_mrc(tmp_path / "a_at_3.0.mrc", IMAGE, 2.0)
    write_mrc(tmp_path / "a_001_3.0.mrc", IMAGE, 2.0)
    reader = Reader(tmp_path, all_sources(tmp_path, settings))
    assert reader.source.claims("a_001_3.0.mrc") is None
    assert reader.read("a_at_3.0.mrc", SETTLED_S) is None
    assert [(tilt.series, tilt.angle_deg) for tilt in reader.seen] == [("a", 3.0)]
