"""Occupancy of a series: the union of what flashed at any of its tilts.

A grain of ice flashes at few tilts, so the union tells more of the crystalline area than any one.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy import bool_, float32
from numpy.typing import NDArray

from engines.alignment import Alignment, Matrix, chained, inverse, scaled
from engines.icemap import IceMap

LEAST_TILTS = 3
"""Aligned tilts before there is an occupancy."""

_UNION_PX = 2
"""Working pixels on a side for each pixel of the union."""
_SMOOTH_PX, _SURROUNDINGS_PX = 1.0, 20.0
"""Widths of the blurs by which dark is told from bright, in pixels of the union."""
_COVERED = 0.5

Picture = NDArray[float32]


class Occupancy:
    """What flashed and what was seen, in the frame of the first tilt that others fit to."""

    def __init__(self) -> None:
        self._shape = (0, 0)
        self._flashed = np.zeros((0, 0), bool)
        self._seen = np.zeros((0, 0), bool)
        self._tilts = 0
        self.frame = 0
        """Counts the frames that were begun; a place in one says nothing of another."""

    @property
    def percent(self) -> float | None:
        """Share of what was seen that flashed, in percent; None before three aligned tilts."""
        seen = int(np.count_nonzero(self._seen))
        if self._tilts < LEAST_TILTS or seen == 0:
            return None
        return 100.0 * int(np.count_nonzero(self._flashed)) / seen

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self._flashed.nbytes + self._seen.nbytes

    def take(
        self, found: IceMap, placed: Sequence[tuple[Alignment, Matrix]], *, again: bool
    ) -> Matrix | None:
        """Add a tilt; returns where it lies in the frame, None where that is not known.

        `placed` are neighbours that were laid over it, and where each lies in this very frame.
        Until a second one fits to it, each tilt is the first of a new frame.
        """
        if placed:
            best, its_place = max(placed, key=lambda pair: pair[0].correlation)
            place = chained(inverse(best.matrix), its_place)
        elif self._tilts <= 1:
            self._begin(found.picture.shape)
            place = np.eye(2, 3)
        else:
            return None
        self._draw(found, place)
        self._tilts += not again
        return place

    def _begin(self, shape: tuple[int, ...]) -> None:
        self._shape = (shape[0] // _UNION_PX, shape[1] // _UNION_PX)
        self._flashed, self._seen = np.zeros(self._shape, bool), np.zeros(self._shape, bool)
        self._tilts = 0
        self.frame += 1

    def _draw(self, found: IceMap, place: Matrix) -> None:
        small = scaled(place, _UNION_PX)
        picture, valid, ice = (
            _halved(one.astype(float32)) for one in (found.picture, found.valid, found.ice)
        )
        seen = self._moved(valid, small)
        self._seen |= seen
        self._flashed |= seen & self._moved(ice * _darker(picture, valid * (1.0 - ice)), small)

    def _moved(self, mask: Picture, matrix: Matrix) -> NDArray[bool_]:
        return np.asarray(cv2.warpAffine(mask, matrix, self._shape[::-1]) > _COVERED)


def _halved(array: Picture) -> Picture:
    rows, columns = (side // _UNION_PX for side in array.shape)
    whole = array[: rows * _UNION_PX, : columns * _UNION_PX]
    return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA), float32)


def _darker(picture: Picture, around: Picture) -> Picture:
    """Mark with 1 what is darker than the mean of its surroundings, weighted by `around`.

    The bright ghost of a grain lies up to 30 nm off the crystal, at each tilt on another side.
    """
    total = cv2.GaussianBlur(picture * around, (0, 0), _SURROUNDINGS_PX)
    weight = cv2.GaussianBlur(around, (0, 0), _SURROUNDINGS_PX)
    level = total / np.maximum(weight, 1e-6)
    smooth = cv2.GaussianBlur(picture, (0, 0), _SMOOTH_PX)
    return np.asarray((smooth < level) | (weight < 1e-6), float32)
