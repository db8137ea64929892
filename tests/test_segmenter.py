"""`engines.segmenter`: percentage, masks and flags, on a graph whose answer can be foretold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.bundle import Bundle
from engines.errors import BackendError, BundleError
from engines.icemap import AMBER, Flag, IceMap
from engines.percentage import BINS, histogram
from engines.readers.mrc import read_section
from engines.segmenter import Segmenter, without_small_parts
from tests import tiny_bundle

PIXEL_SIZE = 5.0
SIDE = 1000


def segmenter_of(path: Path, **changes: Any) -> Segmenter:
    bundle = Bundle.load(tiny_bundle.write(path, **changes))
    return Segmenter(bundle, OnnxRuntimeSettings(threads=1).build(bundle))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Segmenter]:
    made = segmenter_of(tmp_path_factory.mktemp("bundle"))
    yield made
    made.close()


def field(side: int = SIDE) -> NDArray[Any]:
    """Mean counts of an ice-free specimen: uneven, as specimens are."""
    y, x = np.mgrid[:side, :side]
    return np.asarray(20.0 + 1.5 * np.sin(x / 40.0) * np.sin(y / 55.0))


def disc(row: int, column: int, radius: int, side: int = SIDE) -> NDArray[Any]:
    y, x = np.mgrid[:side, :side]
    return np.asarray((y - row) ** 2 + (x - column) ** 2 < radius**2)


def exposed(electrons: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).poisson(electrons).astype(np.int16)


def icy(share: NDArray[Any]) -> NDArray[Any]:
    return exposed(np.where(share, 6.0, field()))


def check_consistent(icemap: IceMap) -> None:
    """Hold an ice map to what holds for all of them."""
    shape = icemap.picture.shape
    assert icemap.valid.shape == icemap.ice.shape == icemap.probability.shape == shape
    assert icemap.valid.dtype == icemap.ice.dtype == bool
    assert icemap.picture.dtype == icemap.probability.dtype == np.float32
    assert np.isfinite(icemap.picture).all() and np.isfinite(icemap.probability).all()
    assert not (icemap.ice & ~icemap.valid).any()
    assert 0.0 <= icemap.valid_area_percent <= 100.0
    assert len(set(icemap.flags)) == len(icemap.flags)
    numbers = (icemap.percent_low, icemap.percent, icemap.percent_high)
    if icemap.percent is None:
        assert numbers == (None, None, None)
        assert set(icemap.flags) - AMBER and not icemap.in_domain
        assert not icemap.ice.any() and not icemap.phases
    else:
        low, percent, high = (float(n) for n in numbers if n is not None)
        assert 0.0 <= low <= percent <= high <= 100.0
        assert AMBER.issuperset(icemap.flags) and icemap.in_domain
        assert bool(icemap.phases) == bool(icemap.ice.any())


def test_clean_specimen_has_no_ice(segmenter: Segmenter) -> None:
    icemap = segmenter.read(exposed(field()), PIXEL_SIZE)
    check_consistent(icemap)
    assert icemap.percent == icemap.percent_low == 0.0 and icemap.percent_high == 5.0
    assert icemap.phases == {} and icemap.flags == ()
    assert icemap.valid_area_percent == 100.0
    assert icemap.pixel_size_angstrom == pytest.approx(13.5, rel=0.01)


def test_ice_is_found_where_it_is(segmenter: Segmenter) -> None:
    ice = disc(300, 700, 110) | disc(700, 250, 80)
    icemap = segmenter.read(icy(ice), PIXEL_SIZE)
    check_consistent(icemap)
    assert icemap.percent == pytest.approx(100.0 * ice.mean(), rel=0.06)
    rows, columns = np.nonzero(icemap.ice)
    assert icemap.ice[round(300 * 0.37), round(700 * 0.37)]
    assert icemap.ice[round(700 * 0.37), round(250 * 0.37)]
    assert not icemap.ice[round(300 * 0.37), round(300 * 0.37)]
    assert icemap.phases == pytest.approx(
        {"hexagonal": 0.7, "cubic": 0.2, "stacking_disordered": 0.1}, abs=1e-3
    )
    assert len(rows) == len(columns) == np.count_nonzero(icemap.ice)


def test_same_image_gives_the_same_answer(segmenter: Segmenter) -> None:
    image = icy(disc(300, 700, 110))
    first, second = (segmenter.read(image, PIXEL_SIZE) for _ in range(2))
    assert first.percent == second.percent
    assert first.probability.tobytes() == second.probability.tobytes()


@settings(deadline=None, max_examples=25)
@given(
    st.integers(300, 900),
    st.integers(300, 900),
    st.sampled_from(("<i2", ">i2", "u2", "f4", ">f4", "f8", "i4")),
    st.floats(4.0, 19.0),
)
def test_shape_and_kind_of_numbers_do_not_matter(
    segmenter: Segmenter, rows: int, columns: int, dtype: str, pixel_size: float
) -> None:
    y, x = np.mgrid[:rows, :columns]
    ice = (y > 0.2 * rows) & (y < 0.6 * rows) & (x > 0.3 * columns) & (x < 0.6 * columns)
    electrons = np.where(ice, 6.0, field(900)[:rows, :columns])
    icemap = segmenter.read(exposed(electrons).astype(dtype), pixel_size)
    check_consistent(icemap)
    assert icemap.percent == pytest.approx(12.0, abs=1.5)


def test_small_parts_are_dropped(tmp_path: Path, segmenter: Segmenter) -> None:
    grain = disc(500, 500, 25)  # 12.5 nm radius, 490 nm2
    assert segmenter.read(icy(grain), PIXEL_SIZE).percent == 0.0
    small_too = segmenter_of(tmp_path, min_part_nm2=0.0)
    assert small_too.read(icy(grain), PIXEL_SIZE).percent == pytest.approx(0.2, abs=0.1)


def test_parts_are_measured_over_corners() -> None:
    mask = np.zeros((10, 10), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = True
    mask[8, 8] = True
    kept = without_small_parts(mask, 3)
    assert kept.sum() == 3 and not kept[8, 8]
    np.testing.assert_array_equal(without_small_parts(mask, 0), mask)
    assert not without_small_parts(np.zeros((3, 3), bool), 0).any()


@given(seed=st.integers(0, 999), share=st.floats(0.0, 0.6), least=st.integers(1, 30))
def test_parts_are_those_of_the_whole_mask(seed: int, share: float, least: int) -> None:
    mask = np.zeros((23, 31), bool)
    mask[3:20, 5:29] = np.random.default_rng(seed).random((17, 24)) < share
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    expected = mask & (stats[labels, cv2.CC_STAT_AREA] >= least)
    np.testing.assert_array_equal(without_small_parts(mask, least), expected)
    np.testing.assert_array_equal(without_small_parts(mask[:, ::-1], least), expected[:, ::-1])


@given(seed=st.integers(0, 999))
def test_a_histogram_counts_every_pixel_inside_once(seed: int) -> None:
    generator = np.random.default_rng(seed)
    probability = generator.random((40, 50), np.float32) ** 3
    probability.flat[:4] = (0.0, 1.0, 0.25, 1e-30)
    inside = generator.random((40, 50)) < 0.7
    level = (np.sqrt(probability[inside]) * np.float32(BINS)).astype(int).clip(0, BINS - 1)
    expected = np.bincount(level, minlength=BINS)
    np.testing.assert_array_equal(histogram(probability, inside), expected)


def test_percentage_is_calibrated(tmp_path: Path, segmenter: Segmenter) -> None:
    image = icy(disc(300, 700, 110))
    raw = segmenter.read(image, PIXEL_SIZE).percent
    knots = {
        "kind": "piecewise",
        "predicted_percent": [0.0, 10.0],
        "percent": [0.0, 20.0],
        "low": [0.0, 10.0],
        "high": [0.0, 40.0],
    }
    calibrated = segmenter_of(tmp_path, calibration=knots).read(image, PIXEL_SIZE)
    assert raw is not None and raw > 3.0
    assert calibrated.percent == pytest.approx(2.0 * raw)
    assert calibrated.percent_low == pytest.approx(raw)
    assert calibrated.percent_high == pytest.approx(4.0 * raw)


def test_threshold_and_channel_come_from_the_manifest(tmp_path: Path) -> None:
    half = segmenter_of(tmp_path / "a", ice_channel="distractor", threshold=0.005)
    assert half.read(icy(disc(300, 700, 110)), PIXEL_SIZE).percent == pytest.approx(100.0)
    none = segmenter_of(tmp_path / "b", ice_channel="distractor", threshold=0.02)
    assert none.read(icy(disc(300, 700, 110)), PIXEL_SIZE).percent == 0.0


def test_percentage_is_of_the_valid_area(segmenter: Segmenter) -> None:
    ice = disc(300, 700, 110)
    image = icy(ice)
    image[500:] = 0
    icemap = segmenter.read(image, PIXEL_SIZE)
    check_consistent(icemap)
    assert icemap.percent == pytest.approx(200.0 * ice.mean(), rel=0.06)
    assert icemap.valid_area_percent == pytest.approx(50.0, abs=1.0)


def test_what_the_network_calls_not_valid_is_left_out(segmenter: Segmenter) -> None:
    hole = disc(300, 700, 110)
    speck = disc(700, 300, 4)
    icemap = segmenter.read(exposed(np.where(hole | speck, 0.3, field())), PIXEL_SIZE)
    check_consistent(icemap)
    assert icemap.valid_area_percent == pytest.approx(100.0 * (1 - hole.mean()), abs=0.6)
    assert icemap.valid[round(700 * 0.37), round(300 * 0.37)], "a speck is dropped"


@pytest.mark.parametrize("amber", [True, False])
def test_little_valid_area_is_said(segmenter: Segmenter, amber: bool) -> None:
    image = exposed(field())
    image[:, 180 if amber else 30 :] = 0
    icemap = segmenter.read(image, PIXEL_SIZE)
    check_consistent(icemap)
    assert icemap.flags == ((Flag.SMALL_VALID_AREA if amber else Flag.NO_SPECIMEN),)
    assert icemap.valid_area_percent == pytest.approx(18.0 if amber else 3.0, abs=1.0)
    assert (icemap.percent == 0.0) if amber else (icemap.percent is None)


def drawing() -> NDArray[Any]:
    """A soft mask, as networks give."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.asarray(1.0 / (1.0 + np.exp((np.hypot(y - 500, x - 500) - 400) / 3.0)))


