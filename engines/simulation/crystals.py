"""Where crystalline ice lies and how its grains are turned: Voronoi or polygon mosaics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import float32, int32, int64
from numpy.typing import NDArray

from engines.simulation.canvas import Canvas
from engines.simulation.diffraction import CUBIC, HEXAGONAL, STACKING
from engines.simulation.draws import Draws, chance, log_uniform
from engines.simulation.mosaics import (
    Ids,
    Plane,
    grain_geometry,
    ice_region,
    polygons,
    voronoi,
)
from engines.simulation.orientation import bragg_rotation, random_rotations, small_rotations
from engines.simulation.parameters import SceneParameters


@dataclass(slots=True)
class GrainTable:
    """One row per grain of the scene."""

    phase: NDArray[int64]
    orientation: NDArray[float32]
    """(G, 3, 3) rotation from crystal to specimen."""
    centre_px: NDArray[float32]
    """(G, 2) x, y in scene pixels."""
    radius_px: NDArray[float32]
    bend_per_px: NDArray[float32]
    """(G, 2) lattice rotation in rad per pixel of x and y."""
    mosaic_rad: NDArray[float32]
    fault_angstrom: NDArray[float32]
    """Typical distance between stacking faults."""
    stripe: NDArray[float32]
    """(G, 3) wave vector x, y in rad per pixel and its phase, of the faults' stripes."""


@dataclass(slots=True)
class GrainLevel:
    """The grains at one height."""

    ids: Ids
    """(n, n), -1 where there is no crystal."""
    thickness_angstrom: Plane
    z_angstrom: float
    counted: bool
    """False for surface ice, which is never ice percent."""


@dataclass(frozen=True, slots=True)
class Habit:
    """How grains of one kind grow."""

    size_angstrom: tuple[float, float]
    anisotropy: tuple[float, float]
    bend_deg_per_um: tuple[float, float]
    mosaic_deg: tuple[float, float]
    exclusion: tuple[float, float]
    """Share of texture and solute that the crystal pushes out."""


HABITS = {
    "hexagonal": Habit((600.0, 5000.0), (1.0, 1.8), (0.0, 12.0), (0.0, 0.06), (0.6, 0.9)),
    "cubic": Habit((180.0, 650.0), (1.0, 1.3), (0.0, 6.0), (0.0, 0.08), (0.0, 0.3)),
    "stacking": Habit((350.0, 1200.0), (2.0, 5.0), (0.0, 8.0), (0.0, 0.12), (0.3, 0.5)),
    "brushstroke": Habit((1500.0, 3500.0), (1.0, 3.0), (4.0, 14.0), (0.02, 0.18), (0.2, 0.7)),
}
_PHASE = {"hexagonal": HEXAGONAL, "cubic": CUBIC, "stacking": STACKING, "brushstroke": HEXAGONAL}


