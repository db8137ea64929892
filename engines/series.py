"""The tilts of one series so far: what they hand on to the next one, and what flashed in them.

A grain of ice flashes at few tilts. What neighbouring tilts left lets the network tell it from
membranes and frost, which stay; and the union of what flashed tells more of the crystalline area
than any one tilt: the occupancy, a number of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import bool_, float16, float32
from numpy.typing import NDArray

from engines.alignment import (
    TILTINGS,
    Alignment,
    Matrix,
    Reduced,
    Tilting,
    align,
    reduced,
    scaled,
)
from engines.backends.protocol import Memory
from engines.bundle import MEMORY_STRIDE
from engines.domain_brightness import SeriesBrightness, brightness_of
from engines.icemap import IceMap
from engines.occupancy import Occupancy
from engines.preprocess import Prepared

KEPT_TILTS = 6
"""Tilts of a series that are kept, the latest ones: about 1.6 MB each at 608 x 608 pixels."""
USED_NEIGHBOURS = 3
"""Tilts at most, of those kept and nearest in angle, that the next one is read with."""

_SAME_PIXEL_SIZE = 0.01
_COVERED = 0.5

Picture = NDArray[float32]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A tilt that later ones may look back at."""

    name: str
    reduced: Reduced
    pixel_size_angstrom: float
    memory: NDArray[float16] | None
    """(rows / 4, columns / 4, channels), padded."""
    in_frame: Matrix | None
    """From its pixels to those of the tilt that the union is drawn on; None where unknown."""
    frame: int
    """Which union that was."""

    @property
    def nbytes(self) -> int:
        return self.reduced.nbytes + (0 if self.memory is None else self.memory.nbytes)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """The tilt that is being read."""

    picture: Picture
    reduced: Reduced
    pixel_size_angstrom: float
    aligned: tuple[tuple[_Kept, Alignment], ...]
    """Neighbours that could be laid over it, the nearest in angle first."""

    @property
    def nbytes(self) -> int:
        return self.picture.nbytes + self.reduced.nbytes


