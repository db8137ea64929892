"""Maps at low magnification: atlas, grid square, holes; drawn for training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy import float32

from engines.simulation.draws import chance, log_uniform
from engines.simulation.fields import Field, centred_grid, smooth
from engines.simulation.foreign_drawing import (
    ForeignDrawer,
    Lattice,
    dirt,
    lattice,
    per_cell,
    rounded_square,
    soft_step,
    softened,
    torn,
)


def hole_map(generator: np.random.Generator, n: int, _: float) -> Field:
    """Show round holes in a foil: some empty, some icy, some with the foil torn away."""
    pitch = n / log_uniform(generator, 2.2, 10.0)
    grid = lattice(generator, n, pitch, jitter=generator.uniform(0.0, 0.03))
    radius = pitch * generator.uniform(0.2, 0.42)
    tau = _foil(generator, n, grid, radius)
    left, roll = torn(generator, n, generator.uniform(0.03, 0.35))
    if chance(generator, 0.3):
        tau = tau * left + roll
    tau = tau + dirt(generator, n, int(generator.exponential(8.0)), 1.5, 0.06 * n)
    return softened(np.exp(-tau).astype(float32), generator)


def _foil(generator: np.random.Generator, n: int, grid: Lattice, radius: float) -> Field:
    """Return the optical depth of a foil with round holes, ice in and on it."""
    spread = generator.uniform(0.0, 0.05)
    radii = grid.each(radius * generator.normal(1.0, spread, 4096))
    beyond = np.hypot(grid.across, grid.down) - radii
    foil = soft_step(beyond, generator.uniform(0.4, 1.2))
    gold = chance(generator, 0.25)
    depth = log_uniform(generator, 1.5, 5.0) if gold else log_uniform(generator, 0.12, 1.2)
    ice = 0.5 + 0.5 * smooth(generator, n, n * generator.uniform(0.4, 1.5))
    ice = np.clip(ice, 0.0, None) * log_uniform(generator, 0.02, 0.9)
    filled = 1.0 - grid.each(per_cell(generator, generator.choice([0.0, 0.05, 0.3])))
    icy = grid.each(per_cell(generator, generator.uniform(0.0, 0.15)) * generator.uniform(0.5, 3))
    bowl = np.clip(1.0 + beyond / np.maximum(radii, 1.0), 0.0, 1.0) ** 2
    inside = (ice * (0.7 + 0.6 * bowl) + icy) * filled
    rim = np.exp(-((beyond / generator.uniform(0.8, 0.15 * radius + 1.5)) ** 2))
    mottle = 1.0 + generator.uniform(0.0, 0.08) * smooth(generator, n, generator.uniform(2.0, 12.0))
    tau = foil * (depth * mottle + 0.8 * ice) + (1.0 - foil) * inside
    return np.asarray(tau + rim * generator.uniform(0.0, 0.6), float32)


def square_map(generator: np.random.Generator, n: int, pixel_size: float) -> Field:
    """Show one grid square between its bars, with its holes; or a lamella in its trench."""
    if chance(generator, 0.25):
        return _lamella_overview(generator, n)
    side = n * generator.uniform(0.45, 1.15)
    bars = lattice(generator, n, side * generator.uniform(1.15, 1.6))
    ragged = generator.uniform(0.0, 3.0) * smooth(generator, n, generator.uniform(4.0, 20.0))
    corner = side * generator.uniform(0.02, 0.2)
    square = rounded_square(bars.across, bars.down, side / 2, corner)
    beyond = np.asarray(square + ragged, float32)
    pitch = n / log_uniform(generator, 9.0, 40.0)
    holes = lattice(generator, n, pitch, jitter=0.01)
    tau = _foil(generator, n, holes, pitch * generator.uniform(0.22, 0.4))
    wall = np.exp(np.minimum(beyond, 0) / (side * log_uniform(generator, 0.01, 0.2)))
    tau = np.asarray(tau + wall * log_uniform(generator, 0.05, 3.0), float32)
    tau = tau + np.clip(smooth(generator, n, n / 3), 0, None) * log_uniform(generator, 0.05, 1.5)
    if chance(generator, 0.35):
        left, roll = torn(generator, n, generator.uniform(0.03, 0.4))
        tau = tau * left + roll
    tau = tau + dirt(generator, n, int(generator.exponential(10.0)), 1.0, 0.05 * n)
    opaque = log_uniform(generator, 3.5, 9.0)
    tau = tau + soft_step(beyond, generator.uniform(0.5, 2.0)) * opaque
    return softened(np.exp(-tau).astype(float32), generator)


def _lamella_overview(generator: np.random.Generator, n: int) -> Field:
    """Show a lamella between its trenches, small among opaque frozen cells."""
    y, x = centred_grid(n)
    turn = generator.uniform(0, math.pi)
    u = x * math.cos(turn) + y * math.sin(turn) + generator.uniform(-0.15, 0.15) * n
    v = y * math.cos(turn) - x * math.sin(turn) + generator.uniform(-0.15, 0.15) * n
    long, wide = n * generator.uniform(0.15, 0.35), n * generator.uniform(0.04, 0.1)
    trench = wide * generator.uniform(1.8, 3.5)
    cells = generator.uniform(1.5, 3.0) + smooth(generator, n, n / generator.uniform(3, 8))
    tau = np.clip(cells, 0.1, None) * generator.uniform(1.0, 3.0)
    hole = np.maximum(np.abs(u) - long, np.abs(v) - trench) + 1.5 * smooth(generator, n, n / 20)
    lamella = np.maximum(np.abs(u) - 1.1 * long, np.abs(v) - wide)
    tau = tau * soft_step(hole, 0.8)
    body = 0.4 + 0.4 * generator.random() + 0.15 * smooth(generator, n, n / 15)
    front = np.exp(-(((u - long) / (0.1 * long)) ** 2)) * generator.uniform(0.5, 4.0)
    slab = (1.0 - soft_step(lamella, 0.8)) * np.clip(body + front, 0.1, None)
    tau = tau + slab + dirt(generator, n, int(generator.exponential(6.0)), 1.0, 0.03 * n)
    return softened(np.exp(-tau).astype(float32), generator)


def atlas(generator: np.random.Generator, n: int, _: float) -> Field:
    """Show squares between bars, many, some broken and some black with ice; maybe the rim."""
    pitch = n / log_uniform(generator, 4.0, 30.0)
    grid = lattice(generator, n, pitch, jitter=0.004)
    half = 0.5 * pitch * generator.uniform(0.55, 0.85)
    corner = half * generator.uniform(0.05, 0.4)
    beyond = rounded_square(grid.across, grid.down, half, corner)
    ice = smooth(generator, n, n * generator.uniform(0.3, 1.0)) + generator.uniform(-0.5, 1.0)
    own = grid.each(generator.gamma(2.0, 0.25, 4096))
    broken = grid.each(per_cell(generator, generator.uniform(0.0, 0.25)))
    black = grid.each(per_cell(generator, generator.uniform(0.0, 0.3)))
    tau = np.clip(ice, 0, None) * log_uniform(generator, 0.1, 2.5) + own
    patchy = np.clip(smooth(generator, n, pitch * generator.uniform(0.15, 0.5)), 0, None)
    tau = tau + patchy * generator.uniform(0.0, 0.8)
    gap = broken * (smooth(generator, n, pitch / 3) > generator.uniform(-1.0, 0.7))
    tau = tau * (1.0 - gap) + 4.0 * black
    tau = tau + dirt(generator, n, int(generator.exponential(12.0)), 1.0, 0.05 * n)
    tau = tau + soft_step(beyond, generator.uniform(0.4, 1.0)) * log_uniform(generator, 1.8, 8.0)
    seen = np.exp(-tau)
    if chance(generator, 0.5):
        seen = seen * _rim(generator, n)
    return softened((seen * _montage(generator, n)).astype(float32), generator)


def _rim(generator: np.random.Generator, n: int) -> Field:
    """Return what comes past the rim of a grid, which is round: 1 within it."""
    y, x = centred_grid(n)
    at_x, at_y = generator.normal(0, 0.15 * n, 2)
    beyond = np.hypot(x - at_x, y - at_y) - n * generator.uniform(0.4, 0.75)
    width = n * generator.uniform(0.03, 0.15)
    ring = soft_step(np.asarray(beyond, float32), 1.0)
    if chance(generator, 0.5):
        ring = ring * (1.0 - soft_step(np.asarray(beyond - width, float32), 1.0))
    return np.asarray(1.0 - 0.997 * ring, float32)


def _montage(generator: np.random.Generator, n: int) -> Field:
    """Return the uneven brightness of the pieces that a map is put together from."""
    pieces = int(generator.choice([1, 1, 3, 5, 8]))
    y, x = centred_grid(n)
    row = np.floor((y / n + 0.5) * pieces).astype(int).clip(0, pieces - 1)
    column = np.floor((x / n + 0.5) * pieces).astype(int).clip(0, pieces - 1)
    level = 1.0 + generator.normal(0, 0.05, (pieces, pieces))
    shade = 1.0 - generator.uniform(0, 0.2) * (
        ((y / n + 0.5) * pieces - row - 0.5) ** 2 + ((x / n + 0.5) * pieces - column - 0.5) ** 2
    )
    return np.asarray(level[row, column] * shade, float32)


MAP_DRAWERS: Mapping[str, ForeignDrawer] = {
    "atlas": atlas,
    "square_map": square_map,
    "hole_map": hole_map,
}
