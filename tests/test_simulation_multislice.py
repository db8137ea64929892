"""Two-beam diffraction against a small multislice of cubic ice, from scattering factors up."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.simulation.diffraction import (
    A_CUBIC_ANGSTROM,
    CUBIC,
    reflections,
    strongest_beams,
    two_beam,
    wavelength_angstrom,
)
from tests.single_thread import one_thread  # noqa: F401

THICKNESS = 500.0
"""A."""
DEBYE_WALLER = 1.2
"""A^2."""
OXYGEN_HYDROGEN = 1.0
"""A."""
GAUSSIANS = {
    "O": (
        (0.0974, 0.2921, 0.6910, 0.6990, 0.2039),
        (0.2067, 1.3815, 4.6943, 12.7105, 32.4726),
    ),
    "H": (
        (0.0349, 0.1201, 0.1970, 0.0573, 0.1195),
        (0.5347, 3.5867, 12.3471, 18.9525, 38.6269),
    ),
}
"""Electron scattering factors in A (Peng, Ren, Dudarev and Whelan 1996)."""


def _factor(atom: str, g_length: float) -> float:
    s = 0.5 * g_length
    terms = zip(*GAUSSIANS[atom], strict=True)
    return sum(a * math.exp(-b * s * s) for a, b in terms) * math.exp(-DEBYE_WALLER * s * s)


def _atoms() -> list[tuple[str, float, NDArray[np.float64]]]:
    """Return the atoms of one cell, their occupancy and place in cells: hydrogens are halves."""
    faces = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    bond = OXYGEN_HYDROGEN / (A_CUBIC_ANGSTROM * math.sqrt(3.0))
    ways = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
    atoms = []
    for face, (start, sign) in product(faces, ((0.0, 1), (0.25, -1))):
        at = np.array(face) + start
        atoms.append(("O", 1.0, at))
        atoms += [("H", 0.5, at + sign * bond * way) for way in ways]
    return atoms


def _structure(index: NDArray[np.int64]) -> complex:
    """Return the structure factor of a cell for one reflection, in A."""
    length = float(np.linalg.norm(index)) / A_CUBIC_ANGSTROM
    factors = {atom: _factor(atom, length) for atom in GAUSSIANS}
    return sum(
        (
            share * factors[atom] * complex(np.exp(2j * math.pi * float(index @ at)))
            for atom, share, at in _atoms()
        ),
        0j,
    )


def _gamma(voltage_kv: float) -> float:
    return 1.0 + voltage_kv / 510.999


def _orientation() -> NDArray[np.float64]:
    """Return a rotation that lays 111 along x, far from any zone axis."""
    x = np.array([1.0, 1.0, 1.0]) / math.sqrt(3.0)
    z = np.cross(x, np.array([0.31, 0.77, -0.56]))
    z /= np.linalg.norm(z)
    return np.stack((x, np.cross(z, x), z))


class Multislice:
    """A crystal plate as a Fourier series, seen through a periodic window."""

    def __init__(self, voltage_kv: float = 300.0) -> None:
        self.wavelength = wavelength_angstrom(voltage_kv)
        spacing = A_CUBIC_ANGSTROM / math.sqrt(3.0)
        self.pixels, self.box, self.step = 192, 32 * spacing, 2.0
        self.turn = _orientation()
        reach = range(-5, 6)
        found = [np.array(h) for h in product(reach, reach, reach) if any(h)]
        found = [h for h in found if np.linalg.norm(h) / A_CUBIC_ANGSTROM < 0.6]
        strength = self.wavelength * _gamma(voltage_kv) / A_CUBIC_ANGSTROM**3
        self.beams = [(h, strength * _structure(h)) for h in found]
        self.beams = [(h, u) for h, u in self.beams if abs(u) > 1e-5]

    def extinction(self) -> float:
        """Return the two-beam extinction distance of 111, A."""
        return math.pi / abs({tuple(h): u for h, u in self.beams}[1, 1, 1])

    def diffracted(self, off_bragg_rad: float) -> float:
        """Return the share of electrons in the 111 beam behind the plate."""
        g, k = math.sqrt(3.0) / A_CUBIC_ANGSTROM, 1.0 / self.wavelength
        down = -0.5 * g / k + off_bragg_rad
        c, s = math.cos(down), math.sin(down)
        crystal = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ self.turn
        wave = torch.ones((self.pixels, self.pixels), dtype=torch.complex64)
        series = self._series(crystal)
        q = torch.fft.fftfreq(self.pixels, self.box / self.pixels)
        q2 = q[:, None] ** 2 + q[None, :] ** 2
        kept = q2.sqrt() < self.pixels / self.box / 3.0
        lens = torch.polar(kept.float(), -math.pi * self.wavelength * self.step * q2)
        steps = round(THICKNESS / self.step)
        for index in range(steps):
            z = (index + 0.5) * self.step
            phase = self._slice(series, z)
            wave = torch.fft.ifft2(torch.fft.fft2(wave * torch.exp(1j * phase)) * lens)
        spectrum = (torch.fft.fft2(wave) / self.pixels**2).abs() ** 2
        return float(spectrum[0, 32]) / float(spectrum.sum())

    def _series(self, crystal: NDArray[np.float64]) -> list[tuple[int, int, float, complex]]:
        found = []
        for h, u in self.beams:
            gx, gy, gz = crystal @ (h / A_CUBIC_ANGSTROM)
            column, row = round(gx * self.box), round(gy * self.box)
            thin = np.sinc(gz * self.step)
            if max(abs(column), abs(row)) < self.pixels // 2 and abs(thin) > 0.05:
                found.append((row, column, gz, u * self.step * thin))
        return found

    def _slice(self, series: list[tuple[int, int, float, complex]], z: float) -> torch.Tensor:
        """Return the phase that one slice adds, from the reflections at its height."""
        rows, columns, gz, u = (np.array(part) for part in zip(*series, strict=True))
        spectrum = np.zeros((self.pixels, self.pixels), np.complex128)
        np.add.at(spectrum, (rows, columns), u * np.exp(2j * math.pi * gz * z))
        phase: torch.Tensor = torch.fft.ifft2(torch.from_numpy(spectrum.astype(np.complex64))).real
        return phase * self.pixels**2


@pytest.fixture(scope="module")
def plate() -> Multislice:
    return Multislice()


def test_extinction_distance_follows_from_scattering_factors(plate: Multislice) -> None:
    table = reflections(CUBIC)
    strongest = float(table.extinction_angstrom[np.linalg.norm(table.g, axis=1) < 0.28][0])
    assert strongest == pytest.approx(plate.extinction(), rel=0.03)


@pytest.mark.parametrize("off_bragg_deg", [-0.3, -0.15, 0.0, 0.15, 0.3])
def test_two_beam_agrees_with_multislice(plate: Multislice, off_bragg_deg: float) -> None:
    off = math.radians(off_bragg_deg)
    s = torch.tensor(off * math.sqrt(3.0) / A_CUBIC_ANGSTROM)
    assert float(two_beam(s, THICKNESS, 2040.0)) == pytest.approx(plate.diffracted(off), abs=0.05)


def test_the_simulator_finds_the_same_excitation_error(plate: Multislice) -> None:
    """The grain's orientation and the tilt give the s that the oracle was built with."""
    g, k = math.sqrt(3.0) / A_CUBIC_ANGSTROM, 1.0 / plate.wavelength
    for off in (0.0, 0.002, 0.005):
        down = -0.5 * g / k + off
        c, s = math.cos(down), math.sin(down)
        crystal = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ plate.turn
        beams = strongest_beams(
            torch.from_numpy(crystal.astype(np.float32))[None],
            torch.tensor([CUBIC]),
            torch.zeros(1),
            torch.full((1,), THICKNESS),
            torch.eye(3),
            300.0,
        )
        along = int((beams.shift_x[0] - beams.shift_x[0].max()).abs().argmin())
        assert abs(float(beams.s[0, along])) == pytest.approx(off * g, abs=2e-5)
