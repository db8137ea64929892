"""What a simulation gives: tilts without noise, and everything that is true of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numpy import bool_, float16, float32, uint8, uint16
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SimulatedTilt:
    """One tilt without noise, and its truth; all maps (rows, columns)."""

    expected: NDArray[float32]
    """Expected electrons per pixel: dose times transmission times contrast."""
    labels: Mapping[str, NDArray[uint8]]
    """Masks of visible ice, ghosts included, by contrast threshold "0.06", "0.10", "0.15"."""
    phase: NDArray[uint8]
    """0 none, 1 hexagonal, 2 cubic, 3 stacking-disordered, inside label "0.06"."""
    valid: NDArray[bool_]
    distract: NDArray[uint16]
    """Bits of `Distractor`."""
    angle_deg: float
    exposure_dose_e_per_A2: float
    ice_percent: float
    """Label "0.10" over the valid area."""
    metadata: Mapping[str, float | str | int]
    present: NDArray[uint8]
    """Phase of the longest crystalline path, as in `phase`, diffracting or not; 0 none."""
    contrast_dark: NDArray[float16]
    """Share of the direct beam that counted ice takes, blurred by 4 nm."""
    contrast_bright: NDArray[float16]
    """Ghosts of counted ice near their grain, over the intensity without ice."""
    ignore: NDArray[bool_]
    """Where a reading is neither right nor wrong: faint ice, borders, soft ice, surface flashes."""


@dataclass(frozen=True, slots=True)
class SimulatedSeries:
    """All tilts of one scene."""

    seed: int
    family: str
    tilts: tuple[SimulatedTilt, ...]
    pixel_size_angstrom: float
    present_percent: float
    """Crystalline area of the first tilt, diffracting or not, in percent of its valid area."""
    occupancy_percent: float
    """Share of the specimen that was dark as ice in at least one tilt, of what the tilts saw."""
