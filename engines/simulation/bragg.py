"""Bragg contrast of all grains at one tilt: what the direct beam loses and where it lands."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engines.simulation.crystals import GrainLevel, GrainTable
from engines.simulation.diffraction import STACKING, Beams, rod, strongest_beams, two_beam
from engines.simulation.imaging import TiltGeometry

_NEAR_ANGSTROM = 600.0
"""A ghost counts as ice percent within this distance of its own grain."""


@dataclass(frozen=True, slots=True)
class Grains:
    """Levels and table of a scene on the device that computes."""

    ids: list[torch.Tensor]
    """(scene * scene,) int64 each."""
    thickness: list[torch.Tensor]
    heights_angstrom: list[float]
    counted: list[bool]
    phase: torch.Tensor
    orientation: torch.Tensor
    centre: torch.Tensor
    radius: torch.Tensor
    bend: torch.Tensor
    mosaic: torch.Tensor
    fault: torch.Tensor
    stripe: torch.Tensor
    mosaic_field: torch.Tensor
    """(scene * scene,) smooth field of unit deviation: local lattice rotation."""
    mean_thickness: torch.Tensor

    @classmethod
    def on(
        cls, device: str, levels: list[GrainLevel], table: GrainTable, field: torch.Tensor
    ) -> Grains:
        """Move the grains of a scene to a device."""
        count = len(table.phase)
        total, pixels = torch.zeros(count), torch.zeros(count)
        for level in levels:
            ids = torch.from_numpy(level.ids).flatten().long()
            inside = ids >= 0
            thickness = torch.from_numpy(level.thickness_angstrom).flatten()[inside]
            total.index_add_(0, ids[inside], thickness)
            pixels.index_add_(0, ids[inside], torch.ones_like(thickness))
        return cls(
            ids=[torch.from_numpy(x.ids).flatten().long().to(device) for x in levels],
            thickness=[torch.from_numpy(x.thickness_angstrom).flatten().to(device) for x in levels],
            heights_angstrom=[x.z_angstrom for x in levels],
            counted=[x.counted for x in levels],
            phase=torch.from_numpy(table.phase).to(device),
            orientation=torch.from_numpy(table.orientation).to(device),
            centre=torch.from_numpy(table.centre_px).to(device),
            radius=torch.from_numpy(table.radius_px).to(device),
            bend=torch.from_numpy(table.bend_per_px).to(device),
            mosaic=torch.from_numpy(table.mosaic_rad).to(device),
            fault=torch.from_numpy(table.fault_angstrom).to(device),
            stripe=torch.from_numpy(table.stripe).to(device),
            mosaic_field=field.flatten().to(device),
            mean_thickness=(total / pixels.clamp_min(1.0)).to(device),
        )


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
    present: torch.Tensor
    """bool: counted crystalline ice in the path, diffracting or not."""


@dataclass(frozen=True, slots=True)
class Beamline:
    """What diffraction has to know of the microscope at one tilt."""

    voltage_kv: float
    defocus_angstrom: float
    aperture_per_angstrom: float
    ghost_efficiency: float
    pixel_size_angstrom: float


class _Sums:
    """Running sums over the levels of one tilt."""

    def __init__(self, side: int, device: str) -> None:
        self.side = side
        self.direct = torch.ones(side * side, device=device)
        self.counted = torch.ones(side * side, device=device)
        self.ghost = torch.zeros(side * side, device=device)
        self.ghost_counted = torch.zeros(side * side, device=device)
        self.by_phase = torch.zeros((3, side * side), device=device)
        self.present = torch.zeros(side * side, dtype=torch.bool, device=device)

    def contrast(self) -> Contrast:
        shape = (self.side, self.side)
        return Contrast(
            self.direct.view(shape),
            self.counted.view(shape),
            self.ghost.view(shape),
            self.ghost_counted.view(shape),
            self.by_phase.view(3, *shape),
            self.present.view(shape),
        )


def diffract(
    grains: Grains | None,
    geometry: TiltGeometry,
    beamline: Beamline,
    transmission: torch.Tensor,
    floor: torch.Tensor | None = None,
) -> Contrast:
    """Compute the Bragg contrast of one tilt.

    `transmission` (rendered, rendered) is what absorption leaves of the beam; ghosts carry it
    from where they start. `floor` (G,) is a weak loss of each grain to other reflections.
    """
    sums = _Sums(geometry.rendered, geometry.device)
    if grains is None or len(grains.phase) == 0:
        return sums.contrast()
    beams = strongest_beams(
        grains.orientation,
        grains.phase,
        grains.bend.norm(dim=1) * grains.radius + 2 * grains.mosaic,
        grains.mean_thickness * geometry.path_factor,
        geometry.matrix(),
        beamline.voltage_kv,
    )
    flat = transmission.flatten()
    for level in range(len(grains.ids)):
        _one_level(grains, level, geometry, beamline, beams, flat, floor, sums)
    return sums.contrast()


def _one_level(
    grains: Grains,
    level: int,
    geometry: TiltGeometry,
    beamline: Beamline,
    beams: Beams,
    transmission: torch.Tensor,
    floor: torch.Tensor | None,
    sums: _Sums,
) -> None:
    x, y = geometry.coordinates(grains.heights_angstrom[level])
    source = (y.round() * geometry.scene + x.round()).long().flatten()
    ids = grains.ids[level][source]
    inside = ids >= 0
    counted = grains.counted[level]
    if counted:
        sums.present |= inside
    if floor is not None and counted:
        sums.direct *= torch.where(inside, 1.0 - floor[ids.clamp_min(0)], 1.0)
    pixels = torch.nonzero(inside & beams.active[ids.clamp_min(0)]).flatten()
    if len(pixels) == 0:
        return
    grain = ids[pixels]
    offset = torch.stack((x.flatten()[pixels], y.flatten()[pixels]), 1) - grains.centre[grain]
    thickness = grains.thickness[level][source[pixels]] * geometry.path_factor
    field = grains.mosaic_field[source[pixels]]
    shares = _shares(grains, grain, offset, thickness, field, beams)
    lost = sums.direct[pixels, None] * shares
    loss = 1.0 - shares.sum(1)
    sums.direct[pixels] *= loss
    if counted:
        sums.counted[pixels] *= loss
        _add_phase(grains, grain, pixels, shares.sum(1), sums)
    _add_ghosts(beams, grain, pixels, lost * transmission[pixels, None], beamline, counted, sums)
    if counted:
        _ghost_phase(beams, grains, grain, pixels, shares, beamline, sums)


def _shares(
    grains: Grains,
    grain: torch.Tensor,
    offset: torch.Tensor,
    thickness: torch.Tensor,
    field: torch.Tensor,
    beams: Beams,
) -> torch.Tensor:
    """Return the share that each reflection takes at each pixel, (M, K)."""
    turn = (grains.bend[grain] * offset).sum(1) + grains.mosaic[grain] * field
    s = beams.s[grain] + turn[:, None] * beams.g_length[grain]
    extinction, path = beams.extinction[grain], thickness[:, None]
    shares = two_beam(s, path, extinction)
    faulted = grains.phase[grain] == STACKING
    if bool(faulted.any()):
        wave = grains.stripe[grain]
        stripe = 0.5 + 0.5 * torch.sin((wave[:, :2] * offset).sum(1) + wave[:, 2])
        diffuse = rod(s, path, extinction, grains.fault[grain, None]) * 2 * stripe[:, None]
        shares = torch.where(faulted[:, None], 0.35 * shares + diffuse, shares)
    total = shares.sum(1, keepdim=True)
    return shares * (0.97 / total.clamp_min(0.97))


def _landing(
    beams: Beams, grain: torch.Tensor, pixels: torch.Tensor, beamline: Beamline, side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return landing pixel (M, K), whether it is inside and passed, and the shift in A."""
    per_px = beamline.defocus_angstrom / beamline.pixel_size_angstrom
    dx, dy = beams.shift_x[grain] * per_px, beams.shift_y[grain] * per_px
    column = (pixels % side)[:, None] + dx.round().long()
    row = torch.div(pixels, side, rounding_mode="floor")[:, None] + dy.round().long()
    passed = (beams.g_length[grain] < beamline.aperture_per_angstrom) & (beams.g_length[grain] > 0)
    passed &= (row >= 0) & (row < side) & (column >= 0) & (column < side)
    target = row.clamp(0, side - 1) * side + column.clamp(0, side - 1)
    return target, passed, torch.hypot(dx, dy) * beamline.pixel_size_angstrom


