"""How true calibrated readings are over whole lamellae: mean, interval, and chance of being bad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float64
from numpy.typing import NDArray

from engines.lamella import Measured, mean_of, probability_above
from engines.learning.calibration_fit import HEADLINE, Tilts
from engines.learning.calibration_model import Readings
from engines.learning.evaluation_statistics import auroc
from engines.learning.evaluation_tables import Table, number, share

LIMIT_PERCENT = 10.0
"""A lamella whose mean lies above this is one to skip."""
NEXT_TO_NOTHING = 0.05
"""Percentages under this are printed as 0.0."""
CHANCES = (0.0, 0.01, 0.05, 0.3, 0.7, 0.95, 1.0)
"""Ends of the classes of the chance of being bad; the rule of the daemon speaks at .95."""
_EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Chance:
    """Lamellae that are said to be bad with a chance of one class."""

    low: float
    high: float
    lamellae: int
    said: float
    """Mean of what is said of them."""
    bad: int
    """How many are."""

    @property
    def share(self) -> float:
        """Share that is bad, 0 to 1."""
        return self.bad / self.lamellae

    @property
    def reach(self) -> tuple[float, float]:
        """How far the 95 % interval of that share reaches down and up (Wilson 1927)."""
        n, z, share = self.lamellae, 1.96, self.share
        middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / (1 + z**2 / n)
        # at 0 and 1 one end is the share itself, but for rounding
        return max(0.0, share - max(0.0, middle - half)), max(0.0, min(1.0, middle + half) - share)


@dataclass(frozen=True, slots=True)
class Lamellae:
    """Means over the tilts of N series, as the daemon gives them; each (N,)."""

    true_percent: NDArray[float64]
    read: Readings
    bad: NDArray[float64]
    """Probability that the mean lies above the limit."""

    @classmethod
    def of(cls, tilts: Tilts, read: Readings, limit_percent: float = LIMIT_PERCENT) -> Lamellae:
        """Sum up the series of some tilts."""
        truth = tilts.true_percent[:, HEADLINE]
        found, means, bad = [], [], []
        for series in np.unique(tilts.series):
            places = np.flatnonzero(tilts.series == series)
            measured = [Measured(*(float(line[at]) for line in read.lines)) for at in places]
            mean = mean_of(measured)
            found.append(float(truth[places].mean()))
            means.append((mean.percent, mean.low, mean.high))
            bad.append(probability_above(limit_percent, measured))
        lines = np.array(means, float64).reshape(-1, 3).T
        return cls(np.array(found, float64), Readings(*lines), np.array(bad, float64))

    def chances(self, limit_percent: float = LIMIT_PERCENT) -> list[Chance]:
        """Share lamellae out by their chance of being bad; classes without any are left out."""
        place = np.searchsorted(CHANCES[1:-1], self.bad, "right")
        bad = self.true_percent > limit_percent
        return [
            Chance(
                CHANCES[one],
                CHANCES[one + 1],
                int(at.sum()),
                float(self.bad[at].mean()),
                int(bad[at].sum()),
            )
            for one in range(len(CHANCES) - 1)
            if (at := place == one).any()
        ]


@dataclass(frozen=True, slots=True)
class LamellaFigures:
    """How true the means over the tilts of a series are; percentage points, shares 0 to 1."""

    series: int
    mean_absolute_error: float
    bias: float
    coverage: float
    coverage_read: float
    """Of those that do not read 0."""
    mean_width: float
    shared_share: float
    """Share of the error variance that the tilts of a series have in common."""
    bad: int
    """Series whose true mean lies above the limit."""
    auroc: float | None
    """Of the mean against that limit; None where no series or each is bad."""
    chances: tuple[Chance, ...]

    @classmethod
    def of(cls, tilts: Tilts, read: Readings) -> LamellaFigures:
        """Compare the means of series with the truth."""
        found = Lamellae.of(tilts, read)
        means, bad = found.read, found.true_percent > LIMIT_PERCENT
        held = (means.low - _EDGE <= found.true_percent) & (
            found.true_percent <= means.high + _EDGE
        )
        some = means.percent >= NEXT_TO_NOTHING
        error = means.percent - found.true_percent
        return cls(
            len(error),
            float(np.abs(error).mean()),
            float(error.mean()),
            float(held.mean()),
            float(held[some].mean()) if some.any() else 1.0,
            float((means.high - means.low).mean()),
            shared_share(tilts, read),
            int(bad.sum()),
            auroc(means.percent, bad),
            tuple(found.chances()),
        )


def shared_share(tilts: Tilts, read: Readings) -> float:
    """Measure which share of the error variance the tilts of one series have in common.

    The mean product of two errors of one series over the mean square, each error as a share of
    the side of its interval; readings that are right to the point say nothing.
    """
    error = tilts.true_percent[:, HEADLINE] - read.percent
    side = np.where(error > 0.0, read.high - read.percent, read.percent - read.low)
    told = np.abs(error) > NEXT_TO_NOTHING
    scaled = np.where(told, error / np.maximum(side, NEXT_TO_NOTHING), 0.0)
    # one reading far off must not speak for all
    scaled = scaled.clip(-2.0, 2.0)
    numbers, place, count = np.unique(tilts.series, return_inverse=True, return_counts=True)
    total = np.bincount(place, scaled, len(numbers))
    squares = np.bincount(place, scaled**2, len(numbers))
    pairs = (count * (count - 1)).clip(1)
    several = count > 1
    variance = (squares / count)[several].mean() if several.any() else 0.0
    together = ((total**2 - squares) / pairs)[several].mean() if several.any() else 0.0
    return float(np.clip(together / variance, 0.0, 1.0)) if variance > 0.0 else 0.0


def lamella_table(what: str, one: LamellaFigures) -> Table:
    """Lay out the means."""
    row = (
        "series",
        f"{one.series}",
        number(one.mean_absolute_error),
        number(one.bias, sign=True),
        share(one.coverage, 1),
        share(one.coverage_read, 1),
        number(one.mean_width),
        number(one.shared_share),
        f"{one.bad}",
        number(one.auroc, 3),
    )
    columns = ("means", "n", "MAE pp", "bias pp", "in interval", "of those over 0", "mean width")
    note = (
        "Shared: share of the error variance that the tilts of a series have in common. "
        f"Bad: mean above {LIMIT_PERCENT:g} %; AUROC of the mean against that."
    )
    return Table(f"Lamellae, {what}", (*columns, "shared", "bad", "AUROC"), (row,), note)


def chance_table(what: str, chances: Sequence[Chance]) -> Table:
    """Lay out what is said of lamellae beside what they are."""
    rows = tuple(
        (
            f"{one.low:g} to {one.high:g}",
            f"{one.lamellae}",
            share(one.said, 1),
            share(one.share, 1),
            f"{one.bad}",
        )
        for one in chances
    )
    note = (
        f"Chance that the mean of the lamella lies above {LIMIT_PERCENT:g} %, as the rule of the "
        f"daemon says it from all tilts; it speaks at {CHANCES[-2]:g} and at {1 - CHANCES[-2]:.2g}."
    )
    return Table(f"Bad lamellae, {what}", ("said", "n", "mean said", "bad", "n bad"), rows, note)
