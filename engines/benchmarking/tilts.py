"""Tilts to race on: recorded noise-free pictures, as a camera of any size would count them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy import float32, int16
from numpy.typing import NDArray

COUNTS_PER_ELECTRON = 32.0
_LARGEST_COUNT = 32767.0


def expose(
    expected: NDArray[float32],
    recorded_pixel_size_angstrom: float,
    size_px: int,
    pixel_size_angstrom: float,
    seed: int,
) -> NDArray[int16]:
    """Draw one exposure of `size_px` x `size_px` at a pixel size, in counts.

    `expected` is (rows, columns), electrons per recorded pixel, without noise. A wider field than
    was recorded is filled with its mirror images.
    """
    side = max(1, round(size_px * pixel_size_angstrom / recorded_pixel_size_angstrom))
    rows, columns = (_mirrored(length, side) for length in expected.shape)
    field = np.ascontiguousarray(expected[np.ix_(rows, columns)])
    fine = np.asarray(cv2.resize(field, (size_px, size_px), interpolation=cv2.INTER_CUBIC))
    mean = fine.clip(0.0, None) * float32((side / size_px) ** 2)
    random = np.random.default_rng(seed)
    # A normal draw with the variance of a Poisson draw: a third of its time. Averaged over the
    # tens of camera pixels in each pixel that a network sees, the two cannot be told apart.
    noise = random.standard_normal(mean.shape, dtype=float32)
    noise *= np.sqrt(mean)
    noise += mean
    noise *= COUNTS_PER_ELECTRON
    return noise.clip(0.0, _LARGEST_COUNT).astype(int16)


def _mirrored(length: int, side: int) -> NDArray[np.int64]:
    """Run over `length` places to and fro until there are `side` of them."""
    at = np.arange(side) % (2 * length)
    return np.minimum(at, 2 * length - 1 - at)
