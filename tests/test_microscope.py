import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import mrcfile  # type: ignore[import-untyped]
import numpy as np
import pytest

from engines.microscope import (
    SerialEMStackWriter,
    bidirectional,
    dose_symmetric,
    write_frame_mdoc_movie,
    write_tomography5_movie,
)
from engines.microscope_movies import tomography5_mdoc, tomography5_name
from engines.microscope_pacetomo import Target, run_text, sorting_in_place, targets_text
from engines.readers.mrc import read_header, read_section, read_tilt_angles
from monitor.sources.mdoc import read_mdoc
from monitor.sources.naming import parse_movie_name

WHEN = datetime(2026, 2, 1, 10, 0, 0)


def image(
    seed: int, shape: tuple[int, int] = (12, 16)
) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16)


def test_a_real_dose_symmetric_series() -> None:
    angles = dose_symmetric(8, 2, 60)
    assert angles[:14] == [8, 10, 12, 6, 4, 14, 16, 2, 0, 18, 20, -2, -4, 22]
    assert angles[-4:] == [66, 68, -50, -52]
    assert len(angles) == len(set(angles)) == 61
    assert dose_symmetric(0, 3, 12) == [0, 3, 6, -3, -6, 9, 12, -9, -12]
    assert dose_symmetric(0, 3, 9, group=2) == [0, 3, 6, -3, -6, 9, -9]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_mdoc_is_written_last(tmp_path: Path, line_end: str) -> None:
    path = tmp_path / "L1.mrc"
    seen: list[str] = []
    writer = SerialEMStackWriter(
        path, (12, 16), 1.97, start_deg=3.0, line_end=line_end, chunk_bytes=100, between=seen.append
    )
    assert path.stat().st_size == 1024 + 4096
    assert not writer.mdoc_path.exists()
    for k, angle in enumerate((3.0, 6.0, -52.13)):
        writer.add(image(k), angle, WHEN + timedelta(seconds=26 * k), NavigatorLabel=k)
    steps = list(dict.fromkeys(seen))
    assert steps == ["pixels", "header", "extended", "mdoc"]
    assert seen.count("pixels") == 3 * 4
    header = read_header(path)
    assert (header.nz, header.pixel_size_angstrom, header.ext_type) == (3, 1.97, "SERI")
    assert read_tilt_angles(path, header)[:3] == (3.0, 6.0, -52.13)
    np.testing.assert_array_equal(read_section(path, 2), image(2))
    mdoc = read_mdoc(writer.mdoc_path)
    assert mdoc is not None
    assert (mdoc.scheme, mdoc.scheme_start_deg, mdoc.tilt_axis_angle_deg) == (
        "dose_symmetric",
        3.0,
        84.2,
    )
    assert [one.tilt_angle_deg for one in mdoc.sections] == [3.0, 6.0, -52.13]
    assert [one.prior_dose_e_per_A2 for one in mdoc.sections] == [0.0, 2.2, 4.4]
    assert [one.navigator_label for one in mdoc.sections] == ["0", "1", "2"]
    assert mdoc.sections[2].acquired_at == "2026-02-01T10:00:52"
    assert (b"\r\n" in writer.mdoc_path.read_bytes()) == (line_end == "\r\n")


def test_the_keys_are_those_of_a_real_stack(tmp_path: Path, realdata: Path) -> None:
    writer = SerialEMStackWriter(tmp_path / "L1.mrc", (12, 16), 1.94)
    writer.add(image(0), 0.0, WHEN)

    def keys(path: Path) -> list[str]:
        lines = path.read_text().splitlines()
        start = next(n for n, line in enumerate(lines) if line.startswith("[ZValue = 0]"))
        section = lines[start + 1 :]
        end = next((n for n, line in enumerate(section) if not line.strip()), len(section))
        return [line.partition(" =")[0] for line in section[:end]]

    real = keys(realdata / "pacetomo" / "chrom_07_ts_010.mrc.mdoc")
    left_out = {"SubFramePath", "NavigatorLabel", "SpecimenShift", "EucentricOffset", "CtfFind"}
    mine = [key for key in keys(writer.mdoc_path) if key != "PriorRecordDose"]
    assert mine == [key for key in real if key not in left_out]


