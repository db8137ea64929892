import io
import os
import socket
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.mrc import read_header, read_section, read_tilt_angles, write_mrc
from engines.readers.mrc_header import HEADER_BYTES, MrcHeader, parse_header

DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def header_bytes(
    order: str = "<",
    nx: int = 6,
    ny: int = 4,
    nz: int = 2,
    mode: int = 1,
    cell: tuple[float, float] = (12.0, 8.0),
    nsymbt: int = 0,
    stamp: bytes = b"",
) -> bytearray:
    raw = bytearray(HEADER_BYTES)
    struct.pack_into(order + "4i", raw, 0, nx, ny, nz, mode)
    struct.pack_into(order + "3i", raw, 28, nx, ny, 1)
    struct.pack_into(order + "3f", raw, 40, *cell, 1.0)
    struct.pack_into(order + "i", raw, 92, nsymbt)
    raw[208:212] = b"MAP "
    raw[212:216] = stamp or (b"DD\0\0" if order == "<" else b"\x11\x11\0\0")
    return raw


def write_file(path: Path, header: bytearray, data: NDArray[Any] | None = None) -> Path:
    path.write_bytes(bytes(header) + (data.tobytes() if data is not None else b""))
    return path


def reason_of(work: Callable[[], object]) -> str:
    with pytest.raises(PixelsError) as caught:
        work()
    assert str(caught.value).count("\n") == 0
    return caught.value.reason


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("mode", DTYPES)
def test_reads_every_mode_in_both_byte_orders(tmp_path: Path, mode: int, order: str) -> None:
    data = np.arange(48).reshape(2, 4, 6).astype(order + DTYPES[mode])
    path = write_file(tmp_path / "a.mrc", header_bytes(order, mode=mode), data)
    for section in range(2):
        image = read_section(path, section)
        np.testing.assert_array_equal(image, data[section])
        assert image.dtype.isnative
    header = read_header(path)
    assert (header.nx, header.ny, header.nz, header.pixel_size_angstrom) == (6, 4, 2, 2.0)
    assert header.is_whole
    assert header.sections_on_disk == 2


@pytest.mark.parametrize("stamp", [b"\0\0\0\0", b"\0\0DD", b"\x11\x11\0\0", b"DA\0\0", b"\xff" * 4])
def test_a_wrong_machine_stamp_is_seen_through(tmp_path: Path, stamp: bytes) -> None:
    data = np.arange(48, dtype="<i2").reshape(2, 4, 6)
    path = write_file(tmp_path / "a.mrc", header_bytes("<", stamp=stamp), data)
    np.testing.assert_array_equal(read_section(path, 1), data[1])


@pytest.mark.parametrize(("flags", "dtype"), [(0, "uint8"), (1, "int8")])
def test_bytes_of_imod_are_unsigned_unless_flagged(tmp_path: Path, flags: int, dtype: str) -> None:
    header = header_bytes(mode=0)
    struct.pack_into("<2i", header, 152, 1_146_047_817, flags)
    path = write_file(tmp_path / "a.mrc", header, np.full((2, 4, 6), 200, np.uint8))
    image = read_section(path, 0)
    assert image.dtype == dtype
    assert image[0, 0] == (200 if dtype == "uint8" else -56)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ((6.0, 4.0), None),
        ((0.0, 0.0), None),
        ((float("nan"), 8.0), None),
        ((float("inf"), 8.0), None),
        ((-12.0, -8.0), None),
        ((12.0, 80.0), None),
        ((1e30, 1e30), None),
        ((12.0, 0.0), 2.0),
        ((11.82, 7.88), 1.97),
    ],
)
def test_a_pixel_size_nobody_set_is_unknown(
    tmp_path: Path, cell: tuple[float, float], expected: float | None
) -> None:
    path = write_file(tmp_path / "a.mrc", header_bytes(cell=cell))
    assert read_header(path).pixel_size_angstrom == expected


def test_a_header_without_an_image_is_not_there_yet(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mrc", header_bytes(nx=0, ny=0, nz=0))
    assert reason_of(lambda: read_header(path)) == "truncated"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mode": 7, "nz": 2**30}, "header"),
        ({"mode": -7}, "header"),
        ({"mode": 2**20}, "header"),
        ({"nx": -6}, "header"),
        ({"nz": -1}, "header"),
        ({"nx": 65_536, "ny": 65_536}, "header"),
        ({"nx": 2**31 - 1}, "header"),
        ({"nsymbt": 2**31 - 1}, "truncated"),
        ({"nsymbt": -4}, "header"),
    ],
)
def test_nonsense_is_refused_with_a_reason(
    tmp_path: Path, fields: dict[str, int], reason: str
) -> None:
    path = write_file(tmp_path / "a.mrc", header_bytes(**fields), np.zeros(48, "i2"))  # type: ignore[arg-type]
    assert reason_of(lambda: read_header(path)) == reason


