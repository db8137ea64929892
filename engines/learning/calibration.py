"""Fit threshold and knots: python -m engines.learning.calibration --run RUN --data DIR."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import float64
from numpy.typing import NDArray
from rich.console import Console

from engines.bundle import Calibration
from engines.learning.checkpoint import trained_model
from engines.learning.measuring import measure, segmenter_of

COVERAGE = 0.90
MIN_IN_BIN = 25
BINS = 7
SOME_PERCENT = 0.02
"""Masked percentages under this count as nothing found."""
THRESHOLDS = tuple(round(0.2 + 0.025 * i, 3) for i in range(25))
FILE = "calibration.json"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Probability cut of the mask, and the knots from masked area to percent with interval."""

    threshold: float
    calibration: Calibration

    def write(self, run: Path) -> None:
        """Write beside the checkpoint of a run."""
        (run / FILE).write_text(
            json.dumps(
                {"threshold": self.threshold, "calibration": self.calibration.model_dump()},
                indent=1,
            )
            + "\n"
        )

    @classmethod
    def read(cls, run: Path) -> Calibrated:
        """Read what `write` wrote."""
        content = json.loads((run / FILE).read_text())
        return cls(content["threshold"], Calibration.model_validate(content["calibration"]))


def best_threshold(masked: NDArray[float64], truth: NDArray[float64]) -> int:
    """Choose the cut whose masked percentages err least on average: its index.

    `masked` is (thresholds, pictures), `truth` (pictures,), both 0 to 100. The cut with the right
    mean, tried first, makes good for ice that is not seen with ice that is not there.
    """
    return int(np.abs(masked - truth).mean(axis=1).argmin())


def fit(predicted: NDArray[float64], truth: NDArray[float64], bins: int = BINS) -> Calibration:
    """Fit monotone knots over bins of the predicted percentage, with a conformal interval.

    In each bin: the median truth, and the quantiles that leave (1 - 90 %) / 2 out at either end,
    with the finite-sample correction of split-conformal prediction. Nothing predicted means
    0 %; its upper end is what such pictures hold. (Means in place of medians err more: they
    raise every small reading by what few pictures hide.)
    """
    rows = [_knot(0.0, truth[predicted < SOME_PERCENT], middle=0.0)]
    some = np.flatnonzero(predicted >= SOME_PERCENT)
    some = some[np.argsort(predicted[some])]
    for part in np.array_split(some, max(1, min(bins, len(some) // MIN_IN_BIN))):
        if len(part):
            rows.append(_knot(float(predicted[part].mean()), truth[part]))
    rows.append(_last(rows))
    table = np.maximum.accumulate(np.array(rows, float64).clip(0.0, 100.0), axis=0).round(4)
    at, percent, low, high = table.T
    return Calibration(
        kind="piecewise",
        predicted_percent=tuple(at.tolist()),
        percent=tuple(percent.tolist()),
        low=tuple(np.minimum(low, percent).tolist()),
        high=tuple(np.maximum(high, percent).tolist()),
    )


def _knot(
    at: float, truth: NDArray[float64], middle: float | None = None
) -> tuple[float, float, float, float]:
    """One knot: predicted, percent, low, high."""
    if len(truth) == 0:
        return at, at, 0.0, at
    out = (1.0 - COVERAGE) / 2.0
    level = min(1.0, (1.0 - out) * (len(truth) + 1) / len(truth))
    low, high = np.quantile(truth, [1.0 - level, level])
    return at, float(np.median(truth)) if middle is None else middle, float(low), float(high)


def _last(rows: list[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    """Go on from the last bin in proportion, up to a masked 100 %."""
    at, percent, low, high = rows[-1]
    factor = 100.0 / max(at, 1e-3)
    return 100.0, percent * factor, low * factor, max(100.0, high)


def calibrate(run: Path, data: Sequence[Path], seed: int, limit: int) -> Calibrated:
    """Calibrate a run on data sets that its weights never saw, `limit` tilts of each at most."""
    model, _ = trained_model(run)
    segmenter, size = segmenter_of(model), model.settings.pixel_size_angstrom
    masked, truth = [], []
    for directory in data:
        for measured in measure(segmenter, directory, seed, limit, size):
            if measured.found.percent is not None:
                masked.append([measured.masked_percent(cut) for cut in THRESHOLDS])
                truth.append(measured.true_percent)
    table, true = np.array(masked, float64).T, np.array(truth, float64)
    best = best_threshold(table, true)
    return Calibrated(THRESHOLDS[best], fit(table[best], true))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m engines.learning.calibration", description=__doc__
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=2000, help="tilts of each data set")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    calibrated = calibrate(given.run, given.data, given.seed, given.limit)
    calibrated.write(given.run)
    Console().print(calibrated)


if __name__ == "__main__":
    main()
