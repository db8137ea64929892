import os
import struct
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.microscope import SerialEMStackWriter, dose_symmetric
from monitor.errors import NotReady, SourceError, Unreadable
from monitor.model import Tilt, TiltId
from monitor.sources.protocol import NotMine
from monitor.sources.serialem_stack import SerialEMStack
from tests.landings import SETTLED_S, landed

SHAPE = (8, 10)
WHEN = datetime(2026, 2, 1, 10, 0, 0)
Image = NDArray[np.int16]


def image(seed: int) -> Image:
    return np.random.default_rng(seed).integers(-5, 900, SHAPE).astype(np.int16)


def writer(root: Path, relative: str = "s1/gridA/L1.mrc", **options: Any) -> SerialEMStackWriter:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    return SerialEMStackWriter(path, SHAPE, 1.97, **options)


def time_passes(stack: SerialEMStackWriter) -> None:
    """Let what is on disk be as old as it is before the next exposure."""
    for path in (stack.path, stack.mdoc_path):
        past = path.stat().st_mtime_ns - 20_000_000_000
        os.utime(path, ns=(past, past))


def unknown(_: TiltId) -> bool:
    return False


class Reader:
    """A worker with a memory instead of a journal."""

    def __init__(self, root: Path, relative: str = "s1/gridA/L1.mrc") -> None:
        self.root, self.relative = root, relative
        self.source = SerialEMStack(root)
        self.seen: list[tuple[Tilt, NDArray[Any]]] = []

    def known(self, tilt_id: TiltId) -> bool:
        return any(tilt.id == tilt_id for tilt, _ in self.seen)

    def restart(self) -> None:
        self.source = SerialEMStack(self.root)

    def read(self, quiet_s: float = 0.0) -> SourceError | None:
        """Read what there is; gives the error that the pipeline would have seen."""
        if not (self.root / self.relative).exists():
            return None
        try:
            for tilt in self.source.new_tilts(
                landed(self.root, self.relative, quiet_s), self.known
            ):
                self.seen.append((tilt, self.source.pixels(tilt)))
        except SourceError as error:
            return error
        return None