class CrystalBuilder:
    """Collects grain levels of a scene and numbers their grains."""

    def __init__(
        self, parameters: SceneParameters, canvas: Canvas, tilts: list[NDArray[float32]]
    ) -> None:
        self.parameters = parameters
        self.canvas = canvas
        self.tilts = tilts
        self.levels: list[GrainLevel] = []
        self._tables: list[GrainTable] = []
        self._count = 0

    def table(self) -> GrainTable:
        """Return all grains added so far as one table."""
        names = GrainTable.__dataclass_fields__
        joined = {k: np.concatenate([getattr(t, k) for t in self._tables]) for k in names}
        return GrainTable(**joined)

    def add(
        self,
        generator: np.random.Generator,
        kind: str,
        local_ids: Ids,
        thickness: Plane,
        z_angstrom: float,
        common: NDArray[float32] | None = None,
        counted: bool = True,
    ) -> None:
        """Number the grains of one level and draw what belongs to each."""
        shifted = np.where(local_ids < 0, -1, local_ids + self._count).astype(int32)
        self.levels.append(GrainLevel(shifted, thickness, z_angstrom, counted))
        centre, radius = grain_geometry(np.where(local_ids < 0, 0, local_ids))
        grains = self._draw(generator, kind, len(radius), common)
        grains.centre_px, grains.radius_px = centre, radius
        self._tables.append(grains)
        self._count += len(radius)

    def _draw(
        self,
        generator: np.random.Generator,
        kind: str,
        count: int,
        common: NDArray[float32] | None,
    ) -> GrainTable:
        habit, p = HABITS[kind], self.parameters
        px_um = p_um(self.canvas.pixel_size_angstrom)
        if common is None:
            orientation = random_rotations(generator, count)
        else:
            spread = math.radians(log_uniform(generator, 2.0, 9.0))
            orientation = np.asarray(small_rotations(generator, count, spread) @ common, float32)
        boost = p.bragg_boost if p.ice_layout == "sparse" else 0.2 * p.bragg_boost
        for index in np.flatnonzero(generator.random(count) < boost):
            tilt = self.tilts[int(generator.integers(len(self.tilts)))]
            orientation[index] = bragg_rotation(generator, _PHASE[kind], tilt, p.voltage_kv)
        bend = math.radians(generator.uniform(*habit.bend_deg_per_um)) * px_um
        period = generator.uniform(90.0, 250.0, count) / self.canvas.pixel_size_angstrom
        direction = generator.uniform(0, math.pi, count)
        k = 2 * math.pi / np.maximum(period, 4.0)
        stripe = np.stack((k * np.cos(direction), k * np.sin(direction), direction * 7.0), 1)
        mosaic = math.radians(generator.uniform(*habit.mosaic_deg))
        return GrainTable(
            phase=np.full(count, _PHASE[kind], int64),
            orientation=orientation,
            centre_px=np.zeros((count, 2), float32),
            radius_px=np.zeros(count, float32),
            bend_per_px=generator.normal(0, max(bend, 1e-9), (count, 2)).astype(float32),
            mosaic_rad=np.full(count, mosaic, float32),
            fault_angstrom=generator.uniform(60.0, 180.0, count).astype(float32),
            stripe=stripe.astype(float32),
        )


def p_um(pixel_size_angstrom: float) -> float:
    """Return a pixel's length in micrometres."""
    return pixel_size_angstrom * 1e-4


def add_specimen_ice(builder: CrystalBuilder, draws: Draws) -> list[str]:
    """Grow the crystalline ice of a scene; returns the kinds grown, [] if there is none."""
    p = builder.parameters
    if p.ice_kind == "none":
        return []
    generator = draws.stream("ice")
    kinds = [p.ice_kind]
    if p.ice_kind == "mixed":
        kinds = [str(k) for k in generator.choice(["hexagonal", "cubic", "stacking"], 2, False)]
    for kind in kinds:
        _grow(builder, generator, kind)
    return kinds


def _grow(builder: CrystalBuilder, generator: np.random.Generator, kind: str) -> None:
    p, canvas, habit = builder.parameters, builder.canvas, HABITS[kind]
    layout = "whole" if kind == "brushstroke" else p.ice_layout
    size = p.grain_size_angstrom or log_uniform(generator, *habit.size_angstrom)
    if layout == "sparse":
        size = p.grain_size_angstrom or log_uniform(generator, 400.0, 2400.0)
    anisotropy = generator.uniform(*habit.anisotropy)
    most = 4 if layout != "sparse" else 2
    levels = int(np.clip(round(p.thickness_angstrom / size), 1, most))
    warp = generator.uniform(0.05, 0.5)
    common = None
    if kind == "brushstroke" or chance(generator, 0.12):
        common = random_rotations(generator, 1)[0]
    region = ice_region(generator, canvas.n, layout, p.ice_abundance)
    exclusion = generator.uniform(*habit.exclusion)
    for level in range(levels):
        z = p.thickness_angstrom * ((level + 0.5) / levels - 0.5)
        ids = _mosaic(builder, generator, canvas.px(size), anisotropy, warp)
        ids, thickness = _keep(
            builder, generator, ids, region, layout, size, levels, kind != "cubic"
        )
        builder.add(generator, kind, ids, thickness, z, common)
        _exclude(canvas, generator, builder.levels[-1].ids, exclusion, levels, level, kind)


