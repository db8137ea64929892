"""Small marks of the test generator: discs, exact spheres, blocks, walks, distances to lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy import float32
from numpy.typing import NDArray

Stamp = NDArray[float32]


def _axes(half: int) -> tuple[Stamp, Stamp]:
    axis = np.arange(-half, half + 1, dtype=float32)
    return axis[:, None], axis[None, :]


def disc(radius_px: float, edge_px: float, frame_px: float | None = None) -> Stamp:
    """Return a disc of height 1 with a linear edge; `frame_px` sets the size of the stamp."""
    half = math.ceil((frame_px or radius_px) + 2 * edge_px + 2)
    y, x = _axes(half)
    distance = np.hypot(x, y)
    return np.asarray(np.clip((radius_px - distance) / max(edge_px, 0.5) + 0.5, 0, 1), float32)


def sphere(radius_px: float, flattened: float, squeeze: float, turn: float) -> Stamp:
    """Return the height of an ellipsoid, 1 in its middle; `flattened` cuts its top off."""
    y, x = _axes(math.ceil(radius_px * 1.3 / squeeze) + 1)
    u = (x * math.cos(turn) + y * math.sin(turn)) * squeeze
    v = (y * math.cos(turn) - x * math.sin(turn)) / squeeze
    height = np.sqrt(np.clip(1.0 - (u * u + v * v) / radius_px**2, 0.0, None))
    return np.asarray(np.minimum(height, 1.0 - flattened) / (1.0 - flattened), float32)


def block(generator: np.random.Generator, radius_px: float, faces: int) -> Stamp:
    """Return a faceted block: the lowest of several sloping planes, 1 at most."""
    y, x = _axes(math.ceil(radius_px * 1.5) + 1)
    height = np.full((y.shape[0], x.shape[1]), 1.0, float32)
    start = generator.uniform(0, 2 * math.pi)
    for index in range(faces):
        angle = start + 2 * math.pi * (index + generator.uniform(-0.25, 0.25)) / faces
        reach = radius_px * generator.uniform(0.75, 1.2)
        steep = generator.uniform(1.2, 6.0) / radius_px
        plane = (reach - x * math.cos(angle) - y * math.sin(angle)) * steep
        height = np.minimum(height, plane)
    return np.asarray(np.clip(height, 0.0, 1.0), float32)


def walk(
    generator: np.random.Generator, x: float, y: float, step_px: float, steps: int, wander: float
) -> list[tuple[float, float]]:
    """Walk at random from a place, turning by about `wander` rad a step: places x, y."""
    heading = generator.uniform(0, 2 * math.pi)
    places = [(x, y)]
    for _ in range(steps):
        heading += generator.normal(0, wander)
        x, y = x + step_px * math.cos(heading), y + step_px * math.sin(heading)
        places.append((x, y))
    return places


def segment_field(n: int, lines: Sequence[tuple[float, float, float, float]]) -> Stamp:
    """Return the distance in px to the nearest of some segments x0, y0, x1, y1; (n, n)."""
    canvas = np.full((n, n), 255, np.uint8)
    for x0, y0, x1, y1 in lines:
        ends = [(round(8 * x0), round(8 * y0)), (round(8 * x1), round(8 * y1))]
        cv2.line(canvas, ends[0], ends[1], 0, 1, cv2.LINE_8, 3)
    if canvas.all():
        return np.full((n, n), float(2 * n), float32)
    return np.asarray(cv2.distanceTransform(canvas, cv2.DIST_L2, 5), float32)
