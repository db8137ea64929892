import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import mrcfile  # type: ignore[import-untyped]
import numpy as np
import pytest

from engines.microscope import (
    SerialEMStackWriter,
    dose_symmetric,
    write_frame_mdoc_movie,
    write_tomography5_movie,
)
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
