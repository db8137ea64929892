"""How a series tilts: its angles, where each tilt looks, and the grid bar that shades it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engines.simulation.draws import Draws, chance
from engines.simulation.geometry import TiltGeometry
from engines.simulation.parameters import SceneParameters

_STEEPEST_DEG = 70.0
_MOST_SHIFT_ANGSTROM = 300.0


@dataclass(frozen=True, slots=True)
class Visit:
    """One exposure within a series."""

    index: int
    angle_deg: float
    dose_before_e_per_A2: float


def tilt_angles(draws: Draws, p: SceneParameters, count: int) -> list[float]:
    """Draw nominal angles in degrees: a stretch of a series, scattered ones, or about 0."""
    generator = draws.stream("angles")
    reach, step = p.tilt_range_deg, p.axis_step_deg
    if p.scheme == "level":
        return [float(a) for a in generator.normal(0, 1.0, count)]
    if p.scheme != "scattered" and count * step < 2 * reach:
        start = generator.uniform(-reach, reach - step * count)
        return [start + step * k for k in range(count)]
    return sorted(float(a) for a in generator.uniform(-reach, reach, count))


def visits(draws: Draws, p: SceneParameters, angles_deg: Sequence[float]) -> list[Visit]:
    """Return each exposure with the dose that the specimen had before it.

    Series start at the pretilt; those that are not dose-symmetric go up first, then down.
    """
    generator = draws.stream("order")
    upward, whole = chance(generator, 0.5), 2 * p.tilt_range_deg / p.axis_step_deg
    found = []
    for index, angle in enumerate(angles_deg):
        steps = (angle - p.pretilt_deg) / p.axis_step_deg
        if p.scheme == "level":
            rank = 0.0
        elif p.scheme == "bidirectional":
            first = (steps >= 0) == upward
            rank = abs(steps) + (0.0 if first else whole / 2)
        else:
            rank = 2 * abs(steps)
        before = min(round(rank), round(whole)) * p.dose_e_per_A2
        found.append(Visit(index, float(angle), before))
    return found


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
    """Return where one tilt looks: pretilt taken off, with a small residual shift and turn."""
    generator = draws.stream(f"geometry {index}")
    reach = generator.uniform(0.0, _MOST_SHIFT_ANGSTROM) / pixel_size_angstrom
    way = generator.uniform(0, 2 * math.pi)
    inclined = angle_deg - p.pretilt_deg + generator.normal(0, 0.1)
    return TiltGeometry(
        rendered=rendered,
        scene=scene_px,
        pixel_size_angstrom=pixel_size_angstrom,
        angle_deg=float(np.clip(inclined, -_STEEPEST_DEG, _STEEPEST_DEG)),
        axis_deg=p.axis_deg,
        shift_px=(reach * math.cos(way), reach * math.sin(way)),
        device=device,
        spin_deg=generator.uniform(-0.2, 0.2),
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
