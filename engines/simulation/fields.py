"""Random fields: power-law texture, smooth fields, stripes, and a second, independent texture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy import float32
from numpy.typing import NDArray

from engines.simulation.draws import log_uniform

Field = NDArray[float32]

_REFERENCE_ANGSTROM = 175.0
_FLAT_BEYOND_ANGSTROM = 4000.0


def frequencies(rows: int, columns: int, pixel_size_angstrom: float) -> torch.Tensor:
    """Return |k| in 1/A of a half-plane transform, (rows, columns // 2 + 1) float32."""
    ky = torch.fft.fftfreq(rows, pixel_size_angstrom)
    kx = torch.fft.rfftfreq(columns, pixel_size_angstrom)
    return torch.sqrt(ky[:, None] ** 2 + kx[None, :] ** 2)


def shaped_noise(generator: np.random.Generator, amplitude: torch.Tensor, n: int) -> Field:
    """Filter white noise of unit variance by an amplitude over the half plane; (n, n) float32."""
    white = torch.from_numpy(generator.standard_normal((n, n), dtype=float32))
    shaped: Field = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(n, n)).numpy()
    return shaped


def power_law(
    generator: np.random.Generator,
    n: int,
    pixel_size_angstrom: float,
    level: float,
    slope: float,
) -> Field:
    """Draw mass-thickness texture whose power per pixel is level * (175 A k)^-slope.

    Power is per 13.12 A pixel relative to the mean squared, as calibrated on a real lamella;
    flat for periods beyond 4000 A. Returns (n, n) float32 of zero mean.
    """
    k = frequencies(n, n, pixel_size_angstrom).clamp_min(1.0 / _FLAT_BEYOND_ANGSTROM)
    power = level * (13.12 / pixel_size_angstrom) ** 2 * (_REFERENCE_ANGSTROM * k) ** (-slope)
    amplitude = torch.sqrt(power)
    amplitude[0, 0] = 0.0
    return shaped_noise(generator, amplitude, n)


def smooth(generator: np.random.Generator, n: int, scale_px: float) -> Field:
    """Draw a smooth field of zero mean and unit deviation that varies over `scale_px` pixels."""
    nodes = max(4, int(np.ceil(n / max(scale_px, 1.0))) + 3)
    coarse = generator.standard_normal((nodes, nodes), dtype=float32)
    pitch = n / (nodes - 3)
    size = round(nodes * pitch)
    fine = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    start = (size - n) // 2
    return _normalised(fine[start : start + n, start : start + n])


def _normalised(field: NDArray[Any]) -> Field:
    """Bring a field to zero mean and unit deviation."""
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), float32)


def stripes(generator: np.random.Generator, n: int, angle_rad: float, period_px: float) -> Field:
    """Draw irregular one-dimensional stripes of unit deviation across direction `angle_rad`."""
    profile = np.zeros(4 * n, float32)
    for factor in (1.0, 0.4, 0.15):
        nodes = max(6, int(4 * n / max(period_px * factor, 2.0)))
        knots = generator.standard_normal(nodes).astype(float32)
        profile += factor**0.7 * np.interp(
            np.linspace(0, nodes - 1, 4 * n), np.arange(nodes), knots
        ).astype(float32)
    y, x = centred_grid(n)
    position = np.clip(x * np.cos(angle_rad) + y * np.sin(angle_rad) + 2 * n, 0, 4 * n - 1)
    return _normalised(profile[position.astype(np.int32)])


def centred_grid(n: int) -> tuple[Field, Field]:
    """Return row and column coordinates in pixels from the centre, (n, 1) and (1, n) float32."""
    axis = np.arange(n, dtype=float32) - (n - 1) / 2
    return axis[:, None], axis[None, :]


def scattered_blobs(
    generator: np.random.Generator, n: int, pixel_size_angstrom: float, level: float
) -> Field:
    """Draw texture from scattered dots blurred at several scales.

    It shares no statistical model with `power_law` (sparse, skewed, made of discrete grains),
    for families that training never sees. Returns (n, n) float32 of zero mean; `level` as the
    power at 175 A.
    """
    field = np.zeros((n, n), float32)
    for sigma_angstrom in (18.0, 45.0, 110.0, 270.0, 650.0):
        sigma_px = sigma_angstrom / pixel_size_angstrom
        count = generator.poisson(n * n / (6.0 * sigma_px**2) * log_uniform(generator, 0.3, 2.0))
        dots = np.zeros((n, n), float32)
        rows, columns = generator.integers(0, n, (2, max(count, 1)))
        weights = generator.exponential(1.0, max(count, 1)).astype(float32)
        np.add.at(dots, (rows, columns), weights)
        reduced = 1 if sigma_px < 8 else 4
        small = cv2.resize(dots, None, fx=1 / reduced, fy=1 / reduced, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma_px / reduced)
        octave = cv2.resize(small, (n, n), interpolation=cv2.INTER_LINEAR)
        octave = (octave - octave.mean()) / (octave.std() + 1e-6)
        field += octave * generator.uniform(0.5, 1.5) * sigma_angstrom**0.3
    field *= np.sqrt(level) * 1.6 / (field.std() + 1e-6)
    return field.astype(float32)
