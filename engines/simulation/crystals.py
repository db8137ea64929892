"""The grains of a scene: their habits, and how each is turned and bent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy import bool_, float32, int32, int64
from numpy.typing import NDArray

from engines.simulation.canvas import Canvas
from engines.simulation.diffraction import CUBIC, HEXAGONAL, STACKING
from engines.simulation.draws import log_uniform
from engines.simulation.lattice import bend_per_px
from engines.simulation.mosaics import Ids, Plane, grain_geometry
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
    buckle_rad: NDArray[float32]
    """Rotation that varies smoothly within the grain."""
    fault_angstrom: NDArray[float32]
    """Typical distance between stacking faults."""
    stripe: NDArray[float32]
    """(G, 3) wave vector x, y in rad per pixel and its phase, of the faults' stripes."""
    counted: NDArray[bool_]
    """False for surface ice."""


@dataclass(slots=True)
class GrainLevel:
    """The grains at one height."""

    ids: Ids
    """(n, n), -1 where there is no crystal."""
    thickness_angstrom: Plane
    z_angstrom: float
    counted: bool
    """False for surface ice, which is never ice percent."""
    phase: int


@dataclass(frozen=True, slots=True)
class Habit:
    """How grains of one kind grow."""

    size_angstrom: tuple[float, float]
    anisotropy: tuple[float, float]
    bend_deg_per_um: tuple[float, float]
    mosaic_deg: tuple[float, float]
    buckle_deg: tuple[float, float]
    exclusion: tuple[float, float]
    """Share of texture and solute that the crystal pushes out."""


HABITS = {
    "hexagonal": Habit(
        (600.0, 5000.0), (1.0, 1.8), (0.0, 12.0), (0.0, 0.06), (0.0, 0.25), (0.6, 0.9)
    ),
    "cubic": Habit((150.0, 600.0), (1.0, 1.3), (0.0, 6.0), (0.0, 0.08), (0.0, 0.1), (0.0, 0.3)),
    "stacking": Habit(
        (350.0, 1200.0), (2.0, 5.0), (0.0, 8.0), (0.0, 0.12), (0.0, 0.15), (0.3, 0.5)
    ),
    "brushstroke": Habit(
        (1500.0, 3500.0), (1.0, 3.0), (4.0, 14.0), (0.01, 0.08), (0.1, 0.4), (0.2, 0.7)
    ),
}
PHASES = {"hexagonal": HEXAGONAL, "cubic": CUBIC, "stacking": STACKING, "brushstroke": HEXAGONAL}


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
        phase: int = 0,
    ) -> None:
        """Number the grains of one level and draw what belongs to each; `phase` 0: the kind's."""
        shifted = np.where(local_ids < 0, -1, local_ids + self._count).astype(int32)
        phase = phase or PHASES[kind]
        self.levels.append(GrainLevel(shifted, thickness, z_angstrom, counted, phase))
        centre, radius = grain_geometry(np.where(local_ids < 0, 0, local_ids))
        grains = self._draw(generator, kind, phase, len(radius), common)
        grains.centre_px, grains.radius_px = centre, radius
        grains.counted[:] = counted
        self._tables.append(grains)
        self._count += len(radius)

    def _draw(
        self,
        generator: np.random.Generator,
        kind: str,
        phase: int,
        count: int,
        common: NDArray[float32] | None,
    ) -> GrainTable:
        habit, p = HABITS[kind], self.parameters
        if common is None:
            orientation = random_rotations(generator, count)
        else:
            spread = math.radians(log_uniform(generator, 0.5, 6.0))
            orientation = np.asarray(small_rotations(generator, count, spread) @ common, float32)
        boost = p.bragg_boost if p.ice_layout == "sparse" else 0.2 * p.bragg_boost
        for index in np.flatnonzero(generator.random(count) < boost):
            tilt = self.tilts[int(generator.integers(len(self.tilts)))]
            orientation[index] = bragg_rotation(generator, phase, tilt, p.voltage_kv)
        px = self.canvas.pixel_size_angstrom
        bend = bend_per_px(generator.uniform(*habit.bend_deg_per_um), px)
        period = generator.uniform(90.0, 250.0, count) / px
        direction = generator.uniform(0, math.pi, count)
        k = 2 * math.pi / np.maximum(period, 4.0)
        stripe = np.stack((k * np.cos(direction), k * np.sin(direction), direction * 7.0), 1)
        mosaic = math.radians(generator.uniform(*habit.mosaic_deg))
        buckle = math.radians(generator.uniform(*habit.buckle_deg))
        return GrainTable(
            phase=np.full(count, phase, int64),
            orientation=orientation,
            centre_px=np.zeros((count, 2), float32),
            radius_px=np.zeros(count, float32),
            bend_per_px=_bends(generator, kind, count, bend),
            mosaic_rad=np.full(count, mosaic, float32),
            buckle_rad=(buckle * generator.uniform(0.3, 1.0, count)).astype(float32),
            fault_angstrom=generator.uniform(60.0, 180.0, count).astype(float32),
            stripe=stripe.astype(float32),
            counted=np.ones(count, bool_),
        )


def _bends(generator: np.random.Generator, kind: str, count: int, bend: float) -> NDArray[float32]:
    """Draw how each lattice bends, rad per px of x and y; strokes run about one way."""
    if kind != "brushstroke":
        return generator.normal(0, max(bend, 1e-9), (count, 2)).astype(float32)
    way = generator.uniform(0, math.pi) + generator.normal(0, 0.35, count)
    size = bend * generator.choice([-1.0, 1.0], count) * generator.uniform(0.4, 1.6, count)
    return np.stack((size * np.cos(way), size * np.sin(way)), 1).astype(float32)
