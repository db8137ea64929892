"""What every backend promises, whatever library does its sums.

A backend is used from one thread: that which built it. Nothing here shares one between threads.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.backends import BACKENDS, Backend, Inference
from engines.backends.tensorrt_gpu import TensorRtSettings
from engines.benchmarking.contenders import why_absent
from engines.bundle import GRAPH, MAX_BATCH, Bundle, manifest_entry
from engines.errors import BackendError, BundleError
from engines.gpu import installation
from engines.plans.key import HALF_GRAPH, Card
from tests import tiny_bundle
from tests.pretend_gpu import plug_in
from tests.test_bundle import graph_of_nan

Pictures = tuple[NDArray[np.float32], NDArray[np.float32]]


CARD = Card(name="Pretend Card", compute_capability="8.6", driver="600.00")
Build = Callable[[str, Bundle], Backend]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """Builds a backend of a kind; that for a GPU runs on the pretend one."""
    scratch = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        plug_in(patch, scratch)
        patch.setattr(installation, "find_card", lambda: CARD)

        def built(kind: str, bundle: Bundle) -> Backend:
            if kind == "tensorrt":
                return TensorRtSettings(cache=scratch / "engines").build(with_half_graph(bundle))
            if why := why_absent(kind):
                pytest.skip(f"the backend {kind}: {why}")
            return BACKENDS[kind]().build(bundle)

        yield built


def with_half_graph(bundle: Bundle) -> Bundle:
    """Give a bundle its own graph as that for the GPU."""
    content = bundle.read(GRAPH)
    (bundle.directory / HALF_GRAPH).write_bytes(content)
    entries = {GRAPH: manifest_entry(content), HALF_GRAPH: manifest_entry(content)}
    tiny_bundle.write(bundle.directory, content, files=entries)
    return Bundle.load(bundle.directory)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(tiny_bundle.write(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest, bundle: Bundle, build: Build) -> Iterator[Backend]:
    built = build(request.param, bundle)
    yield built
    built.close()


def pictures(batch: int, height: int, width: int, seed: int = 0) -> Pictures:
    rng = np.random.default_rng(seed)
    picture = rng.gamma(20.0, 1.0, (batch, 1, height, width)).astype(np.float32)
    picture[:, :, : height // 2, : width // 3] *= 0.65
    valid = (rng.random((batch, 1, height, width)) < 0.9).astype(np.float32)
    return picture, valid


def check_reference(inputs: Pictures, answer: Inference) -> None:
    """Compare with what the graph's sums come to in float64."""
    probability, area = tiny_bundle.expected(*inputs)
    np.testing.assert_allclose(answer.probability, probability, atol=1e-4)
    # Libraries add up some 1e5 pixels in float32, one after the other.
    np.testing.assert_allclose(answer.area, area, rtol=1e-3, atol=1e-2)


def test_every_backend_is_named_by_its_kind(backend: Backend) -> None:
    assert backend.name in BACKENDS


@pytest.mark.parametrize("batch", range(1, MAX_BATCH + 1))
def test_any_batch(backend: Backend, batch: int) -> None:
    inputs = pictures(batch, 64, 96)
    answer = backend.infer(*inputs)
    assert answer.probability.shape == (batch, len(tiny_bundle.CHANNELS), 64, 96)
    assert answer.area.shape == (batch, len(tiny_bundle.CHANNELS))
    assert answer.probability.dtype == answer.area.dtype == np.float32
    check_reference(inputs, answer)


@pytest.mark.parametrize("size", [(32, 32), (608, 608), (64, 320), (320, 64), (32, 1024)])
def test_any_size_from_call_to_call(
    backend: Backend, bundle: Bundle, size: tuple[int, int]
) -> None:
    inputs = pictures(1, *size)
    check_reference(inputs, backend.infer(*inputs))


def test_large_picture(backend: Backend) -> None:
    answer = backend.infer(*pictures(1, 1024, 1056))
    assert answer.probability.shape[2:] == (1024, 1056)


def test_pictures_of_a_batch_do_not_touch_each_other(backend: Backend) -> None:
    picture, valid = pictures(3, 96, 64)
    together = backend.infer(picture, valid)
    for i in range(3):
        alone = backend.infer(picture[i : i + 1].copy(), valid[i : i + 1].copy())
        np.testing.assert_allclose(together.probability[i], alone.probability[0], atol=1e-5)


