"""The microscope: contrast transfer over a tilted field, haze, drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as functional

from engines.simulation.diffraction import wavelength_angstrom
from engines.simulation.geometry import TiltGeometry, reflect

__all__ = ["Optics", "TiltGeometry", "blur", "motion_blur", "propagate", "reflect"]

SPHERICAL_ABERRATION_ANGSTROM = 2.7e7
_CUT_ON_ANGSTROM = 350.0
"""A phase plate leaves periods much longer than this as they are."""
_FOCUS_STEP_ANGSTROM = 400.0
"""A field whose focus differs by less than this from its middle is taken as level."""


@dataclass(frozen=True, slots=True)
class Optics:
    """What the microscope does to the exit wave at one tilt."""

    voltage_kv: float
    defocus_angstrom: float
    phase_shift_rad: float
    """Shift of a phase plate; 0 without one."""
    envelope_angstrom: float
    haze: float = 0.0
    """Share of electrons that arrive without contrast (no energy filter)."""


def propagate(
    wave: torch.Tensor,
    optics: Optics,
    pixel_size_angstrom: float,
    elevation: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the intensity of a complex exit wave (n, n) after the lens, float32.

    `elevation` (n, n) in A adds to the defocus: three foci are imaged and interpolated between.
    """
    spectrum = torch.fft.fft2(wave)
    reach = 0.0 if elevation is None else float(elevation.abs().max())
    if elevation is None or reach < _FOCUS_STEP_ANGSTROM:
        intensity = _image(spectrum, optics, 0.0, pixel_size_angstrom)
    else:
        below, middle, above = (
            _image(spectrum, optics, step * reach, pixel_size_angstrom) for step in (-1, 0, 1)
        )
        u = elevation / reach
        intensity = middle + 0.5 * u * (above - below)
        intensity = (intensity + 0.5 * u * u * (above + below - 2 * middle)).clamp_min(0.0)
    if optics.haze > 0:
        intensity = (1 - optics.haze) * intensity + optics.haze * blur(intensity, 12.0)
    return intensity


def _image(
    spectrum: torch.Tensor, optics: Optics, defocus_change: float, pixel_size_angstrom: float
) -> torch.Tensor:
    n = spectrum.shape[-1]
    k = torch.fft.fftfreq(n, pixel_size_angstrom, device=spectrum.device)
    k2 = k[:, None] ** 2 + k[None, :] ** 2
    wavelength = wavelength_angstrom(optics.voltage_kv)
    chi = math.pi * wavelength * k2 * (optics.defocus_angstrom + defocus_change)
    chi = chi - 0.5 * math.pi * SPHERICAL_ABERRATION_ANGSTROM * wavelength**3 * k2 * k2
    if optics.phase_shift_rad:
        chi = chi + optics.phase_shift_rad * (1.0 - torch.exp(-k2 * _CUT_ON_ANGSTROM**2))
    transfer = torch.polar(torch.exp(-k2 * optics.envelope_angstrom**2), chi)
    image = torch.fft.ifft2(spectrum * transfer)
    intensity: torch.Tensor = image.real**2 + image.imag**2
    return intensity


def gaussian_kernel(sigma_px: float, device: torch.device) -> torch.Tensor:
    """Return a normalised one-dimensional Gaussian."""
    radius = max(1, math.ceil(3 * sigma_px))
    x = torch.arange(-radius, radius + 1, device=device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / max(sigma_px, 1e-3)) ** 2)
    return kernel / kernel.sum()


def blur(plane: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Blur (n, n) by a Gaussian; the border is continued."""
    kernel = gaussian_kernel(sigma_px, plane.device)
    if plane.device.type == "cpu":
        line = kernel.numpy()
        blurred = cv2.sepFilter2D(plane.numpy(), -1, line, line, borderType=cv2.BORDER_REPLICATE)
        return torch.from_numpy(np.asarray(blurred))
    radius = len(kernel) // 2
    padded = functional.pad(plane[None, None], (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[None, None, :, None])
    return functional.conv2d(rows, kernel[None, None, None, :])[0, 0]


def motion_blur(plane: torch.Tensor, length_px: float, direction_rad: float) -> torch.Tensor:
    """Smear (n, n) along a line, as drift during the exposure does."""
    radius = math.ceil(length_px / 2) + 1
    axis = torch.arange(-radius, radius + 1, device=plane.device, dtype=torch.float32)
    along = axis[None, :] * math.cos(direction_rad) + axis[:, None] * math.sin(direction_rad)
    across = axis[:, None] * math.cos(direction_rad) - axis[None, :] * math.sin(direction_rad)
    kernel = (1 - across.abs()).clamp_min(0) * (length_px / 2 + 0.5 - along.abs()).clamp(0, 1)
    kernel = kernel / kernel.sum()
    padded = functional.pad(plane[None, None], (radius,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel[None, None])[0, 0]
