"""Shapes that no list of dirt holds, drawn so that anything strange is not taken for ice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.simulation.canvas import Canvas, Distractor
from engines.simulation.draws import chance, log_uniform
from engines.simulation.fields import smooth
from engines.simulation.shapes import Stamp, line_distance, outline, wandering_line

Segment = tuple[float, float, float, float]
"""A stretch of a fern: x, y where it starts, its length (px) and its heading (rad)."""


def ferns(canvas: Canvas, generator: np.random.Generator) -> None:
    """Grow ferns of frost: a straight stem with twigs on both sides, twigs on the twigs."""
    film = np.zeros((canvas.n, canvas.n), float32)
    spread, first = math.radians(generator.uniform(35.0, 75.0)), generator.uniform(0, 2 * math.pi)
    for _ in range(int(generator.integers(1, 7))):
        row, column = canvas.place(generator)
        long = canvas.px(log_uniform(generator, 400.0, 5000.0))
        heading = first + generator.normal(0, 0.4)
        stem = (column, row, long, heading)
        wide = max(1.0, 0.02 * long * generator.uniform(0.4, 1.5))
        twigs = _twigs(generator, stem, spread, generator.uniform(0.15, 0.5))
        finer = (
            [
                one
                for twig in twigs
                if twig[2] > 8
                for one in _twigs(generator, twig, spread, generator.uniform(0.15, 0.4))
            ]
            if chance(generator, 0.5)
            else []
        )
        depth = generator.uniform(0.4, 1.0)
        for thick, stretches in ((wide, [stem]), (0.7 * wide, twigs), (0.5 * wide, finer)):
            for stretch in stretches:
                _stroke(film, stretch, thick, depth)
    soft = cv2.GaussianBlur(film, (0, 0), generator.uniform(0.4, 2.0))
    tau = soft / max(float(soft.max()), 1e-6) * log_uniform(generator, 0.08, 1.0)
    canvas.keep_beyond_edges(tau.astype(float32), Distractor.FROST, 0.03)
    canvas.phase[canvas.surface_layer(0)] += (tau * generator.uniform(2.0, 8.0)).astype(float32)


def _twigs(
    generator: np.random.Generator, stem: Segment, spread_rad: float, reach: float
) -> list[Segment]:
    """Return pairs of twigs along a stem, shorter towards its tip."""
    x, y, long, heading = stem
    found = []
    for along in np.linspace(0.08, 0.95, int(np.clip(long / 5, 3, 22))):
        at = x + along * long * math.cos(heading), y + along * long * math.sin(heading)
        length = reach * long * (1.05 - along) * generator.uniform(0.6, 1.2)
        found += [(*at, length, heading + side * spread_rad) for side in (-1.0, 1.0)]
    return found


def _stroke(film: NDArray[float32], stretch: Segment, wide_px: float, depth: float) -> None:
    x, y, long, heading = stretch
    end = x + long * math.cos(heading), y + long * math.sin(heading)
    tail, tip = (round(8 * x), round(8 * y)), (round(8 * end[0]), round(8 * end[1]))
    cv2.line(film, tail, tip, depth, max(1, round(wide_px)), cv2.LINE_8, 3)


def ribbons(canvas: Canvas, generator: np.random.Generator) -> None:
    """Fold a sheet: bands side by side, dark and bright, that run together along one curve."""
    bent, closed = generator.uniform(0.1, 1.0), chance(generator, 0.4)
    points = wandering_line(generator, canvas.n, bent, closed)
    start = int(generator.integers(len(points) // 2))
    points = points[start : start + int(generator.integers(8, len(points)))]
    wide = canvas.px(log_uniform(generator, 30.0, 500.0))
    strength = log_uniform(generator, 0.04, 0.6)
    tau = np.zeros((canvas.n, canvas.n), float32)
    sign, turn = float(generator.choice([-1.0, 1.0])), generator.uniform(0, 2 * math.pi)
    shift = np.zeros(2)
    for _ in range(int(generator.integers(1, 6))):
        distance = line_distance(canvas.n, (points + shift).astype(float32))
        band = np.exp(-((distance / (wide * generator.uniform(0.5, 1.2))) ** 2))
        tau += (sign * strength * generator.uniform(0.3, 1.0) * band).astype(float32)
        sign = -sign if chance(generator, 0.6) else sign
        step = wide * generator.uniform(1.0, 4.0)
        shift += step * np.array([math.cos(turn), math.sin(turn)])
    canvas.lay(canvas.any_layer(generator), tau, Distractor.CLOUD, flagged_above=0.02)


def striped_bodies(canvas: Canvas, generator: np.random.Generator) -> None:
    """Put round bodies down that are packed with plates or hold a dark, uneven mass."""
    typical, period = log_uniform(generator, 500.0, 5000.0), log_uniform(generator, 60.0, 500.0)
    strength, count = log_uniform(generator, 0.04, 0.4), int(generator.integers(1, 8))
    for _ in range(count):
        radius = canvas.px(typical * float(generator.lognormal(0.0, 0.3)))
        body = _body(canvas, generator, radius, canvas.px(period)) * float32(strength)
        row, column = canvas.place(generator)
        flag = Distractor.STACKED_MEMBRANES
        phase = body * float32(generator.uniform(0.5, 4.0))
        canvas.stamp(canvas.any_layer(generator), row, column, body, phase, flag)


def _body(
    canvas: Canvas, generator: np.random.Generator, radius_px: float, period_px: float
) -> Stamp:
    """Return one body of height about 1: base, rim, and plates or lumps inside."""
    relative = outline(generator, min(radius_px, 0.35 * canvas.n), generator.uniform(0.0, 0.25))
    inside = 1.0 / (1.0 + np.exp(np.clip((relative - 1.0) * radius_px, -30, 30)))
    side = relative.shape[0]
    axis = np.arange(side, dtype=float32)
    turn, bend = generator.uniform(0, math.pi), period_px * generator.uniform(0.0, 1.5)
    along = axis[None, :] * math.cos(turn) + axis[:, None] * math.sin(turn)
    along = along + bend * smooth(generator, side, max(4.0, side / 4))
    plates = np.cos(2 * math.pi * along / max(period_px, 2.5))
    lumps = smooth(generator, side, max(3.0, period_px))
    share = generator.uniform(0.0, 1.0)
    sharp = np.tanh(generator.uniform(0.7, 4.0) * (share * plates + (1 - share) * lumps))
    rim = np.exp(-(((relative - 1.0) * radius_px / max(1.0, 0.3 * period_px)) ** 2))
    base = generator.uniform(-0.2, 0.8)
    filling = inside * (base + generator.uniform(0.1, 0.9) * sharp)
    return np.asarray(filling + generator.uniform(0.0, 0.7) * rim, float32)


STRANGE_DRAWERS: Mapping[str, Callable[[Canvas, np.random.Generator], None]] = {
    "ferns": ferns,
    "ribbons": ribbons,
    "striped_bodies": striped_bodies,
}