@pytest.mark.parametrize(
    ("mode", "section_bytes"), [(3, 7 * 4 * 4), (4, 7 * 4 * 8), (16, 7 * 4 * 3)]
)
@pytest.mark.parametrize("order", "<>")
def test_completeness_is_known_of_modes_that_cannot_be_read(
    tmp_path: Path, mode: int, section_bytes: int, order: str
) -> None:
    raw = header_bytes(order, nx=7, mode=mode)
    path = write_file(tmp_path / "a.mrc", raw, np.zeros(2 * section_bytes, "u1"))
    header = read_header(path)
    assert (header.dtype, header.section_bytes) == (None, section_bytes)
    assert header.is_whole and header.sections_on_disk == 2
    assert reason_of(lambda: read_section(path, 0)) == "mode"
    os.truncate(path, path.stat().st_size - 1)
    assert not read_header(path).is_whole and read_header(path).sections_on_disk == 1


def test_a_mode_nobody_knows_is_taken_at_its_word_only_with_the_mark_of_the_format(
    tmp_path: Path,
) -> None:
    raw = header_bytes(mode=7)
    header = read_header(write_file(tmp_path / "a.mrc", raw, np.zeros(48, "u1")))
    assert (header.mode, header.sections_on_disk, header.is_whole) == (7, 2, True)
    assert reason_of(lambda: read_section(tmp_path / "a.mrc", 0)) == "mode"
    empty = read_header(write_file(tmp_path / "empty.mrc", raw))
    assert (empty.sections_on_disk, empty.is_whole) == (0, False)
    raw[208:212] = b"\0\0\0\0"
    unmarked = write_file(tmp_path / "b.mrc", raw, np.zeros(48, "u1"))
    assert reason_of(lambda: read_header(unmarked)) == "header"


def test_a_sparse_terabyte_allocates_nothing(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mrc", header_bytes(nx=60_000, ny=60_000, nz=100))
    os.truncate(path, 1 << 40)
    assert reason_of(lambda: read_section(path, 0)) == "header"


def test_a_cut_section_is_not_read_but_those_before_it_are(tmp_path: Path) -> None:
    data = np.arange(24, dtype="<i2").reshape(4, 6)
    path = write_file(tmp_path / "a.mrc", header_bytes(), np.concatenate([data, data[:2]]))
    np.testing.assert_array_equal(read_section(path, 0), data)
    assert reason_of(lambda: read_section(path, 1)) == "truncated"
    assert reason_of(lambda: read_section(path, 2)) == "section"
    assert reason_of(lambda: read_section(path, -1)) == "section"
    assert not read_header(path).is_whole


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mrc")
    (tmp_path / "folder.mrc").mkdir()
    (tmp_path / "dangling.mrc").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.mrc").symlink_to(tmp_path / "loop.mrc")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.mrc"))
        for name in ("fifo.mrc", "folder.mrc", "loop.mrc", "socket.mrc"):
            assert reason_of(lambda name=name: read_header(tmp_path / name)) == "unreadable"  # type: ignore[misc]
    assert reason_of(lambda: read_header(Path("/dev/zero"))) == "unreadable"
    assert reason_of(lambda: read_header(tmp_path / "dangling.mrc")) == "missing"
    assert reason_of(lambda: read_header(tmp_path / "nul\0.mrc")) == "unreadable"


