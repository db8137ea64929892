"""Cells of the test generator: level sets, chains, bundles and blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.simulation.canvas import Canvas, Distractor
from engines.simulation.draws import bell, chance
from engines.simulation.second.marks import disc, segment_field, walk
from engines.simulation.second.texture import folds

Field = NDArray[float32]
Drawer = Callable[[Canvas, np.random.Generator], None]


def _contour(field: Field, level: float, half_px: float) -> Field:
    """Return a line of even width along the contour of a field at a level."""
    down, across = np.gradient(field)
    slope = np.sqrt(down * down + across * across) + 1e-4
    distance = (field - level) / slope
    return np.asarray(np.exp(-((distance / half_px) ** 2)) * (np.abs(distance) < 5), float32)


def _double(field: Field, level: float, gap_px: float, half_px: float) -> Field:
    down, across = np.gradient(field)
    slope = np.sqrt(down * down + across * across) + 1e-4
    distance = np.abs(field - level) / slope
    line = np.exp(-(((distance - gap_px / 2) / half_px) ** 2))
    return np.asarray(line * (distance < 3 * gap_px + 3), float32)


def membranes(canvas: Canvas, generator: np.random.Generator) -> None:
    """Lay sheets along contours of smooth fields."""
    for _ in range(int(generator.integers(1, 5))):
        field = folds(generator, canvas.n, canvas.n * generator.uniform(0.12, 0.5))
        gap = max(canvas.px(40.0), 1.6)
        lines = _double(field, generator.uniform(-1.0, 1.0), gap, 0.9)
        if chance(generator, 0.4):
            lines += _double(field, generator.uniform(-1.0, 1.0), gap, 0.9)
        if chance(generator, 0.6):
            lines = np.asarray(cv2.blur(lines, (5, 5)), float32)
        strength = float32(bell(generator, 0.02, 0.07))
        canvas.lay(canvas.any_layer(generator), lines * strength, Distractor.MEMBRANE)


def thylakoids(canvas: Canvas, generator: np.random.Generator) -> None:
    """Lay bands of stacked sheets, warped together, within strips."""
    n = canvas.n
    y, x = np.mgrid[:n, :n].astype(float32)
    for _ in range(int(generator.integers(1, 4))):
        turn = generator.uniform(0, math.pi)
        u = x * math.cos(turn) + y * math.sin(turn)
        u = u + canvas.px(900.0) * folds(generator, n, n / 2.5)
        middle, half = generator.uniform(0.1, 0.9) * n, canvas.px(bell(generator, 350.0, 2200.0))
        period = canvas.px(bell(generator, 190.0, 290.0))
        sawtooth = np.abs((u / period) % 1.0 - 0.5) * 2.0
        sheets = np.clip((sawtooth - generator.uniform(0.3, 0.7)) * 3.0, 0.0, 1.0)
        inside = np.clip((half - np.abs(u - middle)) / 2.0, 0.0, 1.0)
        sheets = cv2.GaussianBlur((sheets * inside).astype(float32), (0, 0), 0.7)
        strength = bell(generator, 0.03, 0.22)
        layer = canvas.any_layer(generator)
        canvas.lay(layer, sheets * float32(strength), Distractor.STACKED_MEMBRANES, 4.0)


def myelin(canvas: Canvas, generator: np.random.Generator) -> None:
    """Wind a spiral of sheets."""
    n = canvas.n
    y, x = np.mgrid[:n, :n].astype(float32)
    row, column = canvas.place(generator)
    squeeze = generator.uniform(0.6, 1.0)
    dx, dy = (x - column) * squeeze, y - row
    radius = np.hypot(dx, dy) + canvas.px(60.0) * folds(generator, n, n / 4)
    pitch, outer = (
        canvas.px(bell(generator, 80.0, 200.0)),
        canvas.px(bell(generator, 500.0, 2200.0)),
    )
    spiral = 0.5 + 0.5 * np.cos(2 * math.pi * radius / pitch + np.arctan2(dy, dx))
    spiral = spiral * (radius < outer) * (radius > outer * generator.uniform(0.0, 0.5))
    strength = bell(generator, 0.04, 0.2)
    layer = canvas.any_layer(generator)
    canvas.lay(layer, (spiral * strength).astype(float32), Distractor.STACKED_MEMBRANES, 4.0)


def vesicles(canvas: Canvas, generator: np.random.Generator) -> None:
    """Blow vesicles: two rings and something in them."""
    for _ in range(int(generator.poisson(7.0)) + 1):
        radius = canvas.px(bell(generator, 180.0, 1200.0))
        ring = disc(radius + 1.2, 1.0) - disc(max(radius - 1.2, 0.6), 1.0, radius + 1.2)
        body = ring * generator.uniform(0.6, 1.0)
        body = body + disc(radius, 1.0, radius + 1.2) * generator.uniform(-0.25, 0.4)
        tau = (body * bell(generator, 0.02, 0.1)).astype(float32)
        row, column = canvas.place(generator)
        layer = canvas.any_layer(generator)
        canvas.stamp(layer, row, column, tau, tau * 3.5, Distractor.MEMBRANE)


def ribosomes(canvas: Canvas, generator: np.random.Generator) -> None:
    """String two-lobed grains on chains, and strew some."""
    large, small = canvas.px(95.0), canvas.px(70.0)
    strength = bell(generator, 0.01, 0.04)
    lobes = [disc(large, 0.8) * strength, disc(small, 0.8) * strength * 0.8]
    for _ in range(int(bell(generator, 10, 80))):
        row, column = canvas.place(generator)
        layer, pitch = canvas.any_layer(generator), canvas.px(270.0)
        for x, y in walk(generator, column, row, pitch, int(generator.integers(2, 12)), 0.9):
            turn = generator.uniform(0, 2 * math.pi)
            canvas.stamp(layer, y, x, lobes[0], lobes[0] * 3.5)
            at = (y + 0.9 * large * math.sin(turn), x + 0.9 * large * math.cos(turn))
            canvas.stamp(layer, *at, lobes[1], lobes[1] * 3.5)


def granules(canvas: Canvas, generator: np.random.Generator) -> None:
    """Strew dense bodies with flat or soft profiles."""
    typical, strength = bell(generator, 150.0, 1200.0), bell(generator, 0.06, 0.45)
    for _ in range(int(generator.poisson(4.0)) + 1):
        radius = canvas.px(typical * generator.uniform(0.6, 1.5))
        tau = (disc(radius, radius * generator.uniform(0.05, 0.4)) * strength).astype(float32)
        row, column = canvas.place(generator)
        layer = canvas.any_layer(generator)
        canvas.stamp(layer, row, column, tau, tau * 2.5, Distractor.GRANULE)


def lipid(canvas: Canvas, generator: np.random.Generator) -> None:
    """Drop a few even discs, brighter or darker than what is around."""
    for _ in range(int(generator.integers(1, 4))):
        radius = canvas.px(bell(generator, 600.0, 2600.0))
        level = generator.choice([-1.0, 1.0]) * generator.uniform(0.03, 0.18)
        tau = (disc(radius, generator.uniform(0.5, 2.0)) * level).astype(float32)
        row, column = canvas.place(generator)
        canvas.stamp(canvas.any_layer(generator), row, column, tau, tau, Distractor.GRANULE)


def starch(canvas: Canvas, generator: np.random.Generator) -> None:
    """Put lens-shaped, smooth grains of starch side by side."""
    row, column = canvas.place(generator)
    turn = generator.uniform(0, math.pi)
    for _ in range(int(generator.integers(2, 6))):
        long = canvas.px(bell(generator, 1500.0, 4500.0))
        side = 2 * math.ceil(0.6 * long) + 1
        plate = np.zeros((side, side), np.uint8)
        middle, axes = (side // 2, side // 2), (int(long / 2), max(2, int(long / 5)))
        cv2.ellipse(plate, middle, axes, math.degrees(turn), 0, 360, 1, -1)
        soft = cv2.GaussianBlur(plate.astype(float32), (0, 0), 1.2)
        tau = soft * float32(generator.uniform(-0.05, 0.2))
        canvas.stamp(canvas.any_layer(generator), row, column, tau, tau, Distractor.GRANULE)
        row += generator.normal(0, 0.6) * long
        column += generator.normal(0, 0.6) * long


def filaments(canvas: Canvas, generator: np.random.Generator) -> None:
    """Lay bundles of straight, nearly parallel filaments."""
    width = max(canvas.px(bell(generator, 40.0, 120.0)), 0.9)
    common, spread = generator.uniform(0, math.pi), generator.uniform(0.02, 0.6)
    lines = []
    for _ in range(int(generator.integers(3, 18))):
        row, column = canvas.place(generator)
        angle, half = common + spread * generator.normal(), canvas.n * generator.uniform(0.1, 0.9)
        dx, dy = half * math.cos(angle), half * math.sin(angle)
        lines.append((column - dx, row - dy, column + dx, row + dy))
    field = segment_field(canvas.n, lines)
    ring = np.exp(-(((field - width) / 1.0) ** 2)) if width > 4 else np.exp(-((field / width) ** 2))
    tau = (ring * bell(generator, 0.012, 0.05)).astype(float32)
    canvas.lay(canvas.any_layer(generator), tau, Distractor.PARTICLE)


def axoneme(canvas: Canvas, generator: np.random.Generator) -> None:
    """Lay tails: a pair of dense fibres beside rows of tubes, or nine dots in a ring."""
    for _ in range(int(generator.integers(1, 4))):
        strength = bell(generator, 0.06, 0.25)
        row, column = canvas.place(generator)
        layer, turn = canvas.any_layer(generator), generator.uniform(0, 2 * math.pi)
        if chance(generator, 0.4):
            ring, dot = canvas.px(900.0), disc(canvas.px(bell(generator, 100, 240)), 1.0)
            for index in range(9):
                angle = turn + 2 * math.pi * index / 9
                at = (row + ring * math.sin(angle), column + ring * math.cos(angle))
                tau = (dot * strength).astype(float32)
                canvas.stamp(layer, *at, tau, tau * 3.5, Distractor.STACKED_MEMBRANES)
            continue
        field = np.zeros((canvas.n, canvas.n), float32)
        for offset in np.linspace(-1.0, 1.0, int(generator.integers(4, 8))):
            shift = offset * canvas.px(1000.0)
            x, y = column - shift * math.sin(turn), row + shift * math.cos(turn)
            far = 2.0 * canvas.n
            ends = (x - far * math.cos(turn), y - far * math.sin(turn))
            other = (x + far * math.cos(turn), y + far * math.sin(turn))
            wide = canvas.px(generator.uniform(70.0, 240.0))
            distance = segment_field(canvas.n, [(*ends, *other)])
            field += np.clip((wide - distance) / 1.5 + 0.5, 0.0, 1.0)
        canvas.lay(layer, field * float32(0.6 * strength), Distractor.STACKED_MEMBRANES)


def organelles(canvas: Canvas, generator: np.random.Generator) -> None:
    """Give a region another density and a border: nucleus, vacuole or mitochondrion."""
    for _ in range(int(generator.integers(1, 4))):
        field = folds(generator, canvas.n, canvas.n * generator.uniform(0.2, 0.5))
        level = generator.uniform(0.4, 1.6)
        inside = cv2.GaussianBlur((field > level).astype(float32), (0, 0), 1.0)
        body = inside * float32(generator.normal(0.0, 0.05))
        border = _double(field, level, max(canvas.px(120.0), 2.5), 1.0) * float32(0.035)
        if chance(generator, 0.4):
            inner = folds(generator, canvas.n, canvas.px(900.0))
            border = border + _contour(inner, 0.3, 1.0) * inside * float32(0.05)
        layer = canvas.any_layer(generator)
        canvas.lay(layer, body)
        canvas.lay(layer, border, Distractor.MEMBRANE)


def envelope(canvas: Canvas, generator: np.random.Generator) -> None:
    """Lay two or three parallel straight-ish walls: a bacterium, or a cell wall."""
    field = folds(generator, canvas.n, canvas.n * generator.uniform(0.5, 1.0))
    down, across = np.gradient(field)
    distance = field / (np.sqrt(down * down + across * across) + 1e-4)
    tau = np.zeros_like(field)
    for offset in np.cumsum([0.0, *generator.uniform(150.0, 330.0, int(generator.integers(1, 3)))]):
        half = 0.9 if chance(generator, 0.7) else canvas.px(generator.uniform(40.0, 120.0))
        tau += np.exp(-(((distance - canvas.px(float(offset))) / half) ** 2)).astype(float32)
    tau *= float32(bell(generator, 0.03, 0.13))
    canvas.lay(canvas.any_layer(generator), tau, Distractor.MEMBRANE)


def capsids(canvas: Canvas, generator: np.random.Generator) -> None:
    """Set hexagonal shells, full or empty, in loose groups."""
    radius, strength = canvas.px(bell(generator, 130.0, 500.0)), bell(generator, 0.02, 0.09)
    side = 2 * math.ceil(radius * 1.2) + 1
    row, column = canvas.place(generator)
    for _ in range(int(generator.integers(5, 60))):
        if chance(generator, 0.3):
            row, column = canvas.place(generator)
        turn = generator.uniform(0, math.pi / 3)
        corners = [
            side // 2 + radius * np.array([math.cos(a), math.sin(a)]) for a in turn + _SIXTHS
        ]
        shell = np.zeros((side, side), np.uint8)
        points = np.round(np.array(corners) * 8).astype(np.int32)
        if chance(generator, 0.6):
            cv2.fillPoly(shell, [points], 90, shift=3)
        cv2.polylines(shell, [points], True, 255, max(1, int(radius / 8)), cv2.LINE_AA, 3)
        tau = cv2.GaussianBlur(shell.astype(float32) / 255.0, (0, 0), 0.8) * float32(strength)
        layer = canvas.any_layer(generator)
        canvas.stamp(layer, row, column, tau, tau * 3.5, Distractor.PARTICLE)
        row += generator.normal(0, 3.0) * radius
        column += generator.normal(0, 3.0) * radius


_SIXTHS = np.arange(6) * math.pi / 3


def particles(canvas: Canvas, generator: np.random.Generator) -> None:
    """Fill the field with clumps of two to five balls, all alike."""
    size = max(canvas.px(bell(generator, 25.0, 70.0)), 1.2)
    ball = disc(size, 0.7) * bell(generator, 0.015, 0.06)
    lobes = generator.normal(0, 1.3 * size, (int(generator.integers(2, 6)), 2))
    for _ in range(min(700, int(bell(generator, 0.02, 0.3) * (canvas.n / (4 * size)) ** 2))):
        row, column = canvas.place(generator)
        turn, layer = generator.uniform(0, 2 * math.pi), canvas.any_layer(generator)
        for u, v in lobes:
            y = row + u * math.sin(turn) + v * math.cos(turn)
            x = column + u * math.cos(turn) - v * math.sin(turn)
            canvas.stamp(layer, y, x, ball, ball * 3.5, Distractor.PARTICLE)


DRAWERS: Mapping[str, Drawer] = {
    "organelles": organelles,
    "membranes": membranes,
    "envelope": envelope,
    "wall": envelope,
    "thylakoids": thylakoids,
    "myelin": myelin,
    "vesicles": vesicles,
    "ribosomes": ribosomes,
    "granules": granules,
    "lipid": lipid,
    "starch": starch,
    "pyrenoid": lipid,
    "filaments": filaments,
    "axoneme": axoneme,
    "capsids": capsids,
    "particles": particles,
}
