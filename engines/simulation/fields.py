"""Random fields: power-law texture, smooth fields, stripes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy import float32
from numpy.typing import NDArray

Field = NDArray[float32]

_REFERENCE_ANGSTROM = 175.0
_FLAT_BEYOND_ANGSTROM = 4000.0


def frequencies(n: int, pixel_size_angstrom: float) -> torch.Tensor:
    """Return |k| in 1/A of a whole transform, (n, n) float32."""
    k = torch.fft.fftfreq(n, pixel_size_angstrom)
    return torch.sqrt(k[:, None] ** 2 + k[None, :] ** 2)


def power_law_pair(
    generator: np.random.Generator,
    n: int,
    pixel_size_angstrom: float,
    level: float,
    slope: float,
) -> tuple[Field, Field]:
    """Draw two independent fields of mass-thickness texture, (n, n) float32 of zero mean each.

    Power per pixel is level * (175 A k)^-slope, for a 13.12 A pixel and relative to the mean
    squared, as calibrated on a real lamella; flat for periods beyond 4000 A.
    """
    k = frequencies(n, pixel_size_angstrom).clamp_min(1.0 / _FLAT_BEYOND_ANGSTROM)
    power = level * (13.12 / pixel_size_angstrom) ** 2 * (_REFERENCE_ANGSTROM * k) ** (-slope)
    amplitude = torch.sqrt(power) * n
    amplitude[0, 0] = 0.0
    white = torch.from_numpy(generator.standard_normal((n, n, 2), dtype=float32))
    both = torch.fft.ifft2(torch.view_as_complex(white) * amplitude)
    return both.real.contiguous().numpy(), both.imag.contiguous().numpy()


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
