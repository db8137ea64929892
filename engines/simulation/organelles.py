"""Large parts of cells: nuclei, mitochondria, vacuoles, walls, pyrenoids, starch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy import float32

from engines.simulation.canvas import Canvas, Distractor
from engines.simulation.draws import chance, log_uniform
from engines.simulation.fields import Field, centred_grid, smooth
from engines.simulation.shapes import dome, line_distance, outline, sloped, wandering_line


def _body(canvas: Canvas, generator: np.random.Generator, radius_px: float) -> Field:
    """Return distance over distance to the outline of one large, wobbly body, (n, n)."""
    y, x = centred_grid(canvas.n)
    row, column = generator.uniform(-0.5, 0.5, 2) * canvas.n
    angle = np.arctan2(y - row, x - column)
    edge = np.ones_like(angle)
    for order in range(2, 6):
        swing = generator.normal(0, 0.18) / order
        edge = edge + swing * np.cos(order * angle + generator.uniform(0, 6.3))
    return np.asarray(np.hypot(y - row, x - column) / (radius_px * edge.clip(0.3)), float32)


def _skin(relative: Field, radius_px: float, at: float, half_px: float) -> Field:
    return np.asarray(np.exp(-((((relative - at) * radius_px) / half_px) ** 2)), float32)


def organelles(canvas: Canvas, generator: np.random.Generator) -> None:
    """Draw a few bodies of another density and texture, each within two membranes."""
    for _ in range(int(generator.integers(1, 4))):
        radius = canvas.px(log_uniform(generator, 1000.0, 6000.0))
        relative = _body(canvas, generator, radius)
        soft = cv2.GaussianBlur((relative < 1.0).astype(float32), (0, 0), 1.0)
        inside = np.asarray(soft, float32)
        layer = canvas.any_layer(generator)
        texture = smooth(generator, canvas.n, canvas.px(log_uniform(generator, 120.0, 900.0)))
        level, rough = generator.normal(0.0, 0.05), log_uniform(generator, 0.004, 0.03)
        canvas.lay(layer, np.asarray(inside * (level + rough * texture), float32))
        gap = canvas.px(generator.uniform(90.0, 350.0)) / radius
        skins = _skin(relative, radius, 1.0, 1.2) + _skin(relative, radius, 1.0 - gap, 1.2)
        if chance(generator, 0.4):
            skins = skins + _cristae(
                canvas, generator, (relative < 1.0 - 1.5 * gap).astype(float32)
            )
        strength = float32(log_uniform(generator, 0.015, 0.07))
        canvas.lay(layer, sloped(generator, skins) * strength, Distractor.MEMBRANE)


def _cristae(canvas: Canvas, generator: np.random.Generator, inside: Field) -> Field:
    """Return wavy sheets within a mitochondrion."""
    y, x = centred_grid(canvas.n)
    turn, period = generator.uniform(0, math.pi), canvas.px(generator.uniform(350.0, 900.0))
    across = x * math.cos(turn) + y * math.sin(turn)
    across = across + 0.4 * period * smooth(generator, canvas.n, 2 * period)
    line = np.exp(-(((np.mod(across, period) - period / 2) / 1.3) ** 2))
    broken = smooth(generator, canvas.n, 1.5 * period) > -0.4
    return np.asarray(line * broken * inside, float32)


def wall(canvas: Canvas, generator: np.random.Generator) -> None:
    """Draw a thick, layered cell wall along a line."""
    points = wandering_line(generator, canvas.n, generator.uniform(0.05, 0.3))
    distance = line_distance(canvas.n, points)
    half = canvas.px(generator.uniform(300.0, 1200.0)) / 2
    body = 1.0 / (1.0 + np.exp(np.clip((distance - half) / 1.5, -30, 30)))
    layered = 1.0 + 0.4 * np.cos(distance * 2 * math.pi / canvas.px(generator.uniform(150, 400)))
    tau = (body * layered * log_uniform(generator, 0.02, 0.12)).astype(float32)
    canvas.lay(canvas.any_layer(generator), tau, Distractor.MEMBRANE)


def pyrenoid(canvas: Canvas, generator: np.random.Generator) -> None:
    """Draw a dense, even body with plates of starch around it."""
    radius = canvas.px(log_uniform(generator, 2000.0, 6000.0))
    relative = _body(canvas, generator, radius)
    layer = canvas.any_layer(generator)
    grain = smooth(generator, canvas.n, canvas.px(120.0))
    inside = cv2.GaussianBlur((relative < 1.0).astype(float32), (0, 0), 1.5)
    tau = np.asarray(inside * (0.05 + 0.015 * grain), float32)
    canvas.lay(layer, tau, Distractor.GRANULE)
    plates = np.clip((relative - 1.05) * 8.0, 0, 1) * np.clip((1.35 - relative) * 8.0, 0, 1)
    plates = plates * (smooth(generator, canvas.n, radius / 2) > -0.5)
    canvas.lay(layer, (plates * generator.uniform(-0.06, 0.12)).astype(float32), Distractor.GRANULE)


def starch(canvas: Canvas, generator: np.random.Generator) -> None:
    """Put down a few smooth, large grains of starch."""
    row, column = canvas.place(generator)
    for _ in range(int(generator.integers(1, 6))):
        radius = canvas.px(log_uniform(generator, 900.0, 4000.0))
        profile = dome(outline(generator, radius, 0.08), generator.uniform(0.15, 0.5))
        tau = (profile * generator.uniform(-0.05, 0.2)).astype(float32)
        canvas.stamp(canvas.any_layer(generator), row, column, tau, tau, Distractor.GRANULE)
        row, column = row + generator.normal(0, radius), column + generator.normal(0, radius)


ORGANELLE_DRAWERS: Mapping[str, Callable[[Canvas, np.random.Generator], None]] = {
    "organelles": organelles,
    "wall": wall,
    "pyrenoid": pyrenoid,
    "starch": starch,
}
