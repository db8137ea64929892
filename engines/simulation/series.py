"""A simulated tilt series: one scene seen at several tilts, with the exact truth of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from engines.simulation.draws import Draws
from engines.simulation.families import known
from engines.simulation.geometry import TiltGeometry
from engines.simulation.parameters import SceneChoices
from engines.simulation.priors import draw_parameters
from engines.simulation.render import Rendered, render
from engines.simulation.scene import build_scene
from engines.simulation.tilt import SimulatedSeries, SimulatedTilt
from engines.simulation.tilting import tilt_angles, tilt_geometry, visits

__all__ = ["SimulatedSeries", "SimulatedTilt", "simulate_series"]

_MARGIN_PX = 28
_LEAST_MARGIN, _MOST_MARGIN = 1.12, 1.5
"""How much wider than a picture the scene is: tilted pictures see more of it. Mirrored beyond."""


def simulate_series(
    seed: int,
    family: str,
    *,
    n_tilts: int,
    size_px: int = 320,
    pixel_size_angstrom: float = 13.5,
    angles_deg: Sequence[float] | None = None,
    device: str = "cpu",
    overrides: SceneChoices | None = None,
) -> SimulatedSeries:
    """Simulate a tilt series; the same arguments give the same series.

    Raises ValueError for an unknown family or angles that do not match `n_tilts`.
    """
    if not known(family):
        raise ValueError(f"There is no simulated family {family!r}; see FAMILIES.")
    if angles_deg is not None and len(angles_deg) != n_tilts:
        raise ValueError(f"{len(angles_deg)} angles were given for {n_tilts} tilts.")
    draws = Draws(seed, family)
    p = draw_parameters(draws, family, overrides)
    angles = list(angles_deg) if angles_deg is not None else tilt_angles(draws, p, n_tilts)
    rendered = 32 * math.ceil((size_px + 2 * _MARGIN_PX) / 32)
    scene_px = _scene_side(rendered, [angle - p.pretilt_deg for angle in angles])
    geometries = [
        tilt_geometry(draws, p, index, angle, rendered, scene_px, pixel_size_angstrom, device)
        for index, angle in enumerate(angles)
    ]
    rotations = [g.matrix().cpu().numpy() for g in geometries]
    with torch.inference_mode():
        scene = build_scene(p, draws, scene_px, pixel_size_angstrom, rotations, device)
        done = [
            render(scene, draws, visit, geometry, size_px)
            for visit, geometry in zip(visits(draws, p, angles), geometries, strict=True)
        ]
        occupancy = _occupancy(done, geometries, size_px)
    tilts = tuple(one.tilt for one in done)
    present = float(tilts[0].metadata["present_percent"]) if tilts else 0.0
    return SimulatedSeries(seed, family, tilts, pixel_size_angstrom, present, occupancy)


def _scene_side(rendered: int, inclinations_deg: Sequence[float]) -> int:
    """Return the side of a scene that pictures at these inclinations look at."""
    steepest = max((abs(angle) for angle in inclinations_deg), default=0.0)
    margin = 1.06 / math.cos(math.radians(min(steepest, 70.0)))
    margin = min(_MOST_MARGIN, max(_LEAST_MARGIN, margin))
    return 16 * math.ceil(rendered * margin / 16)


def _occupancy(done: Sequence[Rendered], geometries: Sequence[TiltGeometry], size_px: int) -> float:
    """Return the share of the specimen that flashed in any tilt, of what was seen, percent."""
    flashed, seen = np.zeros((size_px, size_px), bool), np.zeros((size_px, size_px), bool)
    for one, geometry in zip(done, geometries, strict=True):
        if not one.flashed.any() and seen.all():
            continue
        at, inside = (part.cpu().numpy() for part in geometry.seen_at(size_px))
        flashed |= one.flashed.ravel()[at] & inside & one.seen.ravel()[at]
        seen |= one.seen.ravel()[at] & inside
    return 100.0 * float(flashed.sum()) / max(1, int(seen.sum()))
