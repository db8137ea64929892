"""Finds non-negative values that lower a convex loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy import float64
from numpy.typing import NDArray

STEPS = 500


def descend(
    gradient: Callable[[NDArray[float64]], NDArray[float64]],
    start: NDArray[float64],
    scale: float,
    steps: int = STEPS,
) -> NDArray[float64]:
    """Find non-negative values that lower a loss, by Adam with a rate that falls to nothing."""
    values, mean, square = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step in range(1, steps + 1):
        slope = gradient(values)
        mean = 0.9 * mean + 0.1 * slope
        square = 0.99 * square + 0.01 * slope**2
        rate = scale * (1.0 - step / (steps + 1.0))
        move = (mean / (1.0 - 0.9**step)) / (np.sqrt(square / (1.0 - 0.99**step)) + 1e-9)
        values = np.maximum(0.0, values - rate * move)
    return values
