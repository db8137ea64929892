"""A tilt that could be labelled: where its pixels are, and what was read from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy import bool_, uint8
from numpy.typing import NDArray

from monitor.model import IceReading, Tilt


@dataclass(frozen=True, slots=True)
class PackedMask:
    """A mask in an eighth of its memory."""

    bits: NDArray[uint8]
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: NDArray[bool_]) -> PackedMask:
        """Pack a mask of (rows, columns)."""
        return cls(np.packbits(mask), (mask.shape[0], mask.shape[1]))

    @property
    def mask(self) -> NDArray[bool_]:
        """Unpack it."""
        rows, columns = self.shape
        return np.unpackbits(self.bits, count=rows * columns).astype(bool).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One tilt and its reading."""

    tilt: Tilt
    reading: IceReading
    root: Path
    """Folder that `tilt.path` counts from."""
    path: str
    """Of its file below `root`, with forward slashes."""
    ice: PackedMask | None = None
    """What the network took for ice, where it was just read; None where the journal tells."""
    valid: PackedMask | None = None

    @property
    def name(self) -> str:
        """How its picture is called: stem of its file and section."""
        return f"{PurePosixPath(self.path).stem}_{self.tilt.section:03d}.png"

    @property
    def series(self) -> str:
        """The series that it is a tilt of."""
        return self.tilt.id.series_key

    @property
    def file(self) -> Path:
        """The file that holds its pixels."""
        return self.root / self.path

    @property
    def width_percent(self) -> float:
        """How wide the interval of its reading is, percentage points; 0 where it has none."""
        low, high = self.reading.percent_low, self.reading.percent_high
        return 0.0 if low is None or high is None else high - low
