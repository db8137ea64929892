import math
import struct
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import mrcfile  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mrcfile import dtypes
from numpy.typing import NDArray

from engines.readers import nibbles
from engines.readers.fei_header import FeiSection
from engines.readers.mrc import read_fei_sections, read_header, read_section, read_tilt_angles
from tests.test_mrc import header_bytes, reason_of, write_file

IMOD_STAMP = 1_146_047_817
FEI_BYTES = {b"FEI1": 768, b"FEI2": 888}


def packed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack pixel by pixel, as slowly and plainly as can be: the left one in the low half."""
    rows = []
    for row in pixels.tolist():
        padded = [*row, 0] if len(row) % 2 else row
        rows.append([low + 16 * high for low, high in zip(padded[::2], padded[1::2], strict=True)])
    return np.array(rows, np.uint8)


pictures = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1)).map(
    lambda it: np.random.default_rng(it[2]).integers(0, 16, it[:2], np.uint8)
)


@given(pixels=pictures, order=st.sampled_from("<>"))
@settings(max_examples=60, deadline=None)
def test_two_pixels_share_a_byte_in_mode_101(
    tmp_path_factory: pytest.TempPathFactory, pixels: NDArray[np.uint8], order: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "packed.mrc"
    rows, columns = pixels.shape
    raw = header_bytes(order, nx=columns, ny=rows, mode=101)
    write_file(path, raw, np.concatenate([packed(pixels), packed(15 - pixels)]))
    header = read_header(path)
    assert (header.nx, header.ny, header.is_whole) == (columns, rows, True)
    np.testing.assert_array_equal(read_section(path, 0), pixels)
    np.testing.assert_array_equal(read_section(path, 1), 15 - pixels)


@pytest.mark.parametrize("order", "<>")
def test_bytes_of_half_the_width_are_unpacked_where_imod_flags_them(
    tmp_path: Path, order: str
) -> None:
    pixels = np.random.default_rng(1).integers(0, 16, (4, 12), np.uint8)
    raw = header_bytes(order, nx=6, nz=1, mode=0)
    path = write_file(tmp_path / "bytes.mrc", raw, packed(pixels))
    assert read_header(path).nx == 6
    struct.pack_into(order + "2i", raw, 152, IMOD_STAMP, 16)
    path = write_file(tmp_path / "flagged.mrc", raw, packed(pixels))
    header = read_header(path)
    assert (header.nx, header.is_whole, header.pixel_size_angstrom) == (12, True, 2.0)
    np.testing.assert_array_equal(read_section(path, 0), pixels)


@pytest.mark.parametrize(
    ("columns", "rows", "title", "nx"),
    [
        (3838, 7420, b"SerialEMCCD: Dose frac. image, 4 bits packed  r/f 0", 7676),
        (8184 // 2, 11520, b"SerialEMCCD: Dose frac. image, 4 bits packed  r/f 3", 8184),
        (3838, 7420, b"SerialEMCCD: Dose frac. image, scaled by 1.00  r/f 0", 3838),
        (3700, 7420, b"SerialEMCCD: Dose frac. image, 4 bits packed  r/f 0", 3700),
    ],
)
def test_unflagged_bytes_are_unpacked_by_title_and_size(
    tmp_path: Path, columns: int, rows: int, title: bytes, nx: int
) -> None:
    raw = header_bytes(nx=columns, ny=rows, nz=1, mode=0)
    struct.pack_into("<i80s", raw, 220, 1, title)
    path = write_file(tmp_path / "a.mrc", raw)
    assert read_header(path).nx == nx
    assert read_header(path).section_bytes == columns * rows


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    [
        (3838, 7420, True),
        (3710, 7676, True),
        (3840, 7424, True),
        (3712, 7680, True),
        (5760, 8184, True),
        (4092, 11520, True),
        (5758, 8182, True),
        (5760, 4092, False),
        (11520, 8184, False),
        (4096, 4096, False),
        (5756, 8184, False),
    ],
)
def test_sizes_of_super_resolution_frames(columns: int, rows: int, expected: bool) -> None:
    assert nibbles.are_likely(columns, rows) == expected


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0.0, 200.0, "uint8"), (-5.0, 100.0, "int8"), (0.0, 100.0, "int8"), (-100.0, 200.0, "int8")],
)
def test_bytes_without_a_stamp_are_signed_unless_their_range_says_otherwise(
    tmp_path: Path, low: float, high: float, dtype: str
) -> None:
    raw = header_bytes(mode=0)
    struct.pack_into("<2f", raw, 76, low, high)
    path = write_file(tmp_path / "a.mrc", raw, np.full((2, 4, 6), 100, np.uint8))
    assert read_section(path, 0).dtype == dtype


def fei_file(path: Path, kind: bytes, order: str, **fields: Any) -> Path:
    """A stack of three sections; `fields` are those of each entry, set as mrcfile names them."""
    entries = np.zeros(3, dtypes.get_ext_header_dtype(kind, order))
    entries["Metadata size"] = entries.dtype.itemsize
    entries["Bitmask 1"] = 0xFFFFFFFF
    for name, value in fields.items():
        entries[name.replace("_", " ")] = value
    raw = header_bytes(order, nz=3, cell=(6.0, 4.0), nsymbt=entries.nbytes)
    raw[104:108] = kind
    path.write_bytes(bytes(raw) + entries.tobytes() + bytes(3 * 48))
    return path


ANGLES_DEG = (-52.13, 0.0, 3.0)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", FEI_BYTES)
def test_fei_headers_give_what_mrcfile_gives(tmp_path: Path, kind: bytes, order: str) -> None:
    when = datetime(2026, 1, 5, 10, 0, 7)
    days = (when - datetime(1899, 12, 30)).total_seconds() / 86_400
    path = fei_file(
        tmp_path / "a.mrc",
        kind,
        order,
        Timestamp=days,
        Dose=2.2e20,
        Alpha_tilt=ANGLES_DEG,
        Pixel_size_X=1.97e-10,
    )
    header = read_header(path)
    assert header.data_offset == 1024 + 3 * FEI_BYTES[kind]
    assert header.pixel_size_angstrom == 1.97
    sections = read_fei_sections(path, header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.open(path, permissive=True) as oracle:
            theirs = oracle.indexed_extended_header["Alpha tilt"].tolist()
    assert [section.angle_deg for section in sections] == theirs == list(ANGLES_DEG)
    assert sections[0] == FeiSection(-52.13, "2026-01-05T10:00:07", 2.2, 1.97)
    assert read_tilt_angles(path, header) == ANGLES_DEG


def test_fields_of_fei_headers_that_were_not_set_are_unknown(tmp_path: Path) -> None:
    set_but_angle = 0xFFFFFFFF & ~(1 << 7)
    fields = {"Timestamp": 46_000.0, "Dose": 1e20, "Alpha_tilt": 7.0, "Pixel_size_X": 2e-10}
    path = fei_file(
        tmp_path / "a.mrc", b"FEI1", "<", Bitmask_1=(0, set_but_angle, 1 << 7), **fields
    )
    nothing, but_angle, angle = read_fei_sections(path, read_header(path))
    assert nothing == FeiSection(None, None, None, None)
    assert (but_angle.angle_deg, but_angle.pixel_size_angstrom) == (None, 2.0)
    assert angle == FeiSection(7.0, None, None, None)
    assert read_header(path).pixel_size_angstrom is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_nonsense_in_fei_headers_is_unknown(tmp_path: Path, value: float) -> None:
    fields = {"Timestamp": value, "Dose": -1.0, "Alpha_tilt": value, "Pixel_size_X": value}
    path = fei_file(tmp_path / "a.mrc", b"FEI1", "<", **fields)
    assert read_fei_sections(path, read_header(path)) == (FeiSection(None, None, None, None),) * 3


def test_fei_entries_of_an_unknown_size_are_left_alone(tmp_path: Path) -> None:
    path = fei_file(tmp_path / "a.mrc", b"FEI1", "<", Metadata_size=5, Alpha_tilt=7.0)
    assert read_fei_sections(path, read_header(path)) == ()
    assert read_tilt_angles(path, read_header(path)) == ()


def test_a_section_is_waited_for_before_its_file_is_opened(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mrc", header_bytes(), np.zeros(48, "<i2"))
    header = read_header(path)
    waited: list[int] = []

    def wait(section_bytes: int) -> None:
        waited.append(section_bytes)
        open_now = {str(link.resolve()) for link in Path("/proc/self/fd").iterdir()}
        assert str(path) not in open_now

    read_section(path, 0, header, wait)
    assert waited == [48]


def test_a_claim_of_two_pixels_in_a_byte_is_bounded_too(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mrc", header_bytes(nx=65_536, ny=32_768, mode=101))
    assert reason_of(lambda: read_header(path)) == "header"
