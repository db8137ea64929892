"""A plan as a backend, on a pretend GPU: the same answers, bounded memory, no fault gets out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.backends import BACKENDS, Backend
from engines.backends.protocol import Memory, Ports
from engines.bundle import GRAPH, Bundle
from engines.errors import BackendError
from engines.gate import ParityError, admitted
from engines.gpu.backend import PlanBackend
from engines.gpu.device import Device, NoGpuError
from engines.gpu.plan_runner import PlanRefusedError, PlanRunner
from tests import tiny_bundle
from tests.pretend_gpu import PretendGpu, plug_in


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(tiny_bundle.write_with_memory(tmp_path_factory.mktemp("b") / "tiny"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PretendGpu:
    return plug_in(monkeypatch, tmp_path)


def backend_on(gpu: PretendGpu, bundle: Bundle) -> PlanBackend:
    runner = PlanRunner(gpu.library, gpu.plan(bundle.read(GRAPH)), gpu.device())
    return PlanBackend(runner, Ports.of(bundle.manifest))


@pytest.fixture
def backend(gpu: PretendGpu, bundle: Bundle) -> Iterator[PlanBackend]:
    built = backend_on(gpu, bundle)
    yield built
    built.close()
    assert gpu.cuda.in_use() == 0


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Iterator[Backend]:
    built = BACKENDS["onnxruntime"]().build(bundle)
    yield built
    built.close()


def draw(
    seed: int, batch: int, rows: int, columns: int
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], Memory]:
    generator = np.random.default_rng(seed)
    picture = generator.poisson(30.0, (batch, 1, 32 * rows, 32 * columns)).astype(np.float32)
    small = (batch, tiny_bundle.MEMORY_CHANNELS, 8 * rows, 8 * columns)
    mean = generator.normal(0.0, 1.0, small).astype(np.float32)
    weight = (generator.random((batch, 1, *small[2:])) < 0.5).astype(np.float32)
    return picture, Memory(mean, weight)


def test_it_answers_as_onnx_runtime_does_at_any_size(
    backend: PlanBackend, reference: Backend
) -> None:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 99), st.integers(1, 8), st.integers(1, 5), st.integers(1, 5))
    def agree(seed: int, batch: int, rows: int, columns: int) -> None:
        picture, memory = draw(seed, batch, rows, columns)
        found = backend.infer(picture, np.ones_like(picture), memory)
        expected = reference.infer(picture, np.ones_like(picture), memory)
        np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
        np.testing.assert_allclose(found.area, expected.area, rtol=1e-5, atol=1e-2)
        assert expected.memory_left is not None
        assert found.memory_left is not None
        np.testing.assert_allclose(found.memory_left, expected.memory_left, atol=1e-6)

    agree()


def test_an_answer_stays_as_it_is_when_the_next_one_comes(backend: PlanBackend) -> None:
    first, _ = draw(1, 1, 4, 4)
    answer = backend.infer(first, np.ones_like(first))
    kept = answer.probability.copy()
    second, _ = draw(2, 1, 4, 4)
    backend.infer(second, np.ones_like(second))
    np.testing.assert_array_equal(answer.probability, kept)


def test_memory_on_the_gpu_is_reserved_once_and_grows_with_the_largest_picture_alone(
    gpu: PretendGpu, backend: PlanBackend
) -> None:
    picture, _ = draw(1, 1, 19, 19)
    backend.infer(picture, np.ones_like(picture))
    before = gpu.cuda.in_use()
    for seed in range(5):
        small, _ = draw(seed, 1, 3 + seed, 9)
        backend.infer(small, np.ones_like(small))
    assert gpu.cuda.in_use() == before
    large, _ = draw(1, 1, 24, 24)
    backend.infer(large, np.ones_like(large))
    grown = gpu.cuda.in_use()
    assert before < grown < 2 * before
    backend.infer(large, np.ones_like(large))
    assert gpu.cuda.in_use() == grown


@pytest.mark.parametrize("fault", ["nan", "cuda", "refuses", "raise", "unwritten"])
def test_no_fault_of_the_card_gets_out_as_an_answer(
    gpu: PretendGpu, backend: PlanBackend, fault: str
) -> None:
    picture, _ = draw(1, 1, 3, 3)
    backend.infer(picture, np.ones_like(picture))
    gpu.fault.write_text(f"{fault} 0")
    with pytest.raises(BackendError):
        backend.infer(picture, np.ones_like(picture))
    gpu.fault.unlink()
    gpu.cuda.sticky = gpu.cuda.OK
    gpu.cuda.started.clear()


@pytest.mark.parametrize("fault", ["drift", "half"])
def test_wrong_numbers_are_found_out_before_they_go_out(
    gpu: PretendGpu, bundle: Bundle, backend: PlanBackend, fault: str
) -> None:
    watched = admitted(bundle, backend)
    picture, _ = draw(1, 1, 3, 3)
    watched.infer(picture, np.ones_like(picture))
    gpu.fault.write_text(f"{fault} 0")
    with pytest.raises(BackendError, match="published"):
        watched.infer(picture, np.ones_like(picture))


def test_the_gate_lets_no_backend_through_that_reads_otherwise(
    gpu: PretendGpu, bundle: Bundle, backend: PlanBackend
) -> None:
    gpu.fault.write_text("drift 0")
    with pytest.raises(ParityError, match="does not serve"):
        admitted(bundle, backend)


def test_a_plan_of_something_else_is_refused(gpu: PretendGpu, bundle: Bundle) -> None:
    with pytest.raises(PlanRefusedError, match="does not take this plan"):
        PlanRunner(gpu.library, b"another plan", gpu.device())
    other = tiny_bundle.tiny_graph().SerializeToString()
    runner = PlanRunner(gpu.library, gpu.plan(other), gpu.device())
    with pytest.raises(BackendError, match="build it again"):
        PlanBackend(runner, Ports.of(bundle.manifest))
    runner.close()


def test_too_little_memory_is_one_sentence(
    gpu: PretendGpu, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.cuda, "TOTAL_BYTES", 1 << 20)
    with pytest.raises(BackendError, match="not enough free memory"):
        backend_on(gpu, bundle)


def test_a_computer_without_gpu_is_told_so(
    gpu: PretendGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICEWATCH_FAKE_GPUS", "0")
    with pytest.raises(NoGpuError, match="no NVIDIA GPU is to be seen"):
        Device(gpu.cuda)


def test_the_real_bindings_say_that_there_is_no_gpu() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings")
    error, count = runtime.cudaGetDeviceCount()
    if int(error) == 0 and count:
        pytest.skip("there is a GPU here")
    with pytest.raises(NoGpuError):
        Device(runtime)
