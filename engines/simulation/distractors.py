"""What looks dark, bright or crystalline without being ice in the specimen: surface matter."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
from numpy import float32

from engines.simulation.canvas import Canvas, Distractor
from engines.simulation.decoys import DECOY_DRAWERS, drop, surface_crystal
from engines.simulation.drawing import Drawer
from engines.simulation.draws import chance, log_uniform
from engines.simulation.fields import smooth
from engines.simulation.shapes import Stamp, dome, outline, soft_disc
from engines.simulation.strange import STRANGE_DRAWERS
from engines.simulation.support import SUPPORT_DRAWERS


def _lump(generator: np.random.Generator, radius_px: float, look: float) -> Stamp:
    """Return one lump of contamination of height 1; `look` 0..1 runs from ball to rough flake."""
    hexagonal = chance(generator, 0.08)
    relative = outline(generator, radius_px, 0.05 + 0.3 * look, hexagonal)
    profile = dome(relative, 0.2 if hexagonal else generator.uniform(0.35, 0.75))
    if chance(generator, 0.3):
        grain = smooth(generator, profile.shape[0], max(2.0, radius_px / 4))
        profile = (profile * (1 + 0.25 * look * grain)).clip(0).astype(float32)
    return profile


def _thickness(generator: np.random.Generator, radius_angstrom: float) -> float:
    return 2 * radius_angstrom * float(generator.uniform(0.25, 1.0))


def contamination(canvas: Canvas, generator: np.random.Generator) -> None:
    """Scatter ice balls and flakes over the surfaces."""
    look = generator.random() ** 2
    typical = log_uniform(generator, 90.0, 550.0)
    for _ in range(int(1 + generator.exponential(9.0))):
        radius = float(np.clip(typical * generator.lognormal(0, 0.5), 80.0, 2000.0))
        profile = _lump(generator, canvas.px(radius), look)
        layer = canvas.any_surface(generator)
        row, column = canvas.place(generator)
        thickness = (profile * _thickness(generator, radius)).astype(float32)
        canvas.stamp_ice(layer, row, column, thickness, Distractor.CONTAMINATION)


def contamination_cluster(canvas: Canvas, generator: np.random.Generator) -> None:
    """Pile lumps up in one to three clusters or chains."""
    look = generator.random() ** 2
    for _ in range(int(generator.integers(1, 4))):
        row, column = canvas.place(generator)
        radius = log_uniform(generator, 100.0, 550.0)
        layer, chain = canvas.any_surface(generator), chance(generator, 0.5)
        heading = generator.uniform(0, 2 * math.pi)
        for _ in range(int(generator.integers(3, 16))):
            own = radius * float(generator.lognormal(0, 0.3))
            step = canvas.px(own) * generator.uniform(0.8, 1.8)
            heading = heading + generator.normal(0, 0.7) if chain else generator.uniform(0, 6.3)
            near_row, near_column = row, column
            if chain:
                row, column = row + step * math.sin(heading), column + step * math.cos(heading)
            else:
                near_row += 1.5 * step * math.sin(heading) * generator.random()
                near_column += 1.5 * step * math.cos(heading) * generator.random()
            profile = _lump(generator, canvas.px(own), look)
            thickness = (profile * _thickness(generator, own)).astype(float32)
            canvas.stamp_ice(layer, near_row, near_column, thickness, Distractor.CONTAMINATION)


def giant_ball(canvas: Canvas, generator: np.random.Generator) -> None:
    """Put down one or two balls of up to a micrometre, sometimes striped within."""
    for _ in range(int(generator.integers(1, 3))):
        radius = log_uniform(generator, 1200.0, 4500.0)
        relative = outline(generator, canvas.px(radius), generator.uniform(0.02, 0.2))
        depth = min(_thickness(generator, radius), generator.uniform(1000.0, 3000.0))
        thickness = dome(relative, generator.uniform(0.3, 0.5)) * depth
        if chance(generator, 0.4):
            n = thickness.shape[0]
            wave = np.sin(smooth(generator, n, n / 2) * 6 + np.arange(n) * 0.1)
            thickness = thickness * (1 + 0.08 * wave)
        row, column = canvas.place(generator)
        layer = canvas.any_surface(generator)
        thickness = thickness.astype(float32)
        canvas.stamp_ice(layer, row, column, thickness, Distractor.CONTAMINATION)


def droplets(canvas: Canvas, generator: np.random.Generator) -> None:
    """Scatter irregular, flat, sharp-edged droplets and merged pairs (thick patches of ice)."""
    for _ in range(int(3 + generator.exponential(12.0))):
        row, column = canvas.place(generator)
        radius = canvas.px(log_uniform(generator, 90.0, 500.0))
        depth = generator.uniform(80.0, 700.0)
        layer = canvas.any_surface(generator)
        for _ in range(int(generator.integers(1, 4))):
            profile = dome(outline(generator, radius, 0.3), generator.uniform(0.12, 0.4))
            thickness = (profile * depth).astype(float32)
            canvas.stamp_ice(layer, row, column, thickness, Distractor.CONTAMINATION)
            row += radius * generator.normal(0, 0.9)
            column += radius * generator.normal(0, 0.9)
            radius *= generator.uniform(0.5, 1.0)


def diffracting_surface(canvas: Canvas, generator: np.random.Generator) -> None:
    """Add surface lumps that are single crystals: they absorb, may flash, and never count."""
    for _ in range(int(generator.integers(1, 7))):
        radius = log_uniform(generator, 150.0, 1100.0)
        surface_crystal(canvas, generator, *canvas.place(generator), radius)


def frost(canvas: Canvas, generator: np.random.Generator) -> None:
    """Cover a surface with a mottled film of frost, everywhere or in patches."""
    scale = canvas.px(log_uniform(generator, 100.0, 900.0))
    film = smooth(generator, canvas.n, scale) + 0.5 * smooth(generator, canvas.n, scale / 2.5)
    film = np.clip(film + generator.uniform(-0.8, 0.8), 0, None)
    if chance(generator, 0.5):
        film = film * (smooth(generator, canvas.n, canvas.n / 3) > generator.uniform(-0.5, 0.8))
    film = film * generator.uniform(25.0, 160.0)
    canvas.lay_ice(canvas.any_surface(generator), film.astype(float32), Distractor.FROST, 40.0)


def cloud(canvas: Canvas, generator: np.random.Generator) -> None:
    """Vary the thickness of vitreous ice smoothly, cloud-like."""
    scale = canvas.px(log_uniform(generator, 1200.0, 9000.0))
    field = smooth(generator, canvas.n, scale)
    if chance(generator, 0.5):
        field = 0.7 * field + 0.5 * smooth(generator, canvas.n, scale / 3)
    depth = canvas.thickness_angstrom * generator.uniform(0.04, 0.22)
    depth = min(depth, 500.0)
    canvas.lay_ice(0, (field * depth).astype(float32), Distractor.CLOUD, depth)


def ethane(canvas: Canvas, generator: np.random.Generator) -> None:
    """Leave one to three smooth, thick drops of ethane."""
    for _ in range(int(generator.integers(1, 4))):
        depth = drop(canvas, generator, log_uniform(generator, 700.0, 4000.0))
        row, column = canvas.place(generator)
        canvas.stamp_ice(canvas.any_surface(generator), row, column, depth, Distractor.ETHANE)


def bubbles(canvas: Canvas, generator: np.random.Generator) -> None:
    """Dig groups of small bubbles, brighter than what surrounds them."""
    row, column = canvas.place(generator)
    spread = canvas.n * generator.uniform(0.03, 0.3)
    for _ in range(int(generator.integers(4, 40))):
        radius = log_uniform(generator, 50.0, 350.0)
        profile = dome(outline(generator, canvas.px(radius), 0.05))
        depth = -profile * radius * generator.uniform(0.6, 1.6)
        layer = int(generator.integers(canvas.bulk))
        at_row, at_column = generator.normal(row, spread), generator.normal(column, spread)
        canvas.stamp_ice(layer, at_row, at_column, depth.astype(float32), Distractor.BUBBLE)


def _metal_dots(
    canvas: Canvas, generator: np.random.Generator, count: int, low: float, high: float
) -> None:
    size = log_uniform(generator, low, high)
    for _ in range(count):
        radius = canvas.px(size * generator.uniform(0.85, 1.15))
        disc = soft_disc(radius, 0.35)
        tau = disc * generator.uniform(0.6, 1.8) * min(1.0, size / 40.0)
        row, column = canvas.place(generator)
        layer = canvas.any_surface(generator)
        canvas.stamp(
            layer, row, column, tau.astype(float32), (tau * 1.5).astype(float32), Distractor.METAL
        )


def gold_beads(canvas: Canvas, generator: np.random.Generator) -> None:
    """Scatter round gold beads of one size, 5 to 15 nm."""
    _metal_dots(canvas, generator, int(generator.integers(2, 30)), 25.0, 75.0)


def platinum(canvas: Canvas, generator: np.random.Generator) -> None:
    """Scatter specks of sputtered platinum, 2 to 8 nm."""
    _metal_dots(canvas, generator, int(generator.integers(10, 150)), 10.0, 40.0)


def soft_ice(canvas: Canvas, generator: np.random.Generator) -> None:
    """Ripple a region softly at 50 to 150 nm, a few percent: fluid ice, not labelled."""
    ripple = smooth(generator, canvas.n, canvas.px(log_uniform(generator, 350.0, 1200.0)))
    where = smooth(generator, canvas.n, canvas.n / 3) > generator.uniform(-0.3, 0.7)
    soft = cv2.GaussianBlur(where.astype(float32), (0, 0), canvas.px(150.0))
    film = ripple * soft * generator.uniform(0.01, 0.035) * canvas.mean_free_path_angstrom
    canvas.lay_ice(canvas.bulk // 2, film.astype(float32), Distractor.SOFT_ICE, 40.0)


def redeposition(canvas: Canvas, generator: np.random.Generator) -> None:
    """Sprinkle fine grains of redeposited matter over a surface."""
    fine = smooth(generator, canvas.n, canvas.px(generator.uniform(40.0, 120.0)))
    film = np.clip(fine - generator.uniform(0.5, 1.8), 0, None) * generator.uniform(20.0, 90.0)
    canvas.lay_ice(canvas.any_surface(generator), film.astype(float32), Distractor.FROST, 30.0)


DRAWERS: Mapping[str, Drawer] = {
    "contamination": contamination,
    "contamination_cluster": contamination_cluster,
    "giant_ball": giant_ball,
    "droplets": droplets,
    "diffracting_surface": diffracting_surface,
    "frost": frost,
    "cloud": cloud,
    "ethane": ethane,
    "bubbles": bubbles,
    "gold_beads": gold_beads,
    "platinum": platinum,
    "soft_ice": soft_ice,
    "redeposition": redeposition,
    **DECOY_DRAWERS,
    **SUPPORT_DRAWERS,
    **STRANGE_DRAWERS,
}
