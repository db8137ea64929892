"""Frames packed as two pixels of 4 bits in a byte."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# The longer and the shorter side of super-resolution frames of K2 and K3 (px).
_SUPER_RESOLUTION_PX = ((7676, 7420), (7680, 7424), (11520, 8184))
_SIDE_TOLERANCE_PX = 2


def unpack(
    packed: NDArray[np.uint8], columns: int, left: Literal["low", "high"]
) -> NDArray[np.uint8]:
    """Unpack rows of bytes to one byte a pixel; `left` says which half is the left pixel."""
    rows, byte_columns = packed.shape
    pixels = np.empty((rows, 2 * byte_columns), np.uint8)
    low, high = (0, 1) if left == "low" else (1, 0)
    np.bitwise_and(packed, 15, out=pixels[:, low::2])
    np.right_shift(packed, 4, out=pixels[:, high::2])
    return pixels[:, :columns]


def are_likely(byte_columns: int, rows: int) -> bool:
    """Whether an 8-bit image of this size holds packed super-resolution frames.

    SerialEM stores them as bytes at half the width and has no mark for it in TIFF; this is the
    test of IMOD (sizeCanBe4BitK2SuperRes), by the sizes of the cameras in either orientation.
    """

    def fit(columns: int, height: int) -> bool:
        return (
            abs(byte_columns - columns // 2) <= _SIDE_TOLERANCE_PX
            and abs(rows - height) <= _SIDE_TOLERANCE_PX
        )

    return any(fit(long, short) or fit(short, long) for long, short in _SUPER_RESOLUTION_PX)


def row_bytes(columns: int) -> int:
    """How many bytes a row of so many pixels takes: rows end at whole bytes."""
    return (columns + 1) // 2


def as_counts(packed: NDArray[Any], columns: int) -> NDArray[np.uint8]:
    """Unpack an image as IMOD and SerialEM pack it: the left pixel in the low half."""
    return unpack(packed, columns, "low")