def _mosaic(
    builder: CrystalBuilder,
    generator: np.random.Generator,
    size_px: float,
    anisotropy: float,
    warp: float,
) -> Ids:
    n = builder.canvas.n
    if builder.parameters.grain_model == "polygons":
        return polygons(generator, n, max(size_px, 8.0), anisotropy)
    return voronoi(generator, n, max(size_px, 6.0), anisotropy, warp)


def _keep(
    builder: CrystalBuilder,
    generator: np.random.Generator,
    ids: Ids,
    region: Plane,
    layout: str,
    size_angstrom: float,
    levels: int,
    faces_touch: bool,
) -> tuple[Ids, Plane]:
    """Keep the grains within the region; shape their thickness.

    Where faces do not touch, vitreous ice is left between the grains (devitrified cubic ice).
    """
    p, n = builder.parameters, builder.canvas.n
    centre, radius = grain_geometry(ids)
    at = np.clip(np.round(centre), 0, n - 1).astype(int)
    kept = region[at[:, 1], at[:, 0]] > 0
    full = min(p.thickness_angstrom / levels, 1.2 * size_angstrom)
    if layout == "sparse":
        kept &= generator.random(len(kept)) < 0.03 + 0.3 * p.ice_abundance
        full = min(p.thickness_angstrom * 0.9, size_angstrom * generator.uniform(0.5, 1.1))
    if not faces_touch:
        kept &= generator.random(len(kept)) < generator.uniform(0.3, 0.7)
    height = (full * generator.uniform(0.5, 1.0, len(kept))).astype(float32)
    kept_ids = np.where(kept[ids], ids, -1).astype(int32)
    taper = generator.uniform(0.0, 0.4) if layout != "sparse" else generator.uniform(0.3, 1.0)
    position = np.arange(n, dtype=float32)
    dx, dy = position[None, :] - centre[ids, 0], position[:, None] - centre[ids, 1]
    cap = generator.uniform(0.85, 1.5)
    inside = (dx * dx + dy * dy) / np.maximum(cap * radius[ids], 1.0) ** 2
    if layout == "sparse":
        kept_ids[inside > 1.0] = -1
    profile = np.sqrt(np.clip(1.0 - taper * inside, 0.02, 1.0))
    return kept_ids, (height[ids] * profile).astype(float32)


def _exclude(
    canvas: Canvas,
    generator: np.random.Generator,
    ids: Ids,
    exclusion: float,
    levels: int,
    level: int,
    kind: str,
) -> None:
    """Push solute out of the crystals into their rims, in the layers of this level."""
    inside = (ids >= 0).astype(float32)
    rim = np.zeros_like(inside)
    if kind != "cubic":
        same = (ids[1:, :] != ids[:-1, :]).astype(float32)
        rim[1:] += same
        rim[:, 1:] += (ids[:, 1:] != ids[:, :-1]).astype(float32)
        rim = np.asarray(cv2.GaussianBlur(rim, (0, 0), generator.uniform(0.8, 1.6)), float32)
    amount = float(generator.uniform(0.0, 0.05)) * (0.3 if levels > 2 else 1.0)
    keep = 1.0 - exclusion * cv2.GaussianBlur(inside, (0, 0), 1.2)
    for layer in range(canvas.bulk):
        if layer * levels // canvas.bulk != level:
            continue
        mean = canvas.tau[layer].mean()
        canvas.tau[layer] = mean + (canvas.tau[layer] - mean) * keep
        canvas.phase[layer] *= keep
    middle = min(canvas.bulk - 1, int((level + 0.5) * canvas.bulk / levels))
    canvas.tau[middle] += rim * amount
    canvas.phase[middle] += rim * amount * 4.0
