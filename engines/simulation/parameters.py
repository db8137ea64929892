"""Every number that fixes a scene, before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ICE_KINDS = ("none", "hexagonal", "cubic", "stacking", "brushstroke", "mixed")
ICE_LAYOUTS = ("patches", "sparse", "whole", "band", "centre", "outside", "skin")
TRAINING, TEST = "training", "test"
"""The two generators of layout and texture; what physics does to either is the same."""
SCHEMES = ("dose_symmetric", "bidirectional", "scattered", "level")
"""How tilts follow each other; "level" is a micrograph taken about 0 degrees, again and again."""


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
    """Expected number of draws by kind, instead of the family's: below 1 it is a probability."""
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
    wedge: float | None = None
    curtain: float | None = None
    dose_fade: bool | None = None
    """Whether reflections fade with the dose."""


@dataclass(frozen=True, slots=True)
class SceneParameters:
    """A fully drawn scene."""

    family: str
    generator: str
    """TRAINING or TEST."""
    thickness_angstrom: float
    mean_free_path_angstrom: float
    texture_level: float
    texture_slope: float
    phase_noise_rad: float
    wedge: float
    curtain: float
    ice_kind: str
    ice_layout: str
    ice_abundance: float
    bragg_boost: float
    grain_size_angstrom: float | None
    distractors: Mapping[str, float]
    """Expected number of draws by kind."""
    biology: Mapping[str, float]
    voltage_kv: float
    energy_filter: bool
    haze: float
    """Share of electrons that arrive without contrast."""
    dose_e_per_A2: float
    dose_efficiency: float
    defocus_angstrom: float
    defocus_jitter_angstrom: float
    phase_shift_rad: float
    """Of a phase plate; 0 without one."""
    aperture_per_angstrom: float
    ghost_efficiency: float
    pretilt_deg: float
    axis_deg: float
    axis_step_deg: float
    tilt_range_deg: float
    scheme: str
    """One of SCHEMES."""
    drift_probability: float
    fading_dose_e_per_A2: float
    """Dose over which reflections fall to 1/e; infinite where they do not fade."""
    grain_rotation_rad: float
    """Typical turn of a grain under the beam, each tilt anew."""
