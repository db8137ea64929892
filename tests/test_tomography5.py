"""Movies and stacks of Tomography 5."""

import struct
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.microscope import write_frame_mdoc_movie, write_tomography5_movie
from engines.microscope_movies import tomography5_mdoc, tomography5_name
from engines.readers.mrc import read_fei_sections, read_header, write_mrc
from monitor.errors import NotReady, Unreadable
from monitor.model import TiltId
from monitor.settings import AcquisitionSettings
from monitor.sources import all_sources, tilts_on_disk
from monitor.sources.at_rest import AT_REST_S, AtRest
from monitor.sources.batch_positions import names_in_list
from monitor.sources.complete import WAIT_FOR_MDOC_S
from monitor.sources.movies import Movies
from monitor.sources.tomography5 import Tomography5
from monitor.sources.tomography5_stack import Tomography5Stack
from tests.fei_stack import write_fei_stack
from tests.landings import SETTLED_S, landed
from tests.opened_files import opened_below
from tests.reading import Reader

WHEN = datetime(2026, 2, 1, 10, 0, 0)
ANGLES = (0.0, 3.0, -3.0)


class Clock:
    """Our own monotonic clock, in our own hands."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def frames(count: int = 2) -> NDArray[Any]:
    return np.random.default_rng(count).integers(1, 900, (count, 6, 9)).astype(np.int16)


def time_of(number: int) -> datetime:
    return WHEN + timedelta(seconds=30 * number)


def reader_of(root: Path, clock: Clock | None = None) -> Reader:
    at_rest = AtRest(clock=clock) if clock else AtRest(at_once=True)
    return Reader(root, Tomography5(Movies(root, at_rest=at_rest)))


def write_movies(folder: Path, position: str = "Position_1") -> list[str]:
    return [
        write_tomography5_movie(
            folder, position, number, angle, time_of(number), frames(), 2.6
        ).name
        for number, angle in enumerate(ANGLES, start=1)
    ]


def write_mdoc(folder: Path, names: Sequence[str], position: str = "Position_1") -> Path:
    movies = [
        (name, angle, time_of(number) + timedelta(seconds=2))
        for number, (name, angle) in enumerate(zip(names, ANGLES, strict=True), start=1)
    ]
    path = folder / f"{position}.mdoc"
    path.write_text(tomography5_mdoc(position, movies, 5.2, 9))
    return path


def test_all_is_in_the_name(tmp_path: Path) -> None:
    reader = reader_of(tmp_path)
    for number, angle in enumerate(ANGLES, start=1):
        path = write_tomography5_movie(
            tmp_path, "Position_9_2", number, angle, time_of(number), frames(), 2.6
        )
        assert reader.read(path.name) is None, "no mdoc is waited for"
    assert [(tilt.angle_deg, tilt.order) for tilt in reader.seen] == [(0.0, 0), (3.0, 1), (-3.0, 2)]
    assert {(tilt.series, tilt.lamella) for tilt in reader.seen} == {("Position_9_2", "Position_9")}
    assert reader.seen[1].acquired_at == "2026-02-01T10:01:00"
    assert str(reader.seen[1].id) == "Position_9_2@+3.00@2026-02-01T10:01:00"
    assert reader.seen[0].pixel_size_angstrom == 2.6
    assert reader.seen[0].exposure_dose_e_per_A2 is None
    assert [tilt.tilts_expected for tilt in reader.seen] == [1, 2, 3]


@pytest.mark.parametrize(
    ("relative", "claimed"),
    [
        ("s/Position_1_001_0.00_20260201_100000_Fractions.mrc", True),
        ("s/Position_1_001_[30.0]_20260201_100000_fractions.tiff", True),
        ("s/Position_1_001[30.00]_EER.eer", True),
        ("s/T7_php_03_001_3.00_20260201_100000_EER.eer", True),
        ("s/TS_1_001_-3.00_20260201_100000_fractions.tiff", True),
        ("s/TS_01_000_0.0.mrc", False),
        ("s/TS_01_000_0.0_EER.eer", False),
        ("s/Position_1.mrc", False),
        ("s/Position_1.mdoc", False),
        ("s/Position_1_override.mdoc", False),
        ("s/Thumbnails/Position_1_001_0.00_20260201_100000.jpg", False),
    ],
)
def test_claims(relative: str, claimed: bool) -> None:
    found = Tomography5(Movies(Path("/nowhere"))).claims(relative)
    assert found == (relative if claimed else None)


def test_the_last_mdoc_gives_doses_and_brings_nothing_twice(tmp_path: Path) -> None:
    names = write_movies(tmp_path)
    reader = reader_of(tmp_path)
    assert reader.read(names[0]) is None
    write_mdoc(tmp_path, names)
    (tmp_path / "Position_1_override.mdoc").write_text("[ZValue = 0]\nTiltAngle = 70\n")
    for name in names:
        assert reader.read(name) is None
    assert [tilt.angle_deg for tilt in reader.seen] == list(ANGLES)
    assert [tilt.exposure_dose_e_per_A2 for tilt in reader.seen] == [None, 2.07, 2.07]
    assert {tilt.pixel_size_angstrom for tilt in reader.seen} == {2.6}, "the mdoc is of the stack"
    assert [tilt.tilts_expected for tilt in reader.seen] == [3, 3, 3]
    assert reader.seen[1].id == TiltId("Position_1", 3.0, "2026-02-01T10:01:00")
    assert reader.seen[1].aliases == (TiltId("Position_1", 3.0, "2026-02-01T10:01:02"),)


def test_a_series_that_goes_on_after_its_mdoc_was_written(tmp_path: Path) -> None:
    names = write_movies(tmp_path)
    write_mdoc(tmp_path, names)
    name = tomography5_name("Position_1", 4, 6.0, time_of(4))
    write_mrc(tmp_path / name, frames(), 2.6)
    reader = reader_of(tmp_path)
    assert reader.read(name) is None
    assert (reader.seen[0].tilts_expected, reader.seen[0].exposure_dose_e_per_A2) == (4, None)


def test_an_mdoc_that_is_being_written_is_not_opened(tmp_path: Path) -> None:
    clock = Clock()
    names = write_movies(tmp_path)
    mdoc = write_mdoc(tmp_path, names)
    reader = reader_of(tmp_path, clock)
    with opened_below(tmp_path) as opened:
        assert isinstance(reader.read(names[0]), NotReady)
        assert reader.read(names[0], WAIT_FOR_MDOC_S) is None, "nothing waits for it for long"
        assert mdoc.name not in opened
        clock.now_s += AT_REST_S
        assert reader.read(names[1]) is None
        assert opened.count(mdoc.name) == 1
        assert reader.read(names[2]) is None
        assert opened.count(mdoc.name) == 1
    assert [tilt.exposure_dose_e_per_A2 for tilt in reader.seen] == [None, 2.07, 2.07]


BATCH = """<?xml version="1.0" encoding="utf-8"?>
<BatchPositionsList xmlns="http://schemas.example/2012" xmlns:i="http://www.w3.org/2001/inst">
 <BatchPositions>
  <BatchPositionParameters><Name>Position_1</Name>
   <PositionOnTileSet><TileSetName>Lamella A</TileSetName></PositionOnTileSet>
   <AdditionalExposureTemplateAreas>
    <ExposureTemplateAreaParameters><Name>Position_1_2</Name></ExposureTemplateAreaParameters>
   </AdditionalExposureTemplateAreas></BatchPositionParameters>
  <BatchPositionParameters><Name>Position_2</Name>
   <PositionOnTileSet><TileSetName>Lamella A</TileSetName></PositionOnTileSet>
  </BatchPositionParameters>
  <BatchPositionParameters><Name>my_place</Name>
   <PositionOnTileSet><TileSetName>Lamella B</TileSetName></PositionOnTileSet>
   <AdditionalExposureTemplateAreas i:nil="true"/></BatchPositionParameters>
 </BatchPositions>
