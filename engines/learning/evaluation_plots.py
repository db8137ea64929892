"""Plots of an evaluation: percentages, intervals, curves. Each function writes one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import float64
from numpy.typing import NDArray

from engines.learning.evaluation import TOGETHER, FamilyFigures, TiltFigures, family_order
from engines.learning.evaluation_domain import AMBER
from engines.learning.evaluation_pixels import AreaError, Recall, Reliable
from engines.learning.evaluation_series import LIMIT_PERCENT, LamellaFigures
from engines.learning.evaluation_statistics import Interval
from engines.learning.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Drawing,
    counted,
    identity,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COVERAGE_AIM = (0.87, 0.93)
_LINEAR_UP_TO_PERCENT = 1.0
_ANGLE_STEP_DEG = 10.0
_FEWEST_OF_ANGLE = 5


def group_of(family: str) -> str:
    """Put a family into one of few groups, which plots tell apart by colour."""
    return ("EMPIAR-like", "held-out domain", "other")[family_order(family)[0]]


def plot_percent(tilts: Sequence[TiltFigures], out: Path, title: str = "Ice in each tilt") -> None:
    """Draw measured against true percentages, one dot for each measured tilt."""
    seen = [t for t in tilts if t.percent is not None]
    groups = {group_of(t.family) for t in seen}
    with Drawing(out, (5.4, 5.2)) as drawing:
        (axes,) = drawing.panels
        for group, colour in zip(sorted(groups), COLOURS, strict=False):
            inside = [t for t in seen if group_of(t.family) == group]
            label = counted(group if len(groups) > 1 else "tilts", inside)
            true = [t.true_percent for t in inside]
            measured = [float(t.percent or 0.0) for t in inside]
            axes.plot(true, measured, "o", color=colour, label=label, **_dots(len(seen)))
        _percent_axes(axes, [v for t in seen for v in (t.true_percent, t.percent or 0.0)])
        nothing = sum(t.true_percent == 0.0 == t.percent for t in seen)
        axes.annotate(f"{nothing} at 0, 0", (0.0, 0.0), (12, -2), textcoords="offset points")
        axes.set_title(title)


def _dots(count: int) -> dict[str, Any]:
    """Size and opacity of dots: smaller and fainter the more there are."""
    crowd = min(1.0, count / 2000.0)
    return {"markersize": 5.0 - 2.5 * crowd, "alpha": 0.75 - 0.4 * crowd, "markeredgewidth": 0.0}


def _percent_axes(axes: Axes, values: Sequence[float]) -> None:
    """Lay out axes of equal scale, linear up to 1 % and logarithmic above."""
    top = 1.15 * max([10.0, *values])
    identity(axes, top)
    ticks = [t for t in (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0) if t <= top]
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("symlog", linthresh=_LINEAR_UP_TO_PERCENT, linscale=0.6)
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.set(xlim=(-0.08, top), ylim=(-0.08, top), aspect="equal")
    axes.set(xlabel="true ice (% of the valid area)", ylabel="measured ice (%)")
    axes.legend(loc="upper left")


def plot_families(families: Sequence[FamilyFigures], out: Path) -> None:
    """Draw error, bias and coverage of each family with their intervals, side by side."""
    rows = np.arange(len(families))[::-1]
    names = [f"{f.family}  (n = {f.tilts - f.not_measured})" for f in families]
    height = 1.3 + 0.27 * len(families)
    with Drawing(out, (9.5, height), columns=3, sharey=True) as drawing:
        error, bias, coverage = drawing.panels
        colours = [RED if f.family == TOGETHER else BLUE for f in families]
        for row, f, colour in zip(rows, families, colours, strict=True):
            _dot(error, row, f.mean_absolute_error, f.mean_absolute_error_interval, colour)
            _dot(bias, row, f.bias, f.bias_interval, colour)
            covered = None if f.coverage is None else 100.0 * f.coverage
            _dot(coverage, row, covered, None, colour)
        error.set_yticks(rows, names)
        error.set_xlim(left=0.0)
        error.set(title="Mean absolute error", xlabel="percentage points")
        bias.axvline(0.0, color=GREY, linewidth=0.8)
        bias.set(title="Bias", xlabel="percentage points")
        coverage.axvspan(*(100.0 * end for end in COVERAGE_AIM), color=GREEN, alpha=0.2, lw=0)
        coverage.set(title="In the 90 % interval", xlabel="% of tilts", xlim=(0, 103))
        for axes in drawing.panels:
            axes.grid(axis="y", visible=False)


def _dot(
    axes: Axes, row: float, value: float | None, interval: Interval | None, colour: str
) -> None:
    if value is None:
        return
    if interval is not None:
        axes.plot(interval, [row, row], color=colour, linewidth=1.4, alpha=0.6)
    axes.plot(value, row, "o", color=colour, markersize=5)


def plot_lamellae(lamellae: Sequence[LamellaFigures], out: Path) -> None:
    """Draw measured against true means of the lamellae, with the intervals of the rule."""
    seen = [one for one in lamellae if one.percent is not None]
    above = [one for one in seen if one.true_percent > LIMIT_PERCENT]
    below = [one for one in seen if one.true_percent <= LIMIT_PERCENT]
    with Drawing(out, (5.4, 5.2)) as drawing:
        (axes,) = drawing.panels
        for group, colour, name in (
            (below, BLUE, f"up to {LIMIT_PERCENT:g} %"),
            (above, RED, f"over {LIMIT_PERCENT:g} %"),
        ):
            true = [one.true_percent for one in group]
            for one in group:
                if one.low is not None and one.high is not None:
                    ends = (one.low, one.high)
                    axes.plot([one.true_percent] * 2, ends, color=colour, lw=0.7, alpha=0.3)
            measured = [float(one.percent or 0.0) for one in group]
            label = counted(name, group)
            axes.plot(true, measured, "o", color=colour, label=label, **_dots(len(seen)))
        for line in (axes.axvline, axes.axhline):
            line(LIMIT_PERCENT, color=GREY, linewidth=0.8, linestyle=":")
        _percent_axes(axes, [v for one in seen for v in (one.true_percent, one.percent or 0.0)])
        axes.set(xlabel="true mean ice of the lamella (%)", ylabel="measured mean (%)")
        axes.set_title("Lamellae")


def plot_angles(tilts: Sequence[TiltFigures], out: Path) -> None:
    """Draw the error of each tilt against its angle, with mean and middle 90 % by 10 degrees."""
    seen = [t for t in tilts if t.percent is not None and t.angle_deg is not None]
    angle = np.array([t.angle_deg for t in seen], float64)
    error = np.array([(t.percent or 0.0) - t.true_percent for t in seen], float64)
    if len(error) == 0:
        return
    with Drawing(out, (7.0, 3.8)) as drawing:
        (axes,) = drawing.panels
        axes.plot(angle, error, "o", color=GREY, label=counted("tilts", seen), **_dots(len(seen)))
        _by_angle(axes, angle, error)
        axes.axhline(0.0, color="black", linewidth=0.8)
        reach = max(2.0, float(np.quantile(np.abs(error), 0.99)) * 1.2)
        axes.set(ylim=(-reach, reach), xlabel="tilt angle (°)", ylabel="measured - true (pp)")
        axes.set_title("Error against tilt angle")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0)


def _by_angle(axes: Axes, angle: NDArray[float64], error: NDArray[float64]) -> None:
    edges = np.arange(-90.0, 90.0 + _ANGLE_STEP_DEG, _ANGLE_STEP_DEG)
    bins = np.digitize(angle, edges) - 1
    middle = edges[:-1] + _ANGLE_STEP_DEG / 2.0
    # NaN leaves a gap where there are too few tilts
    low, mean, high = np.full((3, len(middle)), np.nan)
    for index in range(len(middle)):
        inside = error[bins == index]
        if len(inside) >= _FEWEST_OF_ANGLE:
            low[index], high[index] = np.quantile(inside, (0.05, 0.95))
            mean[index] = inside.mean()
    axes.fill_between(middle, low, high, color=BLUE, alpha=0.15, lw=0, label="middle 90 %")
    axes.plot(middle, mean, "o-", color=BLUE, ms=4, lw=1.5, label="mean of 10°")


def plot_reliability(bins: Sequence[Reliable], mean_distance: float | None, out: Path) -> None:
    """Draw the share of ice against the probability, and below it how many pixels lie where."""
    with Drawing(out, (4.8, 5.6), rows=2, sharex=True, height_ratios=(4, 1)) as drawing:
        axes, amount = drawing.panels
        identity(axes, 1.0)
        label = "" if mean_distance is None else f"mean distance {mean_distance:.3f}"
        at = [one.probability for one in bins]
        axes.plot(at, [one.ice for one in bins], "o-", color=BLUE, ms=5, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of them that is ice", aspect="equal")
        axes.set_title("Probability of pixels")
        axes.legend(loc="upper left")
        amount.bar(at, [one.pixels for one in bins], width=0.06, color=GREY)
        amount.set(yscale="log", xlabel="probability of ice", ylabel="pixels")


def plot_area(
    true_curve: Mapping[float, float],
    found: Mapping[str, Sequence[AreaError]],
    tilts: int,
    out: Path,
) -> None:
    """Draw the mean area against the contrast threshold: true, and as each source has it."""
    with Drawing(out, (5.6, 3.8)) as drawing:
        (axes,) = drawing.panels
        at = sorted(true_curve)
        axes.plot(at, [true_curve[t] for t in at], "o-", color=GREEN, ms=5, label="true")
        for (source, errors), colour in zip(found.items(), (BLUE, ORANGE), strict=False):
            thresholds = [one.threshold for one in errors]
            measured = [one.found_percent for one in errors]
            axes.plot(thresholds, measured, "s--", color=colour, ms=5, label=source)
        axes.set_xlim(left=0.0)
        axes.set_ylim(bottom=0.0)
        axes.set(xlabel="Bragg contrast over", ylabel="mean area (% of the valid area)")
        axes.set_title(f"Area against threshold (n = {tilts} tilts)")
        axes.legend()


def plot_recall(recalls: Sequence[Recall], out: Path) -> None:
    """Draw the share of true ice that is found against its contrast, one line for each phase."""
    phases = [p for p in dict.fromkeys(one.phase for one in recalls) if p != "none"]
    with Drawing(out, (5.6, 3.8)) as drawing:
        (axes,) = drawing.panels
        for phase, colour in zip(phases, (BLUE, ORANGE, GREEN), strict=False):
            some = [one for one in recalls if one.phase == phase and one.recall is not None]
            middle = [(one.contrast_from + one.contrast_to) / 2.0 for one in some]
            pixels = sum(one.pixels for one in some)
            label = f"{phase} ({pixels / 1e3:.0f} k pixels)"
            found = [100.0 * (one.recall or 0.0) for one in some]
            axes.plot(middle, found, "o-", color=colour, ms=4, label=label)
        axes.axvline(0.10, color=GREY, linewidth=0.8, linestyle=":")
        axes.set(ylim=(0, 103), xlabel="Bragg contrast (middle of each decile)")
        axes.set_xlim(left=0.0)
        axes.set(ylabel="found (% of true ice)", title="Recall by contrast")
        axes.legend(loc="lower right")


def plot_scores(inside: Sequence[TiltFigures], outside: Sequence[TiltFigures], out: Path) -> None:
    """Draw how many pictures in and out of domain are green, amber, or given no opinion."""
    groups = (("in domain", inside, BLUE), ("out of domain", outside, RED))
    with Drawing(out, (6.4, 3.6)) as drawing:
        (axes,) = drawing.panels
        for shift, (name, tilts, colour) in zip((-0.2, 0.2), groups, strict=True):
            shares = [100.0 * part for part in _outcomes(tilts)]
            at = np.arange(3) + shift
            bars = axes.bar(at, shares, width=0.38, color=colour, label=counted(name, tilts))
            axes.bar_label(bars, [f"{one:.0f} %" for one in shares], fontsize=8, padding=2)
        axes.set_xticks(range(3), ["green", "amber", "no opinion"])
        axes.grid(axis="x", visible=False)
        axes.set(ylim=(0, 112), ylabel="% of pictures", title="In and out of domain")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0)


def _outcomes(tilts: Sequence[TiltFigures]) -> tuple[float, float, float]:
    """Share of green, amber and refused pictures."""
    silent = sum(t.percent is None for t in tilts)
    amber = sum(t.percent is not None and t.level == AMBER for t in tilts)
    count = max(1, len(tilts))
    return (len(tilts) - silent - amber) / count, amber / count, silent / count


def plot_classes(
    pictures: Sequence[tuple[str, float | None, float | None, float | None]], out: Path
) -> None:
    """Draw the percentage of each picture by its class, with its interval, into `classes.png`.

    Each picture is label, percent, low, high.
    """
    seen = [one for one in pictures if one[1] is not None]
    order = {"crystalline": 0, "no label": 2}
    labels = sorted({one[0] for one in seen}, key=lambda label: (order.get(label, 1), label))
    with Drawing(out / "classes.png", (6.4, 1.4 + 0.5 * len(labels))) as drawing:
        (axes,) = drawing.panels
        for row, label in enumerate(reversed(labels)):
            ours = sorted((one for one in seen if one[0] == label), key=lambda one: one[1] or 0.0)
            shifts = np.linspace(-0.25, 0.25, len(ours)) if len(ours) > 1 else [0.0]
            for shift, (_, percent, low, high) in zip(shifts, ours, strict=True):
                if low is not None and high is not None:
                    axes.plot([low, high], [row + shift] * 2, color=GREY, lw=0.8, alpha=0.6)
                colour = RED if label == "crystalline" else BLUE
                axes.plot(float(percent or 0.0), row + shift, "o", color=colour, ms=5)
        names = [counted(label, [one for one in seen if one[0] == label]) for label in labels]
        axes.set_yticks(range(len(labels)), names[::-1])
        axes.grid(axis="y", visible=False)
        axes.set_xscale("symlog", linthresh=_LINEAR_UP_TO_PERCENT, linscale=0.6)
        top = 1.15 * max([10.0, *(high or 0.0 for _, _, _, high in seen)])
        ticks = [tick for tick in (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0) if tick <= top]
        axes.xaxis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.set_ticks([], minor=True)
        axes.set(xlim=(-0.1, top), xlabel="measured ice (%), line: 90 % interval")
        axes.set_title("Ice by class of picture")
