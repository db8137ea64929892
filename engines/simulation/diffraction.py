"""Bragg diffraction of ice: reflections, excitation errors, two-beam intensities, ghost shifts.

Sources: lattice constants of hexagonal and cubic ice; extinction distances computed from
electron scattering factors at 300 kV with B = 1.2 A^2; two-beam dynamical theory (Hirsch et al.,
Electron Microscopy of Thin Crystals).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import torch
from numpy import float32
from numpy.typing import NDArray

HEXAGONAL, CUBIC, STACKING = 1, 2, 3
PHASE_NAMES = {HEXAGONAL: "hexagonal", CUBIC: "cubic", STACKING: "stacking"}

A_HEXAGONAL_ANGSTROM, C_HEXAGONAL_ANGSTROM = 4.497, 7.322
A_CUBIC_ANGSTROM = 6.358

_HEXAGONAL_FAMILIES = {
    (1, 0, 0): 2780.0,
    (0, 0, 2): 2030.0,
    (1, 0, 1): 4550.0,
    (1, 0, 2): 5310.0,
    (1, 1, 0): 2380.0,
    (1, 0, 3): 3490.0,
    (1, 1, 2): 4870.0,
}
_ROD_COHERENCE_ANGSTROM = 400.0
"""Beyond this depth a rod gains nothing: the faults turn."""
_ROD_SHARE = 0.35
"""Share of reflections that lie on the rod of one stacking direction."""
_CUBIC_FAMILIES = {(1, 1, 1): 2040.0, (2, 2, 0): 2380.0, (3, 1, 1): 4900.0}


@dataclass(frozen=True, slots=True)
class Reflections:
    """All reciprocal vectors of a phase that matter."""

    g: NDArray[float32]
    """(R, 3) in 1/A, crystal frame."""
    extinction_angstrom: NDArray[float32]
    """(R,) two-beam extinction distance at 300 kV."""


def wavelength_angstrom(voltage_kv: float) -> float:
    """Return the relativistic electron wavelength in A (0.0197 at 300 kV)."""
    volts = voltage_kv * 1e3
    return 12.2643 / math.sqrt(volts * (1.0 + 0.978476e-6 * volts))


def speed_ratio(voltage_kv: float) -> float:
    """Return v/c of an electron; extinction distances are proportional to it."""
    gamma = 1.0 + voltage_kv / 510.999
    return math.sqrt(1.0 - 1.0 / gamma**2)


def _hexagonal_members(h: int, k: int, index: int) -> set[tuple[int, int, int]]:
    in_plane = set(permutations((h, k, -(h + k))))
    in_plane |= {(-a, -b, -c) for a, b, c in in_plane}
    return {(a, b, sign * index) for a, b, _ in in_plane for sign in (1, -1)}


def _cubic_members(hkl: tuple[int, int, int]) -> set[tuple[int, int, int]]:
    return {
        (s[0] * p[0], s[1] * p[1], s[2] * p[2])
        for p in permutations(hkl)
        for s in product((1, -1), repeat=3)
    }


def hexagonal_reflections() -> Reflections:
    """Return the reflections of ice Ih down to 1.9 A, (62, 3)."""
    vectors, distances = [], []
    a, c = A_HEXAGONAL_ANGSTROM, C_HEXAGONAL_ANGSTROM
    for (h0, k0, l0), distance in _HEXAGONAL_FAMILIES.items():
        for h, k, index in sorted(_hexagonal_members(h0, k0, l0)):
            vectors.append((h / a, (h + 2 * k) / (math.sqrt(3.0) * a), index / c))
            distances.append(distance)
    return Reflections(np.array(vectors, float32), np.array(distances, float32))


def cubic_reflections() -> Reflections:
    """Return the reflections of ice Ic down to 1.9 A, (44, 3)."""
    vectors, distances = [], []
    for hkl, distance in _CUBIC_FAMILIES.items():
        for member in sorted(_cubic_members(hkl)):
            vectors.append([index / A_CUBIC_ANGSTROM for index in member])
            distances.append(distance)
    return Reflections(np.array(vectors, float32), np.array(distances, float32))


_TABLES = {HEXAGONAL: hexagonal_reflections(), CUBIC: cubic_reflections()}
_TABLES[STACKING] = _TABLES[CUBIC]


def reflections(phase: int) -> Reflections:
    """Return the table of a phase; stacking-disordered ice has the sharp ones of cubic ice."""
    return _TABLES[phase]


def excitation_error(gz: torch.Tensor, g_squared: torch.Tensor, wavelength: float) -> torch.Tensor:
    """Return s = -(g_z + lambda g^2 / 2) in 1/A; zero is the Bragg condition."""
    return -(gz + 0.5 * wavelength * g_squared)


def two_beam(
    s: torch.Tensor, thickness: torch.Tensor | float, extinction: torch.Tensor | float
) -> torch.Tensor:
    """Return the diffracted share sin^2(pi t s_eff) / (xi s_eff)^2, s_eff^2 = s^2 + xi^-2."""
    inverse = 1.0 / torch.as_tensor(extinction, dtype=s.dtype, device=s.device)
    effective = torch.sqrt(s * s + inverse * inverse)
    return (torch.sin(math.pi * thickness * effective) * inverse / effective) ** 2


def rod(
    s: torch.Tensor, thickness: torch.Tensor, extinction: torch.Tensor, delta: torch.Tensor
) -> torch.Tensor:
    """Return the diffuse share of faulted stacking: weak, but visible over many tilts."""
    coherent = thickness.clamp_max(_ROD_COHERENCE_ANGSTROM)
    strength = 2.0 * (math.pi / extinction) ** 2 * coherent * delta * _ROD_SHARE
    return (strength / (1.0 + (3.0 * s * delta) ** 2)).clamp_max(0.3)


@dataclass(frozen=True, slots=True)
class Beams:
    """The strongest reflections of each grain at one tilt, (G, K) each."""

    s: torch.Tensor
    """Excitation error at the centre of the grain, 1/A."""
    g_length: torch.Tensor
    extinction: torch.Tensor
    shift_x: torch.Tensor
    """Ghost shift per A of defocus, dimensionless: lambda * g_x."""
    shift_y: torch.Tensor
    active: torch.Tensor
    """(G,) bool: any reflection worth computing."""


def _weight(distance: torch.Tensor, thickness: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
    """Return the largest share that a reflection can take within `distance` of its s."""
    strength = (math.pi * thickness / xi).square().clamp_max(1.0)
    return strength / (1.0 + (distance * xi).square())


def strongest_beams(
    orientation: torch.Tensor,
    phases: torch.Tensor,
    bend_span: torch.Tensor,
    thickness: torch.Tensor,
    tilt: torch.Tensor,
    voltage_kv: float,
    keep: int = 4,
) -> Beams:
    """Pick the reflections nearest to Bragg for each grain.

    `orientation` (G, 3, 3) crystal to specimen, `tilt` (3, 3) specimen to microscope,
    `bend_span` (G,) largest local rotation in rad, `thickness` (G,) path in A.
    """
    wavelength = wavelength_angstrom(voltage_kv)
    scale = speed_ratio(voltage_kv) / speed_ratio(300.0)
    count, device = len(phases), orientation.device
    out = torch.zeros((6, count, keep), device=device)
    out[2] = 1e6
    for phase in (HEXAGONAL, CUBIC, STACKING):
        members = torch.nonzero(phases == phase).flatten()
        if len(members) == 0:
            continue
        table = reflections(phase)
        g0 = torch.from_numpy(table.g).to(device)
        xi = torch.from_numpy(table.extinction_angstrom).to(device) * scale
        g = torch.einsum("ij,njk,rk->nri", tilt, orientation[members], g0)
        length = g0.norm(dim=1)
        s = excitation_error(g[..., 2], length**2, wavelength)
        span = bend_span[members, None] * length
        reach = 0.003 if phase == STACKING else 0.0
        distance = (s.abs() - span - reach).clamp_min(0.0)
        best, index = _weight(distance, thickness[members, None], xi).topk(keep, dim=1)
        out[0, members] = s.gather(1, index)
        out[1, members] = length[index]
        out[2, members] = xi[index]
        out[3, members] = wavelength * g[..., 0].gather(1, index)
        out[4, members] = wavelength * g[..., 1].gather(1, index)
        out[5, members] = best
    active = out[5].amax(dim=1) > 0.004
    return Beams(out[0], out[1], out[2], out[3], out[4], active)
