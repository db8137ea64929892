"""A canary beside every tilt: a picture with a known answer that shows when a backend drifts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.backends.protocol import Backend, Inference, Memory
from engines.bundle import SIDE_STEP_PX
from engines.errors import BackendError

MOST_APART = 0.05
"""Largest mean difference of an output, as a share of its mean size: half precision stays below."""
_LEAST_UNIT = 0.02
MOST_PIXELS_APART = 0.01
"""Share of the pixels that may lie on the other side of one half."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A picture and what the backend said of it when it was found to be right."""

    picture: NDArray[float32]
    """(1, 1, rows, columns), sides multiples of 32."""
    valid: NDArray[float32]
    answer: Inference

    @classmethod
    def of(cls, backend: Backend, picture: NDArray[float32]) -> Canary:
        """Ask a backend that was checked just now; raises `BackendError` where it fails."""
        whole = np.ascontiguousarray(_cut_to_step(picture)[None, None], float32)
        valid = np.ones_like(whole)
        return cls(whole, valid, backend.infer(whole, valid))

    def check(self, backend: Backend) -> None:
        """Ask again; raises `BackendError` where the answer has changed."""
        found = backend.infer(self.picture, self.valid)
        check_sums(found, self.valid, backend.name)
        why = why_wrong(self.answer, found)
        if why:
            raise BackendError(
                f"The backend {backend.name} no longer gives the known answer ({why}): what it "
                "says now is not published."
            )


def why_wrong(known: Inference, found: Inference) -> str | None:
    """Say in a few words how an answer differs from the known one; None if it does not."""
    for name in ("probability", "features", "memory_left"):
        before, now = getattr(known, name), getattr(found, name)
        if before is not None and not _alike(before, now):
            return f"its {name} is another"
    share = float(np.mean((known.probability > 0.5) != (found.probability > 0.5)))
    if not share <= MOST_PIXELS_APART:
        return f"{100 * share:.2g} % of the pixels have changed sides"
    return None


def _alike(known: NDArray[float32], found: NDArray[float32]) -> bool:
    """Say whether two outputs are alike on average, as half precision and full are."""
    off = float(np.abs(known - found).mean())
    return off <= MOST_APART * max(float(np.abs(known).mean()), _LEAST_UNIT)


def check_sums(answer: Inference, valid: NDArray[float32], name: str) -> None:
    """Refuse an answer whose two parts contradict each other; raises `BackendError`."""
    sums = np.einsum("bchw,bdhw->bc", answer.probability, valid, optimize=True)
    if not np.allclose(sums, answer.area, rtol=0.01, atol=1.0):
        raise BackendError(
            f"The backend {name} gave a map and sums that contradict each other: neither is "
            "published."
        )


def _cut_to_step(picture: NDArray[float32]) -> NDArray[float32]:
    rows, columns = (side // SIDE_STEP_PX * SIDE_STEP_PX for side in picture.shape)
    return picture[:rows, :columns]


Prove = Callable[[NDArray[float32], NDArray[float32], Memory | None, Inference], None]
"""Takes what a backend was asked and what it answered; raises `BackendError` if that is wrong."""


class WatchedBackend:
    """A backend that proves itself on the canary before each answer of the `every`-th goes out."""

    def __init__(
        self, backend: Backend, canary: Canary, every: int = 1, prove: Prove | None = None
    ) -> None:
        """Watch a backend; `prove` compares the first answer of each shape with another's.

        With neighbours and without are two: what they left goes through parts of its own.
        """
        self._backend, self._canary, self._every, self._prove = backend, canary, every, prove
        self._since = 0
        self._proved: set[tuple[tuple[int, ...], bool]] = set()
        self.name = backend.name

    def infer(
        self, picture: NDArray[float32], valid: NDArray[float32], memory: Memory | None = None
    ) -> Inference:
        """Run the network, then the canary; raises `BackendError` where either fails."""
        answer = self._backend.infer(picture, valid, memory)
        check_sums(answer, valid, self.name)
        way = (picture.shape, memory is None)
        if self._prove is not None and way not in self._proved:
            self._prove(picture, valid, memory, answer)
            self._proved.add(way)
        self._since += 1
        if self._since >= self._every:
            self._canary.check(self._backend)
            self._since = 0
        return answer

    def close(self) -> None:
        self._backend.close()
