import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.microscope import dose_symmetric
from monitor.errors import NotReady, Unreadable
from monitor.sources.mdoc import MAX_BYTES, Mdoc, parse_mdoc, read_mdoc

TWO = """\
PixelSpacing = 1.94
ImageFile = L1.mrc

[T = SerialEM: somewhere                01-Aug-2022  18:58:31]

[T =      Tilt axis angle = 83.8, binning = 1  spot = 10  camera = 1 dosym = 8.0]

[ZValue = 0]
TiltAngle = -0.00949884
PixelSpacing = 1.94
ExposureDose = 0
CountsPerElectron = 165.5
SubFramePath = \\\\10.0.0.1\\data\\\\frames\\L1_000_-0.0.mrc
NumSubFrames = 10
DateTime = 01-Aug-2022  18:58:35
NavigatorLabel = 167

[ZValue = 1]
TiltAngle = -52.0
PixelSpacing = 1.94
ExposureDose = 2.1
CountsPerElectron = 165.5
SubFramePath = frames/L1_001_-52.0.mrc
NumSubFrames = 10
DateTime = 01-Aug-2022  18:59:43
NavigatorLabel = 167
"""


def test_a_stack_mdoc() -> None:
    mdoc = parse_mdoc(TWO)
    assert mdoc.program == "SerialEM"
    assert mdoc.image_file == "L1.mrc"
    assert mdoc.tilt_axis_angle_deg == 83.8
    assert (mdoc.scheme, mdoc.scheme_start_deg) == ("dose_symmetric", 8.0)
    assert not mdoc.is_montage
    first, second = mdoc.sections
    assert first.kind == "ZValue"
    assert first.tilt_angle_deg == -0.00949884
    assert first.exposure_dose_e_per_A2 is None, "0 means that the dose was not calibrated"
    assert second.exposure_dose_e_per_A2 == 2.1
    assert first.counts_per_electron == 165.5
    assert first.sub_frame_path == "L1_000_-0.0.mrc"
    assert second.sub_frame_path == "L1_001_-52.0.mrc"
    assert first.num_subframes == 10
    assert first.acquired_at == "2022-08-01T18:58:35"
    assert first.navigator_label == "167"
    assert first.complete and second.complete


def test_the_real_series(realdata: Path) -> None:
    paths = sorted((realdata / "serialem-frame-mdocs").iterdir())
    sections = [section for path in paths for section in _read(path).sections]
    assert len(sections) == 61
    expected = dose_symmetric(8, 2, 60)
    for section, angle, path in zip(sections, expected, paths, strict=True):
        assert section.complete
        assert section.tilt_angle_deg == pytest.approx(angle, abs=0.05)
        assert section.sub_frame_path == path.name.removesuffix(".mdoc")
        assert section.pixel_spacing_angstrom == 1.971
        assert section.num_subframes == 10
        assert section.counts_per_electron == 221.663
        assert section.exposure_dose_e_per_A2 == pytest.approx(2.24, abs=0.05)
    times = [section.acquired_at or "" for section in sections]
    assert times == sorted(times)
    assert (times[0], times[1]) == ("2023-06-06T23:51:26", "2023-06-06T23:51:49")
    assert times[-1] > "2023-06-07T00:15"
    doses = [section.prior_dose_e_per_A2 or 0.0 for section in sections]
    assert doses == sorted(doses)


def test_the_real_pacetomo_stack(realdata: Path) -> None:
    mdoc = _read(realdata / "pacetomo" / "chrom_07_ts_010.mrc.mdoc")
    assert [round(section.tilt_angle_deg or 0.0) + 0 for section in mdoc.sections] == [
        *(0, 3, 6, -3, -6, 9, 12, -9, -12, 15, 18)
    ]
    assert all(section.complete for section in mdoc.sections)
    assert all(section.exposure_dose_e_per_A2 is None for section in mdoc.sections)
    assert mdoc.sections[0].sub_frame_path == "chrom_07_ts_010_167_000_-0.0.mrc"
    assert mdoc.sections[10].acquired_at == "2022-08-01T19:10:55"
    assert mdoc.tilt_axis_angle_deg == 83.8


