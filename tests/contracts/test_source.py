"""What every source promises, whatever the way of landing."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.microscope import SerialEMStackWriter, write_frame_mdoc_movie, write_tomography5_movie
from engines.microscope_eer import write_eer_movie
from engines.microscope_frames import write_tiff_movie
from engines.readers.mrc import write_mrc
from monitor.errors import SourceError, Unreadable
from monitor.model import Landed, Tilt, TiltId
from monitor.settings import CustomSettings
from monitor.sources import AnySource, Source, all_sources, tilts_on_disk
from monitor.sources.custom import Custom
from monitor.sources.movies import Movies
from monitor.sources.plain_image import PlainImage
from monitor.sources.serialem_frames import SerialEMFrames
from monitor.sources.serialem_stack import SerialEMStack
from monitor.sources.tomography5 import Tomography5
from tests.fei_stack import write_fei_stack
from tests.landings import SETTLED_S, landed

ANGLES = (0.0, 3.0, -3.0)
WHEN = datetime(2026, 2, 1, 10, 0, 0)
FOLDER = "s1/gridA"


def image(k: int) -> NDArray[np.int16]:
    return np.random.default_rng(k).integers(1, 900, (5, 7)).astype(np.int16)


def write_stack(root: Path) -> list[str]:
    stack = SerialEMStackWriter(root / FOLDER / "L1.mrc", (5, 7), 2.5)
    for k, angle in enumerate(ANGLES):
        stack.add(image(k), angle, WHEN + timedelta(seconds=26 * k))
    return [f"{FOLDER}/L1.mrc"]


def write_serialem_movies(root: Path) -> list[str]:
    names = [f"{FOLDER}/L1_{k:03d}_{angle:.1f}.mrc" for k, angle in enumerate(ANGLES)]
    for k, (name, angle) in enumerate(zip(names, ANGLES, strict=True)):
        when = WHEN + timedelta(seconds=26 * k)
        write_frame_mdoc_movie(root / name, image(k), angle, when, 2.5)
    return names


def write_tomography5_movies(root: Path) -> list[str]:
    paths = [
        write_tomography5_movie(
            root / FOLDER, "L1", k + 1, angle, WHEN + timedelta(seconds=26 * k), image(k), 2.5
        )
        for k, angle in enumerate(ANGLES)
    ]
    return [path.relative_to(root).as_posix() for path in paths]


def write_tomography5_stack(root: Path) -> list[str]:
    times = [WHEN + timedelta(seconds=26 * k) for k in range(len(ANGLES))]
    images = np.stack([image(k) for k in range(len(ANGLES))])
    write_fei_stack(root / FOLDER / "L1.mrc", images, 2.5, ANGLES, times)
    return [f"{FOLDER}/L1.mrc"]


def write_oddly_named(root: Path) -> list[str]:
    names = [f"{FOLDER}/{k}@{angle}@L1.mrc" for k, angle in enumerate(ANGLES)]
    for k, name in enumerate(names):
        write_mrc(root / name, image(k), 2.5)
    return names


def custom(root: Path) -> Source:
    pattern = r".*/(?P<number>\d+)@(?P<angle>[^@]+)@(?P<series>[^/]+)"
    return Custom(Movies(root), CustomSettings(pattern=pattern))


@dataclass(frozen=True)
class Way:
    write: Callable[[Path], list[str]]
    source: Callable[[Path], Source]
    has_times: bool = True


WAYS = {
    "serialem_stack": Way(write_stack, SerialEMStack),
    "serialem_frames": Way(write_serialem_movies, lambda root: SerialEMFrames(Movies(root))),
    "tomography5": Way(write_tomography5_movies, lambda root: Tomography5(Movies(root))),
    "custom": Way(write_oddly_named, custom, has_times=False),
    "plain_image": Way(write_stack, PlainImage, has_times=False),
    "any, stack": Way(write_stack, all_sources),
    "any, SerialEM movies": Way(write_serialem_movies, all_sources),
    "any, Tomography 5": Way(write_tomography5_movies, all_sources),
    "any, stack of Tomography 5": Way(write_tomography5_stack, all_sources),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / FOLDER).mkdir(parents=True)
    return tmp_path


def unknown(_: TiltId) -> bool:
    return False


def read(source: Source, offer: Landed) -> list[tuple[Tilt, NDArray[Any]]]:
    return [(tilt, source.pixels(tilt)) for tilt in source.new_tilts(offer, unknown)]


def read_all(way: Way, root: Path) -> list[tuple[Tilt, NDArray[Any]]]:
    source = way.source(root)
    found = []
    for relative in way.write(root):
        assert source.claims(relative) == relative
        found += read(source, landed(root, relative, SETTLED_S))
    return found


def test_each_exposure_comes_once_with_its_pixels_and_place(way: Way, root: Path) -> None:
    found = read_all(way, root)
    assert [tilt.angle_deg for tilt, _ in found] == list(ANGLES)
    assert [tilt.order for tilt, _ in found] == [0, 1, 2]
    assert len({str(tilt.id) for tilt, _ in found}) == 3
    for k, (tilt, pixels) in enumerate(found):
        np.testing.assert_array_equal(pixels, image(k))
        assert pixels.ndim == 2
        assert (tilt.session, tilt.grid, tilt.series) == ("s1", "gridA", "L1")
        assert tilt.lamella == tilt.id.series_key == "s1/gridA/L1"
        assert tilt.pixel_size_angstrom == 2.5
        if way.has_times:
            assert tilt.acquired_at == (WHEN + timedelta(seconds=26 * k)).isoformat()
            assert tilt.acquired_at == tilt.id.acquired_at


def test_what_is_known_does_not_come_again_after_a_restart(way: Way, root: Path) -> None:
    known = {tilt.id for tilt, _ in read_all(way, root)}
    source = way.source(root)
    for path in sorted((root / FOLDER).glob("*.mrc")):
        relative = path.relative_to(root).as_posix()
        assert list(source.new_tilts(landed(root, relative, SETTLED_S), known.__contains__)) == []


def test_reading_changes_nothing_and_leaves_nothing_open(way: Way, root: Path) -> None:
    way.write(root)

    def tree() -> list[tuple[str, int, int, int]]:
        paths = sorted(root.rglob("*"))
        stats = [(path, path.lstat()) for path in paths]
        return [(str(p), s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in stats]

    before = tree()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    read_all_written(way, root)
    assert tree() == before
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def read_all_written(way: Way, root: Path) -> None:
    source = way.source(root)
    for path in sorted((root / FOLDER).glob("*.mrc")):
        read(source, landed(root, path.relative_to(root).as_posix(), SETTLED_S))


@pytest.mark.parametrize("content", [b"", b"x" * 500, b"\xff" * 5000, b"\0" * 5000])
def test_bad_files_raise_one_sentence_with_a_reason(way: Way, root: Path, content: bytes) -> None:
    for relative in way.write(root):
        (root / relative).write_bytes(content)
        for quiet_s in (0.0, SETTLED_S):
            with pytest.raises(SourceError) as caught:
                read(way.source(root), landed(root, relative, quiet_s))
        assert isinstance(caught.value, Unreadable), "waiting does not help any more"
        assert caught.value.reason.isidentifier()
        assert "\n" not in str(caught.value)
        assert repr(Path(relative).name) in str(caught.value)


def test_strange_names_neither_break_lines_nor_fail_to_open(way: Way, root: Path) -> None:
    strange = os.fsdecode(b"L\n1\x1b[31m\xff_ts")
    for relative in way.write(root):
        for path in sorted(root.glob(relative + "*")):
            path.rename(path.with_name(path.name.replace("L1", strange)))
    source = way.source(root)
    for path in sorted((root / FOLDER).glob("*.mrc")):
        relative = path.relative_to(root).as_posix()
        assert source.claims(relative) == relative
        ((tilt, _), *_) = read(source, landed(root, relative, SETTLED_S))
        assert tilt.path == relative
        assert strange in tilt.series
        path.write_bytes(b"x" * 5000)
        with pytest.raises(Unreadable) as caught:
            read(source, landed(root, relative, SETTLED_S))
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("relative", ["s/notes.txt", "s/L1.mrc~", ".cache/L1.mrc", "s/a.jpg"])
def test_what_is_no_tilt_is_claimed_by_nobody(way: Way, relative: str) -> None:
    assert way.source(Path("/nowhere")).claims(relative) is None


def test_a_file_nobody_takes_is_set_aside_with_the_last_reason(root: Path) -> None:
    write_stack(root)
    (root / FOLDER / "L1.mrc.mdoc").unlink()
    source = AnySource([SerialEMStack(root)])
    (root / FOLDER / "L1.mrc").rename(root / FOLDER / "L1_001_0.0.mrc")
    with pytest.raises(Unreadable):
        list(source.new_tilts(landed(root, f"{FOLDER}/L1_001_0.0.mrc", SETTLED_S), unknown))


def test_pixels_of_an_unlisted_tilt_are_refused(root: Path) -> None:
    (relative,) = write_stack(root)
    ((tilt, _), *_) = read(SerialEMStack(root), landed(root, relative))
    with pytest.raises(Unreadable):
        all_sources(root).pixels(tilt)


def write_tiffs(root: Path) -> list[str]:
    names = [f"{FOLDER}/L1_{k:03d}_{angle:.1f}.tif" for k, angle in enumerate(ANGLES)]
    for k, name in enumerate(names):
        write_tiff_movie(root / name, [image(k)], 2.5, bits=16)
    return names


@pytest.mark.parametrize(
    "write",
    [
        write_stack,
        write_serialem_movies,
        write_tomography5_movies,
        write_tomography5_stack,
        write_tiffs,
    ],
)
def test_scoring_takes_files_in_every_way(root: Path, write: Callable[[Path], list[str]]) -> None:
    found = [
        (tilt.angle_deg, source.pixels(tilt).tolist())
        for relative in write(root)
        for tilt, source in tilts_on_disk(root, landed(root, relative, SETTLED_S))
    ]
    assert found == [(angle, image(k).tolist()) for k, angle in enumerate(ANGLES)]


def test_scoring_takes_an_image_of_which_nothing_is_known(root: Path, realdata: Path) -> None:
    folder = realdata / "images"
    offer = landed(folder, "micrograph_with_ice_ball.mrc", SETTLED_S)
    ((tilt, source),) = tilts_on_disk(folder, offer)
    assert (tilt.angle_deg, tilt.pixel_size_angstrom, tilt.section) == (None, None, 0)
    assert source.pixels(tilt).shape == (927, 959)


def test_scoring_takes_movies_of_which_nothing_is_known(root: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 2, (3, 8, 12)).astype(np.uint8)
    write_tiff_movie(root / "some.tif", counts, 2.5)
    write_eer_movie(root / "some.eer", counts > 0, 2.5)
    for name in ("some.tif", "some.eer"):
        ((tilt, source),) = tilts_on_disk(root, landed(root, name, SETTLED_S))
        assert (tilt.angle_deg, tilt.section, tilt.pixel_size_angstrom) == (None, 0, 2.5)
        np.testing.assert_array_equal(source.pixels(tilt), counts.sum(axis=0))
    os.truncate(root / "some.tif", (root / "some.tif").stat().st_size - 30)
    with pytest.raises(Unreadable, match="cut after 2 frames"):
        list(tilts_on_disk(root, landed(root, "some.tif", SETTLED_S)))


def test_scoring_a_cut_stack_gives_what_is_there_then_says_so(root: Path) -> None:
    (relative,) = write_stack(root)
    (root / (relative + ".mdoc")).unlink()
    os.truncate(root / relative, (root / relative).stat().st_size - 1)
    found = []
    with pytest.raises(Unreadable, match="2 of 3"):
        for tilt, _ in tilts_on_disk(root, landed(root, relative, SETTLED_S)):
            found.append(tilt.angle_deg)
    assert found == [0.0, 3.0]
