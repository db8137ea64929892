from datetime import datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.sources.naming import (
    LooseSession,
    MovieName,
    first_position,
    image_of,
    is_ignored,
    is_named_by_pacetomo,
    loose_session,
    mdoc_of,
    parse_movie_name,
    place,
)

T5 = "20231020_234209"
T5_ISO = "2023-10-20T23:42:09"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TS_01_000_0.0.mrc", MovieName("TS_01", 0.0, 0)),
        ("TS_019_0008_-0.0.mrc", MovieName("TS_019", 0.0, 8)),
        ("TS_019_0060_-52.0.mrc.mdoc", MovieName("TS_019", -52.0, 60)),
        ("chrom_07_ts_010_167_000_-0.0.mrc", MovieName("chrom_07_ts_010", 0.0, 0)),
        ("TS_001_29_00001_-10.0.eer", MovieName("TS_001_29", -10.0, 1)),
        ("s_mmm_00993_33.0_Oct08_07.39.05.tif", MovieName("s_mmm", 33.0, 993)),
        (
            "2024-04-14_17.54.17_TS_001_51.0.tif",
            MovieName("TS_001", 51.0, None, "2024-04-14T17:54:17"),
        ),
        ("lam_2_ts_001_tilt_003_angle_-3.0.tif", MovieName("lam_2_ts_001", -3.0, 3)),
        ("lam_p02_ts_001_tilt_003_angle_3.0.mrc", MovieName("lam_p02_ts_001", 3.0, 3)),
        ("r_ts_009_r_ts_009_00001_-66.0.mrc", MovieName("r_ts_009", -66.0, 1)),
        ("TS_001_-3.0.mrc", MovieName("TS_001", -3.0)),
        ("de_0004_-10p0.mrc", MovieName("de", -10.0, 4)),
        ("L3_012_-12.0_X+1Y-1-2.mrc", MovieName("L3", -12.0, 12)),
        (
            "Position_1_001_[30.0]_date_time_fractions.tiff",
            MovieName("Position_1", 30.0, 1, None, True),
        ),
        (
            f"Position_1_001_0.00_{T5}_Fractions.mrc",
            MovieName("Position_1", 0.0, 1, T5_ISO, True),
        ),
        (f"Position_12_031_-10.00_{T5}_EER.eer", MovieName("Position_12", -10.0, 31, T5_ISO, True)),
        (
            f"Position_9_2_047_-46.10_{T5}_Fractions.mrc",
            MovieName("Position_9_2", -46.1, 47, T5_ISO, True),
        ),
        (f"T7_php_03_001_3.00_{T5}_fractions.mrc", MovieName("T7_php_03", 3.0, 1, T5_ISO, True)),
        (f"TS_1_001_-0.00_{T5}_Fractions.mrc", MovieName("TS_1", 0.0, 1, T5_ISO, True)),
        ("Position_1_001[10.00]_EER.eer", MovieName("Position_1", 10.0, 1, None, True)),
        ("Position_1_021[-30.00]_fractions.tiff", MovieName("Position_1", -30.0, 21, None, True)),
        (
            "Position_1_2_003_6.0_20250715_012434_EER.eer",
            MovieName("Position_1_2", 6.0, 3, "2025-07-15T01:24:34", True),
        ),
        (
            "name1_004_9.0_20250715_012434_fractions.tiff",
            MovieName("name1", 9.0, 4, "2025-07-15T01:24:34", True),
        ),
        ("TS_001_29_00001_-10.0_EER.eer", MovieName("TS_001_29", -10.0, 1)),
        ("frame_0001.mrc", MovieName("frame", None, 1)),
        ("L1.mrc", MovieName("L1")),
        ("lamella_ts_001.mrc", MovieName("lamella_ts_001")),
        ("grid_1.5_map.mrc", MovieName("grid_1.5_map")),
        ("map_99.5.mrc", MovieName("map_99.5")),
    ],
)
def test_names(name: str, expected: MovieName) -> None:
    assert parse_movie_name(name) == expected
    angle = parse_movie_name(name).angle_deg
    assert str(angle) != "-0.0"


