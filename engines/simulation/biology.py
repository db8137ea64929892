"""What lives in a specimen: membranes, ribosomes, stacks, axonemes, capsids, particle fields."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
from numpy import float32

from engines.simulation.canvas import Canvas, Distractor
from engines.simulation.drawing import Drawer
from engines.simulation.draws import chance, log_uniform
from engines.simulation.fields import Field, smooth
from engines.simulation.organelles import ORGANELLE_DRAWERS
from engines.simulation.shapes import (
    Stamp,
    dome,
    line_distance,
    outline,
    shell,
    sloped,
    soft_disc,
    wandering_line,
)


def _matter(tau: Stamp, phase_per_tau: float = 3.5) -> tuple[Stamp, Stamp]:
    return tau.astype(float32), (tau * phase_per_tau).astype(float32)


def _bilayer(distance_px: Field, canvas: Canvas) -> Field:
    """Return a double line 4 nm apart around distance 0."""
    half = max(canvas.px(20.0), 1.0)
    return np.asarray(np.exp(-(((distance_px - half) / (0.45 * half + 0.35)) ** 2)), float32)


def membranes(canvas: Canvas, generator: np.random.Generator) -> None:
    """Draw wandering bilayers: ER, nuclear envelope, cristae."""
    strength = log_uniform(generator, 0.015, 0.09)
    for _ in range(int(generator.integers(1, 7))):
        points = wandering_line(generator, canvas.n, generator.uniform(0.3, 2.0))
        if chance(generator, 0.5):
            points = wandering_line(generator, canvas.n, 0.5, closed=True)
        line = sloped(generator, _bilayer(line_distance(canvas.n, points), canvas))
        canvas.lay(
            canvas.any_layer(generator), (line * strength).astype(float32), Distractor.MEMBRANE
        )


def envelope(canvas: Canvas, generator: np.random.Generator) -> None:
    """Draw the two-line envelope of a bacterium, with denser cytoplasm inside."""
    points = wandering_line(generator, canvas.n, generator.uniform(0.05, 0.4))
    distance = line_distance(canvas.n, points)
    gap = canvas.px(generator.uniform(180.0, 350.0))
    strength = log_uniform(generator, 0.03, 0.15)
    lines = _bilayer(distance, canvas) + _bilayer(np.abs(distance - gap), canvas)
    lines = sloped(generator, lines)
    canvas.lay(canvas.any_layer(generator), (lines * strength).astype(float32), Distractor.MEMBRANE)


def thylakoids(canvas: Canvas, generator: np.random.Generator) -> None:
    """Draw stacks of 4 to 20 parallel sheets, 18 to 30 nm apart: dark stripes near ice's size."""
    for _ in range(int(generator.integers(1, 4))):
        points = wandering_line(generator, canvas.n, generator.uniform(0.1, 0.8))
        distance = line_distance(canvas.n, points)
        period = canvas.px(generator.uniform(180.0, 300.0))
        sheets = int(generator.integers(4, 21))
        stripe = 0.5 + 0.5 * np.cos(2 * math.pi * distance / period)
        stripe = stripe ** generator.uniform(1.0, 4.0) * (distance < sheets * period / 2)
        cut = smooth(generator, canvas.n, canvas.n / 4) > generator.uniform(-1.2, 0.0)
        stripe = stripe * cv2.GaussianBlur(cut.astype(float32), (0, 0), 2.0)
        strength = log_uniform(generator, 0.03, 0.4)
        flag = Distractor.STACKED_MEMBRANES
        canvas.lay(canvas.any_layer(generator), (stripe * strength).astype(float32), flag, 4.0)


def myelin(canvas: Canvas, generator: np.random.Generator) -> None:
    """Draw an onion of tight shells."""
    row, column = canvas.place(generator)
    outer = canvas.px(log_uniform(generator, 400.0, 2200.0))
    relative = outline(generator, outer, generator.uniform(0.05, 0.3))
    period = canvas.px(generator.uniform(70.0, 220.0)) / outer
    rings = (0.5 + 0.5 * np.cos(2 * math.pi * relative / period)) * (relative < 1)
    rings = rings * (relative > generator.uniform(0.0, 0.6))
    tau, phase = _matter(rings * log_uniform(generator, 0.03, 0.2), 4.0)
    layer = canvas.any_layer(generator)
    canvas.stamp(layer, row, column, tau, phase, Distractor.STACKED_MEMBRANES)


