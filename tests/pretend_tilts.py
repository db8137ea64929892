"""Records of tilts as a network of known faults would leave them: no picture, no network."""

from __future__ import annotations

import numpy as np
from numpy import float64, int64
from numpy.typing import NDArray

from engines.learning.calibration_records import CUTS, TiltRecord
from engines.percentage import BINS, Circumstances, bin_means

PIXELS = 6_000
THRESHOLD_SHARES = (1.3, 1.0, 0.7)
"""Area at the three contrast thresholds, as a multiple of the middle one."""


def pretend_records(
    series: int, seed: int, tilts: int = 5, sharpness: float = 2.5
) -> list[TiltRecord]:
    """Draw series of which 40 % are free of ice.

    The network finds about nine tenths of the ice, says it too surely (its logits are too steep),
    and sees ice where there is none on a fifth of the series.
    """
    generator = np.random.default_rng(seed)
    found = []
    for number in range(series):
        some = generator.random() > 0.4
        mean = generator.exponential(6.0) if some else 0.0
        seen = generator.uniform(0.7, 1.1)
        false = generator.exponential(1.0) if generator.random() < 0.2 else 0.0
        for index in range(tilts):
            truth = min(60.0, mean * generator.lognormal(0.0, 0.3))
            found.append(_record(generator, (number, index), truth, seen, false, sharpness))
    return found


def _record(
    generator: np.random.Generator,
    place: tuple[int, int],
    truth: float,
    seen: float,
    false: float,
    sharpness: float,
) -> TiltRecord:
    counts, true = [], []
    for share in THRESHOLD_SHARES:
        ice = round(PIXELS * min(0.9, truth * share / 100.0))
        none = PIXELS - ice
        strange = round(none * false / 100.0)
        logits = (
            _logits(generator, none - strange, -4.0, sharpness),
            _logits(generator, strange, 1.0, sharpness),
            _logits(generator, round(ice * min(1.0, seen)), 2.0, sharpness),
            _logits(generator, ice - round(ice * min(1.0, seen)), -2.5, sharpness),
        )
        counts.append([_counts(*logits[:2]), _counts(*logits[2:])])
        true.append(100.0 * ice / PIXELS)
    table = np.array(counts, int64)
    above = np.array([bin_means() > cut for cut in CUTS])
    return TiltRecord(
        data="pretend",
        series=f"series_{place[0]:06d}",
        family=("one", "other")[place[0] % 2],
        index=place[1],
        true_percent=np.array(true),
        counts=table,
        masked_percent=100.0 * table.sum(axis=1) @ above.T / PIXELS,
        circumstances=Circumstances(0.0, false, 100.0, 13.5, 0.06),
        widening_factor=1.0,
        about={"angle_deg": 3.0 * place[1], "flags": []},
    )


def _logits(
    generator: np.random.Generator, count: int, middle: float, sharpness: float
) -> NDArray[float64]:
    return np.asarray(sharpness * generator.normal(middle, 1.2, count))


def _counts(*logits: NDArray[float64]) -> NDArray[int64]:
    probability = 1.0 / (1.0 + np.exp(-np.concatenate(logits)))
    return np.bincount(
        (np.sqrt(probability) * BINS).astype(int64).clip(0, BINS - 1), minlength=BINS
    )