@given(st.text(alphabet="aZ_.- 019µ\n"), st.floats(-89, 89), st.integers(0, 99_999))
def test_what_serialem_joins_is_taken_apart(base: str, angle: float, number: int) -> None:
    name = parse_movie_name(f"a{base}b_{number:05d}_{angle:.1f}.mrc".replace("/", ""))
    assert name.angle_deg == pytest.approx(round(angle, 1))
    assert name.number == number
    assert name.series


WORDS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,9}", fullmatch=True)
BASES = st.lists(WORDS, min_size=1, max_size=3).map("_".join)
ANGLES = st.integers(-9000, 9000).map(lambda hundredths: hundredths / 100 + 0.0)
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2099, 12, 31))


def iso(when: datetime) -> str:
    return when.isoformat(timespec="seconds")


@given(
    base=BASES,
    label=st.none() | st.integers(0, 99),
    number=st.integers(0, 99_999),
    angle=ANGLES,
    clock=st.none() | TIMES,
    hole=st.sampled_from(["", "_R2H3-1", "_X+1Y-1-2", "_3-7"]),
    end=st.sampled_from([".tif", ".tiff", ".mrc", ".eer", ".mrcs", ".tif.mdoc"]),
)
def test_names_of_serialem(
    base: str,
    label: int | None,
    number: int,
    angle: float,
    clock: datetime | None,
    hole: str,
    end: str,
) -> None:
    series = f"{base}x_{label}" if label is not None else f"{base}x"
    when = f"_{clock:%b%d}_{clock:%H.%M.%S}" if clock else ""
    found = parse_movie_name(f"{series}_{number:05d}_{angle:.1f}{when}{hole}{end}")
    assert found == MovieName(series, float(f"{angle:.1f}") + 0.0, number)


@given(base=BASES, angle=ANGLES, when=TIMES)
def test_names_of_serialem_that_begin_with_a_date(base: str, angle: float, when: datetime) -> None:
    found = parse_movie_name(f"{when:%Y-%m-%d_%H.%M.%S}_{base}x_{angle:.1f}.tif")
    assert found == MovieName(f"{base}x", float(f"{angle:.1f}") + 0.0, None, iso(when))


@given(
    root=BASES,
    target=st.integers(1, 999),
    number=st.integers(0, 999),
    angle=ANGLES,
    older=st.booleans(),
)
def test_names_of_pacetomo(root: str, target: int, number: int, angle: float, older: bool) -> None:
    series = f"{root}_ts_{target:03d}"
    middle = f"{series}_{number:05d}" if older else f"tilt_{number:03d}_angle"
    name = f"{series}_{middle}_{angle:.1f}.tif"
    assert parse_movie_name(name) == MovieName(series, float(f"{angle:.1f}") + 0.0, number)
    assert is_named_by_pacetomo(name) != older


@given(
    position=st.integers(1, 99).map(lambda n: f"Position_{n}") | BASES,
    beam=st.none() | st.integers(2, 30),
    number=st.integers(1, 999),
    angle=ANGLES,
    when=TIMES,
    kind=st.sampled_from(["Fractions.mrc", "fractions.tiff", "EER.eer"]),
)
def test_names_of_tomography(
    position: str, beam: int | None, number: int, angle: float, when: datetime, kind: str
) -> None:
    series = position if beam is None else f"{position}_{beam}"
    dated = f"{when:%Y%m%d_%H%M%S}"
    for text in (f"{angle:.2f}", f"[{angle:.2f}]"):
        found = parse_movie_name(f"{series}_{number:03d}_{text}_{dated}_{kind}")
        assert found == MovieName(series, angle, number, iso(when), True)
    old = parse_movie_name(f"{series}_{number:03d}[{angle:.2f}]_{kind}")
    assert old == MovieName(series, angle, number, None, True)


@pytest.mark.parametrize(
    ("series", "first"),
    [
        ("Position_9_2", "Position_9"),
        ("Position_9", "Position_9"),
        ("T7_php_03", "T7_php_03"),
        ("TS_1", "TS_1"),
        ("my_Position_9_2", "my_Position_9_2"),
    ],
)
def test_positions_around_one_share_its_lamella(series: str, first: str) -> None:
    assert first_position(series) == first


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_name_is_survived(name: str) -> None:
    assert parse_movie_name(name).series
    is_ignored(name)
    image_of(name)