def _read(path: Path) -> Mdoc:
    mdoc = read_mdoc(path)
    assert mdoc is not None
    return mdoc


def _check_cut(text: str, length: int) -> None:
    """However an mdoc is cut, what is called complete is right, and no angle is ever wrong."""
    whole = {section.z_value: section for section in parse_mdoc(text).sections}
    for section in parse_mdoc(text[:length]).sections:
        truth = whole[section.z_value]
        assert section.tilt_angle_deg in (None, truth.tilt_angle_deg)
        if section.complete:
            start = text.index(f"[ZValue = {section.z_value}]") if "[ZValue" in text else 0
            assert text.index("\n", text.index("DateTime", start)) < length
            assert section.acquired_at == truth.acquired_at
            assert section.exposure_dose_e_per_A2 == truth.exposure_dose_e_per_A2
            assert section.sub_frame_path == truth.sub_frame_path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_cut_at_any_byte_never_gives_a_wrong_angle(line_end: str) -> None:
    text = TWO.replace("\n", line_end)
    for length in range(len(text)):
        _check_cut(text, length)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_cuts_of_real_files(data: st.DataObject) -> None:
    folder = Path(__file__).resolve().parents[1].parent / "shared/realdata"
    paths = [*folder.glob("serialem-frame-mdocs/*"), *folder.glob("pacetomo/*.mdoc")]
    if not paths:
        pytest.skip("needs the real data in ../shared/realdata, which is not there")
    text = data.draw(st.sampled_from(sorted(paths))).read_bytes().decode()
    _check_cut(text, data.draw(st.integers(0, len(text))))


@given(seed=st.integers(0, 2**32), settled=st.booleans())
@settings(deadline=None, max_examples=200)
def test_order_case_spacing_commas_and_noise_do_not_matter(seed: int, settled: bool) -> None:
    """The oracle is the generator: any way of writing the same values reads the same."""
    chance = random.Random(seed)
    spellings: list[Callable[[str], str]] = [str, str.lower, str.upper]
    angles = [round(chance.uniform(-60, 60), 4) for _ in range(5)]
    comma = chance.random() < 0.3
    line_end = chance.choice(["\n", "\r\n", " \n"])
    blocks = []
    for k, angle in enumerate(angles):
        value = f"{angle:.4f}".replace(".", ",") if comma else f"{angle:.4f}"
        keys = [
            f"TiltAngle = {value}",
            "ExposureDose = 2.5",
            "CameraLength = NaN",
            "ChannelName = ",
            f"SubFramePath = C:\\a\\b\\f{k}.mrc",
            "µ = ÿ",
            "no equals sign",
            "a = b = c",
        ]
        chance.shuffle(keys)
        keys.append(f"DateTime = 0{k + 1}-Jun-23{chance.choice('  ')}10:00:00")
        keys = [
            chance.choice(spellings)(line.partition("=")[0])
            + chance.choice(["=", " = "])
            + line.partition("=")[2].strip()
            for line in keys
        ]
        blocks.append(line_end.join([f"[ZValue = {k}]", *keys, ""]))
    start = "\ufeff" if chance.random() < 0.3 else ""
    text = start + f"[T = SerialEM: x]{line_end}{line_end}" + line_end.join(blocks)
    mdoc = parse_mdoc(text.removeprefix("\ufeff"), settled=settled)
    assert [section.tilt_angle_deg for section in mdoc.sections] == angles
    assert [section.sub_frame_path for section in mdoc.sections] == [f"f{k}.mrc" for k in range(5)]
    assert [section.acquired_at for section in mdoc.sections] == [
        f"2023-06-0{k + 1}T10:00:00" for k in range(5)
    ]
    assert all(section.complete and section.exposure_dose_e_per_A2 for section in mdoc.sections)