class SeriesSoFar:
    """Implements `engines.segmenter.Neighbours`; used by one thread.

    A tilt that cannot be laid over its neighbours for sure (nothing to see, moved away, another
    size) is read as if it were alone, and has no part in the occupancy.
    """

    def __init__(self, *, kept: int = KEPT_TILTS, used: int = USED_NEIGHBOURS) -> None:
        self._most_kept = kept
        self._most_used = used
        self._kept: list[_Kept] = []
        self._angle_deg: float | None = None
        self._name = ""
        self._arrival: _Arrival | None = None
        self._union = Occupancy()
        self._brightness = SeriesBrightness()

    def at(self, angle_deg: float | None, name: str = "") -> SeriesSoFar:
        """Say at which stage angle the next picture was taken; returns itself.

        `name` tells tilts apart, so that one that is read again is not its own neighbour.
        """
        self._angle_deg = angle_deg
        self._name = name
        self._arrival = None
        return self

    def memory_for(self, prepared: Prepared, padded: tuple[int, int]) -> Memory | None:
        """Bring what the neighbours left onto this tilt, a quarter of `padded`; or None."""
        arrival = self._arrive(prepared.picture, prepared.valid, prepared.pixel_size_angstrom)
        left = [(one.memory, a.matrix) for one, a in arrival.aligned if one.memory is not None]
        size = (padded[0] // MEMORY_STRIDE, padded[1] // MEMORY_STRIDE)
        return _mean_memory(left, prepared.picture.shape, size)

    def is_odd(self, prepared: Prepared) -> bool:
        """Say whether a tilt is much brighter or darker than the others let expect."""
        brightness = brightness_of(prepared.picture, prepared.valid)
        return self._brightness.is_odd(self._angle_deg, brightness)

    def add(self, found: IceMap) -> None:
        """Take up a tilt that was measured."""
        if found.pixel_size_angstrom is None:
            return
        self._brightness.add(self._angle_deg, brightness_of(found.picture, found.valid))
        arrival = self._arrive(found.picture, found.valid, found.pixel_size_angstrom)
        placed = [
            (alignment, one.in_frame)
            for one, alignment in arrival.aligned
            if one.in_frame is not None and one.frame == self._union.frame
        ]
        in_frame = self._union.take(found, placed, again=self._came_before())
        self._kept = [one for one in self._kept if not self._is_this(one)]
        memory = (
            None if found.memory_left is None else _stored(found.memory_left, found.picture.shape)
        )
        self._kept.append(
            _Kept(
                self._name,
                arrival.reduced,
                found.pixel_size_angstrom,
                memory,
                in_frame,
                self._union.frame,
            )
        )
        del self._kept[: -self._most_kept]
        self.at(None)  # the next one may come without a word

    @property
    def occupancy_percent(self) -> float | None:
        """Share of the field that was dark as ice at any tilt; None before three aligned tilts.

        In percent of what was valid at any tilt, in the frame of the first aligned one. A lower
        bound of the crystalline area, as far as the masks hold no false ice: grains that did not
        flash yet are not in it.
        """
        return self._union.percent

    @property
    def kept_tilts(self) -> int:
        """How many tilts are held for their neighbours."""
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Memory that all of it takes."""
        arrival = 0 if self._arrival is None else self._arrival.nbytes
        return sum(one.nbytes for one in self._kept) + self._union.nbytes + arrival

    def forget_oldest(self) -> None:
        """Let go of the tilt that was kept longest."""
        del self._kept[:1]

    def _is_this(self, one: _Kept) -> bool:
        return bool(self._name) and one.name == self._name

    def _came_before(self) -> bool:
        return any(self._is_this(one) for one in self._kept)

    def _arrive(self, picture: Picture, valid: NDArray[bool_], pixel_size: float) -> _Arrival:
        """Lay the nearest tilts over this one, once."""
        if self._arrival is None or self._arrival.picture is not picture:
            small = reduced(picture, valid, self._angle_deg)
            aligned = tuple(self._aligned(small, pixel_size))
            self._arrival = _Arrival(picture, small, pixel_size, aligned)
        return self._arrival

    def _aligned(self, small: Reduced, pixel_size: float) -> Iterator[tuple[_Kept, Alignment]]:
        tiltings: Sequence[Tilting] = TILTINGS
        for one in self._nearest(pixel_size):
            alignment = align(one.reduced, small, tiltings)
            if alignment is not None:
                yield one, alignment
                if alignment.tilting is not None:  # the others lie alike
                    tiltings = (alignment.tilting,)

    def _nearest(self, pixel_size: float) -> list[_Kept]:
        """List the tilts next in angle, those that came last first where angles are unknown."""
        others = [
            one
            for one in reversed(self._kept)
            if not self._is_this(one)
            and abs(one.pixel_size_angstrom / pixel_size - 1.0) < _SAME_PIXEL_SIZE
        ]
        others.sort(key=lambda one: self._apart(one.reduced.angle_deg))
        return others[: self._most_used]

    def _apart(self, angle_deg: float | None) -> float:
        if angle_deg is None or self._angle_deg is None:
            return 0.0
        return abs(angle_deg - self._angle_deg)


def _stored(memory_left: Picture, shape: tuple[int, ...]) -> NDArray[float16]:
    """Keep (channels, rows, columns) as (rows, columns, channels), in half the bytes.

    What lies beyond the picture, `shape` (rows, columns), is 0.
    """
    most = float(np.finfo(float16).max)
    kept = np.zeros((*memory_left.shape[1:], memory_left.shape[0]), float16)
    rows, columns = (side // MEMORY_STRIDE for side in shape)
    inside = memory_left[:, :rows, :columns].clip(-most, most)
    kept[:rows, :columns] = inside.transpose(1, 2, 0)
    return kept


def _mean_memory(
    left: Sequence[tuple[NDArray[float16], Matrix]], shape: tuple[int, ...], size: tuple[int, int]
) -> Memory | None:
    """Average what neighbours left, each where its own picture reaches; None where none does.

    `shape` (rows, columns) is that of all pictures, `size` that of the memory, padded.
    """
    total: Picture | None = None
    count = np.zeros(size, float32)
    inside = np.zeros(size, float32)
    inside[: shape[0] // MEMORY_STRIDE, : shape[1] // MEMORY_STRIDE] = 1.0
    for memory, matrix in left:
        if memory.shape[:2] != size or (total is not None and total.shape[2] != memory.shape[2]):
            continue
        small = scaled(matrix, MEMORY_STRIDE)
        moved = cv2.warpAffine(memory.astype(float32), small, size[::-1]).reshape(memory.shape)
        total = np.asarray(moved, float32) if total is None else np.add(total, moved, out=total)
        count += cv2.warpAffine(inside, small, size[::-1])
    covered = count > _COVERED
    if total is None or not covered.any():
        return None
    total *= (covered / np.maximum(count, _COVERED))[..., None]
    mean = np.asarray(np.stack(cv2.split(total))[None], float32)
    return Memory(mean, covered[None, None].astype(float32))
