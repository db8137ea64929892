"""The gate before a backend: it serves only once it reads known tilts as ONNX Runtime does."""

from __future__ import annotations

from contextlib import closing
from functools import partial

from numpy import float32
from numpy.typing import NDArray

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.backends.protocol import Backend, Inference, Memory
from engines.bundle import Bundle
from engines.canary import Canary, WatchedBackend, why_wrong
from engines.errors import BackendError
from engines.icemap import IceMap
from engines.reference import Difference, KnownTilt, difference, known_tilts, read_known
from engines.segmenter import Segmenter


class ParityError(BackendError):
    """Raised for a backend whose percentages are not those of ONNX Runtime: the CPU serves."""


def admitted(bundle: Bundle, candidate: Backend, every: int = 1) -> WatchedBackend:
    """Let a backend read known tilts; if it reads them as ONNX Runtime does, watch it from now on.

    `every` is after how many answers the canary is asked. Raises `ParityError` where the readings
    differ, `BackendError` where one of the two fails.
    """
    tilts = known_tilts(bundle)
    apart = apart_from_cpu(bundle, candidate, tilts)
    if not apart.is_small:
        raise ParityError(
            f"The backend {candidate.name} and ONNX Runtime differ by {apart} on the known tilts "
            "of the bundle: it does not serve."
        )
    canary = Canary.of(candidate, tilts[0].picture)
    return WatchedBackend(candidate, canary, every, partial(prove_on_cpu, bundle, candidate.name))


def prove_on_cpu(
    bundle: Bundle,
    name: str,
    picture: NDArray[float32],
    valid: NDArray[float32],
    memory: Memory | None,
    answer: Inference,
) -> None:
    """Compare an answer with ONNX Runtime's: kernels differ from shape to shape, and so may faults.

    Raises `ParityError` where the two differ.
    """
    with closing(OnnxRuntimeSettings().build(bundle)) as reference:
        known = reference.infer(picture[:1], valid[:1], _first(memory))
    why = why_wrong(known, _first_of(answer))
    if why:
        raise ParityError(
            f"The backend {name} answers otherwise than ONNX Runtime on a picture of "
            f"{picture.shape[2]} x {picture.shape[3]} ({why}): that is not published."
        )


def _first(memory: Memory | None) -> Memory | None:
    return None if memory is None else Memory(memory.mean[:1], memory.weight[:1])


def _first_of(answer: Inference) -> Inference:
    features, left = answer.features, answer.memory_left
    return Inference(
        answer.probability[:1],
        answer.area[:1],
        None if features is None else features[:1],
        None if left is None else left[:1],
    )


def apart_from_cpu(bundle: Bundle, candidate: Backend, tilts: tuple[KnownTilt, ...]) -> Difference:
    """Measure how far a backend and ONNX Runtime are apart; raises `BackendError`."""
    with closing(OnnxRuntimeSettings().build(bundle)) as reference:
        expected = _readings(bundle, reference, tilts)
    return difference(expected, _readings(bundle, candidate, tilts))


def _readings(bundle: Bundle, backend: Backend, tilts: tuple[KnownTilt, ...]) -> list[IceMap]:
    return read_known(Segmenter(bundle, backend), tilts, bundle.manifest.pixel_size_angstrom)