@pytest.mark.parametrize(
    ("title", "written", "expected"),
    [
        ("SerialEM: x", "06-Jun-23  23:51:49", "2023-06-06T23:51:49"),
        ("SerialEM: x", "01-Aug-2022  18:58:35", "2022-08-01T18:58:35"),
        ("SerialEM: x", "23-Nov-2024 00:19:58 ", "2024-11-23T00:19:58"),
        ("Tomography: x", "22-Feb-04  23:02:05", "2022-02-04T23:02:05"),
        ("Tomography: x", "13-Jan-2025  17:15:32", "2025-01-13T17:15:32"),
        ("SerialEM: x", "22-Feb-04  23:02:05", "2004-02-22T23:02:05"),
        ("SerialEM: x", "99-Feb-04  23:02:05", "2099-02-04T23:02:05"),
        ("SerialEM: x", "06-Okt-23  23:51:49", "2023-10-06T23:51:49"),
        ("SerialEM: x", "2023-Jun-06  23:51:49", "2023-06-06T23:51:49"),
        ("SerialEM: x", "31-Feb-2024  10:00:00", None),
        ("SerialEM: x", "06-Jun-23  24:51:49", None),
        ("SerialEM: x", "06-Foo-23  23:51:49", None),
        ("SerialEM: x", "yesterday", None),
        ("SerialEM: x", "01-Jan-0001  00:00:00", None),
        ("SerialEM: x", "01-Jan-1970  00:00:00", None),
        ("SerialEM: x", "31-Dec-9999  23:59:59", None),
        ("", "06-Jun-23  23:51:49", "2023-06-06T23:51:49"),
    ],
)
def test_dates(title: str, written: str, expected: str | None) -> None:
    for heading in (f"T = {title}\n", f"[T = {title}]\n"):
        mdoc = parse_mdoc(f"{heading}\n[ZValue = 0]\nTiltAngle = 1\nDateTime = {written}\n")
        assert mdoc.sections[0].acquired_at == expected
        assert mdoc.sections[0].date_time == written.strip()
        assert mdoc.sections[0].complete


def test_a_tomography_mdoc() -> None:
    text = (
        "DataMode = 6\nImageFile = Position_1.mrc\n"
        "[T = Tomography: TITAN52337180    22-Feb-04  23:02:05]\n"
        "[T =   TiltAxisAngle = -174,23  Binning = 1  SpotSize = 7]\n"
        "[ZValue = 0]\nTiltAngle = 9,98 \nExposureDose = 2.07\nPriorRecordDose = 0.00\n"
        "FrameDosesAndNumber = 2.07 1  \nCameraLength = NaN\nDateTime = 22-Feb-04  23:02:05\n"
    )
    mdoc = parse_mdoc(text)
    assert mdoc.program == "Tomography"
    assert mdoc.tilt_axis_angle_deg == -174.23
    assert mdoc.sections[0].tilt_angle_deg == 9.98
    assert mdoc.sections[0].prior_dose_e_per_A2 == 0.0


@pytest.mark.parametrize(
    "value", ["", "NaN", "inf", "-", "1_0", "0x10", "1 2", "1.5.5", "120", "1e99", "١", "--5"]
)
def test_what_is_no_angle_is_none(value: str) -> None:
    mdoc = parse_mdoc(f"[ZValue = 0]\nTiltAngle = {value}\nDateTime = 06-Jun-23  23:51:49\n")
    assert mdoc.sections[0].tilt_angle_deg is None


def test_the_last_complete_of_two_sections_with_one_number_wins() -> None:
    section = "[ZValue = 0]\nTiltAngle = {}\nDateTime = 06-Jun-23  23:51:{}\n"
    mdoc = parse_mdoc(section.format(1, 10) + section.format(2, 20) + "[ZValue = 0]\nTiltAngle = 3")
    assert [one.tilt_angle_deg for one in mdoc.sections] == [2.0]
    assert mdoc.sections[0].complete


def test_headings_that_are_no_numbers_are_passed_over() -> None:
    text = "[ZValue = ]\nTiltAngle = 1\n[ZValue = -1]\nTiltAngle = 2\n[ZValue]\nTiltAngle = 3\n[a\n"
    assert parse_mdoc(text).sections == ()


def test_frame_sets_and_sections_are_told_apart() -> None:
    section = "TiltAngle = 1\nDateTime = 06-Jun-23  23:51:49\n"
    mdoc = parse_mdoc(f"[FrameSet = 0]\n{section}[ZValue = 0]\n{section}")
    assert [one.kind for one in mdoc.sections] == ["FrameSet", "ZValue"]


