"""Support and edges: holey carbon, metal, cracks, vacuum, dendrites, dark corners."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy import float32, uint16
from numpy.typing import NDArray

from engines.simulation.canvas import PHASE_PER_ANGSTROM, Canvas, Distractor, label_plane
from engines.simulation.decoys import leaves
from engines.simulation.draws import chance, log_uniform
from engines.simulation.fields import Field, centred_grid, smooth
from engines.simulation.mosaics import voronoi
from engines.simulation.shapes import line_distance, soft_disc, wandering_line

_MOST_DOTS = 600


def _edge_distance(
    canvas: Canvas, generator: np.random.Generator, radius_px: float, roughness_px: float
) -> Field:
    """Return signed distance (px, positive outside) to a large circle whose edge crosses us."""
    y, x = centred_grid(canvas.n)
    angle = generator.uniform(0, 2 * math.pi)
    to_edge = generator.uniform(-0.35, 0.35) * canvas.n
    centre_x = math.cos(angle) * (radius_px + to_edge)
    centre_y = math.sin(angle) * (radius_px + to_edge)
    distance = np.hypot(x - centre_x, y - centre_y) - radius_px
    if roughness_px > 0:
        distance = distance + roughness_px * smooth(generator, canvas.n, canvas.n / 12)
        distance = distance + 0.4 * roughness_px * smooth(generator, canvas.n, 6)
    return np.asarray(distance, float32)


def _amorphous(canvas: Canvas, generator: np.random.Generator, where: Field) -> None:
    """Lay a carbon film with its amorphous texture where the mask is 1."""
    depth = generator.uniform(80.0, 350.0)
    grain = generator.standard_normal((canvas.n, canvas.n), dtype=float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.6) * 1.6
    layer = canvas.surface_layer(0)
    canvas.matter_tau += where * depth * 1.4 / canvas.mean_free_path_angstrom
    canvas.phase[layer] += where * (depth * 4.0e-3 + grain * generator.uniform(0.02, 0.14))
    canvas.flags[1][where > 0.5] |= uint16(Distractor.CARBON)


def carbon_hole(canvas: Canvas, generator: np.random.Generator) -> None:
    """Lay holey carbon whose hole edge crosses the field, with a meniscus of thicker ice."""
    radius = canvas.px(log_uniform(generator, 1500.0, 12000.0))
    distance = _edge_distance(canvas, generator, radius, generator.uniform(0.0, 3.0))
    where = (
        1.0 / (1.0 + np.exp(np.clip(-distance / generator.uniform(0.5, 2.0), -30, 30)))
    ).astype(float32)
    _amorphous(canvas, generator, where)
    if chance(generator, 0.6):
        width = canvas.px(generator.uniform(60.0, 900.0))
        meniscus = np.exp(-np.abs(distance) / width) * generator.uniform(50.0, 700.0)
        canvas.tau[0] += (meniscus / canvas.mean_free_path_angstrom).astype(float32)
        canvas.phase[0] += (meniscus * PHASE_PER_ANGSTROM).astype(float32)
    if chance(generator, 0.15):
        canvas.presence *= where


def carbon_film(canvas: Canvas, generator: np.random.Generator) -> None:
    """Lay a closed carbon film."""
    _amorphous(canvas, generator, np.ones((canvas.n, canvas.n), float32))


def metal_edge(canvas: Canvas, generator: np.random.Generator) -> None:
    """Let a polycrystalline metal film cover a side: dark, with grains, opaque if thick."""
    distance = _edge_distance(
        canvas,
        generator,
        canvas.px(log_uniform(generator, 4000.0, 20000.0)),
        generator.uniform(0.0, 6.0),
    )
    distance = distance - 0.2 * canvas.n
    where = distance > 0
    size = canvas.px(log_uniform(generator, 250.0, 1800.0))
    facets = chance(generator, 0.6)
    ids = voronoi(generator, canvas.n, size, generator.uniform(1.0, 2.0), 0.0 if facets else 0.3)
    shade = generator.gamma(generator.choice([1.2, 3.0]), 1.0, int(ids.max()) + 1)
    grey = np.asarray(shade / shade.mean(), float32)[ids]
    if chance(generator, 0.5):
        grey = grey * (1.0 + 0.3 * _twins(canvas, generator, ids, size))
    level = generator.uniform(0.9, 2.4)
    texture = 1 + 0.15 * smooth(generator, canvas.n, size / 3)
    border = cv2.GaussianBlur(label_plane(ids).astype(float32), (0, 0), 0.8)
    tau = level * (0.5 + 0.5 * grey) * texture + generator.uniform(0.0, 0.4) * border
    soft = cv2.GaussianBlur(where.astype(float32), (0, 0), 0.8)
    canvas.matter_tau += (soft * tau).astype(float32)
    canvas.phase[canvas.surface_layer(0)] += (soft * generator.uniform(1.0, 4.0)).astype(float32)
    canvas.flags[1][where] |= uint16(Distractor.METAL)
    if level > 1.3:
        canvas.opaque |= where
        canvas.flags[1][where] |= uint16(Distractor.OPAQUE)
    if chance(generator, 0.5):
        _frost_on_edge(canvas, generator, distance)


def _twins(
    canvas: Canvas, generator: np.random.Generator, ids: NDArray[np.int32], size_px: float
) -> Field:
    """Return the straight bands of twins in each grain of a metal, -1 and 1."""
    count = int(ids.max()) + 1
    turn, phase = generator.uniform(0, math.pi, (2, count)).astype(float32)
    y, x = centred_grid(canvas.n)
    along = x * np.cos(turn)[ids] + y * np.sin(turn)[ids]
    period = size_px * generator.uniform(0.15, 0.6)
    return np.asarray(np.sign(np.sin(2 * math.pi * along / period + phase[ids])), float32)


def _frost_on_edge(canvas: Canvas, generator: np.random.Generator, distance: Field) -> None:
    """Grow leaves of frost from an edge into the open."""
    rows, columns = np.nonzero(np.abs(distance) < 1.0)
    if len(rows) == 0:
        return
    at = int(generator.integers(len(rows)))
    row, column = rows[at], columns[at]
    down, across = (float(np.gradient(distance, axis=axis)[row, column]) for axis in (0, 1))
    near = np.hypot(rows - row, columns - column) < 0.25 * canvas.n
    chosen = generator.integers(int(near.sum()), size=int(generator.integers(3, 20)))
    places = np.stack((rows[near][chosen], columns[near][chosen]), 1).astype(float)
    away = math.atan2(-down, -across)
    leaves(canvas, generator, places, away + generator.normal(0, 0.6, len(places)))


def dark_corner(canvas: Canvas, generator: np.random.Generator) -> None:
    """Darken a corner: thick carbon (still seen through) or the beam stop (opaque)."""
    radius = canvas.px(log_uniform(generator, 3000.0, 20000.0))
    distance = -_edge_distance(canvas, generator, radius, generator.uniform(0.0, 4.0))
    distance = distance - generator.uniform(0.0, 0.2) * canvas.n
    width = canvas.px(log_uniform(generator, 15.0, 600.0))
    where = (1.0 / (1.0 + np.exp(np.clip(-distance / width, -30, 30)))).astype(float32)
    level = log_uniform(generator, 0.25, 4.0)
    canvas.matter_tau += where * level
    canvas.flags[1][where > 0.5] |= uint16(Distractor.CARBON)
    if level > 1.6:
        solid = where > 0.6
        canvas.opaque |= solid
        canvas.flags[1][solid] |= uint16(Distractor.OPAQUE)


def _remove(canvas: Canvas, gone: Field) -> None:
    canvas.presence *= 1.0 - gone
    canvas.flags[0][gone > 0.5] |= uint16(Distractor.VACUUM)


def _rim(canvas: Canvas, generator: np.random.Generator, beyond_px: Field) -> None:
    """Darken an edge of the specimen by matter that gathered along it, some of it in lumps."""
    if chance(generator, 0.5):
        return
    width = canvas.px(log_uniform(generator, 30.0, 400.0))
    depth = log_uniform(generator, 60.0, 1200.0) * np.exp(-((beyond_px / width) ** 2))
    lumps = 1.0 + generator.uniform(0.0, 0.8) * smooth(generator, canvas.n, 2 * width + 2)
    tau = depth * lumps.clip(0.0) / canvas.mean_free_path_angstrom
    canvas.keep_beyond_edges(tau.astype(float32), Distractor.FROST)


def crack(canvas: Canvas, generator: np.random.Generator) -> None:
    """Split the specimen by a wandering crack, 20 to 200 nm wide."""
    points = wandering_line(generator, canvas.n, generator.uniform(0.2, 1.5))
    distance = line_distance(canvas.n, points)
    typical = canvas.px(log_uniform(generator, 80.0, 1200.0)) / 2
    width = typical * (1 + 0.3 * smooth(generator, canvas.n, canvas.n / 10))
    _remove(canvas, (1.0 / (1.0 + np.exp(np.clip(distance - width, -30, 30)))).astype(float32))
    _rim(canvas, generator, np.asarray(distance - width, float32))


def vacuum_edge(canvas: Canvas, generator: np.random.Generator) -> None:
    """End the specimen at an edge, with vacuum beyond."""
    radius = canvas.px(log_uniform(generator, 6000.0, 40000.0))
    distance = _edge_distance(canvas, generator, radius, generator.uniform(0.0, 5.0))
    distance = distance - 0.15 * canvas.n
    _remove(canvas, (1.0 / (1.0 + np.exp(np.clip(-distance, -30, 30)))).astype(float32))
    _rim(canvas, generator, np.asarray(distance, float32))


def dendrites(canvas: Canvas, generator: np.random.Generator) -> None:
    """Grow branching chains of dark dots, as frost or salt grows from a hole's edge."""
    size = canvas.px(log_uniform(generator, 14.0, 110.0))
    dot = soft_disc(size, 0.5) * generator.uniform(0.08, 0.6)
    layer = canvas.surface_layer(int(generator.integers(2)))
    row, column = canvas.place(generator)
    wander, branching = generator.uniform(0.2, 0.6), generator.uniform(0.0, 0.2)
    tips = [
        (row + generator.normal(0, 12), column + generator.normal(0, 12), heading, 40.0)
        for heading in generator.uniform(0, 2 * math.pi, int(generator.integers(3, 12)))
    ]
    placed = 0
    while tips and placed < _MOST_DOTS:
        at_row, at_column, heading, left = tips.pop()
        for _ in range(int(generator.uniform(0.15, 1.0) * left)):
            heading += generator.normal(0, wander)
            step = max(size, 1.2) * generator.uniform(1.4, 2.6)
            at_row += step * math.sin(heading)
            at_column += step * math.cos(heading)
            tau = (dot * generator.uniform(0.4, 1.0)).astype(float32)
            flag = Distractor.CONTAMINATION
            canvas.stamp(layer, at_row, at_column, tau, (tau * 5).astype(float32), flag)
            placed += 1
            if chance(generator, branching):
                turn = generator.choice([-1.0, 1.0]) * generator.uniform(0.5, 1.3)
                tips.append((at_row, at_column, heading + turn, 0.5 * left))


SUPPORT_DRAWERS: Mapping[str, Callable[[Canvas, np.random.Generator], None]] = {
    "carbon_hole": carbon_hole,
    "carbon_film": carbon_film,
    "metal_edge": metal_edge,
    "dark_corner": dark_corner,
    "dendrites": dendrites,
    "crack": crack,
    "vacuum_edge": vacuum_edge,
}
