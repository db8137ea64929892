"""The tilts of a series so far: whose memory is handed on, how much is kept, and the occupancy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy import bool_, float32, float64
from numpy.typing import NDArray

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.bundle import Bundle
from engines.icemap import IceMap
from engines.occupancy import LEAST_TILTS
from engines.preprocess import Prepared
from engines.segmenter import Segmenter
from engines.series import KEPT_TILTS, SeriesSoFar
from engines.simulation import SceneChoices, record, simulate_series
from tests import tiny_bundle
from tests.alike import SIDE, all_valid, moved_by, seen, specimen

PIXEL_SIZE = 13.5
PADDED = (SIDE, SIDE)
QUARTER = SIDE // 4
Mask = NDArray[bool_]


@lru_cache(maxsize=2)
def whole(seed: int = 0) -> NDArray[float32]:
    return specimen(seed)


def picture(shift: tuple[float, float] = (0.0, 0.0), seed: int = 0) -> NDArray[float32]:
    return seen(whole(), moved_by(shift), seed=seed)


def prepared(image: NDArray[float32], pixel_size: float = PIXEL_SIZE) -> Prepared:
    return Prepared(image, all_valid(image), pixel_size)


def found(
    image: NDArray[float32],
    memory: NDArray[float32] | None = None,
    ice: Mask | None = None,
    pixel_size: float = PIXEL_SIZE,
) -> IceMap:
    nothing = np.zeros(image.shape, bool)
    return IceMap(
        picture=image,
        valid=all_valid(image),
        ice=nothing if ice is None else ice,
        probability=np.zeros(image.shape, float32),
        pixel_size_angstrom=pixel_size,
        percent=0.0,
        memory_left=memory,
    )


def left(value: float, channels: int = 3) -> NDArray[float32]:
    return np.full((channels, QUARTER, QUARTER), value, float32)


def mean_left(series: SeriesSoFar, angle_deg: float | None) -> float | None:
    """Give the mean of what is handed on, where there is any."""
    memory = series.at(angle_deg).memory_for(prepared(picture(seed=99)), PADDED)
    return None if memory is None else float(memory.mean[:, :, memory.weight[0, 0] > 0].mean())


def test_the_first_tilt_has_no_neighbours() -> None:
    series = SeriesSoFar()
    assert series.at(0.0).memory_for(prepared(picture()), PADDED) is None
    assert series.occupancy_percent is None
    assert series.nbytes > 0, "the tilt that is being read"
    assert series.at(None).nbytes == 0


@pytest.mark.parametrize("shift", [(0.0, 0.0), (16.0, -24.0)])
def test_what_a_tilt_left_is_moved_with_its_picture(shift: tuple[float, float]) -> None:
    series = SeriesSoFar()
    pattern = np.random.default_rng(0).normal(size=(3, QUARTER, QUARTER)).astype(float32)
    pattern = np.stack([cv2.GaussianBlur(one, (0, 0), 2.0) for one in pattern])
    series.at(0.0).add(found(picture(), pattern))
    memory = series.at(0.0).memory_for(prepared(picture(shift, seed=1)), PADDED)
    assert memory is not None
    assert memory.mean.shape == (1, 3, QUARTER, QUARTER) and memory.mean.dtype == float32
    assert memory.weight.shape == (1, 1, QUARTER, QUARTER) and memory.weight.dtype == float32
    right, down = round(shift[0] / 4), round(shift[1] / 4)
    expected = np.roll(pattern, (down, right), (1, 2))[:, 8:-8, 8:-8]
    assert np.abs(memory.mean[0][:, 8:-8, 8:-8] - expected).max() < 0.2 * pattern.std()
    assert set(np.unique(memory.weight)) <= {0.0, 1.0}
    assert not memory.mean[0][:, memory.weight[0, 0] == 0].any()
    assert memory.weight.mean() == pytest.approx(
        (1 - abs(right) / QUARTER) * (1 - abs(down) / QUARTER), abs=0.02
    )


def test_the_three_nearest_in_angle_have_a_say() -> None:
    series = SeriesSoFar()
    for angle_deg in (0.0, 3.0, -3.0, 6.0, -6.0):
        series.at(angle_deg).add(found(picture(seed=int(angle_deg) + 50), left(angle_deg)))
    assert mean_left(series, 9.0) == pytest.approx((6.0 + 3.0 + 0.0) / 3, abs=0.01)
    assert mean_left(series, -9.0) == pytest.approx((-6.0 - 3.0 + 0.0) / 3, abs=0.01)
    assert mean_left(series, None) == pytest.approx((-6.0 + 6.0 - 3.0) / 3, abs=0.01)


def test_only_the_latest_tilts_are_kept() -> None:
    series = SeriesSoFar()
    sizes = []
    for number in range(KEPT_TILTS + 4):
        series.at(3.0 * number).add(found(picture(seed=number), left(number)))
        sizes.append(series.nbytes)
    assert series.kept_tilts == KEPT_TILTS
    assert len(set(sizes[KEPT_TILTS - 1 :])) == 1
    assert mean_left(series, 0.0) == pytest.approx(4.0 + 1.0, abs=0.01), "the earliest are gone"
    series.forget_oldest()
    assert series.kept_tilts == KEPT_TILTS - 1
    assert mean_left(series, 0.0) == pytest.approx(5.0 + 1.0, abs=0.01)


def test_a_series_of_large_tilts_takes_ten_megabytes() -> None:
    series = SeriesSoFar()
    large = np.random.default_rng(0).normal(size=(608, 608)).astype(float32)
    memory = np.zeros((32, 152, 152), float32)
    for number in range(KEPT_TILTS):
        series.at(3.0 * number).add(found(large, memory))
    assert 9e6 < series.nbytes < 11e6


@pytest.mark.parametrize(
    "other",
    [
        found(seen(specimen(0, 224)), np.ones((3, 56, 56), float32)),
        found(seen(specimen(1)), left(1.0)),
        found(np.full((SIDE, SIDE), 5.0, float32), left(1.0)),
        found(seen(specimen(0)), left(1.0), pixel_size=10.0),
        found(seen(specimen(0)), np.ones((3, 56, 56), float32)),
        found(seen(specimen(0)), None),
    ],
    ids=["other shape", "other place", "blank", "other pixel size", "other memory", "no memory"],
)
def test_what_does_not_go_together_is_left_out(other: IceMap) -> None:
    series = SeriesSoFar()
    series.at(0.0).add(other)
    assert mean_left(series, 3.0) is None
    series.at(3.0).add(found(picture(seed=1), left(7.0)))
    assert mean_left(series, 6.0) == pytest.approx(7.0, abs=0.01), "and does no harm"


def test_a_tilt_that_is_read_again_is_not_its_own_neighbour() -> None:
    series = SeriesSoFar()
    series.at(0.0, "a").add(found(picture(), left(1.0)))
    series.at(3.0, "b").add(found(picture(seed=1), left(2.0)))
    again = series.at(3.0, "b").memory_for(prepared(picture(seed=1)), PADDED)
    assert again is not None and again.mean.max() == pytest.approx(1.0, abs=0.01)
    series.add(found(picture(seed=1), left(2.0)))
    assert series.kept_tilts == 2
    assert series.occupancy_percent is None, "two tilts, one of them twice"


def disc(column: int, shift: tuple[float, float] = (0.0, 0.0)) -> Mask:
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.asarray((x - column - shift[0]) ** 2 + (y - SIDE / 2 - shift[1]) ** 2 < 16**2)


SHARE = 100.0 * np.pi * 16**2 / SIDE**2
COLUMNS = (60, 120, 180, 220)
SHIFTS = ((0.0, 0.0), (9.0, -6.0), (-12.0, 4.0), (5.0, 13.0))


def flashing(series: SeriesSoFar, factor: float, columns: Sequence[int] = COLUMNS) -> None:
    """Show another grain at each tilt, its counts times `factor`."""
    for number, (column, shift) in enumerate(zip(columns, SHIFTS, strict=True)):
        ice = disc(column, shift)
        image = np.where(ice, factor, 1.0) * picture(shift, seed=number)
        series.at(3.0 * number).add(found(image.astype(float32), ice=ice))


def test_occupancy_is_the_union_of_what_flashed() -> None:
    series = SeriesSoFar()
    flashing(series, 0.6)
    assert series.occupancy_percent == pytest.approx(len(COLUMNS) * SHARE, rel=0.05)
    same = SeriesSoFar()
    flashing(same, 0.6, [120] * len(COLUMNS))
    assert same.occupancy_percent == pytest.approx(SHARE, rel=0.25), "it was one and the same"


def test_ghosts_are_not_where_the_crystal_is() -> None:
    series = SeriesSoFar()
    flashing(series, 1.5)
    assert series.occupancy_percent is not None
    assert series.occupancy_percent < 0.1 * len(COLUMNS) * SHARE, "nothing but their rims"


@pytest.mark.parametrize("side", [SIDE, 3 * SIDE // 4])
def test_a_tilt_of_another_place_leaves_nothing_in_the_union(side: int) -> None:
    series = SeriesSoFar()
    elsewhere = seen(specimen(1))[:side, :side].copy()
    series.at(0.0).add(found(picture(seed=0)))
    series.at(3.0).add(found(elsewhere, ice=disc(120)[:side, :side]))
    for number in range(1, LEAST_TILTS + 1):
        series.at(3.0 * number).add(found(picture(seed=number)))
    assert series.occupancy_percent == 0.0


def test_occupancy_needs_three_tilts_that_fit() -> None:
    series = SeriesSoFar()
    elsewhere = seen(specimen(1))
    ice = disc(120)
    for number in range(LEAST_TILTS):
        assert series.occupancy_percent is None
        series.at(0.0).add(found(elsewhere if number == 1 else picture(seed=number), ice=ice))
    # The tilt elsewhere began a new frame, to which nothing else fits.
    assert series.occupancy_percent is None
    for number in range(LEAST_TILTS):
        series.at(0.0).add(found(picture(seed=10 + number), ice=ice))
    assert series.occupancy_percent is not None
    before = series.occupancy_percent
    series.at(0.0).add(found(elsewhere, ice=all_valid(elsewhere)))
    assert series.occupancy_percent == before


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segmenter]:
    path: Path = tiny_bundle.write_with_memory(tmp_path_factory.mktemp("bundle"))
    bundle = Bundle.load(path)
    made = Segmenter(bundle, OnnxRuntimeSettings(threads=1).build(bundle))
    yield made
    made.close()


def test_neighbours_tell_what_stays_from_what_flashes(segmenter: Segmenter) -> None:
    """The tiny network calls ice what is dark now and was not dark before."""
    series = SeriesSoFar()
    stays, flashes = disc(80), disc(200)
    alone = segmenter.read(np.where(stays, 0.4, 1.0) * picture(), PIXEL_SIZE, series.at(0.0))
    assert alone.percent == pytest.approx(SHARE, rel=0.2) and not alone.used_neighbours
    image = np.where(stays | flashes, 0.4, 1.0) * picture(seed=1)
    both = segmenter.read(image, PIXEL_SIZE)
    assert both.percent == pytest.approx(2 * SHARE, rel=0.2)
    beside = segmenter.read(image, PIXEL_SIZE, series.at(3.0))
    assert beside.used_neighbours
    assert beside.percent == pytest.approx(SHARE, rel=0.2)
    assert beside.ice[SIDE // 2, 200] and not beside.ice[SIDE // 2, 80]


def union_of_truth(seed: int, tilts: int, size_px: int) -> tuple[float | None, float]:
    """Give the occupancy from true masks and recorded pictures, and what the simulator says."""
    angles = [6.0 * k for k in range(tilts)]
    simulated = simulate_series(
        seed,
        "generic",
        n_tilts=tilts,
        size_px=size_px,
        angles_deg=angles,
        overrides=SceneChoices(ice_kind="cubic", ice_layout="patches", ice_abundance=0.6),
    )
    generator = np.random.default_rng(seed)
    series = SeriesSoFar()
    for tilt in simulated.tilts:
        image = record(tilt.expected, generator)
        ice = (tilt.labels["0.10"] > 0) & tilt.valid
        series.at(tilt.angle_deg).add(found(image, ice=ice))
    return series.occupancy_percent, simulated.occupancy_percent


def test_occupancy_of_a_simulated_series() -> None:
    ours, true = union_of_truth(seed=1, tilts=3, size_px=224)
    assert ours is not None and true > 1.0
    assert ours == pytest.approx(true, rel=0.15)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_occupancy_of_many_simulated_series() -> None:
    errors = []
    for seed in range(12):
        ours, true = union_of_truth(seed, tilts=9, size_px=384)
        if ours is not None:
            errors.append(ours - true)
    assert len(errors) >= 9
    assert np.mean(np.abs(errors)) < 2.0


def test_turning_the_camera_back_and_forth_loses_nothing() -> None:
    """Chained over many tilts, small errors do not add up."""
    series = SeriesSoFar()
    generator = np.random.default_rng(5)
    for number in range(12):
        shift = tuple(float(s) for s in generator.uniform(-20, 20, 2))
        move: NDArray[float64] = moved_by((shift[0], shift[1]))
        ice = disc(140, (shift[0], shift[1]))
        image = np.where(ice, 0.6, 1.0) * seen(whole(), move, seed=number)
        series.at(0.0).add(found(image.astype(float32), ice=ice))
    assert series.occupancy_percent == pytest.approx(SHARE, rel=0.4)
