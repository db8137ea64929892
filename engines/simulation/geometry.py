"""Where the pixels of a tilted picture lie in the untilted specimen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as functional


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
    spin_deg: float = 0.0
    """Small rotation of this picture about the beam."""

    def matrix(self) -> torch.Tensor:
        """Return the rotation from specimen to microscope, (3, 3) float32."""
        a, t = math.radians(self.axis_deg), math.radians(self.angle_deg)
        to_axis = _about_beam(a)
        turn = torch.tensor(
            [[math.cos(t), 0.0, math.sin(t)], [0.0, 1.0, 0.0], [-math.sin(t), 0.0, math.cos(t)]]
        )
        spin = _about_beam(math.radians(self.spin_deg)).T
        return (spin @ to_axis.T @ turn @ to_axis).to(self.device)

    @property
    def path_factor(self) -> float:
        """How much longer the beam's path through a layer is than at no tilt."""
        return 1.0 / math.cos(math.radians(self.angle_deg))

    def linear(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the 2 x 2 map from picture to scene coordinates (x, y), both about the centre."""
        a, t = math.radians(self.axis_deg), math.radians(self.angle_deg)
        s = math.radians(self.spin_deg)
        stretch = 1.0 / math.cos(t)
        c, d = math.cos(a), math.sin(a)
        xx, xy, yy = c * c * stretch + d * d, c * d * (stretch - 1.0), d * d * stretch + c * c
        cs, ss = math.cos(s), math.sin(s)
        return (xx * cs - xy * ss, xx * ss + xy * cs), (xy * cs - yy * ss, xy * ss + yy * cs)

    def _offset(self, z_angstrom: float) -> tuple[float, float]:
        """Return where the centre of the picture lies at one height, px from the scene's centre."""
        a, t = math.radians(self.axis_deg), math.radians(self.angle_deg)
        sideways = -z_angstrom / self.pixel_size_angstrom * math.tan(t)
        (xx, xy), (yx, yy) = self.linear()
        dx, dy = self.shift_px
        return (
            xx * dx + xy * dy + math.cos(a) * sideways,
            yx * dx + yy * dy + math.sin(a) * sideways,
        )

    def coordinates(self, z_angstrom: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x and y in scene pixels (reflected at the borders) at one height, float32."""
        x, y = _level(self)
        dx, dy = self._offset(z_angstrom)
        centre = (self.scene - 1) / 2
        return reflect(x + (dx + centre), self.scene), reflect(y + (dy + centre), self.scene)

    def sample(self, planes: torch.Tensor, z_angstrom: float | Sequence[float]) -> torch.Tensor:
        """Interpolate planes: (C, scene, scene) at one height, or (L, C, ...) at L heights."""
        if isinstance(z_angstrom, float | int):
            return self.sample(planes[None], [float(z_angstrom)])[0]
        half = 2.0 / (self.scene - 1)
        offsets = torch.tensor([self._offset(z) for z in z_angstrom], device=planes.device)
        grid = _grid(self)[None] + offsets[:, None, None, :] * half
        return functional.grid_sample(planes, grid, padding_mode="reflection", align_corners=True)

    def nearest(self, z_angstrom: float) -> torch.Tensor:
        """Return flat scene indices of the nearest pixels at one height, int64."""
        x, y = self.coordinates(z_angstrom)
        flat: torch.Tensor = (y.round() * self.scene + x.round()).long()
        return flat

    def elevation(self) -> torch.Tensor:
        """Return how far the middle of the specimen rises along the beam, A, (rendered,) * 2."""
        a, t = math.radians(self.axis_deg + self.spin_deg), math.radians(self.angle_deg)
        axis = torch.arange(self.rendered, device=self.device) - (self.rendered - 1) / 2
        across = math.cos(a) * axis[None, :] + math.sin(a) * axis[:, None]
        return across * (self.pixel_size_angstrom * math.tan(t))

    def seen_at(self, side: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where the middle square of the specimen is seen in this picture.

        Both (side, side): flat picture indices, int64, and whether the place is in the picture.
        """
        (xx, xy), (yx, yy) = self.linear()
        axis = torch.arange(side, device=self.device) - (side - 1) / 2
        dx, dy = self._offset(0.0)
        x, y = axis[None, :] - dx, axis[:, None] - dy
        scale = xx * yy - xy * yx
        centre = (self.rendered - 1) / 2
        column = ((yy * x - xy * y) / scale + centre).round().long()
        row = ((xx * y - yx * x) / scale + centre).round().long()
        last = self.rendered - 1
        inside = (column >= 0) & (column <= last) & (row >= 0) & (row <= last)
        return row.clamp(0, last) * self.rendered + column.clamp(0, last), inside


def _about_beam(angle_rad: float) -> torch.Tensor:
    """Return the turn of the coordinates by an angle about the beam, (3, 3)."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


@lru_cache(maxsize=2)
def _level(geometry: TiltGeometry) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scene x and y of every pixel about the centre, without shift and height."""
    (xx, xy), (yx, yy) = geometry.linear()
    n = geometry.rendered
    axis = torch.arange(n, device=geometry.device, dtype=torch.float32) - (n - 1) / 2
    return xx * axis[None, :] + xy * axis[:, None], yx * axis[None, :] + yy * axis[:, None]


@lru_cache(maxsize=2)
def _grid(geometry: TiltGeometry) -> torch.Tensor:
    """Return the same, in units of half the scene, as (rendered, rendered, 2)."""
    return torch.stack(_level(geometry), dim=-1) * (2.0 / (geometry.scene - 1))


def reflect(position: torch.Tensor, size: int) -> torch.Tensor:
    """Mirror positions into 0..size-1."""
    if float(position.min()) >= 0.0 and float(position.max()) <= size - 1:
        return position
    period = 2.0 * (size - 1)
    return (size - 1) - (torch.remainder(position, period) - (size - 1)).abs()
