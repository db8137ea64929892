"""Pictures that were stored with dark and bright exchanged, and how they are turned back.

Counted electrons are noisier where more of them come, dense matter is dark, and counts are never
negative. Only the last is sure by itself: where structure is stronger than noise, as in averaged
pictures of thick ice, the first two mislead. A bundle's monitor weighs all that was seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import bool_, float32
from numpy.typing import NDArray

_LEAST_NOISE = 0.02
"""Least variation of a picture of counts, as a share of their mean."""
_COUNTS_PER_SIGMA = 2.0


def is_negated(picture: NDArray[float32]) -> bool:
    """Say whether the values of a picture are counts with a minus: none above 0, and noisy.

    Unsigned numbers that were moved to signed ones (32768 less) are below 0 too, but vary little
    against their mean.
    """
    if not picture.max() <= 0.0 > picture.min():
        return False
    return float(picture.std()) > _LEAST_NOISE * -float(picture.mean())


def has_no_zero(picture: NDArray[float32], valid: NDArray[bool_]) -> bool:
    """Say whether values of a prepared picture go below 0 and are no counts, (rows, columns)."""
    inside = picture[valid]
    if inside.size == 0 or inside.min() >= 0.0:
        return False
    return bool(inside.mean() <= _COUNTS_PER_SIGMA * inside.std())


def turned(image: NDArray[Any]) -> NDArray[float32]:
    """Exchange dark and bright of an image, (rows, columns): float32 of the same range.

    What was negated is negated again, so that counts are counts; of others the smallest and the
    largest value change places. Values that are not finite stay so.
    """
    values = image.astype(float32)
    finite = np.isfinite(values)
    if not finite.any():
        return values
    low, high = float(values[finite].min()), float(values[finite].max())
    return -values if low < 0.0 >= high else np.asarray(float32(low + high) - values, float32)
