"""Bragg contrast of all grains at one tilt: what the direct beam loses and where it lands."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engines.simulation.diffraction import STACKING, Beams, rod, strongest_beams, two_beam
from engines.simulation.geometry import TiltGeometry
from engines.simulation.grains import Grains, Level, turned

__all__ = ["Beamline", "Contrast", "Exposure", "Grains", "diffract"]

_NEAR_ANGSTROM = 600.0
"""A ghost counts as ice percent within this distance of its own grain."""
_MOST = 0.97
"""Share of the direct beam that all reflections together can take."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """Bragg contrast at one tilt, all (rendered, rendered) float32, before any blur."""

    direct: torch.Tensor
    """Share of the beam that no crystal took, surface ice included."""
    direct_counted: torch.Tensor
    """The same with the counted ice of the specimen alone."""
    ghost: torch.Tensor
    """Diffracted electrons where they land, as a share of the incoming beam."""
    ghost_counted: torch.Tensor
    """Those of counted ice that land near their own grain."""
    by_phase: torch.Tensor
    """(3, rendered, rendered) dark plus bright contrast of each phase."""
    path: torch.Tensor
    """(3, rendered, rendered) A of counted ice of each phase in the beam's way."""

    @property
    def present(self) -> torch.Tensor:
        """Where there is counted crystalline ice, diffracting or not: bool."""
        return self.path.sum(0) > 0


@dataclass(frozen=True, slots=True)
class Beamline:
    """What diffraction has to know of the microscope at one tilt."""

    voltage_kv: float
    defocus_angstrom: float
    aperture_per_angstrom: float
    ghost_efficiency: float
    pixel_size_angstrom: float


@dataclass(frozen=True, slots=True)
class Exposure:
    """What the beam has done to the crystals by one tilt."""

    floor: torch.Tensor | None = None
    """(G,) weak loss of each grain to many other reflections."""
    turns_rad: torch.Tensor | None = None
    """(G, 3) small rotations of the grains under the beam."""
    fade: float = 1.0
    """What the dose so far has left of every reflection."""
    elevation: torch.Tensor | None = None
    """(rendered, rendered) A by which the defocus differs from that of the middle."""


class _Sums:
    """Running sums over the levels of one tilt."""

    def __init__(self, side: int, device: str) -> None:
        self.side = side
        self.direct = torch.ones(side * side, device=device)
        self.counted = torch.ones(side * side, device=device)
        self.ghost = torch.zeros(side * side, device=device)
        self.ghost_counted = torch.zeros(side * side, device=device)
        self.by_phase = torch.zeros((3, side * side), device=device)
        self.path = torch.zeros((3, side * side), device=device)

    def contrast(self) -> Contrast:
        shape = (self.side, self.side)
        return Contrast(
            self.direct.view(shape),
            self.counted.view(shape),
            self.ghost.view(shape),
            self.ghost_counted.view(shape),
            self.by_phase.view(3, *shape),
            self.path.view(3, *shape),
        )


@dataclass(frozen=True, slots=True)
class _Landing:
    """Where the diffracted electrons of some pixels arrive, (M, K) each."""

    target: torch.Tensor
    """Flat pixel."""
    passed: torch.Tensor
    """Whether they pass the aperture and land in the picture."""
    near: torch.Tensor
    """Whether they land near enough to count as their grain's."""


@dataclass(frozen=True, slots=True)
class _View:
    """What all levels of one tilt share."""

    grains: Grains
    geometry: TiltGeometry
    beamline: Beamline
    beams: Beams
    transmission: torch.Tensor
    exposure: Exposure
    sums: _Sums


def diffract(
    grains: Grains | None,
    geometry: TiltGeometry,
    beamline: Beamline,
    transmission: torch.Tensor,
    exposure: Exposure | None = None,
) -> Contrast:
    """Compute the Bragg contrast of one tilt.

    `transmission` (rendered, rendered) is what absorption leaves of the beam; ghosts carry it
    from where they start.
    """
    sums = _Sums(geometry.rendered, geometry.device)
    if grains is None or len(grains.phase) == 0:
        return sums.contrast()
    exposure = exposure or Exposure()
    orientation = grains.orientation
    if exposure.turns_rad is not None:
        orientation = turned(orientation, exposure.turns_rad)
    beams = strongest_beams(
        orientation,
        grains.phase,
        grains.span(),
        grains.mean_thickness * geometry.path_factor,
        geometry.matrix(),
        beamline.voltage_kv,
    )
    flat = transmission.flatten()
    view = _View(grains, geometry, beamline, beams, flat, exposure, sums)
    for level in grains.levels:
        _one_level(view, level)
    return sums.contrast()


