"""Texture of scattered grains at several sizes, skewed as dense matter is."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy import float32
from numpy.typing import NDArray

Field = NDArray[float32]

_SIGMAS_ANGSTROM = (11.0, 17.0, 30.0, 65.0, 140.0, 300.0, 650.0)
_RING_ANGSTROM = 175.0
_CALIBRATED_PIXEL_ANGSTROM = 13.12
_MOST_HUMPS = 120


def scattered_grains(
    generator: np.random.Generator,
    n: int,
    pixel_size_angstrom: float,
    level: float,
    slope: float,
) -> Field:
    """Draw texture from scattered dots, (n, n) float32 of zero mean.

    Its power at 175 A, per 13.12 A pixel, is `level`; `slope` sets how octaves compare.
    """
    field = np.zeros((n, n), float32)
    for sigma_angstrom in _SIGMAS_ANGSTROM:
        sigma_px = sigma_angstrom / pixel_size_angstrom
        octave = _octave(generator, n, sigma_px)
        weight = sigma_angstrom ** ((slope - 2.0) / 2.0) * generator.uniform(0.75, 1.3)
        field += octave * float32(weight)
    field = _skewed(field, generator.uniform(0.0, 0.35))
    power = ring_power(field, pixel_size_angstrom, _RING_ANGSTROM)
    wanted = level * (_CALIBRATED_PIXEL_ANGSTROM / pixel_size_angstrom) ** 2
    return np.asarray(field * np.sqrt(wanted / max(power, 1e-12)), float32)


def _octave(generator: np.random.Generator, n: int, sigma_px: float) -> Field:
    """Return dots of one size, of zero mean and unit deviation."""
    reduced = max(1, int(sigma_px / 2.5))
    side = -(-n // reduced)
    per_px = 1.0 / (6.0 * (sigma_px / reduced) ** 2) * generator.uniform(0.4, 1.6)
    count = max(30, int(per_px * side * side))
    dots = np.zeros((side, side), float32)
    rows, columns = generator.integers(0, side, (2, count))
    np.add.at(dots, (rows, columns), generator.exponential(1.0, count).astype(float32))
    sigma = max(sigma_px / reduced, 0.6)
    squeeze = generator.uniform(0.7, 1.0)
    soft = cv2.GaussianBlur(dots, (0, 0), sigma / squeeze, None, sigma * squeeze)
    if reduced > 1:
        size = (side * reduced, side * reduced)
        soft = cv2.resize(soft, size, interpolation=cv2.INTER_CUBIC)[:n, :n]
    return np.asarray((soft - soft.mean()) / (soft.std() + 1e-6), float32)


def _skewed(field: Field, amount: float) -> Field:
    """Stretch the dense side of a distribution."""
    unit = field / (field.std() + 1e-6)
    bent = unit + amount * (unit * np.abs(unit)) * (unit > 0)
    return np.asarray(bent - bent.mean(), float32)


def ring_power(field: Field, pixel_size_angstrom: float, period_angstrom: float) -> float:
    """Return the mean power per pixel at periods within 15 % of one."""
    n = field.shape[0]
    power = np.abs(np.fft.rfft2(field)) ** 2 / n**2
    ky = np.fft.fftfreq(n, pixel_size_angstrom)
    kx = np.fft.rfftfreq(n, pixel_size_angstrom)
    ring = np.abs(np.hypot(ky[:, None], kx[None, :]) * period_angstrom - 1.0) < 0.15
    return float(power[ring].mean())


def folds(generator: np.random.Generator, n: int, scale_px: float) -> Field:
    """Draw a smooth field of zero mean and unit deviation from a few broad humps."""
    reduced = max(1, int(min(scale_px, n / 6) / 4))
    side = -(-n // reduced)
    sigma = scale_px / reduced / 2.2
    count = max(12, int(1.2 * (side / sigma) ** 2))
    margin = 2.0 * sigma
    rows, columns = generator.uniform(-margin, side + margin, (2, count))
    heights = generator.choice([-1.0, 1.0], count) * generator.uniform(0.4, 1.0, count)
    widths = sigma * generator.uniform(0.7, 1.6, count)
    draw = _hump if count < _MOST_HUMPS else _dotted
    humps = draw(side, rows, columns, heights, widths)
    if reduced > 1:
        size = (side * reduced, side * reduced)
        large = cv2.resize(humps, size, interpolation=cv2.INTER_CUBIC)
        humps = np.asarray(large[:n, :n], float32)
    return np.asarray((humps - humps.mean()) / (humps.std() + 1e-6), float32)


Numbers = NDArray[np.float64]


def _hump(side: int, rows: Numbers, columns: Numbers, heights: Numbers, widths: Numbers) -> Field:
    """Add humps, each of its own width, (side, side)."""
    axis = np.arange(side, dtype=float32)
    across = np.exp(-0.5 * ((axis[None, :] - columns[:, None]) / widths[:, None]) ** 2)
    down = np.exp(-0.5 * ((axis[None, :] - rows[:, None]) / widths[:, None]) ** 2)
    return np.asarray((down * heights[:, None]).astype(float32).T @ across.astype(float32))


def _dotted(side: int, rows: Numbers, columns: Numbers, heights: Numbers, widths: Numbers) -> Field:
    """Add many small humps, of one of three widths each, (side, side)."""
    field = np.zeros((side, side), float32)
    edges = np.quantile(widths, [0.0, 1 / 3, 2 / 3, 1.0])
    edges[-1] += 1.0
    for low, high in pairwise(edges):
        own = (widths >= low) & (widths < high)
        y, x = np.round(rows[own]).astype(int), np.round(columns[own]).astype(int)
        inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
        dots = np.zeros((side, side), float32)
        np.add.at(dots, (y[inside], x[inside]), heights[own][inside].astype(float32))
        sigma = float(widths[own].mean())
        field += cv2.GaussianBlur(dots, (0, 0), sigma) * float32(sigma**2)
    return field


def scratches(generator: np.random.Generator, n: int, angle_rad: float, period_px: float) -> Field:
    """Draw streaks of even depth and random width across a direction, of unit deviation."""
    profile = np.zeros(4 * n, float32)
    for _ in range(int(generator.uniform(1.0, 3.0) * 4 * n / max(period_px, 2.0)) + 4):
        start, wide = generator.integers(0, 4 * n), generator.exponential(max(period_px, 2.0) / 2)
        profile[start : start + int(wide) + 1] += generator.normal()
    axis = np.arange(n, dtype=float32) - n / 2
    along = axis[None, :] * np.cos(angle_rad) + axis[:, None] * np.sin(angle_rad)
    streaks = profile[np.clip(along + 2 * n, 0, 4 * n - 1).astype(np.int32)]
    return np.asarray((streaks - streaks.mean()) / (streaks.std() + 1e-6), float32)