NOTHING = np.zeros((400, 400), np.int16)


@pytest.mark.parametrize(
    ("image", "pixel_size", "flags"),
    [
        (np.zeros((3, 200, 200)), PIXEL_SIZE, {Flag.NOT_AN_IMAGE}),
        (np.zeros((0, 0)), PIXEL_SIZE, {Flag.NOT_AN_IMAGE}),
        (np.zeros(200), PIXEL_SIZE, {Flag.NOT_AN_IMAGE}),
        (np.zeros((200, 200), complex), PIXEL_SIZE, {Flag.NOT_AN_IMAGE}),
        (NOTHING, PIXEL_SIZE, {Flag.BLANK}),
        (NOTHING + 7.5, PIXEL_SIZE, {Flag.BLANK}),
        (np.full((400, 400), np.nan), PIXEL_SIZE, {Flag.NOT_FINITE}),
        (np.full((400, 400), -np.inf, np.float32), PIXEL_SIZE, {Flag.NOT_FINITE}),
        (exposed(field()), None, {Flag.PIXEL_SIZE_UNKNOWN}),
        (exposed(field()), float("nan"), {Flag.PIXEL_SIZE_UNKNOWN}),
        (NOTHING, None, {Flag.PIXEL_SIZE_UNKNOWN, Flag.BLANK}),
        (exposed(field()), 0.0, {Flag.PIXEL_SIZE_OUT_OF_RANGE}),
        (exposed(field()), -5.0, {Flag.PIXEL_SIZE_OUT_OF_RANGE}),
        (exposed(field()), 0.29, {Flag.PIXEL_SIZE_OUT_OF_RANGE}),
        (exposed(field()), 20.0, {Flag.PIXEL_SIZE_OUT_OF_RANGE}),
        (exposed(field()), 1e300, {Flag.PIXEL_SIZE_OUT_OF_RANGE}),
        (exposed(field())[:100], PIXEL_SIZE, {Flag.TOO_SMALL}),
        (np.ones((1, 1)), 13.5, {Flag.TOO_SMALL}),
        (exposed(np.full((1600, 1600), 9.0)), 19.0, {Flag.FIELD_TOO_WIDE}),
        (exposed(np.full((1000, 1000), 1e-3)), PIXEL_SIZE, {Flag.NO_ELECTRONS}),
        (exposed(np.full((1000, 1000), 9.0)), PIXEL_SIZE, {Flag.NO_STRUCTURE}),
        (drawing(), PIXEL_SIZE, {Flag.NO_NOISE, Flag.PARTLY_SATURATED}),
    ],
)
def test_what_cannot_be_measured_has_no_percentage(
    segmenter: Segmenter, image: NDArray[Any], pixel_size: float | None, flags: set[Flag]
) -> None:
    icemap = segmenter.read(image, pixel_size)
    check_consistent(icemap)
    assert set(icemap.flags) == flags
    assert icemap.percent is None