def test_probabilities_and_areas_belong_together(backend: Backend) -> None:
    picture, valid = pictures(2, 96, 64)
    answer = backend.infer(picture, valid)
    assert answer.probability.min() >= 0.0 and answer.probability.max() <= 1.0
    sums = (answer.probability * valid).sum(axis=(2, 3))
    np.testing.assert_allclose(answer.area, sums, rtol=1e-3)


def test_same_picture_same_answer(backend: Backend) -> None:
    inputs = pictures(2, 160, 96)
    first = backend.infer(*inputs)
    backend.infer(*pictures(1, 64, 64, seed=1))
    second = backend.infer(*inputs)
    assert first.probability.tobytes() == second.probability.tobytes()
    assert first.area.tobytes() == second.area.tobytes()


def test_neither_inputs_nor_earlier_answers_change(backend: Backend) -> None:
    picture, valid = pictures(1, 96, 96)
    before = picture.copy(), valid.copy()
    answer = backend.infer(picture, valid)
    kept = answer.probability.copy()
    backend.infer(*pictures(1, 96, 96, seed=1))
    np.testing.assert_array_equal(picture, before[0])
    np.testing.assert_array_equal(valid, before[1])
    np.testing.assert_array_equal(answer.probability, kept)


def test_nothing_valid_is_no_reason_to_fail(backend: Backend) -> None:
    picture, valid = pictures(1, 64, 64)
    answer = backend.infer(picture, np.zeros_like(valid))
    assert (answer.area == 0.0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_no_number_is_refused(backend: Backend, which: int, bad: float) -> None:
    inputs = pictures(1, 64, 64)
    inputs[which][0, 0, 5, 5] = bad
    with pytest.raises(BackendError, match="NaN"):
        backend.infer(*inputs)


@pytest.mark.parametrize(
    ("picture", "valid"),
    [
        ((1, 1, 64, 60), (1, 1, 64, 60)),
        ((1, 1, 33, 64), (1, 1, 33, 64)),
        ((1, 1, 64, 64), (1, 1, 64, 96)),
        ((1, 1, 64, 64), (2, 1, 64, 64)),
        ((1, 2, 64, 64), (1, 2, 64, 64)),
        ((0, 1, 64, 64), (0, 1, 64, 64)),
        ((9, 1, 64, 64), (9, 1, 64, 64)),
        ((1, 1, 0, 64), (1, 1, 0, 64)),
        ((64, 64), (64, 64)),
    ],
)
def test_other_shapes_are_refused(
    backend: Backend, picture: tuple[int, ...], valid: tuple[int, ...]
) -> None:
    with pytest.raises(BackendError, match="float32"):
        backend.infer(np.ones(picture, np.float32), np.ones(valid, np.float32))


def test_other_numbers_are_refused(backend: Backend) -> None:
    picture, valid = pictures(1, 64, 64)
    wrong: Any = picture.astype(np.float64)
    with pytest.raises(BackendError, match="float32"):
        backend.infer(wrong, valid)


@pytest.mark.parametrize("kind", sorted(BACKENDS))
def test_closing_twice_is_closing_once(bundle: Bundle, kind: str, build: Build) -> None:
    backend = build(kind, bundle)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.infer(*pictures(1, 64, 64))


@pytest.mark.parametrize("kind", sorted(BACKENDS))
def test_a_graph_that_is_not_what_the_manifest_says_is_not_built(
    tmp_path: Path, kind: str, build: Build
) -> None:
    graph = tiny_bundle.tiny_graph(tiny_bundle.CHANNELS[:5])
    for output in graph.graph.output:
        output.type.tensor_type.ClearField("shape")
    other = Bundle.load(tiny_bundle.write(tmp_path / "a", graph.SerializeToString()))
    with pytest.raises(BackendError, match="not what its manifest says"):
        build(kind, other)
    graph = tiny_bundle.tiny_graph()
    graph.graph.node[0].op_type = "Nonsense"
    nonsense = Bundle.load(tiny_bundle.write(tmp_path / "b", graph.SerializeToString()))
    with pytest.raises(BackendError) as caught:
        build(kind, nonsense)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", sorted(BACKENDS))
def test_weights_that_are_no_numbers_are_the_fault_of_the_bundle(
    tmp_path: Path, kind: str, build: Build
) -> None:
    bundle = Bundle.load(tiny_bundle.write(tmp_path, graph_of_nan()))
    # NaN on a card may be the fault of the card
    error, words = (BackendError, "NaN") if kind == "tensorrt" else (BundleError, "not numbers")
    with pytest.raises(error, match=words):
        build(kind, bundle)
