"""Tilt geometry and the microscope: sampling of a tilted scene, contrast transfer, ghosts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from engines.simulation.diffraction import wavelength_angstrom

SPHERICAL_ABERRATION_ANGSTROM = 2.7e7


@dataclass(frozen=True, slots=True)
class TiltGeometry:
    """Where the rendered pixels of one tilt lie in the untilted scene."""

    rendered: int
    """Side of the rendered picture in pixels, margins included."""
    scene: int
    """Side of the scene in pixels."""
    pixel_size_angstrom: float
    angle_deg: float
    """Angle between the beam and the normal of the specimen."""
    axis_deg: float
    shift_px: tuple[float, float] = (0.0, 0.0)
    device: str = "cpu"

    def matrix(self) -> torch.Tensor:
        """Return the rotation from specimen to microscope, (3, 3) float32."""
        a, t = math.radians(self.axis_deg), math.radians(self.angle_deg)
        to_axis = torch.tensor(
            [[math.cos(a), math.sin(a), 0.0], [-math.sin(a), math.cos(a), 0.0], [0.0, 0.0, 1.0]]
        )
        turn = torch.tensor(
            [[math.cos(t), 0.0, math.sin(t)], [0.0, 1.0, 0.0], [-math.sin(t), 0.0, math.cos(t)]]
        )
        return (to_axis.T @ turn @ to_axis).to(self.device)

    @property
    def path_factor(self) -> float:
        """How much longer the beam's path through a layer is than at no tilt."""
        return 1.0 / math.cos(math.radians(self.angle_deg))

    def coordinates(self, z_angstrom: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x and y in scene pixels (reflected at the borders) at one height, float32."""
        a, t = math.radians(self.axis_deg), math.radians(self.angle_deg)
        axis = torch.arange(self.rendered, device=self.device) - (self.rendered - 1) / 2
        x, y = axis[None, :] + self.shift_px[0], axis[:, None] + self.shift_px[1]
        across = math.cos(a) * x + math.sin(a) * y
        along = -math.sin(a) * x + math.cos(a) * y
        height = z_angstrom / self.pixel_size_angstrom
        across = (across - height * math.sin(t)) / math.cos(t)
        centre = (self.scene - 1) / 2
        sx = math.cos(a) * across - math.sin(a) * along + centre
        sy = math.sin(a) * across + math.cos(a) * along + centre
        return reflect(sx, self.scene), reflect(sy, self.scene)

    def sample(self, planes: torch.Tensor, z_angstrom: float) -> torch.Tensor:
        """Interpolate (C, scene, scene) planes at one height: (C, rendered, rendered)."""
        x, y = self.coordinates(z_angstrom)
        half = (self.scene - 1) / 2
        grid = torch.stack((x / half - 1.0, y / half - 1.0), dim=-1)
        return functional.grid_sample(planes[None], grid[None], align_corners=True)[0]

    def nearest(self, z_angstrom: float) -> torch.Tensor:
        """Return flat scene indices of the nearest pixels at one height, int64."""
        x, y = self.coordinates(z_angstrom)
        flat: torch.Tensor = (y.round() * self.scene + x.round()).long()
        return flat


def reflect(position: torch.Tensor, size: int) -> torch.Tensor:
    """Mirror positions into 0..size-1."""
    period = 2.0 * (size - 1)
    return (size - 1) - (torch.remainder(position, period) - (size - 1)).abs()


@dataclass(frozen=True, slots=True)
class Optics:
    """What the microscope does to the exit wave at one tilt."""

    voltage_kv: float
    defocus_angstrom: float
    phase_plate: bool
    aperture_per_angstrom: float
    """Largest scattering vector that passes the objective aperture, 1/A."""
    envelope_angstrom: float
    haze: float
    """Share of electrons that arrive without contrast (no energy filter)."""


def propagate(wave: torch.Tensor, optics: Optics, pixel_size_angstrom: float) -> torch.Tensor:
    """Return the intensity of a complex exit wave (n, n) after the lens, float32."""
    n = wave.shape[-1]
    k = torch.fft.fftfreq(n, pixel_size_angstrom, device=wave.device)
    k2 = k[:, None] ** 2 + k[None, :] ** 2
    wavelength = wavelength_angstrom(optics.voltage_kv)
    chi = math.pi * wavelength * k2 * optics.defocus_angstrom
    chi = chi - 0.5 * math.pi * SPHERICAL_ABERRATION_ANGSTROM * wavelength**3 * k2 * k2
    if optics.phase_plate:
        chi = chi + torch.where(k2 > 0, math.pi / 2, 0.0)
    damping = torch.exp(-k2 * optics.envelope_angstrom**2)
    transfer = torch.polar(damping, chi)
    image = torch.fft.ifft2(torch.fft.fft2(wave) * transfer)
    intensity: torch.Tensor = image.real**2 + image.imag**2
    if optics.haze > 0:
        intensity = (1 - optics.haze) * intensity + optics.haze * blur(intensity, 12.0)
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
