"""The families of the training generator, but for `generic`, which is drawn anew each time."""

from __future__ import annotations

from collections.abc import Mapping

from engines.simulation.contents import CELL, CHLAMYDOMONAS, FILM, FILM_CONTENT, LAMELLA, merged
from engines.simulation.families import Family

TRAINED: Mapping[str, Family] = {
    "f10987": Family(
        thickness_angstrom=(1800.0, 3300.0),
        dose=(3.0, 4.0),
        defocus_angstrom=(3.2e4, 6.9e4),
        pretilt_deg=(7.0, 11.0),
        ice_kinds=(0.25, 0.27, 0.24, 0.08, 0.04, 0.12),
        ice_abundance=(0.2, 1.0),
        distractors=merged(
            LAMELLA,
            contamination_cluster=0.9,
            ethane=0.5,
            iced_ethane=0.35,
            diffracting_surface=0.4,
        ),
        biology=merged(CELL, myelin=0.3, ribosomes=0.9, granules=0.4, organelles=0.6),
    ),
    "f11058": Family(
        thickness_angstrom=(2000.0, 4000.0),
        dose=(2.0, 3.5),
        defocus_angstrom=(3e4, 6e4),
        ice_kinds=(0.35, 0.22, 0.14, 0.21, 0.05, 0.03),
        ice_layouts=(0.3, 0.2, 0.05, 0.05, 0.05, 0.3, 0.05),
        distractors=merged(LAMELLA, soft_ice=0.6, bubbles=0.35, beam_damage=0.3, cloud=0.5),
        biology=merged(CELL, envelope=0.85, ribosomes=0.9, membranes=0.1, lipid=0.1),
    ),
    "f11166": Family(
        thickness_angstrom=(1200.0, 2600.0),
        ice_kinds=(0.42, 0.1, 0.14, 0.28, 0.03, 0.03),
        biology=merged(
            CELL, granules=0.5, vesicles=0.7, membranes=0.7, lipid=0.5, wall=0.5, organelles=0.7
        ),
    ),
    "f11221": Family(
        thickness_angstrom=(1000.0, 2600.0),
        ice_kinds=(0.48, 0.1, 0.1, 0.1, 0.19, 0.03),
        distractors=merged(LAMELLA, contamination_cluster=0.5, contamination=0.8),
        biology=merged(CELL, axoneme=0.85, ribosomes=0.2, granules=0.3),
    ),
    "f11830": Family(
        thickness_angstrom=(900.0, 2200.0),
        dose=(3.4, 3.6),
        pretilt_deg=(-15.0, -10.0),
        ice_kinds=(0.45, 0.2, 0.03, 0.22, 0.05, 0.05),
        biology=CHLAMYDOMONAS,
    ),
    "dense": Family(
        # Crystalline nearly all over: what a network that knows only grains amid vitreous ice
        # takes for the texture of the specimen.
        thickness_angstrom=(600.0, 4000.0),
        dose=(1.5, 6.0),
        defocus_angstrom=(1.5e4, 7.5e4),
        ice_kinds=(0.12, 0.24, 0.3, 0.2, 0.02, 0.12),
        ice_layouts=(0.2, 0.05, 0.6, 0.05, 0.05, 0.0, 0.05),
        ice_abundance=(0.3, 1.0),
        decoy_share=0.15,
    ),
    "plunge": Family(
        thickness_angstrom=(250.0, 1500.0),
        texture_level=(0.00012, 0.006),
        dose=(2.0, 40.0),
        defocus_angstrom=(1.2e4, 5e4),
        curtain_probability=0.0,
        pretilt_deg=(-3.0, 3.0),
        tilt_range_deg=50.0,
        level_share=0.5,
        ice_kinds=(0.33, 0.3, 0.14, 0.14, 0.03, 0.06),
        ice_layouts=(0.32, 0.28, 0.2, 0.05, 0.04, 0.05, 0.06),
        ice_abundance=(0.1, 1.0),
        bragg_boosts=(0.25, 0.4, 0.35),
        distractors=FILM,
        biology=FILM_CONTENT,
    ),
}