def test_a_series_is_read_as_it_grows(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    stack = writer(tmp_path, chunk_bytes=50)
    assert isinstance(reader.read(), NotReady)
    angles = dose_symmetric(3.0, 3.0, 9.0)
    for k, angle in enumerate(angles):
        when = WHEN + timedelta(seconds=26 * k)
        for _ in stack.steps(image(k), angle, when):
            error = reader.read()
            assert len(reader.seen) == k or error is None
            assert error is None or isinstance(error, NotReady)
        assert reader.read() is None
        assert len(reader.seen) == k + 1
    for k, (tilt, pixels) in enumerate(reader.seen):
        np.testing.assert_array_equal(pixels, image(k))
        assert tilt == Tilt(
            id=TiltId("s1/gridA/L1", angles[k], tilt.acquired_at),
            session="s1",
            grid="gridA",
            lamella="s1/gridA/L1",
            series="L1",
            path="s1/gridA/L1.mrc",
            section=k,
            angle_deg=angles[k],
            order=k,
            acquired_at=(WHEN + timedelta(seconds=26 * k)).isoformat(),
            pixel_size_angstrom=1.97,
            exposure_dose_e_per_A2=2.2,
            counts_per_electron=165.5,
            tilts_expected=k + 1,
        )


@given(data=st.data())
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_however_writes_and_reads_interleave_each_tilt_comes_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("interleaved")
    reader = Reader(root)
    stack = writer(root, chunk_bytes=64, line_end=data.draw(st.sampled_from(["\n", "\r\n"])))
    truth: dict[tuple[float, str], Image] = {}
    replaced: set[tuple[float, str]] = set()
    angles = data.draw(
        st.lists(st.sampled_from([0.0, 3.0, -3.0, 6.0, -52.13]), min_size=2, max_size=6)
    )

    def session() -> Iterator[str]:
        for k, angle in enumerate(angles):
            when = WHEN + timedelta(seconds=k)
            truth[angle, when.isoformat()] = image(k)
            yield from stack.steps(image(k), angle, when)
            if data.draw(st.booleans(), "PACEtomo rewrites the mdoc"):
                _read_one_while_the_mdoc_is_rewritten(reader, stack)
        if data.draw(st.booleans(), "a section is taken again"):
            k = data.draw(st.integers(0, len(angles) - 1))
            when = WHEN + timedelta(minutes=5)
            replaced.add((angles[k], (WHEN + timedelta(seconds=k)).isoformat()))
            time_passes(stack)
            truth[angles[k], when.isoformat()] = image(100)
            yield from stack.steps(image(100), angles[k], when, section=k)
        if data.draw(st.booleans(), "the stack is sorted"):
            yield from stack.sorting_steps()

    for _ in session():
        what = data.draw(st.sampled_from(["wait", "wait", "read", "restart"]))
        if what == "restart":
            reader.restart()
        if what != "wait":
            reader.read()
    assert reader.read() is None or not isinstance(reader.read(SETTLED_S), NotReady)
    found = [(tilt.id.angle_deg or 0.0, tilt.acquired_at or "") for tilt, _ in reader.seen]
    assert len(found) == len(set(found))
    assert set(truth) - replaced <= set(found) <= set(truth)
    for key, (_, pixels) in zip(found, reader.seen, strict=True):
        np.testing.assert_array_equal(pixels, truth[key])


def _read_one_while_the_mdoc_is_rewritten(reader: Reader, stack: SerialEMStackWriter) -> None:
    tilts = reader.source.new_tilts(landed(reader.root, reader.relative), reader.known)
    try:
        tilt = next(tilts, None)
        stack.rewrite_mdoc()
        if tilt is not None:
            reader.seen.append((tilt, reader.source.pixels(tilt)))
    except SourceError:
        return


def test_a_sort_between_listing_and_reading_is_noticed(tmp_path: Path) -> None:
    stack = writer(tmp_path)
    for k, angle in enumerate((0.0, 3.0, -3.0)):
        stack.add(image(k), angle, WHEN + timedelta(seconds=k))
    source = SerialEMStack(tmp_path)
    tilts = source.new_tilts(landed(tmp_path, "s1/gridA/L1.mrc"), unknown)
    first = next(tilts)
    stack.sort_by_angle()
    with pytest.raises(NotReady):
        source.pixels(first)


def test_pixels_of_another_angle_are_not_taken_for_this_one(tmp_path: Path) -> None:
    """Sorted pixels under a mdoc that is not sorted yet: the extended header tells."""
    stack = writer(tmp_path)
    for k, angle in enumerate((0.0, 3.0, -3.0)):
        stack.add(image(k), angle, WHEN + timedelta(seconds=k))
    old_mdoc = stack.mdoc_path.read_bytes()
    stack.sort_by_angle()
    stack.mdoc_path.write_bytes(old_mdoc)
    reader = Reader(tmp_path)
    error = reader.read()
    assert isinstance(error, NotReady)
    assert error.reason == "angle_mismatch"
    assert reader.seen == []
    assert reader.read(SETTLED_S) is None, "so it stays: then the mdoc is believed"
    flags = {tilt.section: tilt.flags for tilt, _ in reader.seen}
    assert flags == {0: ("angle_mismatch",), 1: ("angle_mismatch",), 2: ("angle_mismatch",)}


def test_a_stack_sorted_in_place_is_left_alone_until_its_mdoc_follows(tmp_path: Path) -> None:
    stack = writer(tmp_path)
    for k, angle in enumerate((0.0, 3.0)):
        stack.add(image(k), angle, WHEN + timedelta(seconds=k))
    later = stack.mdoc_path.stat().st_mtime_ns + 3_000_000_000
    os.utime(stack.path, ns=(later, later))
    reader = Reader(tmp_path)
    for quiet_s, reason in ((0.0, "writing"), (2.0, "rewriting")):
        error = reader.read(quiet_s)
        assert isinstance(error, NotReady)
        assert error.reason == reason
    assert reader.read(quiet_s=6.0) is None, "a copy looks the same, but is quiet"
    assert len(reader.seen) == 2


def test_the_order_after_sorting_is_still_that_of_acquisition(tmp_path: Path) -> None:
    stack = writer(tmp_path)
    angles = dose_symmetric(0.0, 3.0, 9.0)
    for k, angle in enumerate(angles):
        stack.add(image(k), angle, WHEN + timedelta(seconds=26 * k))
    stack.sort_by_angle()
    reader = Reader(tmp_path)
    assert reader.read() is None
    assert [tilt.angle_deg for tilt, _ in reader.seen] == angles
    assert [tilt.order for tilt, _ in reader.seen] == list(range(len(angles)))
    assert [tilt.section for tilt, _ in reader.seen] != list(range(len(angles)))


def test_same_angle_and_second_are_two_exposures(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    stack = writer(tmp_path)
    for k in range(3):
        stack.add(image(k), 0.0, WHEN)
        assert reader.read() is None
    assert len({str(tilt.id) for tilt, _ in reader.seen}) == 3
    stack.sort_by_angle()
    assert reader.read() is None
    assert len(reader.seen) == 3


def test_an_undated_series(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    stack = writer(tmp_path)
    for k in range(3):
        stack.add(image(k), 3.0 * k, WHEN, DateTime="", SubFramePath=f"C:\\x\\f{k}.tif")
    error = reader.read()
    assert isinstance(error, NotReady)
    assert len(reader.seen) == 2, "only what a further section follows is known to be complete"
    assert reader.read(SETTLED_S) is None
    assert [str(tilt.id) for tilt, _ in reader.seen] == [
        f"s1/gridA/L1@{angle}@f{k}.tif" for k, angle in enumerate(("+0.00", "+3.00", "+6.00"))
    ]


def test_the_real_pacetomo_mdoc(tmp_path: Path, realdata: Path) -> None:
    text = (realdata / "pacetomo" / "chrom_07_ts_010.mrc.mdoc").read_bytes()
    relative = "s1/chrom_07_ts_010.mrc"
    stack = writer(tmp_path, relative)
    for k, angle in enumerate((0, 3, 6, -3, -6, 9, 12, -9, -12, 15, 18)):
        stack.add(image(k), angle - 0.01, WHEN)
    raw = bytearray(stack.path.read_bytes())
    struct.pack_into("<h", raw, 130, 0)  # no angles in the extended header
    stack.path.write_bytes(bytes(raw))
    stack.mdoc_path.write_bytes(text)
    reader = Reader(tmp_path, relative)
    assert reader.read() is None
    assert [round(tilt.angle_deg or 0.0, 2) for tilt, _ in reader.seen][:4] == [
        -0.01,
        2.99,
        5.99,
        -3.01,
    ]
    assert all(tilt.exposure_dose_e_per_A2 is None for tilt, _ in reader.seen)
    assert {tilt.pixel_size_angstrom for tilt, _ in reader.seen} == {1.94}
    assert str(reader.seen[0][0].id) == "s1/chrom_07_ts_010@-0.01@2022-08-01T18:58:35"


def test_a_cut_stack_gives_its_whole_sections_then_a_reason(tmp_path: Path) -> None:
    stack = writer(tmp_path)
    for k in range(3):
        stack.add(image(k), 3.0 * k, WHEN + timedelta(seconds=k))
    os.truncate(stack.path, stack.path.stat().st_size - 1)
    reader = Reader(tmp_path)
    assert isinstance(reader.read(), NotReady)
    assert len(reader.seen) == 2
    error = reader.read(SETTLED_S)
    assert isinstance(error, Unreadable)
    assert error.reason == "truncated"
    assert "'L1.mrc'" in str(error)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "truncated"), (b"\0" * 5000, "truncated"), (b"nonsense" * 1000, "header")],
)
def test_nonsense_is_set_aside_once_it_is_quiet(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    stack = writer(tmp_path)
    stack.add(image(0), 0.0, WHEN)
    stack.path.write_bytes(content)
    reader = Reader(tmp_path)
    first, second = reader.read(2.0), reader.read(SETTLED_S)
    assert isinstance(first, NotReady)
    assert isinstance(second, Unreadable)
    assert first.reason == second.reason == reason


def test_an_mdoc_cut_within_a_section_does_not_give_that_section(tmp_path: Path) -> None:
    stack = writer(tmp_path)
    for k in range(2):
        stack.add(image(k), 3.0 * k, WHEN + timedelta(seconds=k))
    text = stack.mdoc_path.read_bytes()
    stack.mdoc_path.write_bytes(text[: text.rindex(b"DateTime") + 20])
    reader = Reader(tmp_path)
    assert isinstance(reader.read(), NotReady)
    assert isinstance(reader.read(SETTLED_S), SourceError)
    assert len(reader.seen) == 1
    stack.mdoc_path.write_bytes(text)
    assert reader.read() is None
    assert len(reader.seen) == 2


def test_a_section_without_an_angle_is_named_and_the_others_come(tmp_path: Path) -> None:
    stack = writer(tmp_path)
    stack.add(image(0), 0.0, WHEN, TiltAngle="NaN")
    stack.add(image(1), 3.0, WHEN + timedelta(seconds=1))
    reader = Reader(tmp_path)
    error = reader.read(SETTLED_S)
    assert isinstance(error, Unreadable)
    assert error.reason == "no_angle"
    assert [tilt.angle_deg for tilt, _ in reader.seen] == [3.0]


def test_sections_the_mdoc_is_silent_on_are_reported(tmp_path: Path) -> None:
    stack = writer(tmp_path)
    for k in range(2):
        stack.add(image(k), 3.0 * k, WHEN + timedelta(seconds=k))
    text = stack.mdoc_path.read_bytes()
    stack.mdoc_path.write_bytes(text[: text.rindex(b"[ZValue")])
    reader = Reader(tmp_path)
    assert isinstance(reader.read(), NotReady)
    error = reader.read(SETTLED_S)
    assert isinstance(error, Unreadable)
    assert "section 1" in str(error)


def test_a_stack_without_an_mdoc_is_waited_for_then_set_aside(tmp_path: Path) -> None:
    stack = writer(tmp_path)
    stack.add(image(0), 0.0, WHEN)
    text = stack.mdoc_path.read_bytes()
    stack.mdoc_path.unlink()
    reader = Reader(tmp_path)
    assert isinstance(reader.read(), NotReady)
    error = reader.read(SETTLED_S)
    assert isinstance(error, Unreadable)
    assert error.reason == "no_angle"
    stack.mdoc_path.write_bytes(text)
    assert reader.read() is None
    assert len(reader.seen) == 1


def test_maps_are_not_tilt_series(tmp_path: Path) -> None:
    stack = writer(tmp_path)
    stack.add(image(0), 0.0, WHEN, PieceCoordinates="0 0 0")
    error = Reader(tmp_path).read(SETTLED_S)
    assert isinstance(error, Unreadable)
    assert error.reason == "map"


def test_movies_are_left_to_the_other_source(tmp_path: Path) -> None:
    name = "s1/TS_01_003_9.0.mrc"
    stack = writer(tmp_path, name)
    stack.add(image(0), 9.01, WHEN)
    assert isinstance(Reader(tmp_path, name).read(), NotMine), "one tilt saved as a stack"
    stack.mdoc_path.write_bytes(stack.mdoc_path.read_bytes().replace(b"ZValue", b"FrameSet"))
    assert isinstance(Reader(tmp_path, name).read(), NotMine)
    stack.mdoc_path.unlink()
    assert isinstance(Reader(tmp_path, name).read(), NotMine)


def test_a_stack_that_happens_to_be_named_like_a_movie(tmp_path: Path) -> None:
    name = "s1/grid_1.5.mrc"
    stack = writer(tmp_path, name)
    for k in range(2):
        stack.add(image(k), 3.0 * k, WHEN + timedelta(seconds=k))
    reader = Reader(tmp_path, name)
    assert reader.read() is None
    assert [tilt.series for tilt, _ in reader.seen] == ["grid_1.5"] * 2


@pytest.mark.parametrize(
    ("relative", "claimed"),
    [
        ("s/L1.mrc", "s/L1.mrc"),
        ("s/L1.mrc.mdoc", "s/L1.mrc"),
        ("s/L1.st.mdoc", "s/L1.st"),
        ("s/L1.MRC", "s/L1.MRC"),
        ("s/L1.tif", None),
        ("s/L1.mrc~", None),
        ("s/L1.mrc.openTS", None),
        ("s/L1.mdoc", None),
        ("s/.L1.mrc.a1b2c3", None),
    ],
)
def test_claims(relative: str, claimed: str | None) -> None:
    assert SerialEMStack(Path("/nowhere")).claims(relative) == claimed


def test_loose_files_leave_the_session_open(tmp_path: Path) -> None:
    stack = writer(tmp_path, "L1.mrc")
    stack.add(image(0), 0.0, WHEN)
    reader = Reader(tmp_path, "L1.mrc")
    assert reader.read() is None
    tilt = reader.seen[0][0]
    assert (tilt.session, tilt.grid, tilt.lamella) == ("", "", "L1")


def test_a_file_that_vanishes_is_waited_for(tmp_path: Path) -> None:
    stack = writer(tmp_path)
    stack.add(image(0), 0.0, WHEN)
    source = SerialEMStack(tmp_path)
    offer = landed(tmp_path, "s1/gridA/L1.mrc", SETTLED_S)
    tilt = next(source.new_tilts(offer, unknown))
    stack.path.unlink()
    with pytest.raises(NotReady):
        source.pixels(tilt)
    with pytest.raises(NotReady):
        list(source.new_tilts(offer, unknown))
