"""Domain families: how the numbers of a scene are drawn for each kind of specimen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from engines.simulation.draws import Draws, chance, log_uniform
from engines.simulation.parameters import ICE_KINDS, ICE_LAYOUTS, SceneChoices, SceneParameters

FAMILIES = ("generic", "f10987", "f11058", "f11166", "f11221", "plunge")
HELD_OUT_FAMILIES = ("f11830", "held_out_layout")

Range = tuple[float, float]

_LAMELLA_DISTRACTORS = {
    "contamination": 0.55,
    "contamination_cluster": 0.35,
    "giant_ball": 0.08,
    "frost": 0.2,
    "ethane": 0.15,
    "cloud": 0.3,
    "bubbles": 0.12,
    "gold_beads": 0.08,
    "platinum": 0.15,
    "crack": 0.1,
    "vacuum_edge": 0.1,
    "dark_corner": 0.05,
    "grid_bar": 0.08,
    "soft_ice": 0.12,
    "redeposition": 0.15,
    "droplets": 0.1,
    "diffracting_surface": 0.2,
}
_PLUNGE_DISTRACTORS = {
    "contamination": 0.55,
    "contamination_cluster": 0.3,
    "giant_ball": 0.1,
    "droplets": 0.35,
    "frost": 0.2,
    "ethane": 0.06,
    "cloud": 0.45,
    "gold_beads": 0.25,
    "carbon_hole": 0.45,
    "carbon_film": 0.12,
    "metal_edge": 0.1,
    "dark_corner": 0.08,
    "dendrites": 0.15,
    "crack": 0.05,
    "bubbles": 0.06,
    "diffracting_surface": 0.25,
    "soft_ice": 0.08,
}
_CELL = {
    "ribosomes": 0.6,
    "membranes": 0.5,
    "vesicles": 0.4,
    "granules": 0.3,
    "myelin": 0.12,
    "thylakoids": 0.0,
    "axoneme": 0.05,
    "envelope": 0.1,
    "lipid": 0.2,
    "filaments": 0.25,
}


@dataclass(frozen=True, slots=True)
class Family:
    """Ranges and probabilities that make one domain."""

    ice_kinds: tuple[float, ...] = (0.4, 0.19, 0.16, 0.16, 0.04, 0.05)
    """Probability of each of ICE_KINDS."""
    thickness_angstrom: Range = (900.0, 3200.0)
    texture_level: Range = (0.003, 0.016)
    texture_slope: Range = (1.1, 1.7)
    texture_model: str = "power_law"
    grain_model: str = "voronoi"
    dose: Range = (1.5, 4.5)
    defocus_angstrom: Range = (2e4, 7.5e4)
    curtain_probability: float = 0.6
    pretilt_deg: Range = (-12.0, 12.0)
    tilt_range_deg: float = 60.0
    distractors: Mapping[str, float] = field(default_factory=lambda: _LAMELLA_DISTRACTORS)
    biology: Mapping[str, float] = field(default_factory=lambda: _CELL)
    drift_probability: float = 0.12


_LAYOUT_SHARES = (0.4, 0.42, 0.03, 0.05, 0.05, 0.05)
"""Probability of each of ICE_LAYOUTS."""


def _with(base: Mapping[str, float], **changes: float) -> dict[str, float]:
    return {**base, **changes}


_FAMILIES: dict[str, Family] = {
    "f10987": Family(
        thickness_angstrom=(1800.0, 3300.0),
        dose=(3.0, 4.0),
        defocus_angstrom=(3.2e4, 6.9e4),
        pretilt_deg=(7.0, 11.0),
        ice_kinds=(0.36, 0.26, 0.18, 0.08, 0.04, 0.08),
        distractors=_with(
            _LAMELLA_DISTRACTORS, contamination_cluster=0.7, ethane=0.45, diffracting_surface=0.3
        ),
        biology=_with(_CELL, myelin=0.3, ribosomes=0.9, granules=0.4),
    ),
    "f11058": Family(
        thickness_angstrom=(2000.0, 4000.0),
        dose=(2.0, 3.5),
        defocus_angstrom=(3e4, 6e4),
        ice_kinds=(0.4, 0.2, 0.12, 0.2, 0.05, 0.03),
        distractors=_with(_LAMELLA_DISTRACTORS, soft_ice=0.55, bubbles=0.4),
        biology=_with(_CELL, envelope=0.85, ribosomes=0.9, membranes=0.1, lipid=0.1),
    ),
    "f11166": Family(
        thickness_angstrom=(1200.0, 2600.0),
        ice_kinds=(0.42, 0.1, 0.14, 0.28, 0.03, 0.03),
        biology=_with(_CELL, granules=0.5, vesicles=0.7, membranes=0.7, lipid=0.5, envelope=0.3),
    ),
    "f11221": Family(
        thickness_angstrom=(1000.0, 2600.0),
        ice_kinds=(0.45, 0.1, 0.1, 0.1, 0.22, 0.03),
        distractors=_with(_LAMELLA_DISTRACTORS, contamination_cluster=0.5, contamination=0.7),
        biology=_with(_CELL, axoneme=0.85, ribosomes=0.2, granules=0.3),
    ),
    "f11830": Family(
        thickness_angstrom=(900.0, 2200.0),
        dose=(3.4, 3.6),
        pretilt_deg=(-15.0, -10.0),
        ice_kinds=(0.45, 0.18, 0.05, 0.22, 0.05, 0.05),
        biology=_with(_CELL, thylakoids=0.75, ribosomes=0.9, granules=0.3, myelin=0.0),
    ),
    "held_out_layout": Family(
        texture_model="blobs",
        grain_model="polygons",
        thickness_angstrom=(800.0, 3600.0),
        dose=(1.8, 6.0),
        distractors=_with(_LAMELLA_DISTRACTORS, carbon_hole=0.2, dendrites=0.08, metal_edge=0.05),
        biology=_with(_CELL, capsids=0.15),
    ),
    "plunge": Family(
        thickness_angstrom=(250.0, 1500.0),
        texture_level=(0.00012, 0.006),
        dose=(2.0, 40.0),
        defocus_angstrom=(1.2e4, 5e4),
        curtain_probability=0.0,
        pretilt_deg=(-3.0, 3.0),
        tilt_range_deg=50.0,
        ice_kinds=(0.42, 0.24, 0.14, 0.12, 0.03, 0.05),
        distractors=_PLUNGE_DISTRACTORS,
        biology={
            "capsids": 0.35,
            "particles": 0.65,
            "vesicles": 0.25,
            "filaments": 0.15,
            "membranes": 0.06,
            "ribosomes": 0.1,
        },
    ),
}


def _generic(generator: np.random.Generator) -> Family:
    plunged = chance(generator, 0.3)
    base = _PLUNGE_DISTRACTORS if plunged else _LAMELLA_DISTRACTORS
    crowding = generator.uniform(0.2, 2.0)
    everything = {**_CELL, "capsids": 0.15, "particles": 0.2, "thylakoids": 0.06, "axoneme": 0.1}
    density = generator.uniform(0.1, 1.6)
    return Family(
        thickness_angstrom=(250.0, 2500.0) if plunged else (700.0, 3800.0),
        texture_level=(0.0002, 0.008) if plunged else (0.0015, 0.02),
        texture_slope=(0.9, 1.9),
        texture_model="blobs" if chance(generator, 0.15) else "power_law",
        dose=(1.5, 30.0) if plunged else (1.5, 5.0),
        defocus_angstrom=(1.5e4, 8e4),
        curtain_probability=0.0 if plunged else 0.5,
        distractors={key: min(1.0, value * crowding) for key, value in base.items()},
        biology={key: min(1.0, value * density) for key, value in everything.items()},
    )


def known(family: str) -> bool:
    """Return whether a family of this name can be simulated."""
    return family in FAMILIES or family in HELD_OUT_FAMILIES


def draw_parameters(
    draws: Draws, family: str, choices: SceneChoices | None = None
) -> SceneParameters:
    """Draw every number of a scene; what `choices` fixes does not shift any other draw."""
    generator = draws.stream("parameters")
    ranges = _generic(generator) if family == "generic" else _FAMILIES[family]
    drawn = _draw(draws, family, ranges)
    return drawn if choices is None else _apply(drawn, choices)


def _draw(draws: Draws, family: str, ranges: Family) -> SceneParameters:
    generator = draws.stream("optics")
    voltage = 300.0 if chance(generator, 0.8) else 200.0
    energy_filter = chance(generator, 0.8)
    phase_plate = chance(generator, 0.06)
    defocus = log_uniform(generator, *ranges.defocus_angstrom)
    aperture = 0.2 if chance(generator, 0.25) else float(generator.choice([0.36, 0.55, 0.75, 0.75]))
    shape = draws.stream("shape")
    ice = draws.stream("ice choices")
    path = generator.uniform(3000.0, 4200.0) * (1.0 if voltage == 300.0 else 0.75)
    dose = log_uniform(generator, *ranges.dose)
    return SceneParameters(
        family=family,
        thickness_angstrom=log_uniform(shape, *ranges.thickness_angstrom),
        mean_free_path_angstrom=path if energy_filter else path * 1.5,
        texture_model=ranges.texture_model,
        texture_level=log_uniform(shape, *ranges.texture_level),
        texture_slope=shape.uniform(*ranges.texture_slope),
        phase_noise_rad=log_uniform(shape, 0.008, 0.05),
        wedge=shape.uniform(-0.25, 0.25),
        curtain=shape.uniform(0.005, 0.04) if chance(shape, ranges.curtain_probability) else 0.0,
        ice_kind=str(ice.choice(ICE_KINDS, p=ranges.ice_kinds)),
        ice_layout=str(ice.choice(ICE_LAYOUTS, p=_LAYOUT_SHARES)),
        ice_abundance=ice.uniform(0.2, 1.0) ** 2,
        bragg_boost=float(ice.choice([0.0, 0.1, 0.5], p=[0.4, 0.4, 0.2])),
        grain_model=ranges.grain_model,
        grain_size_angstrom=None,
        distractors=ranges.distractors,
        biology=ranges.biology,
        voltage_kv=voltage,
        energy_filter=energy_filter,
        dose_e_per_A2=dose,
        dose_efficiency=generator.uniform(0.6, 0.9),
        defocus_angstrom=defocus * (0.15 if phase_plate else 1.0),
        defocus_jitter_angstrom=0.0 if phase_plate else min(5e3, 0.15 * defocus),
        phase_plate=phase_plate,
        aperture_per_angstrom=aperture,
        ghost_efficiency=generator.uniform(0.6, 1.0),
        pretilt_deg=shape.uniform(*ranges.pretilt_deg),
        axis_deg=float(generator.choice([0.0, 90.0])) + generator.uniform(-6.0, 6.0),
        axis_step_deg=float(generator.choice([2.0, 3.0])),
        tilt_range_deg=ranges.tilt_range_deg,
        drift_probability=ranges.drift_probability,
    )


_SAME_NAME = (
    "ice_kind",
    "ice_layout",
    "ice_abundance",
    "bragg_boost",
    "grain_size_angstrom",
    "distractors",
    "biology",
    "dose_e_per_A2",
    "defocus_angstrom",
    "voltage_kv",
    "energy_filter",
    "thickness_angstrom",
    "pretilt_deg",
    "texture_level",
    "texture_slope",
    "phase_plate",
)


def _apply(drawn: SceneParameters, choices: SceneChoices) -> SceneParameters:
    fixed = {name: getattr(choices, name) for name in _SAME_NAME}
    drawn = replace(drawn, **{name: value for name, value in fixed.items() if value is not None})
    if choices.aperture_blocks_ice is not None:
        drawn = replace(drawn, aperture_per_angstrom=0.2 if choices.aperture_blocks_ice else 0.75)
    if choices.distractor_level is not None:
        level = choices.distractor_level
        drawn = replace(
            drawn, distractors={k: min(1.0, v * level) for k, v in drawn.distractors.items()}
        )
    return drawn