def _one_level(view: _View, level: Level) -> None:
    geometry, sums, exposure = view.geometry, view.sums, view.exposure
    x, y = geometry.coordinates(level.z_angstrom)
    source = (y.round() * geometry.scene + x.round()).long().flatten()
    ids = level.ids[source]
    inside = ids >= 0
    if level.counted:
        depth = level.thickness[source] * geometry.path_factor
        sums.path[level.phase - 1] += torch.where(inside, depth, 0.0)
        if exposure.floor is not None:
            sums.direct *= torch.where(inside, 1.0 - exposure.floor[ids.clamp_min(0)], 1.0)
    pixels = torch.nonzero(inside & view.beams.active[ids.clamp_min(0)]).flatten()
    if len(pixels) == 0:
        return
    grain, source = ids[pixels], source[pixels]
    offset = torch.stack((x.flatten()[pixels], y.flatten()[pixels]), 1) - view.grains.centre[grain]
    thickness = level.thickness[source] * geometry.path_factor
    turn = (view.grains.bend[grain] * offset).sum(1)
    turn += view.grains.mosaic[grain] * view.grains.mosaic_field[source]
    turn += view.grains.buckle[grain] * view.grains.buckle_field[source]
    shares = _shares(view, level.phase, grain, offset, thickness, turn)
    lost = sums.direct[pixels, None] * shares * view.transmission[pixels, None]
    total = shares.sum(1)
    sums.direct[pixels] *= 1.0 - total
    landing = _landing(view, grain, pixels)
    arriving = torch.where(landing.passed, lost * view.beamline.ghost_efficiency, 0.0)
    target = landing.target.flatten()
    sums.ghost.index_add_(0, target, arriving.flatten())
    if level.counted:
        sums.counted[pixels] *= 1.0 - total
        near = torch.where(landing.near, arriving, 0.0)
        sums.ghost_counted.index_add_(0, target, near.flatten())
        own = sums.by_phase[level.phase - 1]
        own[pixels] += total
        own.index_add_(0, target, torch.where(landing.near, shares, 0.0).flatten())


def _shares(
    view: _View,
    phase: int,
    grain: torch.Tensor,
    offset: torch.Tensor,
    thickness: torch.Tensor,
    turn: torch.Tensor,
) -> torch.Tensor:
    """Return the share that each reflection takes at each pixel, (M, K)."""
    beams = view.beams
    s = beams.s[grain] + turn[:, None] * beams.g_length[grain]
    extinction, path = beams.extinction[grain], thickness[:, None]
    shares = two_beam(s, path, extinction)
    if phase == STACKING:
        wave = view.grains.stripe[grain]
        along = (wave[:, :2] * offset).sum(1)
        uneven = 1.1 * torch.sin(0.37 * along + wave[:, 2]) + 0.8 * torch.sin(0.61 * along)
        stripe = 0.5 + 0.5 * torch.sin(along + wave[:, 2] + uneven)
        diffuse = rod(s, path, extinction, view.grains.fault[grain, None])
        shares = 0.35 * shares + diffuse * 2 * stripe[:, None]
    shares = shares * view.exposure.fade
    total = shares.sum(1, keepdim=True)
    return shares * (_MOST / total.clamp_min(_MOST))


def _landing(view: _View, grain: torch.Tensor, pixels: torch.Tensor) -> _Landing:
    beams, beamline, side = view.beams, view.beamline, view.sums.side
    defocus = torch.full((len(pixels),), beamline.defocus_angstrom, device=pixels.device)
    if view.exposure.elevation is not None:
        defocus = defocus + view.exposure.elevation.flatten()[pixels]
    per_px = (defocus / beamline.pixel_size_angstrom)[:, None]
    dx, dy = beams.shift_x[grain] * per_px, beams.shift_y[grain] * per_px
    column = (pixels % side)[:, None] + dx.round().long()
    row = torch.div(pixels, side, rounding_mode="floor")[:, None] + dy.round().long()
    passed = (beams.g_length[grain] < beamline.aperture_per_angstrom) & (beams.g_length[grain] > 0)
    passed &= (row >= 0) & (row < side) & (column >= 0) & (column < side)
    target = row.clamp(0, side - 1) * side + column.clamp(0, side - 1)
    shift = torch.hypot(dx, dy) * beamline.pixel_size_angstrom
    return _Landing(target, passed, passed & (shift <= _NEAR_ANGSTROM))
