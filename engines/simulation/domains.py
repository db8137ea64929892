"""Domains that are never trained on, drawn by the test generator from numbers of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from engines.simulation.contents import CHLAMYDOMONAS, merged
from engines.simulation.draws import chance
from engines.simulation.families import Family
from engines.simulation.parameters import TEST

DIRT: Mapping[str, float] = {
    "contamination": 0.7,
    "contamination_cluster": 0.4,
    "giant_ball": 0.06,
    "frost": 0.2,
    "leafy_frost": 0.05,
    "ethane": 0.12,
    "iced_ethane": 0.05,
    "cloud": 0.4,
    "mottle": 0.2,
    "soft_pairs": 0.2,
    "bubbles": 0.1,
    "beam_damage": 0.15,
    "gold_beads": 0.05,
    "touching_beads": 0.05,
    "platinum": 0.2,
    "crack": 0.1,
    "vacuum_edge": 0.08,
    "dark_corner": 0.05,
    "metal_edge": 0.03,
    "grid_bar": 0.08,
    "soft_ice": 0.12,
    "redeposition": 0.2,
    "droplets": 0.06,
    "diffracting_surface": 0.15,
}
FILM_DIRT: Mapping[str, float] = {
    "contamination": 0.6,
    "contamination_cluster": 0.3,
    "giant_ball": 0.1,
    "droplets": 0.25,
    "frost": 0.2,
    "leafy_frost": 0.1,
    "ethane": 0.08,
    "cloud": 0.5,
    "meniscus": 0.3,
    "mottle": 0.2,
    "soft_pairs": 0.25,
    "gold_beads": 0.35,
    "touching_beads": 0.2,
    "carbon_hole": 0.6,
    "hole_map": 0.05,
    "dark_corner": 0.1,
    "metal_edge": 0.05,
    "dendrites": 0.15,
    "beam_damage": 0.08,
    "diffracting_surface": 0.3,
    "soft_ice": 0.1,
}
TISSUE: Mapping[str, float] = {
    "ribosomes": 0.7,
    "membranes": 0.6,
    "organelles": 0.5,
    "vesicles": 0.4,
    "granules": 0.35,
    "lipid": 0.2,
    "filaments": 0.3,
    "myelin": 0.1,
}
FILM_LIFE: Mapping[str, float] = {
    "capsids": 0.5,
    "particles": 0.4,
    "vesicles": 0.5,
    "membranes": 0.15,
    "filaments": 0.25,
    "envelope": 0.2,
    "ribosomes": 0.2,
}

_NO_ICE = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
_PHYSICAL = (0.85, 0.15, 0.0)

_LAMELLA = Family(
    generator=TEST,
    ice_layouts=(0.55, 0.12, 0.1, 0.07, 0.05, 0.06, 0.05),
    bragg_boosts=_PHYSICAL,
    decoy_share=0.1,
    distractors=DIRT,
    biology=TISSUE,
)
_PLUNGED = replace(
    _LAMELLA,
    thickness_angstrom=(350.0, 1400.0),
    texture_level=(0.0003, 0.005),
    dose=(2.0, 30.0),
    defocus_angstrom=(1.5e4, 6e4),
    curtain_probability=0.0,
    pretilt_deg=(-2.0, 2.0),
    tilt_range_deg=55.0,
    level_share=0.4,
    distractors=FILM_DIRT,
    biology=FILM_LIFE,
)

DOMAINS: Mapping[str, Family] = {
    "test_f10987": replace(
        _LAMELLA,
        ice_kinds=(0.16, 0.26, 0.28, 0.1, 0.05, 0.15),
        ice_abundance=(0.35, 1.0),
        thickness_angstrom=(1800.0, 3200.0),
        texture_level=(0.004, 0.009),
        dose=(3.3, 3.8),
        defocus_angstrom=(3.2e4, 6.9e4),
        pretilt_deg=(8.0, 10.0),
        unfiltered_share=0.0,
        voltage_200_share=0.0,
        distractors=merged(
            DIRT, contamination_cluster=1.3, ethane=0.6, iced_ethane=0.5, diffracting_surface=0.5
        ),
        biology=merged(TISSUE, myelin=0.35, ribosomes=1.0, organelles=0.7),
    ),
    "test_f11058": replace(
        _LAMELLA,
        ice_kinds=(0.38, 0.2, 0.15, 0.2, 0.04, 0.03),
        ice_layouts=(0.4, 0.1, 0.07, 0.06, 0.05, 0.27, 0.05),
        ice_abundance=(0.2, 0.9),
        thickness_angstrom=(2000.0, 4000.0),
        dose=(2.0, 3.5),
        defocus_angstrom=(3e4, 6e4),
        distractors=merged(DIRT, soft_ice=0.7, bubbles=0.4, beam_damage=0.4),
        biology={"envelope": 1.0, "ribosomes": 1.0, "granules": 0.3, "filaments": 0.2},
    ),
    "test_f11166": replace(
        _LAMELLA,
        ice_kinds=(0.5, 0.1, 0.12, 0.24, 0.02, 0.02),
        ice_abundance=(0.05, 0.7),
        thickness_angstrom=(1200.0, 2600.0),
        biology=merged(TISSUE, organelles=0.9, vesicles=0.8, lipid=0.5, wall=0.5, granules=0.5),
    ),
    "test_f11221": replace(
        _LAMELLA,
        ice_kinds=(0.68, 0.1, 0.05, 0.07, 0.08, 0.02),
        ice_abundance=(0.05, 0.6),
        thickness_angstrom=(1000.0, 2600.0),
        distractors=merged(DIRT, contamination_cluster=0.6, contamination=1.0),
        biology={"axoneme": 1.2, "membranes": 0.6, "granules": 0.2, "vesicles": 0.2},
    ),
    "test_f11830": replace(
        _LAMELLA,
        ice_kinds=(0.56, 0.17, 0.02, 0.18, 0.03, 0.04),
        ice_abundance=(0.05, 0.8),
        thickness_angstrom=(900.0, 2200.0),
        dose=(3.45, 3.55),
        pretilt_deg=(-15.0, -10.0),
        curtain_probability=0.8,
        biology=CHLAMYDOMONAS,
    ),
    "h1_tissue": replace(
        _LAMELLA,
        ice_kinds=(0.3, 0.25, 0.2, 0.15, 0.06, 0.04),
        thickness_angstrom=(2000.0, 3000.0),
        curtain_probability=1.0,
        curtain=(0.02, 0.08),
        distractors=merged(DIRT, redeposition=0.4, platinum=0.3),
    ),
    "h2_plunged": replace(_PLUNGED, ice_kinds=(0.45, 0.3, 0.12, 0.06, 0.03, 0.04)),
    "h3_unfiltered_200kv": replace(_LAMELLA, voltage_200_share=1.0, unfiltered_200_share=1.0),
    "h4_phase_plate": replace(_LAMELLA, phase_plate_share=1.0),
    "h5_search": replace(
        _LAMELLA,
        dose=(0.2, 1.2),
        defocus_angstrom=(6e4, 2e5),
        distractors=merged(
            DIRT, crack=0.3, vacuum_edge=0.3, dark_corner=0.2, giant_ball=0.25, grid_bar=0.3
        ),
    ),
    "h6_ice_free": replace(
        _LAMELLA, ice_kinds=_NO_ICE, decoy_share=0.6, distractors=merged(DIRT, **FILM_DIRT)
    ),
    "h7_cubic": replace(
        _LAMELLA, ice_kinds=(0.15, 0.0, 0.85, 0.0, 0.0, 0.0), ice_abundance=(0.2, 1.0)
    ),
    "h8_matrix": replace(_LAMELLA, ice_kinds=(0.1, 0.0, 0.0, 0.0, 0.9, 0.0), decoy_share=0.0),
    "h9_small_aperture": replace(_LAMELLA, blocked_share=1.0),
    "h10_resampled": _LAMELLA,
}


def held_out_layout(generator: np.random.Generator) -> Family:
    """Draw the ranges of a scene of any kind: a lamella or a film, with every kind of dirt."""
    film = chance(generator, 0.3)
    return replace(
        _PLUNGED if film else _LAMELLA,
        thickness_angstrom=(300.0, 2200.0) if film else (800.0, 3600.0),
        decoy_share=0.15,
        distractors=FILM_DIRT if film else {**DIRT, "carbon_hole": 0.1, "dendrites": 0.05},
        biology={**TISSUE, **({"capsids": 0.15, "particles": 0.2} if film else {})},
    )
