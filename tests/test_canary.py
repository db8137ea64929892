"""Known tilts and the canary: a backend that drifts is found out before its answer goes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.backends import BACKENDS, Backend, Inference
from engines.backends.protocol import Memory
from engines.bundle import Bundle, manifest_entry
from engines.canary import Canary, WatchedBackend
from engines.errors import BackendError, BundleError
from engines.reference import (
    REFERENCE,
    UNREADABLE,
    KnownTilt,
    difference,
    known_tilts,
    made_up,
    packed,
    read_known,
    unpacked,
)
from engines.segmenter import Segmenter
from tests import tiny_bundle

SIZE = 13.5
Change = Callable[[Inference], Inference]


class Changing:
    """A backend whose answers are changed once it is told to."""

    name = "changing"

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.change: Change = lambda answer: answer

    def infer(
        self,
        picture: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
        valid: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
        memory: Memory | None = None,
    ) -> Inference:
        return self.change(self.backend.infer(picture, valid, memory))

    def close(self) -> None:
        self.backend.close()


def raised(by: float) -> Change:
    """Raise every probability, and the sums with them: an answer in itself without fault."""

    def change(answer: Inference) -> Inference:
        probability = np.clip(answer.probability + np.float32(by), 0.0, 1.0)
        return replace(answer, probability=probability, area=probability.sum(axis=(2, 3)))

    return change


def moved(answer: Inference) -> Inference:
    """Give each pixel the answer of another; sums and means stay."""
    return replace(answer, probability=np.roll(answer.probability, 40, axis=3))


def other_sums(answer: Inference) -> Inference:
    return replace(answer, area=answer.area * np.float32(1.05) + 3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    where = tiny_bundle.write_with_memory(tmp_path_factory.mktemp("bundle") / "tiny")
    return Bundle.load(where)


@pytest.fixture
def backend(bundle: Bundle) -> Iterator[Changing]:
    built = BACKENDS["onnxruntime"]().build(bundle)
    yield Changing(built)
    built.close()


@pytest.fixture
def watched(backend: Changing) -> WatchedBackend:
    return WatchedBackend(backend, Canary.of(backend, made_up()[0].picture))


def tilt(seed: int = 3, side: int = 96) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).poisson(30.0, (1, 1, side, side)).astype(np.float32)


def test_a_sound_backend_answers_as_it_would_unwatched(
    backend: Changing, watched: WatchedBackend
) -> None:
    picture = tilt()
    answer = watched.infer(picture, np.ones_like(picture))
    np.testing.assert_array_equal(
        answer.probability, backend.infer(picture, np.ones_like(picture)).probability
    )
    assert watched.name == backend.name


@pytest.mark.parametrize("change", [raised(0.05), raised(-0.05), moved, other_sums])
def test_a_backend_that_drifts_is_found_out_at_once(
    backend: Changing, watched: WatchedBackend, change: Change
) -> None:
    picture = tilt()
    watched.infer(picture, np.ones_like(picture))
    backend.change = change
    with pytest.raises(BackendError, match="published"):
        watched.infer(picture, np.ones_like(picture))


def test_the_canary_is_asked_every_so_many_tilts(backend: Changing) -> None:
    watched = WatchedBackend(backend, Canary.of(backend, made_up()[0].picture), every=3)
    backend.change = raised(0.2)
    picture = tilt()
    for _ in range(2):
        watched.infer(picture, np.ones_like(picture))
    with pytest.raises(BackendError):
        watched.infer(picture, np.ones_like(picture))


def test_the_same_network_reads_known_tilts_alike(bundle: Bundle, backend: Changing) -> None:
    segmenter = Segmenter(bundle, backend)
    tilts = known_tilts(bundle)
    expected = read_known(segmenter, tilts, SIZE)
    assert all(one.percent is not None for one in expected)
    assert any(one.ice.any() for one in expected)
    assert expected[1].used_neighbours
    apart = difference(expected, read_known(segmenter, tilts, SIZE))
    assert (apart.percent, apart.overlap) == (0.0, 1.0)
    assert apart.is_small


@pytest.mark.parametrize("change", [raised(0.4), moved])
def test_another_reading_of_known_tilts_is_no_small_difference(
    bundle: Bundle, backend: Changing, change: Change
) -> None:
    segmenter = Segmenter(bundle, backend)
    tilts = known_tilts(bundle)
    expected = read_known(segmenter, tilts, SIZE)
    backend.change = change
    assert not difference(expected, read_known(segmenter, tilts, SIZE)).is_small


def test_known_tilts_come_out_of_a_bundle_as_they_went_in(tmp_path: Path) -> None:
    tilts = made_up(seed=5)
    bundle = with_reference(tmp_path, packed(tilts))
    for one, other in zip(tilts, known_tilts(bundle), strict=True):
        np.testing.assert_array_equal(one.picture.astype(np.float16), other.picture)
        assert (one.angle_deg, one.series) == (other.angle_deg, other.series)


def with_reference(where: Path, content: bytes) -> Bundle:
    path = tiny_bundle.write(where / "bundle")
    (path / REFERENCE).write_bytes(content)
    loaded = Bundle.load(path)
    files = {name: one.model_dump() for name, one in loaded.manifest.files.items()}
    tiny_bundle.write(path, files={**files, REFERENCE: manifest_entry(content)})
    return Bundle.load(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", packed(made_up())[:3000]])
def test_damaged_known_tilts_are_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BundleError, match="copy the whole bundle again"):
        known_tilts(with_reference(tmp_path, content))


@given(at=st.integers(0, 40_000), bit=st.integers(0, 7))
def test_flipped_bits_give_an_error_or_tilts(at: int, bit: int) -> None:
    small = KnownTilt(np.ones((32, 32), np.float32), 1.0, 0)
    content = bytearray(packed((small, small)))
    content[at % len(content)] ^= 1 << bit
    try:
        found = unpacked(bytes(content))
    except UNREADABLE:
        return
    assert all(np.isfinite(one.picture).all() for one in found)