</BatchPositionsList>"""


@pytest.mark.parametrize("where", ["s/grid/Batch", "s/Batch"])
def test_positions_on_one_tile_set_share_a_lamella(tmp_path: Path, where: str) -> None:
    (tmp_path / where).mkdir(parents=True)
    (tmp_path / where / "BatchPositionsList.xml").write_text(BATCH)
    (tmp_path / "s/grid").mkdir(exist_ok=True)
    reader = reader_of(tmp_path)
    for position in ("Position_1", "Position_1_2", "Position_1_3", "Position_2", "my_place", "x_2"):
        for name in write_movies(tmp_path / "s/grid", position)[:1]:
            assert reader.read(f"s/grid/{name}") is None
    assert [tilt.lamella for tilt in reader.seen] == [
        *["s/grid/Lamella A"] * 4,
        "s/grid/Lamella B",
        "s/grid/x_2",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<BatchPositionsList>",
        '<!DOCTYPE a [<!ENTITY b "c">]><BatchPositionsList/>',
        BATCH.replace("Lamella A", "../../etc"),
        BATCH.replace("Lamella A", "x" * 200),
        BATCH.replace("<TileSetName>Lamella A</TileSetName>", ""),
        BATCH.replace("Position_2<", "Position_1<").replace("Lamella A</T", "Other</T", 1),
        "<a>" * 100_000,
        BATCH.replace("utf-8", "no-such-code"),
        BATCH.replace("utf-8", "utf-16"),
    ],
)
def test_a_doubtful_list_of_positions_counts_for_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "Batch").mkdir()
    (tmp_path / "Batch/BatchPositionsList.xml").write_text(content)
    reader = reader_of(tmp_path)
    assert reader.read(write_movies(tmp_path)[0]) is None
    assert reader.seen[0].lamella == "Position_1"


def test_a_lamella_keeps_its_name_when_a_list_comes_late(tmp_path: Path) -> None:
    names = write_movies(tmp_path)
    reader = reader_of(tmp_path)
    assert reader.read(names[0]) is None
    (tmp_path / "Batch").mkdir()
    (tmp_path / "Batch/BatchPositionsList.xml").write_text(BATCH)
    assert reader.read(names[1]) is None
    assert {tilt.lamella for tilt in reader.seen} == {"Position_1"}


def test_names_of_a_list_without_a_name_space() -> None:
    plain = BATCH.replace(' xmlns="http://schemas.example/2012"', "")
    assert names_in_list(plain.encode()) == names_in_list(BATCH.encode())


def image(angle_deg: float) -> NDArray[np.int16]:
    return np.full((6, 9), 100 + angle_deg, np.int16)


def write_stack(
    path: Path, angles: Sequence[float], *, kind: str = "FEI1", with_times: bool = True
) -> None:
    images = np.stack([image(angle) for angle in angles])
    times = [time_of(1 + ANGLES.index(angle)) if with_times else None for angle in angles]
    write_fei_stack(path, images, 2.6, angles, times, kind=kind)


def stack_reader(root: Path) -> Reader:
    return Reader(root, Tomography5Stack(Movies(root, at_rest=AtRest(at_once=True))))


@pytest.mark.parametrize("kind", ["FEI1", "FEI2"])
@pytest.mark.parametrize("with_mdoc", [True, False])
def test_a_stack_in_the_order_of_its_angles(tmp_path: Path, kind: str, with_mdoc: bool) -> None:
    path = tmp_path / "Position_1.mrc"
    write_stack(path, sorted(ANGLES), kind=kind)
    if with_mdoc:
        write_mdoc(tmp_path, [f"Position_1_{n:03d}.eer" for n in range(3)])
    reader = stack_reader(tmp_path)
    assert reader.read(path.name, SETTLED_S) is None
    assert [(tilt.angle_deg, tilt.order, tilt.section) for tilt in reader.seen] == [
        (0.0, 0, 1),
        (3.0, 1, 2),
        (-3.0, 2, 0),
    ]
    for tilt in reader.seen:
        np.testing.assert_array_equal(reader.source.pixels(tilt), image(tilt.angle_deg or 0.0))
        assert tilt.tilts_expected == 3
        assert (tilt.lamella, tilt.pixel_size_angstrom) == ("Position_1", 2.6)
        assert tilt.exposure_dose_e_per_A2 == pytest.approx(2.07 if with_mdoc else 2.1)
    assert reader.seen[0].acquired_at == f"2026-02-01T10:00:3{2 if with_mdoc else 0}"


def test_a_stack_is_read_only_where_there_are_no_movies(tmp_path: Path) -> None:
    write_stack(tmp_path / "Position_1.mrc", ANGLES)
    (tmp_path / "frames").mkdir()
    (name, *_) = write_movies(tmp_path / "frames")
    reader = stack_reader(tmp_path)
    assert reader.read("Position_1.mrc", SETTLED_S) is None
    assert reader.seen == []
    assert list(tilts_on_disk(tmp_path, landed(tmp_path, "Position_1.mrc", SETTLED_S))) == []
    for path in (tmp_path / "frames").iterdir():
        path.rename(path.with_name(path.name.replace("Position_1_", "Position_11_")))
    assert stack_reader(tmp_path).read("Position_1.mrc", SETTLED_S) is None
    assert reader.read("Position_1.mrc", SETTLED_S) is None
    assert len(reader.seen) == 3, name


def test_what_came_as_movie_does_not_come_as_section(tmp_path: Path) -> None:
    names = write_movies(tmp_path)
    reader = reader_of(tmp_path)
    for name in names:
        assert reader.read(name) is None
        (tmp_path / name).unlink()
    write_mdoc(tmp_path, names)
    write_stack(tmp_path / "Position_1.mrc", sorted(ANGLES))
    reader.source = stack_reader(tmp_path).source
    assert reader.read("Position_1.mrc", SETTLED_S) is None
    assert len(reader.seen) == 3
    reader.known.clear()
    assert reader.read("Position_1.mrc", SETTLED_S) is None
    assert {tilt.movie for tilt in reader.seen[3:]} == set(names)


def test_a_section_keeps_its_identity_when_mdoc_and_order_change(tmp_path: Path) -> None:
    path = tmp_path / "Position_1.mrc"
    write_stack(path, ANGLES, with_times=False)
    reader = stack_reader(tmp_path)
    assert reader.read(path.name, SETTLED_S) is None
    write_mdoc(tmp_path, ["", "", ""])
    write_stack(path, sorted(ANGLES), with_times=False)
    assert reader.read(path.name, SETTLED_S) is None
    assert len(reader.seen) == 3
    with pytest.raises(NotReady, match="rewritten"):
        reader.source.pixels(reader.seen[0])


def test_a_stack_without_its_mdoc_is_not_taken_at_once(tmp_path: Path) -> None:
    write_stack(tmp_path / "Position_1.mrc", ANGLES)
    error = stack_reader(tmp_path).read("Position_1.mrc")
    assert isinstance(error, NotReady) and error.reason == "no_mdoc"


def test_a_stack_is_read_when_it_is_whole_and_at_rest(tmp_path: Path) -> None:
    path = tmp_path / "Position_1.mrc"
    write_stack(path, ANGLES)
    write_mdoc(tmp_path, ["", "", ""])
    whole = path.read_bytes()
    reader = stack_reader(tmp_path)
    with opened_below(tmp_path) as opened:
        assert isinstance(reader.read(path.name, 0.0), NotReady)
        assert opened == []
    path.write_bytes(whole[:-1])
    error = reader.read(path.name)
    assert isinstance(error, NotReady) and error.reason == "truncated"
    path.write_bytes(whole)
    assert reader.read(path.name) is None
    assert len(reader.seen) == 3


@given(
    raw=st.binary(max_size=3000),
    kind=st.sampled_from([b"FEI1", b"FEI2"]),
    sections=st.sampled_from([1, 3, 1000, 2**31 - 1]),
    size=st.sampled_from([0, -1, 171, 172, 768, 888, 4096, 2**31 - 1]),
)
def test_any_extended_header_is_survived(raw: bytes, kind: bytes, sections: int, size: int) -> None:
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 4, 4, sections, 1)
    struct.pack_into("<i", header, 92, len(raw))
    header[104:108], header[208:212] = kind, b"MAP "
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.mrc"
        path.write_bytes(bytes(header) + struct.pack("<i", size) + raw)
        try:
            found = read_fei_sections(path, read_header(path))
        except PixelsError:
            return
    assert len(found) <= 1 + len(raw) // 172
    assert all(one.angle_deg is None or abs(one.angle_deg) <= 90 for one in found)


@pytest.mark.parametrize("angles", [(0.0,), (3.0, 3.0)])
def test_a_map_with_such_a_header_is_no_series(tmp_path: Path, angles: Sequence[float]) -> None:
    write_stack(tmp_path / "Overview.mrc", angles)
    source = all_sources(tmp_path)
    with opened_below(tmp_path) as opened:
        for _ in range(3):
            with pytest.raises(Unreadable) as caught:
                list(source.new_tilts(landed(tmp_path, "Overview.mrc", SETTLED_S), lambda _: False))
            assert caught.value.reason == "no_angle"
        assert opened.count("Overview.mrc") <= 2, "one time header and extended header"


def test_a_tree_may_mix_all_layouts(tmp_path: Path) -> None:
    movies = write_movies(tmp_path, "Position_3")
    write_stack(tmp_path / "Position_1.mrc", ANGLES)
    write_frame_mdoc_movie(tmp_path / "TS_01_000_3.0.mrc", frames(), 3.0, WHEN, 2.0)
    reader = Reader(tmp_path, all_sources(tmp_path))
    for name in (movies[0], "Position_1.mrc", "TS_01_000_3.0.mrc"):
        assert reader.source.claims(name) == name
        assert reader.read(name, SETTLED_S) is None
    assert [tilt.series for tilt in reader.seen] == ["Position_3", *["Position_1"] * 3, "TS_01"]


def test_a_layout_that_was_chosen_claims_only_its_own(tmp_path: Path) -> None:
    names = [
        "Position_1_001_0.00_20260201_100000_Fractions.mrc",
        "TS_01_000_0.0.tif",
        "TS_01.mrc",
    ]
    tomography, frame, stack = names
    settings = AcquisitionSettings(directory=tmp_path)

    def claimed(layout: str) -> list[str]:
        source = all_sources(tmp_path, settings.model_copy(update={"layout": layout}))
        assert all(source.claims(name) in (name, None) for name in names)
        return [name for name in names if source.claims(name)]

    assert claimed("auto") == names
    assert claimed("tomography5") == [tomography, stack], "it may be a stack of either program"
    assert claimed("serialem") == claimed("pacetomo") == [frame, stack]
