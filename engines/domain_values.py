"""What the stored values of an image tell: cut at an end, or scaled to bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import float64
from numpy.typing import NDArray

from engines.icemap import Flag

_BYTES = 256
_LOWEST_BY_HIGHEST = {_BYTES - 1.0: 0.0, _BYTES / 2.0 - 1.0: -_BYTES / 2.0}
_SAMPLES = 1 << 17
_FEWEST = 1024
_LEAST_CLIPPED_SHARE = 1e-3
_PILED_UP = 2.0
"""Times as many values at an end as next to it, from which on something was cut there."""
_SCALED_STEPS = 16
"""Grey levels in use, from which on a picture of bytes is one that was scaled to them."""


def value_flags(image: NDArray[Any], said: tuple[Flag, ...] = ()) -> tuple[Flag, ...]:
    """Say what storing has done to an image of any real dtype, (rows, columns).

    `clipped`: values pile up at the smallest or the largest; zeros do not count, as pixels
    without any electron are many at low dose and behind metal. `scaled_bytes`: whole numbers that
    fill 0 to 255 (or -128 to 127) to both ends, as no count of electrons does. What is `said` to
    be saturated already is not called clipped.
    """
    values = _sampled(image)
    if values.size < _FEWEST:
        return ()
    low, high = float(values.min()), float(values.max())
    if not low < high:
        return ()
    scaled = _is_scaled(values, image)
    flags = [Flag.SCALED_BYTES] if scaled else []
    if Flag.PARTLY_SATURATED in said:
        return tuple(flags)
    if _piles_up(values, high) or (_piles_up(-values, -low) and (scaled or low != 0.0)):
        flags.append(Flag.CLIPPED)
    return tuple(flags)


def _sampled(image: NDArray[Any]) -> NDArray[float64]:
    """Take the finite values of whole rows, spread over the image, of about a hundred thousand."""
    step = max(1, -(-image.size // _SAMPLES))
    values = image[::step].astype(float64).ravel()
    return values[np.isfinite(values)]


def _is_scaled(values: NDArray[float64], image: NDArray[Any]) -> bool:
    """Say whether whole numbers fill the range of a byte; one pixel may be all at an end."""
    if values.max() - values.min() >= _BYTES or not (np.rint(values) == values).all():
        return False
    lowest = _LOWEST_BY_HIGHEST.get(float(image.max()))
    fills = lowest is not None and float(image.min()) == lowest  # each looks at every pixel
    return fills and int(np.unique(values).size) >= _SCALED_STEPS


def _piles_up(values: NDArray[float64], most: float) -> bool:
    """Say whether more values are the largest than a tail leads one to expect."""
    at_end = np.count_nonzero(values == most)
    if at_end < _LEAST_CLIPPED_SHARE * values.size:
        return False
    spread = float(values.std())
    near = values[(values < most) & (values > most - 0.5 * spread)]
    if near.size == 0:
        return bool(at_end > _PILED_UP * np.count_nonzero(values == values[values < most].max()))
    steps = np.unique(near[: 1 << 16]).size
    return bool(at_end > _PILED_UP * near.size / steps)