@pytest.mark.parametrize(
    ("share", "flag"), [(0.2, Flag.PARTLY_SATURATED), (0.7, Flag.MOSTLY_SATURATED)]
)
def test_saturation_is_said(segmenter: Segmenter, share: float, flag: Flag) -> None:
    image = 900 * icy(disc(900, 500, 60))
    image[: round(SIDE * share)] = 32767
    icemap = segmenter.read(image, PIXEL_SIZE)
    check_consistent(icemap)
    assert icemap.flags == (flag,)


def test_even_beam_without_specimen_has_no_structure(segmenter: Segmenter) -> None:
    y, x = np.mgrid[-1:1:1500j, -1:1:1500j]
    beam = 12.0 * np.exp(-0.05 * (x**2 + y**2))
    flags = {segmenter.read(exposed(beam, seed), 4.0).flags for seed in range(8)}
    assert flags == {(Flag.NO_STRUCTURE,)}


def test_faint_structure_is_a_specimen(segmenter: Segmenter) -> None:
    rng = np.random.default_rng(0)
    rough = np.kron(rng.normal(0, 1, (50, 50)), np.ones((20, 20)))  # 10 nm, 3 % rms
    icemap = segmenter.read(exposed(3.0 * (1 + 0.03 * rough)), PIXEL_SIZE)
    check_consistent(icemap)
    assert icemap.percent == 0.0


