"""Tilts for the benchmark: the size and the noise of real ones, whatever they show."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE_PX = 4096
PIXEL_SIZE_ANGSTROM = 1.97
COUNTS_PER_PX = 14.0
"""About 3.6 electrons per square angstrom at 4 counts to the electron, halved by the specimen."""
_DIFFERENT = 4
_SHIFT_PX = 389


def tilts(count: int, seed: int = 0) -> Iterator[NDArray[np.int16]]:
    """Yield (4096, 4096) int16 images, shot noise over soft structure, no two alike."""
    random = np.random.default_rng(seed)
    pool = [_tilt(random) for _ in range(min(count, _DIFFERENT))]
    for index in range(count):
        yield np.roll(pool[index % len(pool)], index * _SHIFT_PX, axis=0)


def angles_deg(count: int) -> list[float]:
    """Tilt angles of a dose-symmetric scheme in steps of one degree, all different."""
    return [float((index + 1) // 2 * (1 if index % 2 else -1)) for index in range(count)]


def _tilt(random: np.random.Generator) -> NDArray[np.int16]:
    coarse = random.normal(size=(48, 48)).astype(np.float32)
    soft = np.asarray(cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC))
    mean = COUNTS_PER_PX * (1.0 + 0.08 * soft).clip(0.3, None)
    # A normal draw of the same variance: a third of the time of a Poisson draw.
    noise = random.standard_normal(mean.shape, dtype=np.float32) * np.sqrt(mean * 4.0)
    return (mean + noise).clip(0, None).round().astype(np.int16)
