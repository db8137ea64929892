"""Every number that fixes a scene, before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ICE_KINDS = ("none", "hexagonal", "cubic", "stacking", "brushstroke", "mixed")
ICE_LAYOUTS = ("patches", "sparse", "whole", "band", "centre", "outside")


@dataclass(frozen=True, slots=True)
class SceneChoices:
    """What a caller wants to fix; None leaves it to the family's own draw."""

    ice_kind: str | None = None
    """One of ICE_KINDS; "none" gives the same scene without its ice."""
    ice_layout: str | None = None
    """One of ICE_LAYOUTS."""
    ice_abundance: float | None = None
    """0 to 1: share of the candidate region that is crystalline."""
    bragg_boost: float | None = None
    """Share of grains turned so that they diffract at one of the tilts; 0 = random grains."""
    grain_size_angstrom: float | None = None
    distractor_level: float | None = None
    """Factor on the probability of every distractor; 0 gives bare specimen."""
    distractors: Mapping[str, float] | None = None
    """Probability by kind, instead of the family's."""
    biology: Mapping[str, float] | None = None
    dose_e_per_A2: float | None = None
    defocus_angstrom: float | None = None
    voltage_kv: float | None = None
    energy_filter: bool | None = None
    aperture_blocks_ice: bool | None = None
    thickness_angstrom: float | None = None
    pretilt_deg: float | None = None
    texture_level: float | None = None
    texture_slope: float | None = None
    phase_plate: bool | None = None


@dataclass(frozen=True, slots=True)
class SceneParameters:
    """A fully drawn scene."""

    family: str
    thickness_angstrom: float
    mean_free_path_angstrom: float
    texture_model: str
    """power_law or blobs."""
    texture_level: float
    texture_slope: float
    phase_noise_rad: float
    wedge: float
    curtain: float
    ice_kind: str
    ice_layout: str
    ice_abundance: float
    bragg_boost: float
    grain_model: str
    """voronoi or polygons."""
    grain_size_angstrom: float | None
    distractors: Mapping[str, float]
    biology: Mapping[str, float]
    voltage_kv: float
    energy_filter: bool
    dose_e_per_A2: float
    dose_efficiency: float
    defocus_angstrom: float
    defocus_jitter_angstrom: float
    phase_plate: bool
    aperture_per_angstrom: float
    ghost_efficiency: float
    pretilt_deg: float
    axis_deg: float
    axis_step_deg: float
    tilt_range_deg: float
    drift_probability: float
