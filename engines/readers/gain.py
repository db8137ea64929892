"""Gain references: what evens out a camera whose frames were saved without correction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.movie import first_frame

Operation = Literal["multiply", "divide"]
Rotation = Literal[0, 90, 180, 270]
Flip = Literal["none", "rows", "columns"]


_BLOCK_ROWS = 256
"""Corrected at once, so that little is held beside the image; an even number."""


@dataclass(frozen=True, slots=True)
class GainOrientation:
    """How a reference has to be turned and used to fit the movies, both as their files store them.

    The turn comes first, counter-clockwise with the first row on top, then the flip: the order
    and the sense of MotionCor2's `-RotGain` and `-FlipGain`.
    """

    operation: Operation = "multiply"
    rotate_deg: Rotation = 0
    flip: Flip = "none"
    """`rows` swaps top and bottom, `columns` left and right."""


class Gain:
    """A gain reference, ready to be applied to sums of frames."""

    def __init__(self, factor: NDArray[np.float32], name: str) -> None:
        self._factor = factor
        self._name = name

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        operation: Operation = "multiply",
        rotate_deg: Rotation = 0,
        flip: Flip = "none",
    ) -> Gain:
        """Read a reference from the first image of an MRC or TIFF file (`.gain` is TIFF).

        Values that are zero, negative or not finite mark defects. Raises `PixelsError` with
        reason `gain` where the file is no reference that can be used.
        """
        if path.suffix.lower() in (".dm4", ".dm3"):
            raise PixelsError(
                f"the gain reference {path.name!r} is a DigitalMicrograph file; convert it with "
                f"IMOD's 'dm2mrc {path.name} {path.stem}.mrc' and name that file",
                "gain",
            )
        try:
            image = first_frame(path)
        except PixelsError as error:
            raise PixelsError(f"the gain reference cannot be used: {error}", "gain") from error
        factor = _oriented(image.astype(np.float32), rotate_deg, flip)
        defects = ~(np.isfinite(factor) & (factor > 0))
        if defects.all():
            raise PixelsError(
                f"the gain reference {path.name!r} holds no positive value; write it anew", "gain"
            )
        factor[defects] = np.nan
        if operation == "divide":
            np.divide(1.0, factor, out=factor)
        return cls(np.ascontiguousarray(factor), path.name)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns after turning."""
        return self._factor.shape[0], self._factor.shape[1]

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Correct a sum of frames; raises `PixelsError` (`gain`) where the sizes do not fit.

        A reference of twice the size is averaged over 2 x 2 pixels, one of half the size serves
        2 x 2 pixels each. Defects take the mean of their sound neighbours, or that of the whole
        image where they have none.
        """
        step = self._step(image.shape)
        corrected = np.empty(image.shape, np.float32)
        defects = np.zeros(image.shape, np.bool_)
        for start in range(0, len(image), _BLOCK_ROWS):
            rows = slice(start, min(start + _BLOCK_ROWS, len(image)))
            factor = self._rows(rows, step)
            np.multiply(image[rows], factor, out=corrected[rows], casting="unsafe")
            np.isnan(factor, out=defects[rows])
        if defects.any():
            _fill_defects(corrected, defects)
        return corrected

    def _step(self, shape: tuple[int, ...]) -> float:
        """How many pixels of the reference there are for one of the image, to a side."""
        rows, columns = self._factor.shape
        for step in (1.0, 2.0, 0.5):
            if (rows, columns) == (step * shape[0], step * shape[1]):
                return step
        turned = " once turned" if shape == (columns, rows) else ""
        raise PixelsError(
            f"the gain reference {self._name!r} has {columns} x {rows} pixels and does not fit "
            f"images of {shape[1]} x {shape[0]}{turned}; check its file and 'rotate_deg'",
            "gain",
        )

    def _rows(self, rows: slice, step: float) -> NDArray[np.float32]:
        """Give the factors for some rows of an image; the first of them is an even one."""
        if step == 1.0:
            return self._factor[rows]
        if step == 0.5:
            some = self._factor[rows.start // 2 : (rows.stop + 1) // 2]
            fine = some.repeat(2, axis=0).repeat(2, axis=1)
            return fine[: rows.stop - rows.start]
        some = self._factor[2 * rows.start : 2 * rows.stop]
        quads = some.reshape(rows.stop - rows.start, 2, -1, 2)
        sound = np.isfinite(quads)
        count = sound.sum(axis=(1, 3))
        total = np.where(sound, quads, np.float32(0)).sum(axis=(1, 3), dtype=np.float32)
        mean = np.full(total.shape, np.nan, np.float32)
        np.divide(total, count, out=mean, where=count > 0, casting="unsafe")
        return mean


def _oriented(image: NDArray[np.float32], rotate_deg: Rotation, flip: Flip) -> NDArray[np.float32]:
    turned = np.rot90(image, rotate_deg // 90)
    if flip == "rows":
        turned = turned[::-1]
    elif flip == "columns":
        turned = turned[:, ::-1]
    return turned.copy()


def _fill_defects(image: NDArray[np.float32], defects: NDArray[np.bool_]) -> None:
    """Give each defect the mean of the sound ones among its eight neighbours."""
    rows, columns = np.nonzero(defects)
    height, width = image.shape
    total = np.zeros(len(rows))
    count = np.zeros(len(rows))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            y, x = rows + down, columns + right
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            y, x = np.where(inside, y, 0), np.where(inside, x, 0)
            sound = inside & ~defects[y, x]
            total += np.where(sound, image[y, x], 0.0)
            count += sound
    whole = float(image[~defects].mean(dtype=np.float64)) if (count == 0).any() else 0.0
    image[rows, columns] = np.where(count > 0, total / np.maximum(count, 1), whole)
