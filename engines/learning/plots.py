"""Figures of a run: the loss curve, outlines laid over pictures, predicted against true percent."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy import bool_
from numpy.typing import NDArray

matplotlib.use("Agg")


def plot_curve(log: Path, out: Path) -> None:
    """Draw the loss of a run against its steps."""
    if not log.exists():
        return
    with log.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in ("loss", "ice", "distractor", "phase", "not_valid"):
        axes.plot(steps, [float(row[name]) for row in rows], label=name, linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.savefig(out, dpi=90)


def grey(picture: NDArray[Any], valid: NDArray[bool_]) -> NDArray[Any]:
    """Stretch a picture to 0..1 between its 1st and 99th percentile."""
    inside = picture[valid] if valid.any() else picture
    low, high = np.percentile(inside, [1, 99])
    stretched: NDArray[Any] = ((picture - low) / max(float(high - low), 1e-6)).clip(0, 1)
    return stretched


@dataclass(frozen=True, slots=True)
class Overlay:
    """A picture and what is laid over it, all (H, W)."""

    title: str
    picture: NDArray[Any]
    valid: NDArray[bool_]
    found: NDArray[bool_]
    truth: NDArray[bool_] | None = None


def plot_overlays(overlays: Sequence[Overlay], out: Path, columns: int = 4) -> None:
    """Draw pictures side by side: found ice outlined red, true ice green, not valid shaded blue."""
    lines = -(-len(overlays) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.8 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, one in zip(grid, overlays, strict=False):
        axes.imshow(grey(one.picture, one.valid), cmap="gray", vmin=0, vmax=1)
        shade = np.zeros((*one.valid.shape, 4), np.float32)
        shade[~one.valid] = (0.2, 0.4, 1.0, 0.4)
        axes.imshow(shade)
        for mask, colour in ((one.truth, "lime"), (one.found, "red")):
            if mask is not None and mask.any() and not mask.all():
                axes.contour(mask, levels=[0.5], colors=colour, linewidths=0.9)
        axes.set_title(one.title, fontsize=8)
    figure.savefig(out, dpi=80)


def plot_percentages(
    truth: NDArray[Any], percent: NDArray[Any], families: Sequence[str], out: Path
) -> None:
    """Draw measured against true percentages, one colour for each family."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    names = np.array(families)
    for name in sorted(set(families)):
        axes.plot(truth[names == name], percent[names == name], ".", markersize=3, label=name)
    top = float(max(truth.max(initial=1.0), percent.max(initial=1.0)))
    axes.plot([0, top], [0, top], color="grey", linewidth=0.7)
    axes.set(xlabel="true ice (% of the valid area)", ylabel="measured ice (%)")
    axes.set(xscale="symlog", yscale="symlog")
    axes.legend()
    figure.savefig(out, dpi=80)
