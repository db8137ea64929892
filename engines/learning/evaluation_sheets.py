"""Sheets of pictures: true ice and what was found outlined, the worst and some at random."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy import bool_, float32, uint8
from numpy.typing import NDArray

from engines.icemap import IceMap
from engines.learning.evaluation import TiltFigures
from engines.learning.plots import Drawing
from engines.overlay import bar_length_nm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 12
_COLUMNS = 4
_TILE_PX = 480
"""Longer side of a tile, at most about: small pictures are enlarged by whole factors."""
_FOUND_RGB, _TRUE_RGB, _INVALID_RGB = (255, 110, 20), (70, 200, 255), (40, 60, 120)


@dataclass(frozen=True, slots=True)
class Overlay:
    """A picture and what is laid over it, all (rows, columns)."""

    title: str
    picture: NDArray[Any]
    valid: NDArray[bool_]
    found: NDArray[bool_]
    truth: NDArray[bool_] | None = None
    pixel_size_angstrom: float | None = None


def overlay_of(tilt: TiltFigures, icemap: IceMap, truth: NDArray[bool_] | None) -> Overlay:
    """Lay what was found over the picture of a tilt."""
    angle = "" if tilt.angle_deg is None else f"   {tilt.angle_deg:+.0f}°"
    name = tilt.kind or tilt.family
    read = ", ".join(tilt.flags) if tilt.percent is None else f"measured {tilt.percent:.1f} %"
    title = f"{name}{angle}\n{read}, true {tilt.true_percent:.1f} %"
    valid = icemap.valid if tilt.percent is not None else np.ones(icemap.picture.shape, bool)
    return Overlay(title, icemap.picture, valid, icemap.ice, truth, icemap.pixel_size_angstrom)


class Gallery:
    """Keeps the tilts with the largest errors, and as many drawn at random."""

    def __init__(self, seed: int, count: int = SHOWN) -> None:
        self._count = count
        self._generator = np.random.default_rng(seed)
        self._offered = 0
        self._worst: list[tuple[float, int, Overlay]] = []
        self._random: dict[int, Overlay] = {}

    def offer(self, error: float, draw: Callable[[], Overlay]) -> None:
        """Look at a tilt; `draw` is called only if it is kept."""
        place = self._offered
        self._offered += 1
        # Each of all that come is kept with the same chance (reservoir sampling, Vitter 1985).
        slot = place if place < self._count else int(self._generator.integers(0, place + 1))
        among_worst = len(self._worst) < self._count or error > self._worst[0][0]
        if not among_worst and slot >= self._count:
            return
        overlay = draw()
        if slot < self._count:
            self._random[slot] = overlay
        if among_worst:
            push = heapq.heappush if len(self._worst) < self._count else heapq.heapreplace
            push(self._worst, (error, place, overlay))

    @property
    def worst(self) -> list[Overlay]:
        """Those with the largest errors, the largest first."""
        return [one for _, _, one in sorted(self._worst, key=lambda kept: (-kept[0], kept[1]))]

    @property
    def random(self) -> list[Overlay]:
        return [self._random[slot] for slot in sorted(self._random)]


def draw_sheet(
    overlays: Sequence[Overlay], out: Path, title: str, outlined: str = "true ice"
) -> None:
    """Draw pictures side by side: found ice outlined orange, true ice blue, not valid shaded.

    `outlined` says what is outlined blue.
    """
    if not overlays:
        return
    columns = min(_COLUMNS, len(overlays))
    rows = -(-len(overlays) // columns)
    with Drawing(out, (3.3 * columns, 3.55 * rows + 0.6), columns, rows) as drawing:
        for axes in drawing.panels:
            axes.set_axis_off()
        for axes, one in zip(drawing.panels, overlays, strict=False):
            drawn = tile(one)
            axes.imshow(drawn, interpolation="nearest")
            if one.pixel_size_angstrom is not None:
                nm_per_px = one.pixel_size_angstrom / 10.0 * one.picture.shape[1] / drawn.shape[1]
                _draw_bar(axes, nm_per_px, drawn.shape)
            axes.set_title(one.title, fontsize=8.5, fontweight="normal")
        told = outlined if any(one.truth is not None for one in overlays) else ""
        drawing.figure.suptitle(title, fontweight="bold", fontsize=12, x=0.01, ha="left")
        _legend(drawing, told, any(not one.valid.all() for one in overlays))


def _legend(drawing: Drawing, told: str, invalid: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def colour(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
        return (rgb[0] / 255.0, rgb[1] / 255.0, rgb[2] / 255.0)

    keys: list[Any] = [Line2D([], [], color=colour(_FOUND_RGB), lw=2.5, label="ice found")]
    if told:
        keys.append(Line2D([], [], color=colour(_TRUE_RGB), lw=2.5, label=told))
    if invalid:
        keys.append(Patch(color=colour(_INVALID_RGB), label="not valid"))
    drawing.figure.legend(handles=keys, loc="outside upper right", ncols=3, fontsize=10)


def tile(one: Overlay) -> NDArray[uint8]:
    """Draw one picture with its outlines, (rows, columns, 3) RGB."""
    factor = max(1, round(_TILE_PX / max(one.picture.shape)))
    size = (one.picture.shape[1] * factor, one.picture.shape[0] * factor)
    grey = cv2.resize(_grey(one.picture, one.valid), size, interpolation=cv2.INTER_CUBIC)
    canvas = np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    shaded = _enlarged(~one.valid, size)
    canvas[shaded] = canvas[shaded] // 2 + np.array(_INVALID_RGB, uint8) // 2
    for mask, colour in ((one.truth, _TRUE_RGB), (one.found, _FOUND_RGB)):
        if mask is not None:
            big = _enlarged(mask, size).astype(uint8)
            outlines, _ = cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(canvas, outlines, -1, colour, 2)
    return np.asarray(canvas, uint8)


def _enlarged(mask: NDArray[bool_], size: tuple[int, int]) -> NDArray[bool_]:
    big = cv2.resize(mask.astype(uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(big > 0)


def _grey(picture: NDArray[Any], valid: NDArray[bool_]) -> NDArray[uint8]:
    """Bring what is valid to 0 to 255, leaving out the darkest and brightest hundredth."""
    inside = picture[valid] if valid.any() else picture
    low, high = np.percentile(inside, [1, 99])
    unit = (np.asarray(picture, float32) - low) / max(float(high - low), 1e-6)
    return np.asarray((unit.clip(0.0, 1.0) * 255).astype(uint8))


def _draw_bar(axes: Axes, nm_per_px: float, shape: tuple[int, ...]) -> None:
    """Draw a bar of a round length with its length beside it, at the bottom left."""
    from matplotlib.patheffects import withStroke

    rows, columns = shape[:2]
    length_nm = bar_length_nm(columns * nm_per_px / 4.0)
    start, y = 0.03 * columns, 0.955 * rows
    end = start + length_nm / nm_per_px
    text = f"{length_nm:g} nm" if length_nm < 1000 else f"{length_nm / 1000:g} µm"
    outline = [withStroke(linewidth=3.5, foreground="black")]
    bar: dict[str, Any] = {"color": "white", "linewidth": 2.0, "solid_capstyle": "butt"}
    axes.plot([start, end], [y, y], path_effects=outline, **bar)
    words: dict[str, Any] = {"color": "white", "fontsize": 8, "va": "center"}
    axes.text(end + 0.02 * columns, y, text, path_effects=outline, **words)