@pytest.mark.parametrize(
    "relative",
    [
        "s/L1.mrc~",
        "s/L1.mrc.mdoc~",
        "s/L1.mrc-half1",
        "s/L1.mrc-unsorted",
        "s/L1_unsorted.mrc.mdoc",
        "s/L1.mrc-unsorted.mdoc",
        "s/L1.mrc.openTS",
        "s/.L1.mrc.Xy12zA",
        ".snapshot/s/L1.mrc",
        "s/root_tgt_001.mrc",
        "s/root_tgt_001_view.mrc",
        "s/root_tgt_001.mrc.mdoc",
        "s/L1_tempref.mrc",
        "s/L1.mrc.downloading",
        "s/Position_1_override.mdoc",
        "s/CountRef_20240101.mrc",
        "s/SuperRef_x.mrc",
        "s/20240101_gain_ref.mrc",
        "s/K3_gain.mrc",
        "s/FoilHole_1_gain.tiff",
        "s/FoilHole_1-gain-ref.MRC",
    ],
)
def test_leftovers_and_references_are_ignored(relative: str) -> None:
    assert is_ignored(relative)


@pytest.mark.parametrize(
    "relative",
    ["s/L1.mrc", "s/L1.mrc.mdoc", "a.b/TS_01_000_0.0.mrc", "s/half1_ts_001.mrc", "s/again_1.mrc"],
)
def test_tilts_are_not_ignored(relative: str) -> None:
    assert not is_ignored(relative)


def test_an_mdoc_belongs_to_its_image() -> None:
    assert image_of("s/L1.mrc.mdoc") == "s/L1.mrc"
    assert image_of("s/L1.st.mdoc") == "s/L1.st"
    assert image_of("s/L1.mrc") == "s/L1.mrc"
    assert image_of("s/Position_1.mdoc") == "", "it comes when the series is over"
    assert mdoc_of("s/L1.mrc") == "s/L1.mrc.mdoc"


def test_places() -> None:
    deep = place("s1/grid A/sub/L1.mrc", "L1")
    assert (deep.session, deep.grid) == ("s1", "grid A/sub")
    assert deep.lamella == deep.series_key == "s1/grid A/sub/L1"
    assert place("s1/L1.mrc", "L1").grid == ""
    loose = place("L1.mrc", "L1")
    assert (loose.session, loose.grid, loose.lamella) == ("", "", "L1")
    assert (
        place("s/gridA/TS_001.mrc", "TS_001").lamella
        != place("s/gridB/TS_001.mrc", "TS_001").lamella
    )


def test_loose_sessions_end_with_a_long_pause() -> None:
    start = datetime(2026, 1, 1, 10)
    known: dict[str, LooseSession] = {}
    names = []
    for hours in (0, 5, 16, 29, 30, 17, 28.5, -3, -20):
        session = loose_session(known.values(), start + timedelta(hours=hours), 12.0)
        known[session.name] = session
        names.append(session.name)
    first, second, third = "2026-01-01_10.00.00", "2026-01-02_15.00.00", "2025-12-31_14.00.00"
    assert names == [first, first, first, second, second, second, second, first, third]
    assert known[first].first_at == start - timedelta(hours=3)


@given(st.datetimes(), st.datetimes(), st.sampled_from([0.0, 12.0, 2e7, 1e300, float("inf")]))
@example(datetime.min, datetime.max, 12.0)
@example(datetime.max, datetime.min, 1e300)
def test_no_date_and_no_pause_is_too_large_for_loose_sessions(
    first: datetime, second: datetime, gap_h: float
) -> None:
    known = loose_session([], first, gap_h)
    found = loose_session([known], second, gap_h)
    near = abs((second - first).total_seconds()) <= gap_h * 3600
    assert (found.first_at <= first <= found.last_at) == near
    assert found.first_at <= second <= found.last_at


@pytest.mark.parametrize(
    "name",
    [
        "Position_1_001_3.0_00010101_000000_fractions.mrc",
        "Position_1_001_3.0_20261301_000000_fractions.mrc",
        "0001-01-01_00.00.00_TS_01_001_3.0.mrc",
        "2026-13-01_10.00.00_TS_01_001_3.0.mrc",
        "2026-01-01_99.00.00_TS_01_001_3.0.mrc",
    ],
)
def test_times_at_which_no_tilt_was_taken_are_not_believed(name: str) -> None:
    found = parse_movie_name(name)
    assert (found.angle_deg, found.number, found.acquired_at) == (3.0, 1, None)
