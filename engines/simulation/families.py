"""Domain families: the ranges and probabilities that make one kind of specimen and microscope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engines.simulation.contents import CELL, LAMELLA
from engines.simulation.parameters import TRAINING

NEAR_FOCUS = "near_focus"
FAMILIES = ("generic", NEAR_FOCUS, "f10987", "f11058", "f11166", "f11221", "dense", "plunge")
"""Families to train on."""

EMPIAR_LIKE = ("test_f10987", "test_f11058", "test_f11166", "test_f11221", "test_f11830")
"""The five families of annotated public data, drawn by the test generator."""

HELD_OUT_DOMAINS = (
    "h1_tissue",
    "h2_plunged",
    "h3_unfiltered_200kv",
    "h4_phase_plate",
    "h5_search",
    "h6_ice_free",
    "h7_cubic",
    "h8_matrix",
    "h9_small_aperture",
    "h10_resampled",
)
"""Domains that training never draws, drawn by the test generator."""

HELD_OUT_FAMILIES = ("f11830", "held_out_layout", *EMPIAR_LIKE, *HELD_OUT_DOMAINS)
"""Families never to train on; `f11830` alone is drawn by the training generator."""

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Family:
    """Ranges and probabilities that make one domain."""

    generator: str = TRAINING
    ice_kinds: tuple[float, ...] = (0.35, 0.2, 0.17, 0.18, 0.06, 0.04)
    """Probability of each of ICE_KINDS."""
    ice_layouts: tuple[float, ...] = (0.38, 0.36, 0.05, 0.06, 0.05, 0.05, 0.05)
    """Probability of each of ICE_LAYOUTS."""
    ice_abundance: Range = (0.04, 1.0)
    bragg_boosts: tuple[float, float, float] = (0.4, 0.4, 0.2)
    """Probability that 0, 10 or 50 % of the grains are turned so that they diffract once."""
    decoy_share: float = 0.2
    """Share of scenes that are crowded with distractors and hold no ice."""
    thickness_angstrom: Range = (900.0, 3200.0)
    texture_level: Range = (0.003, 0.016)
    texture_slope: Range = (1.1, 1.7)
    dose: Range = (1.5, 4.5)
    defocus_angstrom: Range = (2e4, 7.5e4)
    curtain_probability: float = 0.6
    curtain: Range = (0.005, 0.04)
    pretilt_deg: Range = (-12.0, 12.0)
    tilt_range_deg: float = 60.0
    level_share: float = 0.0
    """Share of scenes that are taken about 0 degrees alone."""
    distractors: Mapping[str, float] = field(default_factory=lambda: LAMELLA)
    biology: Mapping[str, float] = field(default_factory=lambda: CELL)
    drift_probability: float = 0.12
    voltage_200_share: float = 0.2
    unfiltered_share: float = 0.2
    """Share without energy filter, of those at 300 kV."""
    unfiltered_200_share: float = 0.0
    """Share without energy filter, of those at 200 kV."""
    absorption_rad: Range = (0.0, 0.0)
    """Amplitude contrast of everything, as a shift of phase."""
    phase_plate_share: float = 0.0
    blocked_share: float = 0.25
    """Share whose objective aperture stops every reflection of ice."""


def known(family: str) -> bool:
    """Return whether a family of this name can be simulated."""
    return family in FAMILIES or family in HELD_OUT_FAMILIES