def test_the_stack_is_what_mrcfile_expects(tmp_path: Path) -> None:
    writer = SerialEMStackWriter(tmp_path / "L1.mrc", (12, 16), 1.97)
    for k in range(3):
        writer.add(image(k), 3.0 * k, WHEN)
    with mrcfile.open(writer.path) as stack:
        assert stack.data.shape == (3, 12, 16)
        np.testing.assert_array_equal(stack.data[1], image(1))
        assert float(stack.voxel_size.x) == pytest.approx(1.97)


def test_sorting_and_overwriting(tmp_path: Path) -> None:
    writer = SerialEMStackWriter(tmp_path / "L1.mrc", (12, 16), 1.97)
    for k, angle in enumerate((0.0, 3.0, -3.0)):
        writer.add(image(k), angle, WHEN + timedelta(seconds=k))
    writer.rewrite_mdoc()
    for _ in writer.steps(image(9), 3.0, WHEN + timedelta(minutes=5), section=1):
        pass
    np.testing.assert_array_equal(read_section(writer.path, 1), image(9))
    writer.sort_by_angle()
    mdoc = read_mdoc(writer.mdoc_path)
    assert mdoc is not None
    assert [one.tilt_angle_deg for one in mdoc.sections] == [-3.0, 0.0, 3.0]
    assert mdoc.sections[2].acquired_at == "2026-02-01T10:05:00"
    for section, seed in enumerate((2, 0, 9)):
        np.testing.assert_array_equal(read_section(writer.path, section), image(seed))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["L1.mrc", "L1.mrc.mdoc", "L1.mrc.mdoc~"], "SerialEM leaves its backup there"


def test_an_image_of_another_shape_is_refused(tmp_path: Path) -> None:
    writer = SerialEMStackWriter(tmp_path / "L1.mrc", (12, 16), 1.97)
    with pytest.raises(ValueError, match="shape"):
        writer.add(image(0, (3, 3)), 0.0, WHEN)


def test_movies(tmp_path: Path) -> None:
    path = tmp_path / "TS_01_000_0.0.mrc"
    frames = np.stack([image(k) for k in range(4)])
    write_frame_mdoc_movie(path, frames, 0.01, WHEN, 1.971, line_end="\r\n")
    mdoc = read_mdoc(tmp_path / "TS_01_000_0.0.mrc.mdoc")
    assert mdoc is not None
    assert [(one.kind, one.num_subframes, one.complete) for one in mdoc.sections] == [
        ("FrameSet", 4, True)
    ]
    assert mdoc.program == "SerialEM"
    path = write_tomography5_movie(tmp_path, "Position_1", 3, -6.0, WHEN, frames[0], 2.6)
    name = parse_movie_name(path.name)
    assert (name.series, name.number, name.angle_deg) == ("Position_1", 3, -6.0)
    assert name.acquired_at == WHEN.isoformat()
    assert read_header(path).pixel_size_angstrom == 2.6


