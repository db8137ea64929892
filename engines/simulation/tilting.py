"""How a series tilts: its angles, where each tilt looks, and the grid bar that shades it."""

from __future__ import annotations

import math

import numpy as np
import torch

from engines.simulation.draws import Draws, chance
from engines.simulation.imaging import TiltGeometry
from engines.simulation.parameters import SceneParameters

_STEEPEST_DEG = 70.0


def tilt_angles(draws: Draws, p: SceneParameters, count: int) -> list[float]:
    """Draw nominal angles in degrees: a stretch of a series, scattered ones, or about 0."""
    generator = draws.stream("angles")
    reach = p.tilt_range_deg
    if p.family == "plunge" and chance(generator, 0.5):
        return [float(a) for a in generator.normal(0, 1.0, count)]
    if chance(generator, 0.5) and count * p.axis_step_deg < 2 * reach:
        start = generator.uniform(-reach, reach - p.axis_step_deg * count)
        return [start + p.axis_step_deg * k for k in range(count)]
    return sorted(float(a) for a in generator.uniform(-reach, reach, count))


def tilt_geometry(
    draws: Draws,
    p: SceneParameters,
    index: int,
    angle_deg: float,
    rendered: int,
    scene_px: int,
    pixel_size_angstrom: float,
    device: str,
) -> TiltGeometry:
    """Return where one tilt looks: pretilt taken off, with a small residual shift."""
    generator = draws.stream(f"geometry {index}")
    shift = generator.uniform(-1, 1, 2) * 200.0 / pixel_size_angstrom
    inclined = angle_deg - p.pretilt_deg + generator.normal(0, 0.1)
    return TiltGeometry(
        rendered=rendered,
        scene=scene_px,
        pixel_size_angstrom=pixel_size_angstrom,
        angle_deg=float(np.clip(inclined, -_STEEPEST_DEG, _STEEPEST_DEG)),
        axis_deg=p.axis_deg,
        shift_px=(float(shift[0]), float(shift[1])),
        device=device,
    )


def grid_bar(
    draws: Draws, p: SceneParameters, geometry: TiltGeometry
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where a grid bar shades the picture (it grows with the tilt) and by how much."""
    generator = draws.stream("grid bar")
    shaded = chance(generator, p.distractors.get("grid_bar", 0.0))
    side = -1.0 if chance(generator, 0.5) else 1.0
    start, reach = generator.uniform(25.0, 65.0), generator.uniform(0.01, 0.04)
    axis = torch.arange(geometry.rendered, device=geometry.device) - (geometry.rendered - 1) / 2
    a = math.radians(geometry.axis_deg)
    across = math.cos(a) * axis[None, :] + math.sin(a) * axis[:, None]
    beyond = max(0.0, side * geometry.angle_deg - start) if shaded else 0.0
    edge = geometry.rendered * (0.5 - reach * beyond)
    if beyond == 0.0:
        edge = 10.0 * geometry.rendered
    shade = torch.sigmoid((edge - side * across) / generator.uniform(0.7, 6.0))
    return shade < 0.4, shade.clamp_min(0.004)