def vesicles(canvas: Canvas, generator: np.random.Generator) -> None:
    """Scatter vesicles: rims of a bilayer, filled or empty."""
    strength = log_uniform(generator, 0.02, 0.12)
    for _ in range(int(1 + generator.exponential(6.0))):
        radius = canvas.px(log_uniform(generator, 150.0, 1400.0))
        ring = shell(radius, 3.0, generator.uniform(0.85, 1.0), generator.uniform(0, 3.1))
        filled = soft_disc(radius, 1.5) * generator.uniform(-0.2, 0.6)
        body = ring.copy()
        window = _centre(body.shape[0], filled.shape[0])
        if window is not None:
            body[window] += filled
        tau, phase = _matter(body * strength)
        row, column = canvas.place(generator)
        canvas.stamp(canvas.any_layer(generator), row, column, tau, phase, Distractor.MEMBRANE)


def _centre(outer: int, inner: int) -> tuple[slice, slice] | None:
    start = (outer - inner) // 2
    return None if start < 0 else (slice(start, start + inner), slice(start, start + inner))


def ribosomes(canvas: Canvas, generator: np.random.Generator) -> None:
    """Scatter dense grains of 25 nm, crowded or rare."""
    radius = canvas.px(generator.uniform(100.0, 140.0))
    strength = log_uniform(generator, 0.015, 0.07)
    share = log_uniform(generator, 0.01, 0.25)
    stamps = [dome(outline(generator, radius, 0.25), 0.6) * strength for _ in range(6)]
    for _ in range(min(900, int(share * canvas.n**2 / (math.pi * radius**2)))):
        tau, phase = _matter(stamps[int(generator.integers(6))])
        row, column = canvas.place(generator)
        canvas.stamp(canvas.any_layer(generator), row, column, tau, phase)


def granules(canvas: Canvas, generator: np.random.Generator) -> None:
    """Scatter dense, smooth granules, 20 to 300 nm: dark without diffracting."""
    strength = log_uniform(generator, 0.06, 0.5)
    typical = log_uniform(generator, 120.0, 1200.0)
    for _ in range(int(1 + generator.exponential(5.0))):
        radius = canvas.px(typical * float(generator.lognormal(0, 0.3)))
        profile = dome(outline(generator, radius, 0.15), generator.uniform(0.2, 0.6))
        tau, phase = _matter(profile * strength, 2.5)
        row, column = canvas.place(generator)
        canvas.stamp(canvas.any_layer(generator), row, column, tau, phase, Distractor.GRANULE)


def lipid(canvas: Canvas, generator: np.random.Generator) -> None:
    """Put down smooth lipid droplets or starch, brighter or darker than the cell."""
    for _ in range(int(generator.integers(1, 4))):
        radius = canvas.px(log_uniform(generator, 500.0, 3000.0))
        disc = soft_disc(radius, generator.uniform(0.5, 2.0))
        sign = float(generator.choice([-1.0, 1.0]))
        tau, phase = _matter(disc * sign * generator.uniform(0.03, 0.2), 1.0)
        row, column = canvas.place(generator)
        canvas.stamp(canvas.any_layer(generator), row, column, tau, phase, Distractor.GRANULE)


def filaments(canvas: Canvas, generator: np.random.Generator) -> None:
    """Draw filaments and microtubules."""
    width = max(canvas.px(log_uniform(generator, 35.0, 125.0)), 1.0)
    hollow = width > 5
    strength = log_uniform(generator, 0.01, 0.06)
    angle_spread = generator.uniform(0.05, 1.0)
    for _ in range(int(generator.integers(2, 16))):
        distance = line_distance(canvas.n, wandering_line(generator, canvas.n, angle_spread * 0.3))
        body = np.exp(-((distance / width) ** 2))
        if hollow:
            body = np.exp(-(((distance - width) / 1.2) ** 2))
        canvas.lay(
            canvas.any_layer(generator), (body * strength).astype(float32), Distractor.PARTICLE
        )


def axoneme(canvas: Canvas, generator: np.random.Generator) -> None:
    """Draw sperm tails: across (nine doublets, two singlets, dense fibres) or along (bands)."""
    for _ in range(int(generator.integers(1, 4))):
        strength = log_uniform(generator, 0.05, 0.3)
        radius = canvas.px(generator.uniform(750.0, 1100.0))
        if chance(generator, 0.5):
            row, column = canvas.place(generator)
            disc = soft_disc(canvas.px(generator.uniform(90.0, 260.0)), 1.0)
            tau, phase = _matter(disc * strength)
            turn, layer = generator.uniform(0, 6.3), canvas.any_layer(generator)
            for index in range(9):
                angle = turn + 2 * math.pi * index / 9
                at = (row + radius * math.sin(angle), column + radius * math.cos(angle))
                canvas.stamp(layer, *at, tau, phase, Distractor.STACKED_MEMBRANES)
        else:
            points = wandering_line(generator, canvas.n, 0.1)
            distance = line_distance(canvas.n, points)
            bands = (0.5 + 0.5 * np.cos(distance * 2 * math.pi / (radius / 2.2))) ** 2
            bands = bands * (distance < radius)
            flag = Distractor.STACKED_MEMBRANES
            canvas.lay(canvas.any_layer(generator), (bands * strength * 0.6).astype(float32), flag)


