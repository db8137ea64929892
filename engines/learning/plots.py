"""How figures are drawn: one look for all of them; and the curve of a training run.

matplotlib is loaded only where something is drawn: it is part of the extra `train`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"),
    "#7F7F7F",
)
"""Told apart by colour-blind eyes too (Okabe and Ito 2008)."""
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY)
_FAINT = "#D9D9D9"
_LOOK: Any = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "xtick.color": "#404040",
    "ytick.color": "#404040",
}
_DOTS_PER_INCH = 130
_NOT_LOSSES = {"step", "elapsed_s", "series"}
_SMOOTHED_ROWS = 25


def can_draw() -> bool:
    """Say whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


class Drawing:
    """A figure that is written to a file when the block ends without an error."""

    def __init__(
        self,
        out: Path,
        size_inch: tuple[float, float],
        columns: int = 1,
        rows: int = 1,
        **more: Any,
    ) -> None:
        """Lay out panels; `more` goes to matplotlib's `Figure.subplots`."""
        import matplotlib
        from matplotlib.figure import Figure

        self._out = out
        self._look = matplotlib.rc_context(_LOOK)
        with matplotlib.rc_context(_LOOK):
            self.figure: Figure = Figure(figsize=size_inch, layout="constrained")
            grid = self.figure.subplots(rows, columns, squeeze=False, **more)
        self.panels: list[Axes] = list(grid.ravel())

    def __enter__(self) -> Drawing:
        self._look.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self.figure.savefig(self._out, dpi=_DOTS_PER_INCH, facecolor="white")
        self._look.__exit__(kind, error, trace)


def plot_curve(log: Path, out: Path) -> None:
    """Draw the losses of a run against its steps: each as logged, faint, and smoothed."""
    if not log.exists():
        return
    with log.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        return
    steps = np.array([float(row["step"]) for row in rows])
    names = [name for name in rows[0] if name not in _NOT_LOSSES]
    with Drawing(out, (7.5, 4.2)) as drawing:
        (axes,) = drawing.panels
        for name, colour in zip(names, _cycle(len(names)), strict=True):
            values = np.array([float(row[name]) for row in rows])
            axes.plot(steps, values, color=colour, linewidth=0.5, alpha=0.3)
            smooth = _smoothed(values)
            axes.plot(steps[len(steps) - len(smooth) :], smooth, color=colour, label=name)
        axes.set(xlabel="step", ylabel="loss", yscale="log", title="Training")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0)


def _cycle(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _smoothed(values: NDArray[Any]) -> NDArray[Any]:
    """Average over the rows before each."""
    width = max(1, min(_SMOOTHED_ROWS, len(values) // 5))
    return np.convolve(values, np.full(width, 1.0 / width), "valid")


def identity(axes: Axes, top: float) -> None:
    """Draw the line on which everything is right."""
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, zorder=1)


def counted(name: str, values: Sequence[Any] | NDArray[Any]) -> str:
    """Name a group with its size."""
    return f"{name} (n = {len(values)})"
