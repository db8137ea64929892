"""How grains are turned: at random, nearly alike, or so that they diffract at a given tilt."""

from __future__ import annotations

import math

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.simulation.diffraction import reflections, wavelength_angstrom

_SPREAD_RAD = 0.0015
"""How far from exact Bragg a turned grain may lie; the rocking half-width is about 0.003."""


def random_rotations(generator: np.random.Generator, count: int) -> NDArray[float32]:
    """Draw uniform rotations, (count, 3, 3), from normalised quaternions."""
    q = generator.standard_normal((count, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0).astype(float32)


def small_rotations(
    generator: np.random.Generator, count: int, sigma_rad: float
) -> NDArray[float32]:
    """Draw rotations of about `sigma_rad` about random axes, (count, 3, 3), first order."""
    x, y, z = generator.normal(0, sigma_rad, (3, count))
    zero = np.zeros(count)
    skew = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
    turned = np.eye(3)[None] + np.moveaxis(skew, 2, 0)
    u, _, vt = np.linalg.svd(turned)
    return np.asarray(u @ vt, float32)


def bragg_rotation(
    generator: np.random.Generator,
    phase: int,
    tilt: NDArray[float32],
    voltage_kv: float,
    spread_rad: float = _SPREAD_RAD,
) -> NDArray[float32]:
    """Return a rotation that brings a strong reflection near Bragg at the given tilt, (3, 3)."""
    table = reflections(phase)
    strong = np.flatnonzero(table.extinction_angstrom < 3000.0)
    g = table.g[generator.choice(strong)].astype(np.float64)
    length = float(np.linalg.norm(g))
    down = -0.5 * wavelength_angstrom(voltage_kv) * length + generator.normal(0, spread_rad)
    azimuth, flat = generator.uniform(0, 2 * math.pi), math.sqrt(1 - down**2)
    goal = np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), down])
    first = random_rotations(generator, 1)[0].astype(np.float64)
    start = first @ (g / length)
    axis = np.cross(start, goal)
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + k + k @ k / (1.0 + float(start @ goal) + 1e-9)
    return np.asarray(tilt.T @ (turn @ first), float32)
