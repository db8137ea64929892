"""What pictures of maps and fields without a reading are drawn with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import float32, int64
from numpy.typing import NDArray

from engines.simulation.canvas import clip_window
from engines.simulation.draws import log_uniform
from engines.simulation.fields import Field, centred_grid, smooth
from engines.simulation.shapes import dome, outline

ForeignDrawer = Callable[[np.random.Generator, int, float], Field]
"""Draws, from a generator, a side in pixels and a pixel size in A, what comes through: (n, n)."""

_CELLS = 64


@dataclass(frozen=True, slots=True)
class Lattice:
    """A square lattice over the field: where each pixel lies within its own cell."""

    across: Field
    """(n, n) px from the middle of the cell."""
    down: Field
    cell: NDArray[int64]
    """(n, n) number of the cell, 0 to 4095; far cells may share one."""
    pitch: float

    def each(self, values: NDArray[np.float64]) -> Field:
        """Return a value of each cell at its pixels; `values` (4096,)."""
        return np.asarray(values[self.cell], float32)


def lattice(generator: np.random.Generator, n: int, pitch: float, jitter: float = 0.0) -> Lattice:
    """Lay a lattice of one pitch (px), turned and shifted at random; `jitter` moves its cells."""
    y, x = centred_grid(n)
    turn = generator.uniform(0, math.pi / 2)
    bend = 0.03 * pitch * jitter
    u = x * math.cos(turn) + y * math.sin(turn) + generator.uniform(0, pitch)
    v = y * math.cos(turn) - x * math.sin(turn) + generator.uniform(0, pitch)
    u, v = u + bend * smooth(generator, n, n / 2), v + bend * smooth(generator, n, n / 2)
    column, row = np.floor(u / pitch).astype(int), np.floor(v / pitch).astype(int)
    cell = (row % _CELLS) * _CELLS + column % _CELLS
    shift = generator.normal(0, jitter * pitch, (2, _CELLS**2))
    across = u - (column + 0.5) * pitch + shift[0][cell]
    down = v - (row + 0.5) * pitch + shift[1][cell]
    return Lattice(across.astype(float32), down.astype(float32), cell, pitch)


def per_cell(generator: np.random.Generator, share: float) -> NDArray[np.float64]:
    """Draw which cells are special, 1 with a probability, else 0, (4096,)."""
    return (generator.random(_CELLS**2) < share).astype(float)


def soft_step(distance_px: Field, width_px: float) -> Field:
    """Return 0 far inside (negative distance), 1 far outside, (n, n)."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(distance_px / width_px, -30, 30))), float32)


def rounded_square(across: Field, down: Field, half: float, corner: float) -> Field:
    """Return the signed distance (px) to a square with round corners, positive outside."""
    u, v = np.abs(across) - (half - corner), np.abs(down) - (half - corner)
    outside = np.hypot(np.maximum(u, 0), np.maximum(v, 0)) + np.minimum(np.maximum(u, v), 0)
    return np.asarray(outside - corner, float32)


def dirt(
    generator: np.random.Generator, n: int, count: int, low_px: float, high_px: float
) -> Field:
    """Scatter lumps of contamination, single and in clusters: optical depth, (n, n)."""
    tau = np.zeros((n, n), float32)
    for _ in range(count):
        row, column = generator.uniform(0, n, 2)
        size = log_uniform(generator, low_px, high_px)
        for _ in range(int(generator.choice([1, 1, 1, 3, 6]))):
            own = size * generator.uniform(0.6, 1.3)
            lump = dome(outline(generator, own, generator.uniform(0.05, 0.35)), 0.5)
            window = clip_window(n, row, column, lump.shape)
            if window is not None:
                target, source = window
                tau[target] += lump[source] * float32(log_uniform(generator, 0.2, 4.0))
            row, column = (
                row + 1.3 * own * generator.normal(),
                column + 1.3 * own * generator.normal(),
            )
    return tau


def torn(generator: np.random.Generator, n: int, share: float) -> tuple[Field, Field]:
    """Tear a film: how much of it is left, 0 or 1 with soft edges, and its rolled dark edge."""
    field = smooth(generator, n, n * generator.uniform(0.12, 0.4))
    field = field + 0.15 * smooth(generator, n, n / 25)
    level = float(np.quantile(field, 1.0 - share))
    distance = np.asarray((field - level) * n * 0.1, float32)
    left = 1.0 - soft_step(distance, 0.7)
    roll = np.exp(-(((distance + 2.0) / generator.uniform(1.0, 4.0)) ** 2))
    return left, np.asarray(roll * generator.uniform(0.0, 1.0), float32)


def softened(picture: Field, generator: np.random.Generator) -> Field:
    """Blur a picture a little, as defocus and enlargement do, now and then a lot."""
    sigma = float(generator.choice([0.0, 0.5, 0.8, 2.0], p=[0.35, 0.3, 0.25, 0.1]))
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), float32) if sigma else picture
