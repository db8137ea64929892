"""The grains of a scene as tensors, for whichever device computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engines.simulation.crystals import GrainLevel, GrainTable


@dataclass(frozen=True, slots=True)
class Level:
    """The grains at one height."""

    ids: torch.Tensor
    """(scene * scene,) int64, -1 where there is no crystal."""
    thickness: torch.Tensor
    z_angstrom: float
    counted: bool
    phase: int


@dataclass(frozen=True, slots=True)
class Grains:
    """Levels and table of a scene on the device that computes."""

    levels: list[Level]
    phase: torch.Tensor
    orientation: torch.Tensor
    centre: torch.Tensor
    radius: torch.Tensor
    bend: torch.Tensor
    mosaic: torch.Tensor
    buckle: torch.Tensor
    fault: torch.Tensor
    stripe: torch.Tensor
    mosaic_field: torch.Tensor
    """(scene * scene,) field of unit deviation: local lattice rotation over some 15 nm."""
    buckle_field: torch.Tensor
    """The same over some 120 nm: it turns straight bend contours into strokes."""
    mean_thickness: torch.Tensor
    counted: int
    """How many of the first grains are ice of the specimen; the others are surface ice."""

    @classmethod
    def on(
        cls,
        device: str,
        levels: list[GrainLevel],
        table: GrainTable,
        mosaic_field: torch.Tensor,
        buckle_field: torch.Tensor,
    ) -> Grains:
        """Move the grains of a scene to a device."""
        count = len(table.phase)
        total, pixels = torch.zeros(count), torch.zeros(count)
        moved = []
        for level in levels:
            ids = torch.from_numpy(level.ids).flatten().long()
            depth = torch.from_numpy(level.thickness_angstrom).flatten()
            inside = ids >= 0
            total.index_add_(0, ids[inside], depth[inside])
            pixels.index_add_(0, ids[inside], torch.ones(int(inside.sum())))
            on_device = (ids.to(device), depth.to(device))
            moved.append(Level(*on_device, level.z_angstrom, level.counted, level.phase))
        return cls(
            levels=moved,
            phase=torch.from_numpy(table.phase).to(device),
            orientation=torch.from_numpy(table.orientation).to(device),
            centre=torch.from_numpy(table.centre_px).to(device),
            radius=torch.from_numpy(table.radius_px).to(device),
            bend=torch.from_numpy(table.bend_per_px).to(device),
            mosaic=torch.from_numpy(table.mosaic_rad).to(device),
            buckle=torch.from_numpy(table.buckle_rad).to(device),
            fault=torch.from_numpy(table.fault_angstrom).to(device),
            stripe=torch.from_numpy(table.stripe).to(device),
            mosaic_field=mosaic_field.flatten().to(device),
            buckle_field=buckle_field.flatten().to(device),
            counted=int(table.counted.sum()),
            mean_thickness=(total / pixels.clamp_min(1.0)).to(device),
        )

    def span(self) -> torch.Tensor:
        """Return how far the lattice turns within each grain at most, about, rad, (G,)."""
        turn: torch.Tensor = self.bend.norm(dim=1) * self.radius
        return turn + 2 * self.mosaic + 2 * self.buckle


def turned(orientation: torch.Tensor, turns_rad: torch.Tensor) -> torch.Tensor:
    """Turn orientations (G, 3, 3) by small rotation vectors (G, 3), to first order."""
    x, y, z = turns_rad.unbind(1)
    zero = torch.zeros_like(x)
    skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), 1).view(-1, 3, 3)
    return orientation + torch.matmul(skew, orientation)
