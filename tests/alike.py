"""Pictures of one made-up specimen at different places and angles."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy import bool_, float32, float64
from numpy.typing import NDArray

SIDE = 288
_MARGIN = 144


def specimen(seed: int, side: int = SIDE) -> NDArray[float32]:
    """Structure of many sizes, mean 1, with a margin all around."""
    whole = side + 2 * _MARGIN
    noise = np.random.default_rng(seed).normal(size=(whole, whole)).astype(float32)
    layers = [cv2.GaussianBlur(noise, (0, 0), width) for width in (4.0, 8.0, 16.0)]
    return np.asarray(1.0 + 0.05 * sum(one / one.std() for one in layers), float32).clip(0.1, None)


def seen(
    whole: NDArray[float32],
    matrix: NDArray[float64] | None = None,
    electrons: float = 300.0,
    seed: int = 0,
) -> NDArray[float32]:
    """Record the middle of a specimen; `matrix` (2, 3) moves its pixels from the unmoved place."""
    side = whole.shape[0] - 2 * _MARGIN
    moved = np.eye(2, 3) if matrix is None else matrix.copy()
    # From the whole with its margin to the picture: the margin off first, then the move.
    moved[:, 2] -= moved[:, :2] @ np.full(2, float(_MARGIN))
    picture = cv2.warpAffine(whole, moved, (side, side), flags=cv2.INTER_CUBIC)
    counts = np.random.default_rng(seed).poisson(electrons * np.maximum(picture, 0.0))
    return counts.astype(float32)


def moved_by(
    shift: tuple[float, float],
    turn_deg: float = 0.0,
    stretch: float = 1.0,
    across_deg: float = 0.0,
    side: int = SIDE,
) -> NDArray[float64]:
    """Stretch across an axis and turn about the centre, then shift by (x, y) pixels."""
    a, t = math.radians(across_deg), math.radians(turn_deg)
    across = np.array([math.cos(a), math.sin(a)])
    turn = np.array([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]])
    linear = turn @ (np.eye(2) + (stretch - 1.0) * np.outer(across, across))
    centre = np.full(2, (side - 1) / 2)
    return np.column_stack([linear, centre - linear @ centre + np.array(shift)])


def all_valid(picture: NDArray[float32]) -> NDArray[bool_]:
    """Call every pixel valid."""
    return np.ones(picture.shape, bool)
