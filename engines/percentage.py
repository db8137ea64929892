"""From the maps of one tilt to its ice percentage, and how sure it is: numpy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy import bool_, float32, int64
from numpy.typing import NDArray

from engines.calibrations import AreaCalibration, Calibration, EvidenceCalibration

BINS = 256
"""Of a histogram of probabilities; even in their square root, as most are next to nothing."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What no calibration changes; shares are of the valid area, in percent."""

    contrast_percent: float
    """Mean Bragg contrast; 0 where the bundle does not tell it."""
    distractor_percent: float
    """Under objects that are not ice, by their probability."""
    valid_percent: float
    """Of the field."""
    pixel_size_angstrom: float
    """Of the working picture."""
    relative_noise: float
    """Noise of a working pixel as a share of the mean."""
    used_neighbours: bool = False
    """Whether neighbouring tilts had a say."""


def circumstances(
    maps: Mapping[str, NDArray[float32]],
    picture: NDArray[float32],
    valid: NDArray[bool_],
    pixel_size_angstrom: float,
    used_neighbours: bool,
) -> Circumstances:
    """Sum up the maps of a tilt by channel, its picture and its valid area, (rows, columns)."""
    return Circumstances(
        contrast_percent=_mean_percent(maps.get("contrast"), valid),
        distractor_percent=_mean_percent(maps.get("distractor"), valid),
        valid_percent=100.0 * float(valid.mean()),
        pixel_size_angstrom=pixel_size_angstrom,
        relative_noise=relative_noise(picture, valid),
        used_neighbours=used_neighbours,
    )


def _mean_percent(channel: NDArray[float32] | None, valid: NDArray[bool_]) -> float:
    return 0.0 if channel is None or not valid.any() else 100.0 * float(channel[valid].mean())


def histogram(probability: NDArray[float32], inside: NDArray[bool_]) -> NDArray[int64]:
    """Count the pixels `inside` by probability, both (rows, columns): (BINS,)."""
    level = np.minimum(np.sqrt(probability) * float32(BINS), float32(BINS - 0.5))
    counts = cv2.calcHist([level], [0], inside.view(np.uint8), [BINS], [0, BINS])
    return np.asarray(counts.ravel(), int64)


@cache
def bin_means() -> NDArray[float32]:
    """Give the mean probability of an evenly filled bin: (BINS,)."""
    edges = (np.arange(BINS + 1) / BINS) ** 2
    return np.asarray((edges[1:] + edges[:-1]) / 2.0, float32)


def relative_noise(picture: NDArray[float32], valid: NDArray[bool_]) -> float:
    """Give the size of the pixel noise as a share of the mean of the valid area.

    From the diagonal detail of 2 x 2 pixels, which no slope or edge along an axis moves, by its
    median absolute value (Donoho and Johnstone 1994).
    """
    rows, columns = (side // 2 * 2 for side in picture.shape)
    # every other block along each axis: a quarter is more than enough for a median
    corners = [np.s_[i:rows:4, j:columns:4] for i in (0, 1) for j in (0, 1)]
    a, b, c, d = (picture[corner] for corner in corners)
    detail = np.abs((a - b - c + d) / 2)[valid[corners[0]]]
    mean = float(picture[valid].mean()) if valid.any() else 0.0
    return float(np.median(detail)) / 0.6745 / mean if detail.size and mean > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class Area:
    """How large the ice of one channel is; percent of the valid area."""

    masked_percent: float
    """Under the mask."""
    expected_percent: float
    """Sum of the calibrated probabilities."""
    doubtful_percent: float
    """Sum of p (1 - p): 0 where every pixel is sure."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the maps of one tilt say."""

    headline: str
    """The channel that is the ice percentage."""
    areas: Mapping[str, Area]
    """By channel, the headline among them."""
    circumstances: Circumstances
    widening_factor: float = 1.0
    """By how much an unfamiliar tilt widens the interval; 1 or more."""

    @property
    def spread_percent(self) -> float:
        """Difference between the masks of the lowest and the highest contrast."""
        masked = [area.masked_percent for area in self.areas.values()]
        return max(masked) - min(masked)


def area_of(
    masked_percent: float, counts: NDArray[int64], calibration: AreaCalibration | None
) -> Area:
    """Sum up a mask and the histogram (BINS,) of the probabilities before calibration."""
    probability = bin_means()
    if calibration is not None:
        probability = calibration.probability(probability)
    whole = max(1, int(counts.sum()))
    expected, doubtful = (
        100.0 * float(counts @ one) / whole
        for one in (probability, probability * (1 - probability))
    )
    return Area(masked_percent, expected, doubtful)


def percentage(evidence: Evidence, calibration: Calibration) -> tuple[float, float, float]:
    """Give the ice percentage of a tilt and the ends of its 90 % interval."""
    area = evidence.areas[evidence.headline]
    if isinstance(calibration, EvidenceCalibration):
        percent = _percent(calibration, evidence.headline, area)
        low, high = calibration.interval(percent, interval_terms(evidence, percent))
    else:
        percent, low, high = calibration(area.masked_percent)
    wider = max(1.0, evidence.widening_factor)
    low, high = percent - wider * (percent - low), percent + wider * (high - percent)
    return percent, max(0.0, low), min(100.0, high)


def area_curve(evidence: Evidence, calibration: Calibration) -> dict[str, float]:
    """Give the percentage of each channel, calibrated where the calibration knows it.

    Channels come from the lowest contrast to the highest, and the percentage never rises.
    """
    if not isinstance(calibration, EvidenceCalibration):
        return {name: area.masked_percent for name, area in evidence.areas.items()}
    found = {name: _percent(calibration, name, area) for name, area in evidence.areas.items()}
    names = sorted(found)
    middle = names.index(evidence.headline)
    for at in range(middle - 1, -1, -1):
        found[names[at]] = max(found[names[at]], found[names[at + 1]])
    for at in range(middle + 1, len(names)):
        found[names[at]] = min(found[names[at]], found[names[at - 1]])
    return {name: found[name] for name in names}


def _percent(calibration: EvidenceCalibration, channel: str, area: Area) -> float:
    """Read one channel; one that was not calibrated is read as it is masked."""
    known = calibration.areas.get(channel)
    return known(area.masked_percent, area.expected_percent) if known else area.masked_percent


def interval_terms(evidence: Evidence, percent: float) -> dict[str, float]:
    """Name what the width of an interval may depend on, as the fields of `Reach`."""
    area = evidence.areas[evidence.headline]
    return {
        "base": 1.0,
        "percent": percent,
        "root": math.sqrt(percent),
        "doubtful": area.doubtful_percent,
        "gap": abs(area.expected_percent - area.masked_percent),
        "spread": evidence.spread_percent,
        "distractor": math.sqrt(evidence.circumstances.distractor_percent),
        "noise": percent * evidence.circumstances.relative_noise,
    }
