"""Small pictures that distractors and biology are stamped with."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy import float32
from numpy.typing import NDArray

Stamp = NDArray[float32]


def _grid(radius_px: float) -> tuple[Stamp, Stamp]:
    half = max(2, math.ceil(radius_px))
    axis = np.arange(-half, half + 1, dtype=float32)
    return axis[:, None], axis[None, :]


def outline(
    generator: np.random.Generator, radius_px: float, roughness: float, hexagonal: bool = False
) -> Stamp:
    """Return distance to the centre over distance to a wobbly outline, square stamp.

    Below 1 inside. `roughness` is the relative wobble; hexagonal outlines have six facets.
    """
    y, x = _grid(radius_px * (1.25 + roughness))
    angle, distance = np.arctan2(y, x), np.hypot(x, y)
    edge = np.ones_like(distance)
    for order in range(2, 7):
        amplitude = 1.6 * roughness * generator.normal() / order**1.6
        edge += amplitude * np.cos(order * angle + generator.uniform(0, 2 * math.pi))
    if hexagonal:
        turn = generator.uniform(0, math.pi / 3)
        sector = np.mod(angle + turn, math.pi / 3) - math.pi / 6
        edge *= math.cos(math.pi / 6) / np.cos(sector)
    squeeze = generator.uniform(0.75, 1.0)
    tilt = generator.uniform(0, math.pi)
    u = x * math.cos(tilt) + y * math.sin(tilt)
    v = y * math.cos(tilt) - x * math.sin(tilt)
    stretched = np.hypot(u / squeeze**0.5, v * squeeze**0.5)
    reach = np.maximum(radius_px * np.maximum(edge, 0.25), 0.5)
    return np.asarray(stretched / reach, float32)


def dome(relative: Stamp, power: float = 0.5) -> Stamp:
    """Return a cap of height 1 over an outline: 0.5 is a ball, smaller is flatter on top."""
    return np.asarray(np.clip(1.0 - relative**2, 0.0, 1.0) ** power, float32)


def shell(radius_px: float, thickness_px: float, squeeze: float = 1.0, turn: float = 0.0) -> Stamp:
    """Return the projection of a spherical shell, its edge-on rim about 1."""
    y, x = _grid(radius_px * 1.15 + thickness_px + 1)
    u = (x * math.cos(turn) + y * math.sin(turn)) / squeeze
    v = (y * math.cos(turn) - x * math.sin(turn)) * squeeze
    r2 = u * u + v * v
    outer = np.sqrt(np.clip(radius_px**2 - r2, 0, None))
    inner = np.sqrt(np.clip(max(radius_px - thickness_px, 0.0) ** 2 - r2, 0, None))
    rim = math.sqrt(max(2 * radius_px * thickness_px - thickness_px**2, 1.0))
    return ((outer - inner) / rim).astype(float32)


def sloped(generator: np.random.Generator, lines: Stamp) -> Stamp:
    """Smear lines as sheets that do not stand upright in their layer are smeared."""
    sigma = float(generator.uniform(-1.5, 3.0))
    if sigma < 0.4:
        return lines
    return np.asarray(cv2.GaussianBlur(lines, (0, 0), sigma) * (1.0 + 0.5 * sigma), float32)


def soft_disc(radius_px: float, edge_px: float) -> Stamp:
    """Return a disc of height 1 with a soft edge."""
    y, x = _grid(radius_px + 3 * edge_px)
    relative = np.clip((np.hypot(x, y) - radius_px) / max(edge_px, 0.3), -30, 30)
    return (1.0 / (1.0 + np.exp(relative))).astype(float32)


def line_distance(n: int, points: NDArray[float32]) -> Stamp:
    """Return the distance in pixels to a polyline of (x, y) points, 4 n at most; (n, n) float32."""
    canvas = np.full((n, n), 255, np.uint8)
    fixed = np.round(points * 8).astype(np.int32)
    cv2.polylines(canvas, [fixed], False, 0, 1, cv2.LINE_8, 3)
    distance = cv2.distanceTransform(canvas, cv2.DIST_L2, 5)
    return np.asarray(np.minimum(distance, 4.0 * n), float32)


def wandering_line(
    generator: np.random.Generator, n: int, roughness: float, closed: bool = False
) -> NDArray[float32]:
    """Draw a smooth wandering line across the field, (P, 2) points x, y in pixels."""
    steps = 60
    if closed:
        around = np.linspace(0, 2 * math.pi, steps)
        size, wobble = n * generator.uniform(0.08, 0.35), np.ones(steps)
        for order in range(2, 6):
            swing = float(roughness * generator.normal()) / order
            wobble += swing * np.cos(order * around + generator.uniform(0, 6.3))
        centre = generator.uniform(0.1, 0.9, 2) * n
        loop = np.stack((np.cos(around), np.sin(around)), 1) * (size * wobble)[:, None] + centre
        return np.asarray(loop, float32)
    angle = generator.uniform(0, 2 * math.pi)
    along = np.linspace(-0.9, 0.9, steps) * n
    across = np.full(steps, generator.uniform(-0.4, 0.4) * n)
    for order in range(1, 6):
        swing = roughness * n * 0.15 * generator.normal() / order
        across += swing * np.sin(order * along / n * 2.5 + generator.uniform(0, 6.3))
    x = along * math.cos(angle) - across * math.sin(angle) + n / 2
    y = along * math.sin(angle) + across * math.cos(angle) + n / 2
    return np.stack((x, y), 1).astype(float32)