def test_real_micrographs_are_in_the_domain(segmenter: Segmenter, realdata: Path) -> None:
    for path in sorted((realdata / "crystalline-ice").glob("*.mrc")):
        for pixel_size in (5.0, 7.8, 13.5):
            icemap = segmenter.read(read_section(path, 0), pixel_size)
            check_consistent(icemap)
            assert icemap.flags == (Flag.SCALED_BYTES,), f"{path.name} at {pixel_size} Å"


def test_nan_from_the_network_is_never_a_reading(tmp_path: Path) -> None:
    graph = tiny_bundle.tiny_graph()
    for node in graph.graph.node:
        if node.output[0] == "unit":
            node.op_type = "Sqrt"
            node.ClearField("input")
            node.input.append("mean")
    bundle = Bundle.load(tiny_bundle.write(tmp_path, graph.SerializeToString()))
    segmenter = Segmenter(bundle, OnnxRuntimeSettings(threads=1).build(bundle))
    image = icy(disc(300, 700, 110)).astype(np.float32)
    check_consistent(segmenter.read(image, PIXEL_SIZE))
    with pytest.raises(BackendError, match="NaN"):
        segmenter.read(image - 100.0, PIXEL_SIZE)


def test_a_graph_that_knows_only_nan_is_not_built(tmp_path: Path) -> None:
    broken = tiny_bundle.tiny_graph()
    for constant in broken.graph.initializer:
        if constant.name == "offset":
            values = np.frombuffer(constant.raw_data, np.float32).copy()
            values[-1] = np.nan
            constant.raw_data = values.tobytes()
    bundle = Bundle.load(tiny_bundle.write(tmp_path, broken.SerializeToString()))
    with pytest.raises(BundleError, match="NaN"):
        OnnxRuntimeSettings(threads=1).build(bundle)


def test_says_what_it_runs_on(segmenter: Segmenter) -> None:
    assert segmenter.bundle_name == "tiny" and segmenter.bundle_version == "1"
    assert segmenter.backend_name == "onnxruntime"
