"""What every backend offers to the segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.bundle import MAX_BATCH, SIDE_STEP_PX
from engines.errors import BackendError


@dataclass(frozen=True, slots=True)
class Inference:
    """What a network says about a batch of pictures."""

    probability: NDArray[float32]
    """(batch, channels, height, width), 0 to 1, channels as in the bundle's manifest."""
    area: NDArray[float32]
    """(batch, channels): sums of the probability over the valid pixels, in pixels."""


class Backend(Protocol):
    """Runs a bundle's graph; built, used and closed by one and the same thread.

    A backend that raised `BackendError` is not to be used again: the caller ends the process and
    starts anew.
    """

    name: str
    """Word for logs, labels and messages."""

    def infer(self, picture: NDArray[float32], valid: NDArray[float32]) -> Inference:
        """Run the network on a batch.

        `picture` (counts) and `valid` (1 where data, else 0) are (batch, 1, height, width),
        batch 1 to 8, height and width multiples of 32, any sizes from call to call. The arrays
        are not changed, and the answer does not share memory with later answers. Raises
        `BackendError` for other shapes, for NaN or infinity in what comes in or goes out, and
        where the library fails.
        """
        ...

    def close(self) -> None:
        """Give everything back; may be called again."""
        ...


def check_inputs(picture: NDArray[float32], valid: NDArray[float32]) -> None:
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


def check_inference(
    inference: Inference, picture: NDArray[float32], channels: int, name: str
) -> Inference:
    """Refuse an answer of another shape or with NaN in it; raises `BackendError`."""
    batch, _, height, width = picture.shape
    probability, area = inference.probability, inference.area
    shapes_fit = probability.shape == (batch, channels, height, width) and area.shape == (
        batch,
        channels,
    )
    if not shapes_fit or probability.dtype != np.float32 or area.dtype != np.float32:
        raise BackendError(
            f"The backend {name} gave {probability.dtype} {probability.shape} and {area.dtype} "
            f"{area.shape} for {channels} channels; the bundle's graph is not what its manifest "
            "says, export it again."
        )
    # A sum is NaN or infinite where any part is: half of the time of looking at each value.
    if not (np.isfinite(probability.sum()) and np.isfinite(area.sum())):
        raise BackendError(f"The backend {name} answered NaN; restart, or choose another backend.")
    return inference