def test_a_linked_directory_is_fine(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_mrc(tmp_path / "data" / "a.mrc", np.ones((3, 5), np.int16), 2.0)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert read_section(tmp_path / "link" / "a.mrc", 0).shape == (3, 5)


def test_a_file_that_was_replaced_or_shrank_is_refused(tmp_path: Path) -> None:
    data = np.arange(48, dtype="<i2").reshape(2, 4, 6)
    path = write_file(tmp_path / "a.mrc", header_bytes(), data)
    before = read_header(path)
    write_file(tmp_path / "b.mrc", header_bytes(), data[::-1])
    (tmp_path / "b.mrc").replace(path)
    assert reason_of(lambda: read_section(path, 0, before)) == "changed"
    before = read_header(path)
    path.write_bytes(bytes(header_bytes(nz=1)) + data[0].tobytes())
    assert reason_of(lambda: read_section(path, 0, before)) == "changed"


def test_a_stack_that_grew_is_still_the_same(tmp_path: Path) -> None:
    data = np.arange(48, dtype="<i2").reshape(2, 4, 6)
    path = write_file(tmp_path / "a.mrc", header_bytes(nz=1), data[:1])
    before = read_header(path)
    with path.open("r+b") as file:
        file.write(bytes(header_bytes(nz=2)) + data.tobytes())
    np.testing.assert_array_equal(read_section(path, 0, before), data[0])


@pytest.mark.parametrize("order", "<>")
def test_tilt_angles_of_the_extended_header(tmp_path: Path, order: str) -> None:
    header = header_bytes(order, nz=3, nsymbt=20)
    header[104:108] = b"SERI"
    struct.pack_into(order + "2h", header, 128, 6, 1 | 4)
    entries = struct.pack(order + "3h3h3h", -5213, 1, 2, 300, 0, 0, 0, 0, 0) + b"\0\0"
    path = tmp_path / "a.mrc"
    path.write_bytes(bytes(header) + entries + bytes(3 * 48))
    assert read_tilt_angles(path, read_header(path)) == (-52.13, 3.0, None)


def test_no_tilt_angles_without_such_a_header(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mrc", header_bytes(), np.zeros(48, "i2"))
    assert read_tilt_angles(path, read_header(path)) == ()


@pytest.mark.filterwarnings("ignore::RuntimeWarning:mrcfile")
@pytest.mark.parametrize("dtype", ["int8", "int16", "float32"])
@pytest.mark.parametrize("shape", [(7, 5), (3, 7, 5), (1, 1)])
def test_what_is_written_is_valid_and_comes_back(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    data = np.random.default_rng(0).integers(-1, 2, shape).astype(dtype)
    path = tmp_path / "a.mrc"
    write_mrc(path, data, 7.88)
    said = io.StringIO()
    assert mrcfile.validate(path, print_file=said), said.getvalue()
    stack = data.reshape((-1, *data.shape[-2:]))
    for section, image in enumerate(stack):
        np.testing.assert_array_equal(read_section(path, section), image)
    assert read_header(path).pixel_size_angstrom == 7.88
    assert read_header(path).titles == ("icewatch",)


def test_an_unknown_pixel_size_is_written_as_unknown(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.zeros((2, 3), np.int8), None)
    assert read_header(tmp_path / "a.mrc").pixel_size_angstrom is None


def test_nan_can_be_written(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrc", np.full((2, 3), np.nan, np.float32), 2.0)
    assert np.isnan(read_section(tmp_path / "a.mrc", 0)).all()


@pytest.mark.parametrize("data", [np.zeros((2, 2)), np.zeros(4, "i2"), np.zeros((0, 2), "i2")])
def test_what_cannot_be_written_is_refused(tmp_path: Path, data: NDArray[Any]) -> None:
    assert reason_of(lambda: write_mrc(tmp_path / "a.mrc", data, 2.0)) == "mode"


def test_real_images_are_read_as_mrcfile_reads_them(realdata: Path) -> None:
    paths = sorted(realdata.glob("images/*.mrc")) + sorted(realdata.glob("crystalline-ice/*.mrc"))
    assert len(paths) == 17
    for path in paths:
        expected = np.frombuffer(path.read_bytes()[HEADER_BYTES:], read_header(path).dtype)
        np.testing.assert_array_equal(read_section(path, 0).ravel(), expected)
        assert np.isfinite(expected).all()
        assert (read_header(path).pixel_size_angstrom is None) == ("images" in path.parts)


@given(length=st.integers(0, HEADER_BYTES - 1))
@settings(max_examples=200, deadline=None)
def test_every_cut_header_is_truncated(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.mrc"
    path.write_bytes(bytes(header_bytes())[:length])
    assert reason_of(lambda: read_header(path)) == "truncated"


words = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31), 65_535, 65_536, 46_341, 101]),
)


@given(changes=st.dictionaries(st.integers(0, 255), words, max_size=6), order=st.sampled_from("<>"))
@settings(max_examples=300, deadline=None)
def test_mutated_headers_never_allocate_nor_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[int, int], order: str
) -> None:
    raw = header_bytes(order)
    for word, value in changes.items():
        struct.pack_into(order + "i", raw, 4 * word, value)
    path = tmp_path_factory.getbasetemp() / "mutated.mrc"
    path.write_bytes(bytes(raw) + bytes(96))
    tracemalloc.start()
    try:
        image = read_section(path, 0)
        header = read_header(path)
        assert image.nbytes <= 2 * header.section_bytes
        assert header.section_bytes <= 96
        read_tilt_angles(path, header)
    except PixelsError as error:
        assert error.reason in {"header", "mode", "truncated", "section"}
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 3_000_000


def test_parsing_needs_no_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.mrc", header_bytes(), np.zeros(48, "i2"))
    header = parse_header(bytes(header_bytes()), path.stat(), "a.mrc")
    assert isinstance(header, MrcHeader)
    assert header == read_header(path)
