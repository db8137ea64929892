"""Pictures of a calibration: are probabilities, readings and intervals as true as they say?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy import float64, int64
from numpy.typing import NDArray

from engines.learning.calibration_fit import HEADLINE, Tilts
from engines.learning.calibration_intervals import COVERAGE
from engines.learning.calibration_lamellae import LIMIT_PERCENT, Lamellae
from engines.learning.calibration_model import Fitted, Readings
from engines.learning.calibration_report import figures_by_group, inside
from engines.learning.plots import BLUE, GREY, ORANGE, RED, Drawing, identity
from engines.percentage import bin_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes

READINGS, RELIABILITY, COVERAGES = "readings.png", "reliability.png", "coverage.png"
LAMELLAE = "lamellae.png"
_BINS = 15
_NEXT_TO_NOTHING = 0.03


def draw(out: Path, tilts: Tilts, read: Readings, fitted: Fitted) -> list[Path]:
    """Draw all pictures into the folder `out`; returns their paths."""
    _draw_readings(out / READINGS, tilts, read)
    _draw_reliability(out / RELIABILITY, tilts, fitted)
    _draw_coverage(out / COVERAGES, tilts, read)
    _draw_lamellae(out / LAMELLAE, tilts, read)
    return [out / name for name in (READINGS, RELIABILITY, COVERAGES, LAMELLAE)]


def _draw_readings(out: Path, tilts: Tilts, read: Readings) -> None:
    with Drawing(out, (6.4, 4.8)) as drawing:
        (axes,) = drawing.panels
        _against_truth(axes, tilts.true_percent[:, HEADLINE], read)
        axes.set(title="Readings with 90 % intervals")


def _against_truth(axes: Axes, truth: NDArray[float64], read: Readings) -> None:
    """Draw readings with their intervals against the truth; intervals that miss stand out."""
    held = inside(truth, read)
    top = 1.15 * max(1.0, float(truth.max()), float(read.percent.max()))
    # many tilts lie on one spot at 0: shaken apart, in a fixed way
    shaken = np.random.default_rng(0).uniform(0.7, 1.4, len(truth)) * _NEXT_TO_NOTHING
    at = np.where(truth < _NEXT_TO_NOTHING, shaken, truth)
    for chosen, colour, name in ((held, BLUE, "held"), (~held, RED, "missed")):
        if not chosen.any():
            continue
        ends = np.stack([read.percent - read.low, read.high - read.percent]).clip(0.0)
        axes.errorbar(
            at[chosen],
            read.percent[chosen],
            ends[:, chosen],
            fmt="o",
            markersize=2.5,
            linewidth=0.5,
            alpha=0.55,
            color=colour,
            label=f"truth {name} by the interval ({chosen.sum()})",
        )
    identity(axes, top)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_yscale("symlog", linthresh=0.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set(xlim=(0.0, top), ylim=(-0.01, top))
    axes.set(xlabel="true ice (%); far left: none", ylabel="read (%)")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.12), ncols=2, borderaxespad=0.0)


def _draw_lamellae(out: Path, tilts: Tilts, read: Readings) -> None:
    """Means over the tilts against the truth; chance of being bad against how many are."""
    found = Lamellae.of(tilts, read)
    with Drawing(out, (9.6, 4.6), columns=2) as drawing:
        left, right = drawing.panels
        _against_truth(left, found.true_percent, found.read)
        left.axvline(LIMIT_PERCENT, color=GREY, linewidth=0.8, linestyle="--")
        left.axhline(LIMIT_PERCENT, color=GREY, linewidth=0.8, linestyle="--")
        left.set(title="Means of lamellae with 90 % intervals")
        identity(right, 1.0)
        chances = found.chances()
        right.errorbar(
            [one.said for one in chances],
            [one.share for one in chances],
            np.array([one.reach for one in chances]).T.reshape(2, -1),
            fmt="o",
            color=BLUE,
            linewidth=0.8,
            capsize=2.0,
        )
        for one in chances:
            right.annotate(
                f"{one.lamellae}",
                (one.said, one.share),
                xytext=(6, -3),
                textcoords="offset points",
                fontsize=8,
            )
        right.set(xlim=(-0.03, 1.08), ylim=(-0.03, 1.03))
        right.set(title=f"Chance of a mean above {LIMIT_PERCENT:g} % (and lamellae)")
        right.set(xlabel="said", ylabel="share that is (95 % interval)")


def _draw_reliability(out: Path, tilts: Tilts, fitted: Fitted) -> None:
    """Say against truth of the pixels of the ice channel, before and after."""
    counts = tilts.counts[:, HEADLINE].sum(axis=0)
    name = next(one for i, one in enumerate(fitted.calibration.areas) if i == HEADLINE)
    after = fitted.calibration.areas[name].probability(bin_means())
    with Drawing(out, (4.6, 4.2)) as drawing:
        (axes,) = drawing.panels
        identity(axes, 1.0)
        for said, colour, label in ((bin_means(), ORANGE, "before"), (after, BLUE, "after")):
            x, y = _binned(counts, said.astype(float64))
            axes.plot(x, y, "o-", color=colour, markersize=4, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1), title="Probability of ice")
        axes.set(xlabel="said of a pixel", ylabel="share that is ice")
        axes.legend(loc="upper left")


def _binned(
    counts: NDArray[int64], said: NDArray[float64]
) -> tuple[NDArray[float64], NDArray[float64]]:
    """Mean of what is said, and share of ice, in bins that hold a pixel."""
    place = np.minimum((said * _BINS).astype(int64), _BINS - 1)
    whole = np.bincount(place, counts.sum(axis=0), _BINS)
    some = whole > 0
    mean = np.bincount(place, counts.sum(axis=0) * said, _BINS)[some] / whole[some]
    return mean, np.bincount(place, counts[1], _BINS)[some] / whole[some]


def _draw_coverage(out: Path, tilts: Tilts, read: Readings) -> None:
    """Coverage and width of the intervals, by kind of reading and by family."""
    figures = figures_by_group(tilts, read)[::-1]
    names = [f"{one.name} (n = {one.tilts})" for one in figures]
    with Drawing(out, (8.6, 0.6 + 0.3 * len(figures)), columns=2, sharey=True) as drawing:
        left, right = drawing.panels
        left.axvspan(87.0, 93.0, color=GREY, alpha=0.2, linewidth=0.0)
        left.axvline(100.0 * COVERAGE, color=GREY, linewidth=0.8)
        left.plot([100.0 * one.coverage for one in figures], names, "o", color=BLUE)
        left.set(xlim=(min(60.0, *(100.0 * one.coverage for one in figures)) - 2, 101.0))
        left.set(xlabel="truth in the 90 % interval (% of tilts)", title="Coverage")
        right.barh(names, [one.mean_width for one in figures], color=BLUE, height=0.6)
        right.plot([one.median_width for one in figures], names, "|", color=RED, markersize=10)
        right.set(xlabel="width (pp): mean, and median in red", title="Width")
