"""Known tilts: what a backend must read as another does before it serves."""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy import float16, float32
from numpy.typing import NDArray

from engines.bundle import Bundle
from engines.errors import BundleError
from engines.icemap import IceMap
from engines.segmenter import Segmenter
from engines.series import SeriesSoFar

REFERENCE = "reference.npz"
"""The file of a bundle that holds its known tilts; made by `engines.learning.reference`."""
MAX_BYTES = 4 << 20
MAX_PERCENT_APART = 0.1
"""Percentage points."""
MAX_PROBABILITY_APART = 0.01
LEAST_OVERLAP = 0.99
"""Intersection over union of the ice of all known tilts together."""

UNREADABLE = (
    *(ValueError, TypeError, KeyError, OSError, EOFError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, MemoryError),
)
"""What damaged archives and arrays make numpy and zipfile raise."""


@dataclass(frozen=True, slots=True)
class KnownTilt:
    """A tilt at the bundle's pixel size; those of one series are read one after the other."""

    picture: NDArray[float32]
    """(rows, columns), counts."""
    angle_deg: float
    series: int


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two backends are apart on the known tilts."""

    percent: float
    """Largest difference of a percentage, percentage points; infinite where one has none."""
    overlap: float
    """Intersection over union of the ice, all tilts together; 1 where neither finds any."""
    probability: float
    """Largest difference of the mean probability of ice of a tilt."""

    @property
    def is_small(self) -> bool:
        """Whether the one may serve in place of the other."""
        return (
            self.percent <= MAX_PERCENT_APART
            and self.overlap >= LEAST_OVERLAP
            and self.probability <= MAX_PROBABILITY_APART
        )

    def __str__(self) -> str:
        return (
            f"{self.percent:.3f} percentage points, a mean probability of {self.probability:.4f} "
            f"and an overlap of {self.overlap:.4f}"
        )


def known_tilts(bundle: Bundle) -> tuple[KnownTilt, ...]:
    """Read the known tilts of a bundle; a bundle that has none gets some that are made up.

    Raises `BundleError` for a damaged file.
    """
    if REFERENCE not in bundle.manifest.files:
        return made_up()
    try:
        return unpacked(bundle.read(REFERENCE))
    except UNREADABLE as error:
        raise BundleError(
            f"'{bundle.directory / REFERENCE}' holds no known tilts ({error}); copy the whole "
            "bundle again."
        ) from error


def packed(tilts: Sequence[KnownTilt]) -> bytes:
    """Write known tilts; pictures as float16, so read them back before they are used."""
    arrays: dict[str, Any] = {
        "angles_deg": np.array([one.angle_deg for one in tilts], float32),
        "series": np.array([one.series for one in tilts], np.int32),
        **{f"picture_{k}": one.picture.astype(float16) for k, one in enumerate(tilts)},
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def unpacked(content: bytes) -> tuple[KnownTilt, ...]:
    """Read known tilts; raises one of what numpy and zipfile raise for damaged content."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        angles, series = arrays["angles_deg"].tolist(), arrays["series"].tolist()
        tilts = []
        for k, (angle, number) in enumerate(zip(angles, series, strict=True)):
            picture = arrays[f"picture_{k}"].astype(float32)
            if picture.ndim != 2 or not np.isfinite(picture).all():
                raise ValueError(f"picture {k} is no picture")
            tilts.append(KnownTilt(picture, float(angle), int(number)))
    if not tilts:
        raise ValueError("it is empty")
    return tuple(tilts)


def made_up(seed: int = 0, side_px: int = 256) -> tuple[KnownTilt, ...]:
    """Draw dark blobs under shot noise, three tilts of one series: no ice, but no blank either."""
    generator = np.random.default_rng(seed)
    field = generator.normal(0.0, 1.0, (side_px, side_px)).astype(float32)
    blobs = cv2.GaussianBlur(field, (0, 0), 9.0)
    texture = cv2.GaussianBlur(field, (0, 0), 2.0)
    transmission = 1.0 + 0.3 * texture - 0.5 * (blobs > 1.5 * blobs.std())
    expected = 40.0 * transmission.clip(0.05, None)
    return tuple(
        KnownTilt(generator.poisson(expected).astype(float32), 3.0 * k, 0) for k in range(3)
    )


def read_known(
    segmenter: Segmenter, tilts: Sequence[KnownTilt], size_angstrom: float
) -> list[IceMap]:
    """Read known tilts in order, each with the neighbours of its own series.

    Raises `BackendError` where the backend fails.
    """
    found, series = [], dict[int, SeriesSoFar]()
    for k, tilt in enumerate(tilts):
        so_far = series.setdefault(tilt.series, SeriesSoFar())
        so_far.at(tilt.angle_deg, str(k))
        found.append(segmenter.read(tilt.picture, size_angstrom, so_far))
    return found


def difference(expected: Sequence[IceMap], found: Sequence[IceMap]) -> Difference:
    """Compare what two backends read on the same tilts."""
    percent, probability, both, either = 0.0, 0.0, 0, 0
    for one, other in zip(expected, found, strict=True):
        percent = max(percent, _percent_apart(one, other))
        means = float(one.probability.mean()), float(other.probability.mean())
        probability = max(probability, abs(means[0] - means[1]))
        both += int(np.count_nonzero(one.ice & other.ice))
        either += int(np.count_nonzero(one.ice | other.ice))
    return Difference(percent, both / either if either else 1.0, probability)


def _percent_apart(one: IceMap, other: IceMap) -> float:
    if one.percent is None or other.percent is None:
        return 0.0 if one.percent is other.percent and one.flags == other.flags else float("inf")
    return abs(one.percent - other.percent)
