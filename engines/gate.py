"""The gate before a backend: it serves only once it reads known tilts as ONNX Runtime does."""

from __future__ import annotations

from contextlib import closing

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.backends.protocol import Backend
from engines.bundle import Bundle
from engines.canary import Canary, WatchedBackend
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
    return WatchedBackend(candidate, Canary.of(candidate, tilts[0].picture), every)


def apart_from_cpu(bundle: Bundle, candidate: Backend, tilts: tuple[KnownTilt, ...]) -> Difference:
    """Measure how far a backend and ONNX Runtime are apart; raises `BackendError`."""
    with closing(OnnxRuntimeSettings().build(bundle)) as reference:
        expected = _readings(bundle, reference, tilts)
    return difference(expected, _readings(bundle, candidate, tilts))


def _readings(bundle: Bundle, backend: Backend, tilts: tuple[KnownTilt, ...]) -> list[IceMap]:
    return read_known(Segmenter(bundle, backend), tilts, bundle.manifest.pixel_size_angstrom)
