"""What a scene is drawn on: optical depth, phase and flags of each layer of the specimen."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag

import numpy as np
from numpy import bool_, float32, int32, uint16
from numpy.typing import NDArray

PHASE_PER_ANGSTROM = 2.35e-3
"""Phase of 300 keV electrons in ice, rad per A: inner potential 3.6 V times 6.5e-4 rad/(V A)."""


class Distractor(IntFlag):
    """Bits of the `distract` map: what is there that is not ice in the specimen."""

    CONTAMINATION = 1
    DIFFRACTING_SURFACE = 2
    ETHANE = 4
    FROST = 8
    BUBBLE = 16
    METAL = 32
    """Gold beads, platinum specks."""
    CARBON = 64
    VACUUM = 128
    OPAQUE = 256
    MEMBRANE = 512
    STACKED_MEMBRANES = 1024
    """Thylakoid, myelin, axoneme."""
    GRANULE = 2048
    PARTICLE = 4096
    SOFT_ICE = 8192
    CLOUD = 16384
    CURTAIN = 32768


@dataclass(frozen=True, slots=True)
class SurfaceCrystal:
    """A grain of surface ice: it may diffract, and is never counted."""

    row: int
    column: int
    thickness_angstrom: NDArray[float32]
    """Square stamp centred on (row, column)."""
    surface: int


@dataclass(slots=True)
class Canvas:
    """The padded field at no tilt; layers 0..bulk-1 from bottom to top, then both surfaces."""

    n: int
    pixel_size_angstrom: float
    bulk: int
    mean_free_path_angstrom: float
    thickness_angstrom: float
    tau: NDArray[float32]
    """(bulk + 2, n, n) optical depth: intensity falls as exp(-tau)."""
    phase: NDArray[float32]
    """(bulk + 2, n, n) phase in rad."""
    flags: NDArray[uint16]
    """(3, n, n): middle of the specimen, bottom surface, top surface."""
    presence: NDArray[float32]
    """(n, n) 1 where there is specimen or support, 0 in vacuum, soft at the edge."""
    opaque: NDArray[bool_]
    matter_tau: NDArray[float32]
    """(n, n) support beside the specimen (carbon, metal) that no vacuum takes away."""
    damage_tau: NDArray[float32]
    """(n, n) mass that the beam has taken away by a dose of 100 electrons per A^2, negative."""
    surface_crystals: list[SurfaceCrystal] = field(default_factory=list)

    @classmethod
    def empty(
        cls, n: int, pixel_size_angstrom: float, bulk: int, thickness: float, path: float
    ) -> Canvas:
        """Return a canvas without matter."""
        return cls(
            n=n,
            pixel_size_angstrom=pixel_size_angstrom,
            bulk=bulk,
            mean_free_path_angstrom=path,
            thickness_angstrom=thickness,
            tau=np.zeros((bulk + 2, n, n), float32),
            phase=np.zeros((bulk + 2, n, n), float32),
            flags=np.zeros((3, n, n), uint16),
            presence=np.ones((n, n), float32),
            opaque=np.zeros((n, n), bool_),
            matter_tau=np.zeros((n, n), float32),
            damage_tau=np.zeros((n, n), float32),
        )

    def surface_layer(self, surface: int) -> int:
        """Return the layer index of surface 0 (bottom) or 1 (top)."""
        return self.bulk + surface

    def stamp(
        self,
        layer: int,
        row: float,
        column: float,
        tau: NDArray[float32],
        phase: NDArray[float32],
        flag: int = 0,
    ) -> None:
        """Add a small picture centred on (row, column), clipped at the borders."""
        window = clip_window(self.n, row, column, tau.shape)
        if window is None:
            return
        target, source = window
        self.tau[(layer, *target)] += tau[source]
        self.phase[(layer, *target)] += phase[source]
        if flag:
            plane = 0 if layer < self.bulk else layer - self.bulk + 1
            touched = np.abs(tau[source]) + 0.2 * np.abs(phase[source]) > 0.02
            self.flags[(plane, *target)][touched] |= np.uint16(flag)

    def stamp_ice(
        self, layer: int, row: float, column: float, thickness: NDArray[float32], flag: int = 0
    ) -> None:
        """Add solid ice of the given thickness (A) as absorption and phase."""
        self.stamp(
            layer,
            row,
            column,
            (thickness / self.mean_free_path_angstrom).astype(float32),
            (thickness * PHASE_PER_ANGSTROM).astype(float32),
            flag,
        )

    def stamp_damage(self, row: float, column: float, thickness: NDArray[float32]) -> None:
        """Add a bubble (negative thickness, A) that is this deep after 100 electrons per A^2."""
        window = clip_window(self.n, row, column, thickness.shape)
        if window is None:
            return
        target, source = window
        self.damage_tau[target] += thickness[source] / float32(self.mean_free_path_angstrom)
        self.flags[(0, *target)][np.abs(thickness[source]) > 30.0] |= np.uint16(Distractor.BUBBLE)

    def lay(
        self,
        layer: int,
        tau: NDArray[float32],
        flag: int = 0,
        phase_per_tau: float = 3.5,
        flagged_above: float = 0.01,
    ) -> None:
        """Add a full-field drawing to one layer and flag where it is strong."""
        self.tau[layer] += tau
        self.phase[layer] += tau * float32(phase_per_tau)
        if flag:
            plane = 0 if layer < self.bulk else layer - self.bulk + 1
            self.flags[plane][np.abs(tau) > flagged_above] |= np.uint16(flag)

    def lay_ice(
        self, layer: int, thickness: NDArray[float32], flag: int = 0, flagged_above: float = 30.0
    ) -> None:
        """Add a full-field thickness of solid ice (A) to one layer and flag where it is thick."""
        path = self.mean_free_path_angstrom
        tau = (thickness / path).astype(float32)
        self.lay(layer, tau, flag, PHASE_PER_ANGSTROM * path, flagged_above / path)

    def keep_beyond_edges(
        self, tau: NDArray[float32], flag: int = 0, flagged_above: float = 0.05
    ) -> None:
        """Add matter that hangs into vacuum as well as lying on the specimen."""
        self.matter_tau += tau
        if flag:
            self.flags[1][tau > flagged_above] |= np.uint16(flag)

    def any_layer(self, generator: np.random.Generator) -> int:
        """Draw one of the layers inside the specimen."""
        return int(generator.integers(self.bulk))

    def any_surface(self, generator: np.random.Generator) -> int:
        """Draw the layer of one of the surfaces."""
        return self.surface_layer(int(generator.integers(2)))

    def place(self, generator: np.random.Generator) -> tuple[float, float]:
        """Draw a position in the field, seldom at its border, which few tilts see."""
        row, column = (0.5 + 0.46 * generator.uniform(-1.0, 1.0, 2)) * self.n
        return float(row), float(column)

    def px(self, length_angstrom: float) -> float:
        """Convert a length in A to pixels."""
        return length_angstrom / self.pixel_size_angstrom


Window = tuple[slice, slice]


def clip_window(
    n: int, row: float, column: float, shape: tuple[int, ...]
) -> tuple[Window, Window] | None:
    """Return target and source slices of a stamp centred on a position, None if it is outside."""
    top, left = round(row) - shape[0] // 2, round(column) - shape[1] // 2
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + shape[0], n), min(left + shape[1], n)
    if y0 >= y1 or x0 >= x1:
        return None
    return (
        (slice(y0, y1), slice(x0, x1)),
        (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)),
    )


def label_plane(ids: NDArray[int32]) -> NDArray[bool_]:
    """Return where neighbouring pixels belong to different grains, (n, n) bool."""
    edge = np.zeros(ids.shape, bool_)
    edge[1:] |= ids[1:] != ids[:-1]
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    return edge
