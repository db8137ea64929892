"""What networks took for ice: soft pairs, smears, mottle, frost, touching beads, iced ethane."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy import float32, uint16
from numpy.typing import NDArray

from engines.simulation.canvas import Canvas, Distractor, SurfaceCrystal
from engines.simulation.draws import chance, log_uniform
from engines.simulation.fields import centred_grid, smooth
from engines.simulation.shapes import Stamp, dome, outline, soft_disc

Field = NDArray[float32]


def surface_crystal(
    canvas: Canvas, generator: np.random.Generator, row: float, column: float, radius: float
) -> None:
    """Put one single crystal of surface ice down: it absorbs, may flash, and never counts."""
    hexagonal = chance(generator, 0.4)
    relative = outline(generator, canvas.px(radius), 0.1, hexagonal)
    depth = 2 * radius * generator.uniform(0.25, 1.0)
    thickness = (dome(relative, 0.15 if hexagonal else 0.45) * depth).astype(float32)
    surface = int(generator.integers(2))
    flag = Distractor.CONTAMINATION | Distractor.DIFFRACTING_SURFACE
    canvas.stamp_ice(canvas.surface_layer(surface), row, column, thickness, flag)
    crystal = SurfaceCrystal(round(row), round(column), thickness, surface)
    canvas.surface_crystals.append(crystal)


def soft_pairs(canvas: Canvas, generator: np.random.Generator) -> None:
    """Blur dark spots with a bright twin beside them: thick beside thin, or a spot that drifted."""
    for _ in range(int(1 + generator.exponential(2.0))):
        reach = canvas.px(log_uniform(generator, 120.0, 1800.0))
        spot = _soft_spot(generator, reach)
        turn, apart = generator.uniform(0, 2 * math.pi), reach * generator.uniform(0.7, 2.2)
        strength = log_uniform(generator, 0.04, 0.5) * canvas.mean_free_path_angstrom
        twin = strength * generator.uniform(0.1, 1.0)
        row, column = canvas.place(generator)
        canvas.stamp_ice(0, row, column, (spot * strength).astype(float32), Distractor.CLOUD)
        if chance(generator, 0.5):
            spot = _soft_spot(generator, reach * generator.uniform(0.6, 1.3))
        at = row + apart * math.sin(turn), column + apart * math.cos(turn)
        canvas.stamp_ice(0, *at, (-spot * twin).astype(float32), Distractor.CLOUD)


def _soft_spot(generator: np.random.Generator, reach_px: float) -> Stamp:
    """Return a soft, lopsided spot of height 1."""
    relative = outline(generator, 2.2 * reach_px, generator.uniform(0.0, 0.3))
    return np.asarray(np.exp(-3.0 * relative**2) * (relative < 1.3), float32)


def smears(canvas: Canvas, generator: np.random.Generator) -> None:
    """Smear long, soft lobes side by side, dark and bright, as of thick ice out of focus."""
    for _ in range(int(generator.integers(1, 4))):
        row, column = canvas.place(generator)
        turn, long = (
            generator.uniform(0, 2 * math.pi),
            canvas.px(log_uniform(generator, 250.0, 2500.0)),
        )
        wide = max(1.0, long * generator.uniform(0.12, 0.45))
        strength = log_uniform(generator, 0.06, 0.7) * canvas.mean_free_path_angstrom
        sign = float(generator.choice([-1.0, 1.0]))
        for _ in range(int(generator.integers(2, 6))):
            own = turn + generator.normal(0, 0.2)
            lobe = _lobe(
                long * generator.uniform(0.5, 1.0), wide * generator.uniform(0.7, 1.4), own
            )
            depth = sign * strength * generator.uniform(0.3, 1.0)
            canvas.stamp_ice(0, row, column, (lobe * depth).astype(float32), Distractor.CLOUD)
            step = wide * generator.uniform(1.2, 2.6)
            row += step * math.cos(turn) + 0.3 * long * generator.normal() * math.sin(turn)
            column += -step * math.sin(turn) + 0.3 * long * generator.normal() * math.cos(turn)
            sign = -sign if chance(generator, 0.8) else sign


def _lobe(long: float, wide: float, turn: float) -> Stamp:
    """Return a soft, long spot of height 1; lengths in pixels, `long` along `turn`."""
    half = math.ceil(2.2 * long)
    axis = np.arange(-half, half + 1, dtype=float32)
    u = axis[None, :] * math.cos(turn) + axis[:, None] * math.sin(turn)
    v = axis[:, None] * math.cos(turn) - axis[None, :] * math.sin(turn)
    return np.asarray(np.exp(-2.0 * ((u / long) ** 2 + (v / wide) ** 2)), float32)


def exposed_discs(canvas: Canvas, generator: np.random.Generator) -> None:
    """Mark where a round beam stood before: thinner or dirtier discs that overlap."""
    radius = canvas.px(log_uniform(generator, 500.0, 6000.0))
    row, column = canvas.place(generator)
    for _ in range(int(generator.integers(1, 4))):
        disc = soft_disc(radius, generator.uniform(0.5, 4.0))
        depth = canvas.thickness_angstrom * log_uniform(generator, 0.02, 0.25)
        depth = min(depth, 400.0) * (1.0 if chance(generator, 0.7) else -0.6)
        flag = Distractor.FROST if depth > 0 else Distractor.BUBBLE
        canvas.stamp_ice(canvas.bulk // 2, row, column, (disc * depth).astype(float32), flag)
        turn, step = generator.uniform(0, 2 * math.pi), radius * generator.uniform(0.3, 1.9)
        row, column = row + step * math.sin(turn), column + step * math.cos(turn)


def mottle(canvas: Canvas, generator: np.random.Generator) -> None:
    """Mottle the thickness of vitreous ice, dark and bright, at the size of grains."""
    scale = canvas.px(log_uniform(generator, 400.0, 2000.0))
    field = smooth(generator, canvas.n, scale)
    if chance(generator, 0.5):
        field = field + 0.6 * smooth(generator, canvas.n, scale / 2.5)
    if chance(generator, 0.5):
        where = smooth(generator, canvas.n, canvas.n / 3) > generator.uniform(-0.6, 0.6)
        field = field * cv2.GaussianBlur(where.astype(float32), (0, 0), scale / 2 + 1)
    depth = canvas.mean_free_path_angstrom * log_uniform(generator, 0.01, 0.08)
    canvas.lay_ice(canvas.bulk // 2, (field * depth).astype(float32), Distractor.CLOUD, depth)


def leafy_frost(canvas: Canvas, generator: np.random.Generator) -> None:
    """Grow leaves of frost that overlap, some of them out over an edge."""
    row, column = canvas.place(generator)
    heading, spread = generator.uniform(0, 2 * math.pi), canvas.n * generator.uniform(0.05, 0.4)
    count = int(generator.integers(4, 30))
    at = generator.normal((row, column), spread, (count, 2))
    leaves(canvas, generator, at, heading + generator.normal(0, 0.5, count))


def leaves(
    canvas: Canvas,
    generator: np.random.Generator,
    places: NDArray[np.float64],
    headings_rad: NDArray[np.float64],
) -> None:
    """Grow one leaf of frost from each place, (count, 2) row and column, along its heading."""
    film = np.zeros((canvas.n, canvas.n), float32)
    for (row, column), turn in zip(places, headings_rad, strict=True):
        long = canvas.px(log_uniform(generator, 400.0, 3500.0))
        wide = long * generator.uniform(0.08, 0.45)
        at = float(row), float(column)
        leaf = np.zeros_like(film)
        cv2.fillPoly(leaf, [_leaf(generator, at, long, wide, turn)], 1.0)
        film += leaf * float32(generator.uniform(0.2, 1.0))
    soft = cv2.GaussianBlur(film, (0, 0), generator.uniform(0.5, 2.5))
    veins = 1.0 + 0.15 * smooth(generator, canvas.n, generator.uniform(8.0, 30.0))
    depth = veins * soft / max(1.0, float(soft.max()))
    depth = depth * log_uniform(generator, 100.0, 1200.0)
    tau = (depth / canvas.mean_free_path_angstrom).astype(float32)
    canvas.keep_beyond_edges(tau, Distractor.FROST, 0.03)
    canvas.phase[canvas.surface_layer(0)] += tau * float32(8.0)


def _leaf(
    generator: np.random.Generator, at: tuple[float, float], long: float, wide: float, turn: float
) -> NDArray[np.int32]:
    """Return the outline of one leaf, toothed on both sides, as points x, y."""
    along = np.linspace(0.0, 1.0, 14)
    half = wide * np.sin(math.pi * along**0.8) * generator.uniform(0.7, 1.3, 14)
    u = long * np.concatenate((along, along[::-1]))
    v = np.concatenate((half, -half[::-1]))
    x = at[1] + u * math.cos(turn) - v * math.sin(turn)
    y = at[0] + u * math.sin(turn) + v * math.cos(turn)
    return np.round(np.stack((x, y), 1)).astype(np.int32)


def touching_beads(canvas: Canvas, generator: np.random.Generator) -> None:
    """Cluster gold beads that touch or overlap, 5 to 30 nm."""
    size = canvas.px(log_uniform(generator, 25.0, 150.0))
    layer = canvas.any_surface(generator)
    for _ in range(int(generator.integers(1, 6))):
        row, column = canvas.place(generator)
        for _ in range(int(generator.integers(2, 9))):
            radius = size * generator.uniform(0.85, 1.15)
            tau = (soft_disc(radius, 0.35) * generator.uniform(0.6, 1.6)).astype(float32)
            canvas.stamp(layer, row, column, tau, tau * float32(1.5), Distractor.METAL)
            turn, step = generator.uniform(0, 2 * math.pi), size * generator.uniform(1.85, 2.4)
            row, column = row + step * math.sin(turn), column + step * math.cos(turn)


def iced_ethane(canvas: Canvas, generator: np.random.Generator) -> None:
    """Leave drops of ethane with crystals and balls of ice on top."""
    for _ in range(int(generator.integers(1, 3))):
        radius = log_uniform(generator, 1000.0, 4000.0)
        row, column = canvas.place(generator)
        canvas.stamp_ice(
            canvas.any_surface(generator),
            row,
            column,
            drop(canvas, generator, radius),
            Distractor.ETHANE,
        )
        spread = 0.5 * canvas.px(radius)
        for _ in range(int(generator.integers(1, 9))):
            at = generator.normal(row, spread), generator.normal(column, spread)
            size = log_uniform(generator, 120.0, 700.0)
            if chance(generator, 0.6):
                surface_crystal(canvas, generator, *at, size)
            else:
                ball = dome(outline(generator, canvas.px(size), 0.1), 0.5) * float32(size)
                canvas.stamp_ice(canvas.any_surface(generator), *at, ball, Distractor.CONTAMINATION)


def drop(canvas: Canvas, generator: np.random.Generator, radius: float) -> Stamp:
    """Return the thickness (A) of one smooth, thick drop."""
    edge = canvas.px(generator.uniform(50.0, 200.0))
    relative = outline(generator, canvas.px(radius), generator.uniform(0.05, 0.3))
    steep = np.clip((relative - 1.0) * canvas.px(radius) / edge, -30.0, 30.0)
    profile = np.sqrt(np.clip(1.2 - relative, 0, 1)) / (1.0 + np.exp(steep))
    return np.asarray(profile * generator.uniform(300.0, 2000.0), float32)


def beam_damage(canvas: Canvas, generator: np.random.Generator) -> None:
    """Let groups of bubbles grow with the dose, in ice or in something that bubbles early."""
    for _ in range(int(generator.integers(1, 4))):
        row, column = canvas.place(generator)
        spread, typical = canvas.n * generator.uniform(0.01, 0.2), log_uniform(generator, 40, 300)
        for _ in range(int(generator.integers(3, 30))):
            radius = typical * float(generator.lognormal(0.0, 0.4))
            profile = dome(outline(generator, canvas.px(radius), 0.08))
            depth = (-profile * radius * generator.uniform(0.5, 1.6)).astype(float32)
            at = float(generator.normal(row, spread)), float(generator.normal(column, spread))
            canvas.stamp_damage(*at, depth)


def hole_map(canvas: Canvas, generator: np.random.Generator) -> None:
    """Show whole holes of a film, as where the magnification is lower than was said."""
    y, x = centred_grid(canvas.n)
    turn, pitch = generator.uniform(0, math.pi / 2), log_uniform(generator, 45.0, 220.0)
    u = x * math.cos(turn) + y * math.sin(turn) + generator.uniform(0, pitch)
    v = y * math.cos(turn) - x * math.sin(turn) + generator.uniform(0, pitch)
    column, row = np.floor(u / pitch).astype(int), np.floor(v / pitch).astype(int)
    cell = (column % 32) * 32 + row % 32
    uneven = generator.normal(0.0, 0.04, (2, 1024)) * pitch
    radius = pitch * generator.uniform(0.18, 0.4) * generator.normal(1.0, 0.05, 1024)[cell]
    distance = np.hypot(
        u % pitch - pitch / 2 + uneven[0][cell], v % pitch - pitch / 2 + uneven[1][cell]
    )
    beyond = distance - radius
    soft = 1.0 / (1.0 + np.exp(np.clip(-beyond / generator.uniform(0.5, 1.5), -30, 30)))
    tau = soft * log_uniform(generator, 0.1, 1.0)
    tau += log_uniform(generator, 0.02, 0.8) * np.exp(
        -((beyond / generator.uniform(0.8, 6.0)) ** 2)
    )
    fill = generator.gamma(2.0, 0.05, 1024)[cell] * (chance(generator, 0.6))
    tau += (1.0 - soft) * np.where(generator.random(1024)[cell] < 0.15, 6.0 * fill, fill)
    canvas.matter_tau += tau.astype(float32)
    canvas.phase[canvas.surface_layer(0)] += (4.0 * tau).astype(float32)
    canvas.flags[1][beyond > -3.0] |= uint16(Distractor.CARBON)


DECOY_DRAWERS: Mapping[str, Callable[[Canvas, np.random.Generator], None]] = {
    "soft_pairs": soft_pairs,
    "smears": smears,
    "exposed_discs": exposed_discs,
    "mottle": mottle,
    "leafy_frost": leafy_frost,
    "touching_beads": touching_beads,
    "iced_ethane": iced_ethane,
    "beam_damage": beam_damage,
    "hole_map": hole_map,
}
