"""Mosaics of grains as Voronoi cells, and where ice lies."""

from __future__ import annotations

import math

import numpy as np
from numpy import float32, int32
from numpy.typing import NDArray

from engines.simulation.draws import log_uniform
from engines.simulation.fields import centred_grid, smooth

Plane = NDArray[float32]
Ids = NDArray[int32]


def voronoi(
    generator: np.random.Generator, n: int, size_px: float, anisotropy: float, warp: float
) -> Ids:
    """Draw a mosaic of jittered-grid Voronoi cells with warped borders, (n, n) int32 >= 0."""
    angle = generator.uniform(0, math.pi)
    y, x = centred_grid(n)
    stretch = math.sqrt(anisotropy)
    u = (x * math.cos(angle) + y * math.sin(angle)) / (size_px * stretch)
    v = (y * math.cos(angle) - x * math.sin(angle)) / (size_px / stretch)
    if warp > 0:
        u = u + warp * 0.5 * smooth(generator, n, size_px)
        v = v + warp * 0.5 * smooth(generator, n, size_px)
    u, v = (u - u.min() + 1.0).astype(float32), (v - v.min() + 1.0).astype(float32)
    rows, columns = int(v.max()) + 3, int(u.max()) + 3
    jitter = generator.uniform(0, 1, (2, rows, columns)).astype(float32)
    cell_u, cell_v = u.astype(int32), v.astype(int32)
    cell = cell_v * columns + cell_u
    fraction_u, fraction_v = u - cell_u, v - cell_v
    nearest, best = np.full((n, n), np.inf, float32), np.zeros((n, n), int32)
    flat_u, flat_v = jitter[0].ravel(), jitter[1].ravel()
    for dv in (-1, 0, 1):
        for du in (-1, 0, 1):
            other = cell + dv * columns + du
            distance = (flat_u[other] + du - fraction_u) ** 2
            distance += (flat_v[other] + dv - fraction_v) ** 2
            np.copyto(best, other, where=distance < nearest)
            np.minimum(nearest, distance, out=nearest)
    return best


def ice_region(generator: np.random.Generator, n: int, layout: str, abundance: float) -> Plane:
    """Return a field whose values above 0 are where ice may be, (n, n)."""
    y, x = centred_grid(n)
    if layout in ("whole", "sparse") or (layout == "skin" and abundance > 0.5):
        return np.ones((n, n), float32)
    if layout == "band":
        angle, offset = generator.uniform(0, math.pi), generator.uniform(-0.3, 0.3) * n
        line = x * math.cos(angle) + y * math.sin(angle) - offset
        line = line + 0.04 * n * smooth(generator, n, n / 5)
        return (generator.uniform(0.05, 0.15) * n - np.abs(line)).astype(float32)
    field = smooth(generator, n, n * log_uniform(generator, 0.08, 0.5))
    if layout in ("centre", "outside"):
        radius = np.hypot(x - generator.uniform(-0.2, 0.2) * n, y) / n
        sign = 1.0 if layout == "centre" else -1.0
        field = (
            0.25 * field
            + sign
            * (
                generator.uniform(0.12, 0.25) - radius
                if layout == "centre"
                else generator.uniform(0.4, 0.55) - radius
            )
            * 6
        )
        return np.asarray(field, float32)
    share = 0.02 + 0.33 * abundance
    return (field - np.quantile(field, 1 - share)).astype(float32)


def grain_geometry(ids: Ids) -> tuple[NDArray[float32], NDArray[float32]]:
    """Return centroids (G, 2) as x, y and radii (G,) in pixels; empty ids get radius 0."""
    n, flat = ids.shape[0], ids.ravel()
    count = np.bincount(flat)
    position = np.arange(n, dtype=float32)
    x = np.bincount(flat, np.tile(position, n)) / np.maximum(count, 1)
    y = np.bincount(flat, np.repeat(position, n)) / np.maximum(count, 1)
    return np.stack((x, y), 1).astype(float32), np.sqrt(count / math.pi).astype(float32)
