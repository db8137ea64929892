"""How true calibrated readings are: by kind of reading, by family, and pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy import bool_, float64
from numpy.typing import NDArray

from engines.learning.calibration_fit import HEADLINE, Tilts, expected_error, masked_at
from engines.learning.calibration_lamellae import (
    NEXT_TO_NOTHING,
    LamellaFigures,
    chance_table,
    lamella_table,
)
from engines.learning.calibration_model import Fitted, Readings
from engines.learning.calibration_records import CHANNELS
from engines.learning.evaluation_tables import Table, number, share
from engines.percentage import bin_means

_EDGE = 1e-6
AS_IT_WAS = 0.5
"""Cut of the mask whose area is the percentage of a network without calibration."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How true the readings of one group are; percentage points, shares 0 to 1."""

    name: str
    tilts: int
    true_percent: float
    mean_absolute_error: float
    bias: float
    error_before: float
    """Mean absolute error of the mask of the network as it was."""
    bias_before: float
    coverage: float
    too_low: float
    """Share whose truth lies above the interval."""
    mean_width: float
    median_width: float


def figures_by_group(tilts: Tilts, read: Readings) -> list[Figures]:
    """Sum up all tilts, then by kind of reading, then by family."""
    truth = tilts.true_percent[:, HEADLINE]
    family = np.array([one.family for one in tilts.records])
    nothing = read.percent < NEXT_TO_NOTHING
    some = read.percent[~nothing]
    middle = float(np.median(some)) if len(some) else 0.0
    groups = {
        "all": np.ones(len(tilts), bool),
        "free of ice": truth == 0.0,
        "reads 0.0": nothing,
        f"reads up to {middle:.1f}": ~nothing & (read.percent <= middle),
        f"reads over {middle:.1f}": ~nothing & (read.percent > middle),
        **{name: family == name for name in sorted(set(family))},
    }
    return [_figures(name, tilts, read, at) for name, at in groups.items() if at.any()]


def _figures(name: str, tilts: Tilts, read: Readings, at: NDArray[bool_]) -> Figures:
    truth = tilts.true_percent[:, HEADLINE]
    error = (read.percent - truth)[at]
    before = (masked_at(tilts.masked_percent[:, HEADLINE], AS_IT_WAS) - truth)[at]
    width = (read.high - read.low)[at]
    return Figures(
        name,
        int(at.sum()),
        float(truth[at].mean()),
        float(np.abs(error).mean()),
        float(error.mean()),
        float(np.abs(before).mean()),
        float(before.mean()),
        float(inside(truth, read)[at].mean()),
        float((truth > read.high + _EDGE)[at].mean()),
        float(width.mean()),
        float(np.median(width)),
    )


def inside(truth: NDArray[float64], read: Readings) -> NDArray[bool_]:
    """Say which intervals hold the truth, (n,)."""
    return np.asarray((read.low - _EDGE <= truth) & (truth <= read.high + _EDGE))


@dataclass(frozen=True, slots=True)
class Reliability:
    """Expected calibration error of one channel, before and after."""

    channel: str
    before: float
    after: float


def reliabilities(tilts: Tilts, fitted: Fitted) -> list[Reliability]:
    """Compare what is said of pixels with how many are ice."""
    found = []
    for channel, name in enumerate(CHANNELS):
        counts = tilts.counts[:, channel].sum(axis=0)
        after = fitted.calibration.areas[name].probability(bin_means())
        errors = (expected_error(counts, one.astype(float64)) for one in (bin_means(), after))
        found.append(Reliability(name, *errors))
    return found


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """All figures of one set of readings."""

    what: str
    figures: tuple[Figures, ...]
    lamellae: LamellaFigures
    reliabilities: tuple[Reliability, ...] = ()

    @classmethod
    def of(
        cls, what: str, tilts: Tilts, read: Readings, fitted: Fitted | None = None
    ) -> CalibrationReport:
        """Sum up readings; with the calibration, its probabilities too."""
        return cls(
            what,
            tuple(figures_by_group(tilts, read)),
            LamellaFigures.of(tilts, read),
            tuple(reliabilities(tilts, fitted)) if fitted else (),
        )

    def as_json(self) -> dict[str, object]:
        """Give all figures as plain values."""
        return asdict(self)

    def tables(self) -> list[Table]:
        """Lay out the tables."""
        found = [
            _figures_table(self.what, self.figures),
            lamella_table(self.what, self.lamellae),
            chance_table(self.what, self.lamellae.chances),
        ]
        if self.reliabilities:
            found.append(_reliability_table(self.what, self.reliabilities))
        return found


def _figures_table(what: str, figures: Sequence[Figures]) -> Table:
    rows = tuple(
        (
            one.name,
            f"{one.tilts}",
            number(one.true_percent),
            number(one.mean_absolute_error),
            number(one.bias, sign=True),
            number(one.error_before),
            number(one.bias_before, sign=True),
            share(one.coverage, 1),
            share(one.too_low, 1),
            number(one.mean_width),
            number(one.median_width),
        )
        for one in figures
    )
    errors = ("MAE pp", "bias pp", "MAE before", "bias before")
    widths = ("in interval", "above it", "mean width", "median")
    note = (
        "In interval: truth within the 90 % interval; width of the interval in pp. Before: of the "
        f"mask at {AS_IT_WAS:g}, not calibrated."
    )
    return Table(f"Tilts, {what}", ("tilts", "n", "true %", *errors, *widths), rows, note)


def _reliability_table(what: str, found: Sequence[Reliability]) -> Table:
    rows = tuple((one.channel, share(one.before, 2), share(one.after, 2)) for one in found)
    note = "Expected calibration error of the probabilities of pixels, before and after."
    return Table(f"Probabilities, {what}", ("channel", "before", "after"), rows, note)
