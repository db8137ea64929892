"""Simulated series on disk: one compressed file each, noise-free, labels packed in one byte.

Arrays of tilt k: `expected_k` float16, `packed_k` uint8, `distract_k` uint16, `contrast_k` uint8;
and `about`, JSON, one object for each tilt.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import bool_, float32, uint8, uint16
from numpy.typing import NDArray

from engines.errors import EngineError
from engines.simulation import SimulatedSeries, SimulatedTilt

THRESHOLDS = ("0.06", "0.10", "0.15")
"""Contrast thresholds of the labels, in the order of the packed bits."""
PHASE_SHIFT = 3
VALID_BIT = 1 << 5
IGNORE_BIT = 1 << 6
LARGEST_FLOAT16 = 65504.0
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, OSError, EOFError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, MemoryError),
)
"""What damaged archives and arrays make numpy, zipfile and json raise."""


class DamagedShardError(EngineError):
    """Raised for a shard that was cut or damaged; removed, it can be simulated again."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One noise-free tilt with its truth."""

    expected: NDArray[float32]
    """(H, W), electrons per pixel."""
    packed: NDArray[uint8]
    """(H, W): bits 0 to 2 labels at .06, .10, .15; 3 and 4 phase; 5 valid; 6 to be ignored."""
    distract: NDArray[uint16]
    """(H, W), one bit for each kind of distracting object."""
    contrast: NDArray[uint8]
    """(H, W): square root of the Bragg contrast, dark or bright, 255 = 1 and more."""
    about: Mapping[str, Any]
    """Everything that the simulator noted about the tilt: family, seed, angle, percentage..."""

    def label(self, threshold: str) -> NDArray[bool_]:
        """Where ice shows at this contrast threshold: (H, W)."""
        return (self.packed >> THRESHOLDS.index(threshold)) & 1 > 0

    @property
    def valid(self) -> NDArray[bool_]:
        return (self.packed & VALID_BIT) > 0

    @property
    def percent(self) -> float:
        """Share of the valid area that is labelled at the headline threshold, 0 to 100."""
        valid = self.valid
        return 100.0 * float((self.label("0.10") & valid).sum()) / max(1, int(valid.sum()))


def pack(tilt: SimulatedTilt) -> NDArray[uint8]:
    """Pack labels, phase and valid mask of a tilt into one byte for each pixel."""
    packed = np.zeros(tilt.expected.shape, uint8)
    for bit, threshold in enumerate(THRESHOLDS):
        packed |= (tilt.labels[threshold] > 0).astype(uint8) << bit
    packed |= (tilt.phase.astype(uint8) & 3) << PHASE_SHIFT
    packed |= tilt.valid.astype(uint8) * uint8(VALID_BIT)
    packed |= tilt.ignore.astype(uint8) * uint8(IGNORE_BIT)
    return packed


def contrast_root(tilt: SimulatedTilt) -> NDArray[uint8]:
    """Square root of the stronger of dark and bright contrast, 255 = 1: its noise is even."""
    strongest = np.maximum(tilt.contrast_dark, tilt.contrast_bright).astype(float32)
    return np.asarray(np.rint(255.0 * np.sqrt(strongest.clip(0.0, 1.0))), uint8)


def write_series(path: Path, series: SimulatedSeries, seed: int, family: str) -> None:
    """Write one series whole or not at all."""
    arrays: dict[str, Any] = {}
    about = []
    for index, tilt in enumerate(series.tilts):
        arrays[f"expected_{index}"] = tilt.expected.clip(0, LARGEST_FLOAT16).astype(np.float16)
        arrays[f"packed_{index}"] = pack(tilt)
        arrays[f"distract_{index}"] = tilt.distract.astype(uint16)
        arrays[f"contrast_{index}"] = contrast_root(tilt)
        about.append(
            {
                **tilt.metadata,
                "seed": seed,
                "family": family,
                "angle_deg": float(tilt.angle_deg),
                "ice_percent": float(tilt.ice_percent),
                "occupancy_percent": float(series.occupancy_percent),
            }
        )
    arrays["about"] = np.array(json.dumps(about))
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    partial.replace(path)


def read_about(path: Path) -> list[dict[str, Any]]:
    """Read what each tilt of a shard is, without its pixels; raises DamagedShardError."""
    with _opened(path) as arrays:
        about: list[dict[str, Any]] = json.loads(str(arrays["about"]))
        if not isinstance(about, list) or not about:
            raise ValueError("no tilts")
    return about


def read_scene(path: Path, index: int) -> Scene:
    """Read one tilt of a shard; raises DamagedShardError."""
    with _opened(path) as arrays:
        return Scene(
            arrays[f"expected_{index}"].astype(float32),
            arrays[f"packed_{index}"],
            arrays[f"distract_{index}"],
            arrays[f"contrast_{index}"],
            json.loads(str(arrays["about"]))[index],
        )


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        # numpy leaves a file open that it cannot read.
        with path.open("rb") as file, np.load(file) as arrays:
            yield arrays
    except _UNREADABLE as error:
        raise DamagedShardError(
            f"{path} cannot be read ({type(error).__name__}): remove it, and simulate it again."
        ) from error


def list_shards(directory: Path) -> list[Path]:
    """List the finished shards in a fixed order."""
    return sorted(directory.glob("series_*.npz"))


def is_whole(path: Path) -> bool:
    """Say whether a shard is there and not cut."""
    return path.exists() and zipfile.is_zipfile(path)
