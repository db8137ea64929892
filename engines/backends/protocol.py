"""What every backend offers to the segmenter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.bundle import MAX_BATCH, MEMORY_STRIDE, SIDE_STEP_PX, Manifest
from engines.errors import BackendError, BundleError


@dataclass(frozen=True, slots=True)
class Inference:
    """What a network says about a batch of pictures."""

    probability: NDArray[float32]
    """(batch, channels, height, width), 0 to 1, channels as in the bundle's manifest."""
    area: NDArray[float32]
    """(batch, channels): sums of the probability over the valid pixels, in pixels."""
    features: NDArray[float32] | None = None
    """(batch, features): means of several depths of the encoder; None where a bundle has none."""
    memory_left: NDArray[float32] | None = None
    """(batch, memory channels, height / 4, width / 4): for the neighbours of these tilts."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What neighbouring tilts left, brought onto this one."""

    mean: NDArray[float32]
    """(batch, memory channels, height / 4, width / 4)."""
    weight: NDArray[float32]
    """(batch, 1, height / 4, width / 4): 1 where there is any, else 0."""


Run = Callable[[NDArray[float32], NDArray[float32], Memory | None], Sequence[NDArray[float32]]]
"""Runs a graph: its answers in the order of `Ports.outputs`, not checked."""
WARM_UP_PX = 608
"""Side of the picture that a 4096-pixel camera gives at the usual sampling."""


@dataclass(frozen=True, slots=True)
class Ports:
    """How many channels of each kind a bundle's graph has."""

    channels: int
    features: int = 0
    memory: int = 0

    @classmethod
    def of(cls, manifest: Manifest) -> Ports:
        """Read them from a manifest."""
        return cls(len(manifest.channels), sum(manifest.feature_sizes), manifest.memory_channels)

    @property
    def outputs(self) -> list[str]:
        """Names of what the graph gives, in the order of `Inference`."""
        more = ["features"] * (self.features > 0) + ["memory_left"] * (self.memory > 0)
        return ["probability", "area", *more]

    def inputs(
        self, picture: NDArray[float32], valid: NDArray[float32], memory: Memory | None
    ) -> dict[str, NDArray[float32]]:
        """Name what the graph takes; without neighbours their weight is 0 everywhere."""
        if self.memory == 0:
            return {"picture": picture, "valid": valid}
        if memory is None:
            batch, _, height, width = picture.shape
            sides = (height // MEMORY_STRIDE, width // MEMORY_STRIDE)
            memory = Memory(
                np.zeros((batch, self.memory, *sides), float32),
                np.zeros((batch, 1, *sides), float32),
            )
        return {
            "picture": picture,
            "valid": valid,
            "memory": memory.mean,
            "memory_weight": memory.weight,
        }

    def inference(self, answers: Sequence[NDArray[float32]]) -> Inference:
        """Put what the graph gave, in the order of `outputs`, into its places."""
        named = dict(zip(self.outputs, answers, strict=True))
        return Inference(**named)


class Backend(Protocol):
    """Runs a bundle's graph; built, used and closed by one and the same thread.

    A backend that raised `BackendError` is not to be used again: the caller ends the process and
    starts anew.
    """

    name: str
    """Word for logs, labels and messages."""

    def infer(
        self,
        picture: NDArray[float32],
        valid: NDArray[float32],
        memory: Memory | None = None,
    ) -> Inference:
        """Run the network on a batch.

        `picture` (counts) and `valid` (1 where data, else 0) are (batch, 1, height, width),
        batch 1 to 8, height and width multiples of 32, any sizes from call to call; `memory` is
        what neighbouring tilts left, and is passed over by a bundle without memory. The arrays
        are not changed, and the answer does not share memory with later answers. Raises
        `BackendError` for other shapes, for NaN or infinity in what comes in or goes out, and
        where the library fails.
        """
        ...

    def close(self) -> None:
        """Give everything back; may be called again."""
        ...


def warm_up(run: Run, ports: Ports, name: str) -> None:
    """Run a graph once on a picture of the usual size, so that no tilt has to wait for memory.

    Raises `BundleError` where its weights are not numbers, `BackendError` as `run` does and where
    it answers in other shapes.
    """
    blank = np.ones((1, 1, WARM_UP_PX, WARM_UP_PX), np.float32)
    answers = run(blank, blank, None)
    if not all(np.isfinite(answer.sum()) for answer in answers):
        raise BundleError(
            "The bundle's graph holds weights that are not numbers (NaN): export it again, or "
            "install it anew."
        )
    check_inference(ports.inference(answers), blank, ports, name)


def check_inputs(
    picture: NDArray[float32], valid: NDArray[float32], memory: Memory | None = None
) -> None:
    """Refuse what no backend takes; raises `BackendError`."""
    shape = picture.shape
    fits = (
        len(shape) == 4
        and valid.shape == shape
        and 1 <= shape[0] <= MAX_BATCH
        and shape[1] == 1
        and all(side > 0 and side % SIDE_STEP_PX == 0 for side in shape[2:])
    )
    if not fits or picture.dtype != np.float32 or valid.dtype != np.float32:
        raise BackendError(
            f"A backend takes float32 (1 to {MAX_BATCH}, 1, height, width) in steps of "
            f"{SIDE_STEP_PX}, not {picture.dtype} {shape} with {valid.dtype} {valid.shape}; pad "
            "the picture."
        )
    if not (np.isfinite(picture).all() and np.isfinite(valid).all()):
        raise BackendError("A picture holds NaN or infinity; prepare it with engines.preprocess.")
    if memory is not None:
        _check_memory(memory, shape)


def _check_memory(memory: Memory, shape: tuple[int, ...]) -> None:
    places = (shape[0], shape[2] // MEMORY_STRIDE, shape[3] // MEMORY_STRIDE)
    for one in (memory.mean, memory.weight):
        if one.ndim != 4 or (one.shape[0], *one.shape[2:]) != places or one.dtype != np.float32:
            raise BackendError(
                f"What neighbouring tilts left must be float32 at a quarter of {shape}, not "
                f"{one.dtype} {one.shape}; leave it out."
            )
        if not np.isfinite(one.sum()):
            raise BackendError("What neighbouring tilts left holds NaN; leave it out.")


def check_inference(
    inference: Inference, picture: NDArray[float32], ports: Ports, name: str
) -> Inference:
    """Refuse an answer of another shape or with NaN in it; raises `BackendError`."""
    batch, _, height, width = picture.shape
    small = (height // MEMORY_STRIDE, width // MEMORY_STRIDE)
    expected = {
        "probability": (batch, ports.channels, height, width),
        "area": (batch, ports.channels),
        "features": (batch, ports.features) if ports.features else None,
        "memory_left": (batch, ports.memory, *small) if ports.memory else None,
    }
    for output, shape in expected.items():
        values: NDArray[float32] | None = getattr(inference, output)
        if (None if values is None else values.shape) != shape:
            raise BackendError(
                f"The backend {name} gave {output} as {getattr(values, 'shape', None)} instead of "
                f"{shape}; the bundle's graph is not what its manifest says, export it again."
            )
        if values is None:
            continue
        if values.dtype != np.float32:
            raise BackendError(f"The backend {name} gave {output} as {values.dtype}, not float32.")
        # A sum is NaN or infinite where any part is: half of the time of looking at each value.
        if not np.isfinite(values.sum()):
            raise BackendError(
                f"The backend {name} answered NaN; restart, or choose another backend."
            )
    return inference