def _add_ghosts(
    beams: Beams,
    grain: torch.Tensor,
    pixels: torch.Tensor,
    electrons: torch.Tensor,
    beamline: Beamline,
    counted: bool,
    sums: _Sums,
) -> None:
    target, passed, shift = _landing(beams, grain, pixels, beamline, sums.side)
    arriving = torch.where(passed, electrons * beamline.ghost_efficiency, 0.0)
    sums.ghost.index_add_(0, target.flatten(), arriving.flatten())
    if counted:
        near = torch.where(shift <= _NEAR_ANGSTROM, arriving, 0.0)
        sums.ghost_counted.index_add_(0, target.flatten(), near.flatten())


def _add_phase(
    grains: Grains, grain: torch.Tensor, pixels: torch.Tensor, share: torch.Tensor, sums: _Sums
) -> None:
    for phase in (1, 2, 3):
        own = torch.where(grains.phase[grain] == phase, share, 0.0)
        sums.by_phase[phase - 1, pixels] += own


def _ghost_phase(
    beams: Beams,
    grains: Grains,
    grain: torch.Tensor,
    pixels: torch.Tensor,
    shares: torch.Tensor,
    beamline: Beamline,
    sums: _Sums,
) -> None:
    target, passed, shift = _landing(beams, grain, pixels, beamline, sums.side)
    arriving = torch.where(passed & (shift <= _NEAR_ANGSTROM), shares, 0.0)
    for phase in (1, 2, 3):
        own = torch.where(grains.phase[grain, None] == phase, arriving, 0.0)
        sums.by_phase[phase - 1].index_add_(0, target.flatten(), own.flatten())


def mosaic_scale_px(pixel_size_angstrom: float) -> float:
    """Return the length over which a mosaic crystal turns, about 15 nm, in pixels."""
    return max(4.0, 150.0 / pixel_size_angstrom)