def test_montages_are_recognised() -> None:
    assert parse_mdoc("[ZValue = 0]\nPieceCoordinates = 0 0 0\nTiltAngle = 0\n").is_montage
    assert parse_mdoc("[ZValue = 0]\nTiltAngle = 0\n[MontSection = 0]\n").is_montage


def test_without_a_date_only_a_settled_section_that_lacks_nothing_is_complete() -> None:
    undated = "[ZValue = 0]\nTiltAngle = 1\nSubFramePath = a\n[ZValue = 1]\nTiltAngle = 2\n"
    assert [one.complete for one in parse_mdoc(undated).sections] == [True, False]
    assert [one.complete for one in parse_mdoc(undated, settled=True).sections] == [True, False]
    whole = undated + "SubFramePath = b\n"
    assert [one.complete for one in parse_mdoc(whole).sections] == [True, False]
    assert [one.complete for one in parse_mdoc(whole, settled=True).sections] == [True, True]
    dated = TWO[: TWO.rindex("DateTime")]
    assert [one.complete for one in parse_mdoc(dated, settled=True).sections] == [True, False]
    empty_date = "[FrameSet = 0]\nTiltAngle = 1\nDateTime = \n"
    assert [one.complete for one in parse_mdoc(empty_date).sections] == [False]
    assert [one.complete for one in parse_mdoc(empty_date, settled=True).sections] == [True]


def test_a_whole_date_without_its_newline_counts_once_settled() -> None:
    text = "[FrameSet = 0]\nTiltAngle = 1\nDateTime = 06-Jun-23  23:51:49"
    assert not parse_mdoc(text).sections[0].complete
    assert parse_mdoc(text, settled=True).sections[0].acquired_at == "2023-06-06T23:51:49"
    assert not parse_mdoc(text[:-1], settled=True).sections[0].complete


def test_half_a_million_lines_are_read() -> None:
    block = "[ZValue = {}]\nTiltAngle = 1\nx = y\nDateTime = 06-Jun-23  23:51:49\n"
    text = "".join(block.format(k % 100) for k in range(125_000))
    mdoc = parse_mdoc(text)
    assert len(mdoc.sections) == 100
    assert all(section.complete for section in mdoc.sections)


def test_bytes_that_are_not_utf8_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc.mdoc"
    path.write_bytes(
        b"\xef\xbb\xbfT = SerialEM: \xe4\xf6\xfc\n" + TWO.encode() + b"\xff\xfe = \x80\n"
    )
    mdoc = _read(path)
    assert mdoc.program == "SerialEM"
    assert len(mdoc.sections) == 2
    assert mdoc.modified_ns == path.stat().st_mtime_ns


def test_a_name_too_long_to_exist_has_no_mdoc(tmp_path: Path) -> None:
    assert read_mdoc(tmp_path / ("n" * 251 + ".mrc.mdoc")) is None


def test_what_is_no_mdoc_file(tmp_path: Path) -> None:
    assert read_mdoc(tmp_path / "missing.mdoc") is None
    os.mkfifo(tmp_path / "fifo.mdoc")
    (tmp_path / "folder.mdoc").mkdir()
    (tmp_path / "huge.mdoc").touch()
    os.truncate(tmp_path / "huge.mdoc", MAX_BYTES + 1)
    for name in ("fifo.mdoc", "folder.mdoc", "huge.mdoc"):
        with pytest.raises(Unreadable):
            read_mdoc(tmp_path / name)
    (tmp_path / "link.mdoc").symlink_to("/etc/passwd")
    with pytest.raises(NotReady):
        read_mdoc(tmp_path / "link.mdoc")


@given(st.text(alphabet=st.sampled_from("[]=TZValue\n\r 0123456789.-,:JunDateTime\0")))
@settings(deadline=None)
def test_any_text_is_survived(text: str) -> None:
    for settled in (False, True):
        for section in parse_mdoc(text, settled=settled).sections:
            assert section.tilt_angle_deg is None or abs(section.tilt_angle_deg) <= 90
            assert re.fullmatch(
                r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", section.acquired_at or "0000-00-00T00:00:00"
            )
