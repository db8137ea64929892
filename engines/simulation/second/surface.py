"""Dirt of the test generator: what is dark, bright or crystalline without being counted ice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import cv2
import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.simulation.canvas import Canvas, Distractor, SurfaceCrystal
from engines.simulation.draws import bell, chance
from engines.simulation.second.marks import block, disc, sphere, walk
from engines.simulation.second.support import SUPPORT_DRAWERS
from engines.simulation.second.texture import folds

Field = NDArray[float32]
Drawer = Callable[[Canvas, np.random.Generator], None]


def _piece(canvas: Canvas, generator: np.random.Generator, radius: float, edgy: float) -> Field:
    """Return the thickness in A of one lump: an ellipsoid, or a block."""
    radius_px = canvas.px(radius)
    if chance(generator, edgy):
        return block(generator, radius_px, int(generator.integers(5, 8))) * float32(
            radius * generator.uniform(0.5, 1.6)
        )
    shape = sphere(
        radius_px,
        float(generator.choice([0.0, 0.0, 0.2, 0.5])),
        generator.uniform(0.75, 1.0),
        generator.uniform(0, math.pi),
    )
    return shape * float32(2.0 * radius * generator.uniform(0.35, 1.0))


def contamination(canvas: Canvas, generator: np.random.Generator) -> None:
    """Strew balls and blocks over the surfaces."""
    edgy, typical = generator.choice([0.0, 0.3, 1.0]), bell(generator, 110.0, 500.0)
    for _ in range(int(generator.poisson(8.0)) + 1):
        radius = float(np.clip(typical * generator.uniform(0.5, 1.9), 80.0, 1500.0))
        row, column = canvas.place(generator)
        depth = _piece(canvas, generator, radius, edgy)
        layer = canvas.any_surface(generator)
        canvas.stamp_ice(layer, row, column, depth, Distractor.CONTAMINATION)


def contamination_cluster(canvas: Canvas, generator: np.random.Generator) -> None:
    """Heap balls on one another, on one surface."""
    row, column = canvas.place(generator)
    edgy, layer = generator.choice([0.0, 0.5]), canvas.any_surface(generator)
    typical = bell(generator, 130.0, 500.0)
    spread = canvas.px(typical) * generator.uniform(1.0, 6.0)
    for _ in range(int(bell(generator, 5, 40))):
        depth = _piece(canvas, generator, typical * generator.uniform(0.5, 1.5), edgy)
        at = generator.normal(row, spread), generator.normal(column, spread)
        canvas.stamp_ice(layer, *at, depth, Distractor.CONTAMINATION)


def giant_ball(canvas: Canvas, generator: np.random.Generator) -> None:
    """Put one great ball down."""
    depth = _piece(canvas, generator, bell(generator, 1400.0, 4500.0), 0.25)
    highest = min(float(depth.max()), generator.uniform(1000.0, 3000.0))
    depth = depth * float32(highest / depth.max())
    row, column = canvas.place(generator)
    canvas.stamp_ice(canvas.any_surface(generator), row, column, depth, Distractor.CONTAMINATION)


def droplets(canvas: Canvas, generator: np.random.Generator) -> None:
    """Run flat puddles of even depth together."""
    field = folds(generator, canvas.n, canvas.px(bell(generator, 250.0, 900.0)))
    edge = np.clip((field - generator.uniform(1.0, 2.0)) * 12.0, 0.0, 1.0)
    depth = (edge * generator.uniform(80.0, 600.0)).astype(float32)
    canvas.lay_ice(canvas.any_surface(generator), depth, Distractor.CONTAMINATION)


def diffracting_surface(canvas: Canvas, generator: np.random.Generator) -> None:
    """Strew surface lumps that are single crystals: they may flash, and never count."""
    for _ in range(int(generator.poisson(3.0)) + 1):
        _crystal(canvas, generator, *canvas.place(generator), bell(generator, 180.0, 1000.0))


def _crystal(
    canvas: Canvas, generator: np.random.Generator, row: float, column: float, radius: float
) -> None:
    depth = _piece(canvas, generator, radius, 0.7).astype(float32)
    surface = int(generator.integers(2))
    flag = Distractor.CONTAMINATION | Distractor.DIFFRACTING_SURFACE
    canvas.stamp_ice(canvas.surface_layer(surface), row, column, depth, flag)
    canvas.surface_crystals.append(SurfaceCrystal(round(row), round(column), depth, surface))


def frost(canvas: Canvas, generator: np.random.Generator) -> None:
    """Cover part of a surface with fine, grainy frost."""
    fine = folds(generator, canvas.n, canvas.px(bell(generator, 110.0, 500.0)))
    where = folds(generator, canvas.n, canvas.n * generator.uniform(0.15, 0.6))
    where = np.clip(1.5 * (where + generator.uniform(-1.0, 1.5)), 0.0, 1.0)
    film = np.abs(fine) * where * generator.uniform(25.0, 130.0)
    canvas.lay_ice(canvas.any_surface(generator), film.astype(float32), Distractor.FROST, 40.0)


def leafy_frost(canvas: Canvas, generator: np.random.Generator) -> None:
    """Grow ferns: a stem with side branches that get shorter, soft and half transparent."""
    film = np.zeros((canvas.n, canvas.n), np.uint8)
    for _ in range(int(generator.integers(1, 5))):
        row, column = canvas.place(generator)
        step = canvas.px(bell(generator, 120.0, 400.0))
        stem = walk(generator, column, row, step, int(generator.integers(6, 18)), 0.1)
        for index, ((x0, y0), (x1, y1)) in enumerate(pairwise(stem)):
            heading = math.atan2(y1 - y0, x1 - x0)
            reach = step * 3.0 * (1.0 - index / len(stem))
            for side in (-1.05, 1.05):
                end = (x1 + reach * math.cos(heading + side), y1 + reach * math.sin(heading + side))
                points = np.array([[x1, y1], end, [x1 + 0.6 * step, y1]])
                cv2.fillPoly(film, [np.round(points * 8).astype(np.int32)], 200, shift=3)
            ends = [(round(8 * x0), round(8 * y0)), (round(8 * x1), round(8 * y1))]
            cv2.line(film, ends[0], ends[1], 255, max(1, int(step / 3)), cv2.LINE_AA, 3)
    soft = cv2.GaussianBlur(film.astype(float32) / 255.0, (0, 0), generator.uniform(0.6, 2.5))
    depth = soft * float32(bell(generator, 120.0, 700.0))
    canvas.keep_beyond_edges(depth / float32(canvas.mean_free_path_angstrom), Distractor.FROST)


def cloud(canvas: Canvas, generator: np.random.Generator) -> None:
    """Vary the thickness by broad humps and a slope with a kink."""
    field = folds(generator, canvas.n, canvas.px(bell(generator, 1500.0, 7000.0)))
    depth = min(500.0, canvas.thickness_angstrom * generator.uniform(0.04, 0.25))
    if chance(generator, 0.3):
        field = np.maximum(field, generator.uniform(-0.5, 1.0))
    canvas.lay_ice(0, (field * depth).astype(float32), Distractor.CLOUD, depth)


def mottle(canvas: Canvas, generator: np.random.Generator) -> None:
    """Mottle thickness, dark and bright, at the size of grains."""
    field = folds(generator, canvas.n, canvas.px(bell(generator, 500.0, 2000.0)))
    field = field * (0.4 + 0.6 * (folds(generator, canvas.n, canvas.n / 3) > 0))
    depth = canvas.mean_free_path_angstrom * bell(generator, 0.015, 0.06)
    canvas.lay_ice(canvas.bulk // 2, (field * depth).astype(float32), Distractor.CLOUD, depth)


def soft_pairs(canvas: Canvas, generator: np.random.Generator) -> None:
    """Blur dark spots with a bright one beside them, as uneven thickness or drift leaves them."""
    for _ in range(int(generator.integers(1, 6))):
        reach = canvas.px(bell(generator, 200.0, 1600.0))
        half = math.ceil(4 * reach)
        y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float32) / float32(reach)
        turn, long = generator.uniform(0, 2 * math.pi), generator.uniform(1.0, 2.2)
        u = x * math.cos(turn) + y * math.sin(turn)
        v = (y * math.cos(turn) - x * math.sin(turn)) / long
        gap = generator.uniform(0.8, 1.6)
        pair = np.exp(-((u - gap / 2) ** 2) - v * v)
        pair -= generator.uniform(0.2, 1.0) * np.exp(-((u + gap / 2) ** 2) - v * v)
        depth = pair * canvas.mean_free_path_angstrom * bell(generator, 0.06, 0.4)
        row, column = canvas.place(generator)
        canvas.stamp_ice(0, row, column, depth.astype(float32), Distractor.CLOUD)


def ethane(canvas: Canvas, generator: np.random.Generator) -> None:
    """Leave drops that ran together, smooth on top."""
    _drops(canvas, generator)


def iced_ethane(canvas: Canvas, generator: np.random.Generator) -> None:
    """Leave ethane with crystals and dirt on top of it."""
    places = _drops(canvas, generator)
    for row, column, reach in places:
        for _ in range(int(generator.integers(1, 6))):
            at = generator.normal(row, 0.5 * reach), generator.normal(column, 0.5 * reach)
            _crystal(canvas, generator, *at, bell(generator, 150.0, 700.0))


def _drops(canvas: Canvas, generator: np.random.Generator) -> list[tuple[float, float, float]]:
    n = canvas.n
    y, x = np.mgrid[:n, :n].astype(float32)
    row, column = canvas.place(generator)
    field, places = np.zeros((n, n), float32), []
    for _ in range(int(generator.integers(1, 5))):
        reach = canvas.px(bell(generator, 700.0, 3000.0))
        field += np.exp(-((x - column) ** 2 + (y - row) ** 2) / reach**2)
        places.append((row, column, reach))
        row, column = row + generator.normal(0, reach), column + generator.normal(0, reach)
    height = np.clip(field - generator.uniform(0.25, 0.5), 0.0, None)
    height = np.sqrt(height / max(float(height.max()), 1e-3))
    soft = cv2.GaussianBlur(height, (0, 0), canvas.px(generator.uniform(40.0, 150.0)))
    depth = soft * float32(bell(generator, 400.0, 2200.0))
    canvas.lay_ice(canvas.any_surface(generator), depth, Distractor.ETHANE, 60.0)
    return places


def bubbles(canvas: Canvas, generator: np.random.Generator) -> None:
    """Blow a swarm of bubbles."""
    _swarm(canvas, generator, damage=False)


def beam_damage(canvas: Canvas, generator: np.random.Generator) -> None:
    """Let bubbles grow with the dose."""
    _swarm(canvas, generator, damage=True)


def _swarm(canvas: Canvas, generator: np.random.Generator, damage: bool) -> None:
    row, column = canvas.place(generator)
    spread, typical = canvas.n * generator.uniform(0.04, 0.35), bell(generator, 60.0, 280.0)
    layer = canvas.any_layer(generator)
    for _ in range(int(bell(generator, 5, 50))):
        radius = typical * generator.uniform(0.5, 1.6)
        depth = -sphere(canvas.px(radius), 0.0, 1.0, 0.0) * float32(2.0 * radius)
        at = generator.normal(row, spread), generator.normal(column, spread)
        if damage:
            canvas.stamp_damage(*at, depth * float32(0.5))
        else:
            canvas.stamp_ice(layer, *at, depth, Distractor.BUBBLE)


def gold_beads(canvas: Canvas, generator: np.random.Generator) -> None:
    """Strew gold beads of two sizes."""
    _beads(canvas, generator, alone=True)


def touching_beads(canvas: Canvas, generator: np.random.Generator) -> None:
    """Pack gold beads against one another."""
    _beads(canvas, generator, alone=False)


def _beads(canvas: Canvas, generator: np.random.Generator, alone: bool) -> None:
    size = canvas.px(float(generator.choice([25.0, 50.0, 75.0, 100.0])))
    bead = sphere(size, 0.0, 1.0, 0.0) * float32(generator.uniform(0.8, 1.8))
    layer = canvas.any_surface(generator)
    row, column = canvas.place(generator)
    for _ in range(int(generator.integers(2, 25))):
        canvas.stamp(layer, row, column, bead, bead * float32(1.5), Distractor.METAL)
        turn = generator.uniform(0, 2 * math.pi)
        row, column = row + 2.05 * size * math.sin(turn), column + 2.05 * size * math.cos(turn)
        if alone or chance(generator, 0.12):
            row, column = canvas.place(generator)


def platinum(canvas: Canvas, generator: np.random.Generator) -> None:
    """Sputter fine specks of platinum, denser to one side."""
    speck = disc(max(canvas.px(bell(generator, 12.0, 40.0)), 0.5), 0.5)
    layer, tau = canvas.any_surface(generator), speck * float32(generator.uniform(0.15, 0.6))
    for _ in range(int(bell(generator, 20, 250))):
        row, column = canvas.n * generator.beta(1.0, 2.0), generator.uniform(0, canvas.n)
        canvas.stamp(layer, row, column, tau, tau * float32(1.5), Distractor.METAL)


def soft_ice(canvas: Canvas, generator: np.random.Generator) -> None:
    """Ripple a region softly: fluid ice, not labelled."""
    ripple = folds(generator, canvas.n, canvas.px(bell(generator, 500.0, 1500.0)))
    where = np.clip(folds(generator, canvas.n, canvas.n / 2.5) + 0.3, 0.0, 1.0)
    depth = canvas.mean_free_path_angstrom * generator.uniform(0.01, 0.035)
    film = (ripple * where * depth).astype(float32)
    canvas.lay_ice(canvas.bulk // 2, film, Distractor.SOFT_ICE, 40.0)


def redeposition(canvas: Canvas, generator: np.random.Generator) -> None:
    """Dust a surface with fine grains."""
    grain = cv2.GaussianBlur(generator.random((canvas.n, canvas.n), float32) ** 6, (0, 0), 1.1)
    film = grain * float32(generator.uniform(60.0, 260.0))
    canvas.lay_ice(canvas.any_surface(generator), film, Distractor.FROST, 60.0)


DRAWERS: Mapping[str, Drawer] = {
    "contamination": contamination,
    "contamination_cluster": contamination_cluster,
    "giant_ball": giant_ball,
    "droplets": droplets,
    "diffracting_surface": diffracting_surface,
    "frost": frost,
    "leafy_frost": leafy_frost,
    "cloud": cloud,
    "mottle": mottle,
    "soft_pairs": soft_pairs,
    "ethane": ethane,
    "iced_ethane": iced_ethane,
    "bubbles": bubbles,
    "beam_damage": beam_damage,
    "gold_beads": gold_beads,
    "touching_beads": touching_beads,
    "platinum": platinum,
    "soft_ice": soft_ice,
    "redeposition": redeposition,
    **SUPPORT_DRAWERS,
}