def _particle(generator: np.random.Generator, canvas: Canvas) -> list[Stamp]:
    """Return a few views of one particle: ring, barrel, dot, disc or lump."""
    radius = max(canvas.px(log_uniform(generator, 35.0, 160.0)), 2.0)
    look = int(generator.integers(4))
    views = []
    for _ in range(4):
        if look == 0:
            ring = shell(radius, radius * 0.45)
            views.append(ring + 0.5 * generator.random() * dome(_radial(ring) / (0.3 * radius)))
        elif look == 1:
            views.append(_barrel(generator, radius))
        elif look == 2:
            views.append(soft_disc(radius * 0.6, 0.6))
        else:
            views.append(dome(outline(generator, radius, 0.35), 0.5))
    return [view.astype(float32) for view in views]


def _radial(stamp: Stamp) -> Stamp:
    axis = np.arange(stamp.shape[0], dtype=float32) - stamp.shape[0] // 2
    return np.asarray(np.hypot(axis[:, None], axis[None, :]), float32)


def _barrel(generator: np.random.Generator, radius: float) -> Stamp:
    half = math.ceil(radius * 1.5)
    axis = np.arange(-half, half + 1, dtype=float32)
    turn = generator.uniform(0, math.pi)
    u = axis[None, :] * math.cos(turn) + axis[:, None] * math.sin(turn)
    v = axis[:, None] * math.cos(turn) - axis[None, :] * math.sin(turn)
    bands = 0.7 + 0.3 * np.cos(2 * math.pi * u / max(radius * 0.7, 3.0))
    body = bands * (np.abs(u) < radius) * (np.abs(v) < 0.7 * radius)
    return np.asarray(cv2.GaussianBlur(body.astype(float32), (0, 0), 0.8), float32)


def particles(canvas: Canvas, generator: np.random.Generator) -> None:
    """Fill the ice with identical particles, as single-particle micrographs show them."""
    views = _particle(generator, canvas)
    strength = log_uniform(generator, 0.01, 0.08)
    size = views[0].shape[0]
    count = int(log_uniform(generator, 0.02, 0.5) * (canvas.n / size) ** 2)
    for _ in range(min(count, 900)):
        view = np.rot90(views[int(generator.integers(4))], int(generator.integers(4)))
        tau, phase = _matter(view * strength)
        row, column = canvas.place(generator)
        canvas.stamp(canvas.any_layer(generator), row, column, tau, phase, Distractor.PARTICLE)


def capsids(canvas: Canvas, generator: np.random.Generator) -> None:
    """Scatter virus capsids: round shells with granular content, of one or two sizes."""
    strength = log_uniform(generator, 0.015, 0.1)
    sizes = [log_uniform(generator, 120.0, 600.0) for _ in range(2)]
    for _ in range(int(generator.integers(4, 60))):
        radius = canvas.px(sizes[int(generator.random() < 0.15)])
        body = shell(radius, max(2.5, 0.12 * radius))
        inside = (_radial(body) < radius) * generator.uniform(0.0, 0.8)
        grain = generator.standard_normal(body.shape, dtype=float32)
        grain = cv2.GaussianBlur(grain, (0, 0), 1.2) * 2.5
        body = body + inside * (0.5 + 0.5 * grain)
        tau, phase = _matter(body * strength * generator.uniform(0.5, 1.2))
        row, column = canvas.place(generator)
        canvas.stamp(canvas.any_layer(generator), row, column, tau, phase, Distractor.PARTICLE)


DRAWERS: Mapping[str, Drawer] = {
    **ORGANELLE_DRAWERS,
    "membranes": membranes,
    "envelope": envelope,
    "thylakoids": thylakoids,
    "myelin": myelin,
    "vesicles": vesicles,
    "ribosomes": ribosomes,
    "granules": granules,
    "lipid": lipid,
    "filaments": filaments,
    "axoneme": axoneme,
    "capsids": capsids,
    "particles": particles,
}
