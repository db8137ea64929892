"""Raw images averaged on a (pretend) GPU are those averaged on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import BackendError
from engines.gpu import resampler as module
from engines.gpu.device import Device
from engines.gpu.plan_runner import PlanRunner
from engines.gpu.resampler import GRAPHS, TOLERANCE, GpuResampler, graph_path, shapes_of
from engines.learning.area_average import graph_of
from engines.plans.build import build_plan
from engines.plans.key import BuildOptions
from engines.plans.library import find
from engines.preprocess import prepare, working_shape
from tests.pretend_gpu import PretendGpu, plug_in


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PretendGpu:
    return plug_in(monkeypatch, tmp_path)


@pytest.fixture
def resampler(gpu: PretendGpu) -> Iterator[GpuResampler]:
    def runner_of(kind: str) -> PlanRunner:
        plan = gpu.plan(graph_path(kind).read_bytes())
        return PlanRunner(gpu.library, plan, gpu.device())

    found = GpuResampler(runner_of)
    yield found
    found.close()
    assert gpu.cuda.in_use() == 0


def image_of(kind: str, rows: int, columns: int, seed: int) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(seed)
    if kind == "float32":
        return generator.normal(100.0, 500.0, (rows, columns)).astype(np.float32)
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max, (rows, columns), kind, endpoint=True)


def test_any_image_comes_out_as_from_the_cpu(resampler: GpuResampler) -> None:
    sides = st.integers(40, 300)

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(GRAPHS), sides, sides, st.integers(0, 9), st.floats(1.0, 13.0))
    def agree(kind: str, rows: int, columns: int, seed: int, size_angstrom: float) -> None:
        image = image_of(kind, rows, columns, seed)
        expected = prepare(image, size_angstrom, 13.5).picture
        shape = working_shape((rows, columns), size_angstrom, 13.5)
        apart = np.abs(resampler(image, shape) - expected).max()
        assert apart <= TOLERANCE * np.abs(image.astype(np.float64)).max()

    agree()


@pytest.mark.parametrize("fault", ["nan", "drift", "half", "unwritten"])
@pytest.mark.parametrize("kind", GRAPHS)
def test_wrong_averages_are_found_out(
    gpu: PretendGpu, resampler: GpuResampler, kind: str, fault: str
) -> None:
    image = image_of(kind, 128, 128, 3)
    resampler(image, (64, 64))
    gpu.fault.write_text(f"{fault} 0")
    with pytest.raises(BackendError, match="not published"):
        resampler(image, (64, 64))


def test_wrong_averages_of_small_numbers_are_found_out(
    gpu: PretendGpu, resampler: GpuResampler
) -> None:
    image = image_of("float32", 128, 128, 3) * np.float32(1e-6)
    resampler(image, (64, 64))
    gpu.fault.write_text("half 0")
    with pytest.raises(BackendError, match="not published"):
        resampler(image, (64, 64))


def test_infinite_pixels_are_mended_as_on_the_cpu(
    resampler: GpuResampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_PIXELS", 1)
    image = image_of("float32", 200, 180, 2)
    image[40:60, 30:33] = np.nan
    image[100, 100] = np.inf
    expected, found = prepare(image, 5.0, 13.5), prepare(image, 5.0, 13.5, resampler)
    np.testing.assert_array_equal(found.valid, expected.valid)
    np.testing.assert_allclose(found.picture, expected.picture, rtol=1e-4)


def test_shares_go_up_once_for_images_of_one_size(
    resampler: GpuResampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    upload = Device.upload

    def noted(self: Device, address: int, memory: Any, nbytes: int) -> None:
        sent.append(nbytes)
        upload(self, address, memory, nbytes)

    monkeypatch.setattr(Device, "upload", noted)
    images = [image_of("int16", 128, 160, seed) for seed in (1, 2, 3)]
    for image in (*images, image_of("int16", 96, 96, 4), images[0]):
        expected = prepare(image, 6.75, 13.5).picture
        shape = (image.shape[0] // 2, image.shape[1] // 2)
        np.testing.assert_allclose(resampler(image, shape), expected, atol=1.0, rtol=1e-4)
    assert len(sent) == 3 + 1 + 1 + 3 + 3


def test_views_and_turned_images_are_taken(resampler: GpuResampler) -> None:
    image = image_of("int16", 120, 200, 1)
    for view in (image[::-1], image.T, image[10:90, 5:150], np.rot90(image)):
        expected = prepare(view, 5.0, 13.5).picture
        found = resampler(view, working_shape((view.shape[0], view.shape[1]), 5.0, 13.5))
        np.testing.assert_allclose(found, expected, atol=1.0, rtol=1e-4)


def test_what_the_cpu_does_better_stays_there(
    resampler: GpuResampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not resampler.takes(np.zeros((64, 64), np.int16), (32, 32))
    monkeypatch.setattr(module, "LEAST_PIXELS", 1)
    assert resampler.takes(np.zeros((64, 64), np.int16), (32, 32))
    assert not resampler.takes(np.zeros((64, 64), np.int16), (128, 128))
    assert not resampler.takes(np.zeros((64, 64), ">i2"), (32, 32))
    assert not resampler.takes(np.zeros((64, 64), np.float64), (32, 32))


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_real_library_builds_the_graphs(kind: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")
    options = BuildOptions(compute_capabilities=("8.6",))
    graph = graph_path(kind).read_bytes()
    built = build_plan(find("tensorrt_rtx"), graph, options, shapes=partial(shapes_of, kind))
    assert built.plan


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_committed_graphs_are_what_the_code_makes(kind: str) -> None:
    assert graph_path(kind).read_bytes() == graph_of(kind).SerializeToString()