def test_the_pretend_microscope_needs_no_torch() -> None:
    code = "import engines.microscope, engines.readers.mrc, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_bidirectional_series_is_inverted_at_its_turn(tmp_path: Path) -> None:
    angles, turn = bidirectional(9.0, 3.0, 6.0)
    assert (angles, turn) == ([9.0, 6.0, 3.0, 12.0, 15.0], 3)
    writer = SerialEMStackWriter(tmp_path / "L1.mrc", (12, 16), 1.97, scheme="bidir", start_deg=9.0)
    steps = [writer.file.mark_open()]
    for k, angle in enumerate(angles):
        if k == turn:
            steps += writer.turning()
        steps += writer.adding(image(k), angle, WHEN + timedelta(seconds=k))
    steps.append(writer.file.mark_closed())
    mdoc = read_mdoc(writer.mdoc_path)
    assert mdoc is not None
    assert (mdoc.scheme, mdoc.scheme_start_deg) == ("bidirectional", 9.0)
    assert [one.tilt_angle_deg for one in mdoc.sections] == [3.0, 6.0, 9.0, 12.0, 15.0]
    for section, seed in enumerate((2, 1, 0, 3, 4)):
        np.testing.assert_array_equal(read_section(writer.path, section), image(seed))
    at = [step.what for step in steps].index("rename")
    assert [(step.what, step.path.name) for step in steps[at : at + 6]] == [
        ("rename", "L1.mrc-half1.mdoc"),
        ("delete", "L1.mrc.openTS"),
        ("rename", "L1.mrc-half1"),
        ("create", "L1.mrc-half1.openTS"),
        ("create", "L1.mrc"),
        ("create", "L1.mrc.openTS"),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["L1.mrc", "L1.mrc.mdoc"]


def pacetomo_stack(folder: Path) -> SerialEMStackWriter:
    writer = SerialEMStackWriter(
        folder / "a_ts_001.mrc", (12, 16), 1.97, scheme="", line_end="\r\n"
    )
    for k, angle in enumerate((0.0, 3.0, -3.0, 6.01, -6.0)):
        writer.add(image(k), angle, WHEN + timedelta(seconds=26 * k))
        writer.add_keys({"SpecimenShift": "0.1 0.2", "EucentricOffset": 0.3})
        writer.rewrite_mdoc()
    return writer


def test_a_stack_is_sorted_in_place_as_by_mrcfile(tmp_path: Path) -> None:
    writer = pacetomo_stack(tmp_path)
    copy = Path(shutil.copy(writer.path, tmp_path / "copy"))
    inode = writer.path.stat().st_ino
    with mrcfile.open(copy, "r+") as stack:  # what PACEtomo does
        order = np.argsort([angle for angle, _ in writer.file.sections])
        stack.set_data(stack.data[order])
    for _ in sorting_in_place(writer.file):
        pass
    assert writer.path.read_bytes() == copy.read_bytes()
    assert writer.path.stat().st_ino == inode
    header = read_header(writer.path)
    assert read_tilt_angles(writer.path, header)[:5] == (0.0, 3.0, -3.0, 6.01, -6.0)
    mdoc = read_mdoc(writer.mdoc_path)
    assert mdoc is not None
    assert [one.tilt_angle_deg for one in mdoc.sections] == [-6.0, -3.0, 0.0, 3.0, 6.01]
    assert [one.acquired_at for one in mdoc.sections][:2] == [
        "2026-02-01T10:01:44",
        "2026-02-01T10:00:52",
    ]
    assert b"DateTime = 01-Feb-2026 10:01:44 \r\n" in writer.mdoc_path.read_bytes()
    assert (tmp_path / "a_ts_001_unsorted.mrc.mdoc").is_file()


def test_pacetomo_adds_its_keys_behind_the_date(tmp_path: Path) -> None:
    text = pacetomo_stack(tmp_path).mdoc_path.read_bytes().decode()
    sections = text.split("[ZValue = ")[1:]
    assert len(sections) == 5
    for section in sections:
        keys = [line.partition(" =")[0] for line in section.split("\r\n")]
        assert keys.index("DateTime") < keys.index("SpecimenShift") < keys.index("EucentricOffset")


def test_a_targets_file_tells_of_its_targets() -> None:
    targets = [Target("lam", 1, 0.0, 0.0), Target("lam", 2, 1.5, -0.8, skip=True)]
    text = targets_text(targets, {"startTilt": 9, "step": 3.0})
    lines = text.split("\r\n")
    assert lines[:4] == ["_set startTilt = 9", "_set step = 3.0", "", "_tgt = 001"]
    assert lines.count("tsfile = lam_ts_002.mrc") == 1
    assert lines.count("skip = True") == 1
    run = run_text(targets, {"startTilt": 9}, 4, 1)
    assert "_spos = 4,1\r\n" in run
    assert run.count("_pbr") == run.count("_nbr") == 2


def test_what_tomography_writes_at_the_end_of_a_series(tmp_path: Path) -> None:
    movies = [("Position_1_001_10.00_x_EER.eer", 9.98, WHEN), ("b.eer", -3.0, WHEN)]
    for year_first, stamp in ((False, "01-Feb-2026  10:00:00"), (True, "26-Feb-01  10:00:00")):
        path = tmp_path / "Position_1.mdoc"
        text = tomography5_mdoc("Position_1", movies, 2.6, 4096, frames=4, year_first=year_first)
        path.write_text(text)
        assert f"DateTime = {stamp}\n" in text
        mdoc = read_mdoc(path)
        assert mdoc is not None
        assert mdoc.program == "Tomography"
        assert [(one.tilt_angle_deg, one.acquired_at) for one in mdoc.sections] == [
            (9.98, WHEN.isoformat()),
            (-3.0, WHEN.isoformat()),
        ]
        assert mdoc.sections[0].sub_frame_path == movies[0][0]
    name = tomography5_name("Position_1", 1, 30.0, WHEN, "fractions.tiff")
    assert name == "Position_1_001_[30.0]_20260201_100000_fractions.tiff"
