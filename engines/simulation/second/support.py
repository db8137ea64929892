"""Support and edges of the test generator: lattices of holes, lacey nets, straight edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
from numpy import float32, uint16
from numpy.typing import NDArray

from engines.simulation.canvas import PHASE_PER_ANGSTROM, Canvas, Distractor
from engines.simulation.draws import bell, chance
from engines.simulation.second.marks import disc, segment_field, walk
from engines.simulation.second.mosaic import grains
from engines.simulation.second.texture import folds

Field = NDArray[float32]


def _grid(n: int) -> tuple[Field, Field]:
    y, x = np.mgrid[:n, :n].astype(float32)
    return y, x


def _side(canvas: Canvas, generator: np.random.Generator, ragged_px: float) -> Field:
    """Return the signed distance to a straight, ragged edge, positive on one side; (n, n)."""
    y, x = _grid(canvas.n)
    turn = generator.uniform(0, 2 * math.pi)
    distance = (x - canvas.n / 2) * math.cos(turn) + (y - canvas.n / 2) * math.sin(turn)
    distance = distance - generator.uniform(0.0, 0.35) * canvas.n
    if ragged_px > 0:
        distance = distance + ragged_px * folds(generator, canvas.n, canvas.n / 8)
    return np.asarray(distance, float32)


def _soft(distance: Field, edge_px: float) -> Field:
    return np.asarray(np.clip(distance / edge_px + 0.5, 0.0, 1.0), float32)


def _film(canvas: Canvas, generator: np.random.Generator, where: Field) -> None:
    """Lay amorphous carbon."""
    depth = generator.uniform(80.0, 320.0)
    grain = generator.standard_normal((canvas.n, canvas.n), dtype=float32)
    layer = canvas.surface_layer(0)
    rough = generator.uniform(0.02, 0.12)
    canvas.phase[layer] += where * (float32(depth * 4e-3) + grain * float32(rough))
    tau = where * float32(1.4 * depth / canvas.mean_free_path_angstrom)
    canvas.matter_tau += tau
    canvas.flags[1][where > 0.5] |= uint16(Distractor.CARBON)


def _rim(canvas: Canvas, generator: np.random.Generator, distance: Field) -> None:
    """Thicken ice or dirt along an edge."""
    width = canvas.px(bell(generator, 40.0, 500.0))
    depth = np.exp(-np.abs(distance) / width) * bell(generator, 60.0, 900.0)
    canvas.keep_beyond_edges((depth / canvas.mean_free_path_angstrom).astype(float32))


def carbon_hole(canvas: Canvas, generator: np.random.Generator) -> None:
    """Lay carbon with round or square holes whose edges cross the field, or a lacey net."""
    if chance(generator, 0.25):
        net = np.abs(folds(generator, canvas.n, canvas.px(bell(generator, 2000.0, 6000.0))))
        distance = np.asarray((generator.uniform(0.15, 0.5) - net) * canvas.n / 20, float32)
    else:
        y, x = _grid(canvas.n)
        pitch = canvas.px(bell(generator, 6000.0, 30000.0))
        radius = pitch * generator.uniform(0.25, 0.4)
        row, column = generator.uniform(0, pitch, 2)
        dy = (y + row) % pitch - pitch / 2
        dx = (x + column) % pitch - pitch / 2
        flat = chance(generator, 0.25)
        reach = np.maximum(np.abs(dx), np.abs(dy)) if flat else np.hypot(dx, dy)
        distance = np.asarray(reach - radius, float32)
    where = _soft(distance, generator.uniform(1.0, 3.0))
    _film(canvas, generator, where)
    if chance(generator, 0.6):
        _rim(canvas, generator, distance)
    if chance(generator, 0.1):
        canvas.presence *= where


def hole_map(canvas: Canvas, generator: np.random.Generator) -> None:
    """Show many small holes in a film, as when the magnification is not what was said."""
    y, x = _grid(canvas.n)
    turn, pitch = generator.uniform(0, math.pi), generator.uniform(45.0, 150.0)
    u = x * math.cos(turn) + y * math.sin(turn)
    v = y * math.cos(turn) - x * math.sin(turn)
    radius = pitch * generator.uniform(0.2, 0.36)
    reach = np.hypot(u % pitch - pitch / 2, v % pitch - pitch / 2)
    distance = (reach - radius).astype(float32)
    tau = _soft(distance, 1.5) * float32(generator.uniform(0.15, 0.9))
    tau += np.exp(-((distance / generator.uniform(1.0, 5.0)) ** 2)) * generator.uniform(0.0, 0.6)
    canvas.matter_tau += tau.astype(float32)
    canvas.phase[canvas.surface_layer(0)] += tau.astype(float32) * 4.0
    canvas.flags[1][distance > -3.0] |= uint16(Distractor.CARBON)


def carbon_film(canvas: Canvas, generator: np.random.Generator) -> None:
    """Lay a closed film."""
    _film(canvas, generator, np.ones((canvas.n, canvas.n), float32))


def metal_edge(canvas: Canvas, generator: np.random.Generator) -> None:
    """Cover a side with polycrystalline metal."""
    distance = _side(canvas, generator, generator.uniform(0.0, 8.0))
    ids = grains(generator, canvas.n, canvas.px(bell(generator, 300.0, 1200.0)), 1.3, "hexagonal")
    shade = generator.uniform(0.4, 1.0, int(ids.max()) + 1).astype(float32)[ids]
    level = generator.uniform(1.0, 3.0)
    tau = _soft(distance, 2.0) * shade * float32(level)
    canvas.keep_beyond_edges(tau, Distractor.METAL)
    canvas.phase[canvas.surface_layer(0)] += tau
    if level > 1.8:
        canvas.opaque |= distance > 0
        canvas.flags[1][distance > 0] |= uint16(Distractor.OPAQUE)


def dark_corner(canvas: Canvas, generator: np.random.Generator) -> None:
    """Darken a side: thick carbon, still seen through, or opaque matter."""
    distance = _side(canvas, generator, generator.uniform(0.0, 12.0))
    width, level = canvas.px(bell(generator, 20.0, 800.0)), bell(generator, 0.3, 3.5)
    where = _soft(distance, max(2.0 * width, 1.0))
    texture = 1.0 + generator.uniform(0.0, 0.2) * folds(generator, canvas.n, canvas.px(400.0))
    canvas.keep_beyond_edges((where * level * texture.clip(0.2)).astype(float32), Distractor.CARBON)
    if level > 1.8:
        canvas.opaque |= where > 0.6
        canvas.flags[1][where > 0.6] |= uint16(Distractor.OPAQUE)


def _take_away(canvas: Canvas, gone: Field) -> None:
    canvas.presence *= 1.0 - gone
    canvas.flags[0][gone > 0.5] |= uint16(Distractor.VACUUM)


def crack(canvas: Canvas, generator: np.random.Generator) -> None:
    """Break the specimen along a jagged line that may fork."""
    row, column = canvas.place(generator)
    step = canvas.px(bell(generator, 300.0, 1500.0))
    lines = []
    for _ in range(int(generator.integers(2, 4))):
        path = walk(generator, column, row, step, int(2 * canvas.n / step), 0.35)
        lines += [(*a, *b) for a, b in pairwise(path)]
    distance = segment_field(canvas.n, lines)
    half = canvas.px(bell(generator, 90.0, 900.0)) / 2
    _take_away(canvas, _soft(half - distance, 1.5))
    if chance(generator, 0.4):
        _rim(canvas, generator, distance - half)


def vacuum_edge(canvas: Canvas, generator: np.random.Generator) -> None:
    """End the specimen at a straight edge, some with a dark rim."""
    distance = _side(canvas, generator, generator.uniform(0.0, 8.0))
    _take_away(canvas, _soft(distance, generator.uniform(1.5, 6.0)))
    if chance(generator, 0.6):
        _rim(canvas, generator, distance)


def dendrites(canvas: Canvas, generator: np.random.Generator) -> None:
    """Branch dark twigs from a few places, each of thin straight pieces."""
    radius = max(canvas.px(generator.uniform(25.0, 90.0)), 0.8)
    dot = disc(radius, 0.7) * float32(generator.uniform(0.1, 0.45))
    layer = canvas.any_surface(generator)
    for _ in range(int(generator.integers(1, 6))):
        row, column = canvas.place(generator)
        for _ in range(int(generator.integers(3, 10))):
            twig = walk(generator, column, row, 1.7 * radius, int(generator.integers(5, 30)), 0.35)
            for x, y in twig:
                canvas.stamp(layer, y, x, dot, dot * 5.0, Distractor.CONTAMINATION)
            column, row = twig[int(generator.integers(len(twig)))]


def meniscus(canvas: Canvas, generator: np.random.Generator) -> None:
    """Let thickness rise to one side, as towards the rim of a hole."""
    distance = _side(canvas, generator, canvas.n / 30)
    rise = np.exp(np.clip(distance / (0.3 * canvas.n), -4.0, 1.0)) * generator.uniform(60.0, 400.0)
    canvas.tau[0] += (rise / canvas.mean_free_path_angstrom).astype(float32)
    canvas.phase[0] += (rise * PHASE_PER_ANGSTROM).astype(float32)


SUPPORT_DRAWERS: Mapping[str, Callable[[Canvas, np.random.Generator], None]] = {
    "carbon_hole": carbon_hole,
    "hole_map": hole_map,
    "carbon_film": carbon_film,
    "metal_edge": metal_edge,
    "dark_corner": dark_corner,
    "dendrites": dendrites,
    "meniscus": meniscus,
    "crack": crack,
    "vacuum_edge": vacuum_edge,
}
