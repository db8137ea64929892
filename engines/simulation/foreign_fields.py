"""Fields that show no vitrified specimen: beam alone, darkness, bar, diffraction, stain."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
from numpy import float32

from engines.simulation.draws import chance, log_uniform
from engines.simulation.fields import Field, centred_grid, power_law_pair, smooth, stripes
from engines.simulation.foreign_drawing import (
    ForeignDrawer,
    dirt,
    lattice,
    soft_step,
    softened,
)
from engines.simulation.shapes import line_distance, shell, soft_disc, wandering_line

_ICE_RINGS_ANGSTROM = (3.9, 3.67, 3.44, 2.67, 2.25, 2.07, 1.92)
_GOLD_RINGS_ANGSTROM = (2.35, 2.04, 1.44, 1.23)


def beam_without_specimen(generator: np.random.Generator, n: int, _: float) -> Field:
    """Show the beam alone: even, uneven, or with its own edge and fringes in the field."""
    seen = np.ones((n, n)) + log_uniform(generator, 0.002, 0.1) * smooth(generator, n, n / 2)
    if chance(generator, 0.35):
        y, x = centred_grid(n)
        at = generator.normal(0, 0.35 * n, 2)
        radius = n * generator.uniform(0.4, 0.9)
        beyond = np.asarray(np.hypot(x - at[0], y - at[1]) - radius, float32)
        ripple = np.cos(np.abs(beyond) ** 1.5 * generator.uniform(0.05, 0.4))
        fade = np.exp(np.minimum(beyond, 0) / generator.uniform(3.0, 25.0))
        seen = seen * (1.0 + generator.uniform(0, 0.25) * ripple * fade)
        seen = seen * (1.0 - soft_step(beyond, generator.uniform(0.6, 5.0))) + 1e-3
    if chance(generator, 0.3):
        for _ in range(int(generator.integers(1, 12))):
            spot = dirt(generator, n, 1, 2.0, 0.05 * n)
            seen = seen * (1.0 - generator.uniform(0, 0.04) * np.minimum(spot, 1.0))
    if chance(generator, 0.2):
        lines = stripes(generator, n, generator.uniform(0, math.pi), generator.uniform(2.0, 30.0))
        seen = seen * (1.0 + generator.uniform(0, 0.02) * lines)
    return np.asarray(seen, float32)


def closed_shutter(generator: np.random.Generator, n: int, _: float) -> Field:
    """Show what a camera reads without beam: nothing, dark current, columns, amplifiers."""
    level = log_uniform(generator, 1e-3, 30.0)
    dark = np.ones((n, n))
    if chance(generator, 0.6):
        dark = dark + log_uniform(generator, 0.01, 0.6) * generator.standard_normal((1, n))
    if chance(generator, 0.3):
        dark = dark + log_uniform(generator, 0.01, 0.3) * generator.standard_normal((n, 1))
    if chance(generator, 0.4):
        parts = int(generator.choice([2, 4, 8]))
        step = 1.0 + generator.uniform(0, 0.4) * generator.standard_normal(parts)
        dark = dark * np.repeat(step, math.ceil(n / parts))[None, :n]
    if chance(generator, 0.3):
        dark = dark + generator.uniform(0, 0.5) * smooth(generator, n, n)
    if chance(generator, 0.4):
        hot = generator.random((n, n)) < log_uniform(generator, 1e-5, 1e-2)
        dark = dark + hot * generator.gamma(1.0, 10.0, (n, n))
    return np.asarray(level * np.clip(dark, 0.0, None), float32)


def grid_bar(generator: np.random.Generator, n: int, pixel_size: float) -> Field:
    """Let a bar stop the beam in most of the field, or in all of it."""
    y, x = centred_grid(n)
    turn = generator.uniform(0, 2 * math.pi)
    u = x * math.cos(turn) + y * math.sin(turn)
    ragged = generator.uniform(0.0, 8.0) * smooth(generator, n, generator.uniform(8.0, 60.0))
    ragged = ragged + generator.uniform(0.0, 1.5) * smooth(generator, n, 4.0)
    edge = n * generator.uniform(-0.55, -0.12)
    beyond = np.asarray(u - edge + ragged, float32)
    if chance(generator, 0.3):
        v = y * math.cos(turn) - x * math.sin(turn) - n * generator.uniform(-0.3, 0.55)
        beyond = np.maximum(beyond, np.asarray(v, float32))
    texture, _ = power_law_pair(generator, n, pixel_size, log_uniform(generator, 1e-3, 0.01), 1.4)
    film = generator.uniform(0.1, 0.9) + texture
    if chance(generator, 0.5):
        holes = lattice(generator, n, n / generator.uniform(1.0, 6.0))
        radius = holes.pitch * generator.uniform(0.25, 0.4)
        beyond_hole = np.asarray(np.hypot(holes.across, holes.down) - radius, float32)
        film = film + 0.5 * soft_step(beyond_hole, 1.0)
    near = np.exp(-np.maximum(-beyond, 0) / (n * log_uniform(generator, 0.005, 0.1)))
    tau = film + near * generator.uniform(0.0, 2.0)
    tau = tau + dirt(generator, n, int(generator.exponential(5.0)), 2.0, 0.06 * n)
    tau = tau + soft_step(beyond, generator.uniform(0.5, 5.0)) * log_uniform(generator, 4.0, 11.0)
    fringe = 1.0 + generator.uniform(0, 0.3) * np.exp(-((beyond + 3.0) ** 2) / 4.0)
    return softened((np.exp(-tau) * fringe).astype(float32), generator)


def diffraction(generator: np.random.Generator, n: int, _: float) -> Field:
    """Show a diffraction pattern: the central spot or a beam stop, rings, spots, or both."""
    y, x = centred_grid(n)
    at_x, at_y = generator.normal(0, 0.08 * n, 2)
    x, y = x - at_x, y - at_y
    r = np.asarray(np.hypot(x, y), float32)
    at_edge = log_uniform(generator, 1.2, 3.5)
    per_px = 1.0 / (at_edge * n / 2)
    falling = (r / (0.02 * n) + 1.0) ** -generator.uniform(1.2, 3.0)
    seen = 30.0 * falling + generator.uniform(0.0, 0.05)
    look = int(generator.choice(3, p=[0.4, 0.35, 0.25]))
    if look != 1:
        seen = seen + _spots(generator, n, x, y) * log_uniform(generator, 0.5, 30.0)
    if look != 0:
        seen = seen + _rings(generator, x, y, r * per_px) * log_uniform(generator, 0.3, 10.0)
    if chance(generator, 0.55):
        width = n * generator.uniform(0.008, 0.03)
        turn = generator.uniform(0, 2 * math.pi)
        u = x * math.cos(turn) + y * math.sin(turn)
        v = np.abs(y * math.cos(turn) - x * math.sin(turn)) - width
        needle = np.where(u > 0, v, r - width)
        stop = np.minimum(needle, r - width * generator.uniform(1.0, 4.0))
        seen = seen * soft_step(np.asarray(stop, float32), 0.8)
    else:
        spot = n * log_uniform(generator, 0.005, 0.03)
        seen = seen + log_uniform(generator, 50.0, 3000.0) * np.exp(-((r / spot) ** 2))
    return np.asarray(seen, float32)


def _spots(generator: np.random.Generator, n: int, x: Field, y: Field) -> Field:
    """Return the spots of a crystal of any cell, most near a Laue circle, (n, n)."""
    first, second = n * np.array([log_uniform(generator, 0.025, 0.2) for _ in range(2)])
    turn, open_by = generator.uniform(0, math.pi), generator.uniform(1.0, 2.1)
    a = first * np.array([math.cos(turn), math.sin(turn)])
    b = second * np.array([math.cos(turn + open_by), math.sin(turn + open_by)])
    centre = generator.normal(0, 0.15 * n, 2)
    laue, width = float(np.hypot(*centre)), n * generator.uniform(0.05, 0.5)
    size, fade = generator.uniform(0.7, 2.2), n * generator.uniform(0.15, 0.5)
    planted = np.zeros((n, n), float32)
    origin = (float(x[0, 0]), float(y[0, 0]))
    for h in range(-20, 21):
        for k in range(-20, 21):
            g = h * a + k * b
            off = abs(math.hypot(*(g - centre)) - laue)
            row, column = round(g[1] - origin[1]), round(g[0] - origin[0])
            if 0 <= row < n and 0 <= column < n:
                strength = math.exp(-((off / width) ** 2) - (math.hypot(*g) / fade) ** 2)
                planted[row, column] += strength * float(generator.gamma(0.8, 1.0))
    return np.asarray(cv2.GaussianBlur(planted, (0, 0), size) * 2 * math.pi * size**2, float32)


def _rings(generator: np.random.Generator, x: Field, y: Field, k: Field) -> Field:
    """Return powder or diffuse rings of ice, gold or vitreous ice, (n, n); `k` in 1/A."""
    gold = chance(generator, 0.3)
    vitreous = chance(generator, 0.4)
    spacings = (3.7, 2.15) if vitreous else _GOLD_RINGS_ANGSTROM if gold else _ICE_RINGS_ANGSTROM
    width = generator.uniform(0.02, 0.05) if vitreous else generator.uniform(0.002, 0.012)
    width = max(width, 1.2 * float(np.abs(np.diff(k[k.shape[0] // 2])).max()))
    rings = np.zeros_like(k)
    for spacing in spacings:
        strength = generator.uniform(0.2, 1.0) * math.exp(-1.5 / spacing)
        rings += strength * np.exp(-(((k - 1.0 / spacing) / width) ** 2))
    if not vitreous and chance(generator, 0.6):
        grain = cv2.GaussianBlur(
            generator.gamma(0.15, 1.0, k.shape).astype(float32), (0, 0), generator.uniform(0.7, 1.5)
        )
        rings = rings * grain / float(grain.mean())
    return np.asarray(rings, float32)


def negative_stain(generator: np.random.Generator, n: int, pixel_size: float) -> Field:
    """Show bright particles in dark, granular heavy-metal stain that gathered in puddles."""
    scale = log_uniform(generator, 2.0, 10.0)
    level = log_uniform(generator, 0.25, 1.1)
    spread = log_uniform(generator, 0.05, 0.6)
    puddles = np.exp(spread * smooth(generator, n, n / generator.uniform(1, 12)))
    fine = np.exp(generator.uniform(0.02, 0.18) * smooth(generator, n, 1.5 * scale))
    grain = generator.standard_normal((n, n), dtype=float32)
    grain = np.asarray(cv2.GaussianBlur(grain, (0, 0), generator.uniform(0.6, 1.2)) * 2.0, float32)
    stain = level * puddles * fine * (1.0 + generator.uniform(0.08, 0.25) * grain)
    hidden = np.zeros((n, n), float32)
    if chance(generator, 0.85):
        hidden = _particles(generator, n, scale)
    for _ in range(int(generator.exponential(1.0)) if chance(generator, 0.4) else 0):
        distance = line_distance(n, wandering_line(generator, n, generator.uniform(0.1, 1.0)))
        hidden = np.maximum(hidden, np.exp(-((distance / (0.5 * scale + 1)) ** 2)))
    pool = cv2.GaussianBlur(hidden, (0, 0), scale) - 0.6 * hidden
    tau = stain * (1.0 - generator.uniform(0.6, 0.95) * np.minimum(hidden, 1.0))
    tau = tau + level * generator.uniform(0.2, 1.0) * np.clip(pool, 0, None)
    if chance(generator, 0.3):
        left, roll = _gap(generator, n)
        tau = tau * left + roll
    tau = tau + dirt(generator, n, int(generator.exponential(2.0)), 2.0, 0.08 * n)
    return softened(np.exp(-np.clip(tau, 0, None)).astype(float32), generator)


def _gap(generator: np.random.Generator, n: int) -> tuple[Field, Field]:
    """Return where the carbon with its stain ends, and the stain that gathered along the edge."""
    y, x = centred_grid(n)
    turn, at = generator.uniform(0, 2 * math.pi), generator.uniform(0.05, 0.4) * n
    beyond = x * math.cos(turn) + y * math.sin(turn) - at + 4.0 * smooth(generator, n, n / 8)
    edge = np.asarray(beyond, float32)
    return 1.0 - soft_step(edge, 0.8), np.asarray(np.exp(-((edge / 4.0) ** 2)), float32)


def _particles(generator: np.random.Generator, n: int, scale: float) -> Field:
    """Scatter particles of one kind, single and clumped: where they keep stain out, (n, n)."""
    ring, spread = chance(generator, 0.3), generator.uniform(0.0, 0.35)
    hidden = np.zeros((n + 80, n + 80), float32)
    count = int(log_uniform(generator, 0.03, 0.5) * n * n / (4 * scale**2)) + 3
    for _ in range(min(count, 1500)):
        radius = scale * float(generator.lognormal(0, spread))
        body = shell(radius, max(1.5, 0.4 * radius)) if ring else soft_disc(radius * 0.8, 0.6)
        half = body.shape[0] // 2
        if half >= 38:
            continue
        row, column = generator.integers(40, n + 40, 2)
        window = hidden[row - half : row + half + 1, column - half : column + half + 1]
        np.maximum(window, body * generator.uniform(0.6, 1.0), out=window)
    return hidden[40:-40, 40:-40]


FIELD_DRAWERS: Mapping[str, ForeignDrawer] = {
    "beam_without_specimen": beam_without_specimen,
    "closed_shutter": closed_shutter,
    "grid_bar": grid_bar,
    "diffraction": diffraction,
    "negative_stain": negative_stain,
}
