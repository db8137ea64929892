"""Draws every number of a scene from the ranges of its family."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from engines.simulation.contents import CELL, FILM, LAMELLA
from engines.simulation.domains import DOMAINS, held_out_layout
from engines.simulation.draws import Draws, bell, chance, log_uniform
from engines.simulation.families import NEAR_FOCUS, Family
from engines.simulation.parameters import (
    ICE_KINDS,
    ICE_LAYOUTS,
    TEST,
    SceneChoices,
    SceneParameters,
)
from engines.simulation.trained import TRAINED

_OPEN_APERTURES = (0.36, 0.55, 0.75, 0.75)
"""1/A; the first still stops reflections below 2.8 A."""
BLOCKED_APERTURE = 0.2
_MOST_DRAWS = 4.0
_MOST_LARGE = 0.25
_LARGE = (
    "dark_corner",
    "metal_edge",
    "carbon_hole",
    "carbon_film",
    "hole_map",
    "vacuum_edge",
    "crack",
    "grid_bar",
    "giant_ball",
    "ethane",
    "iced_ethane",
)
"""What covers so much of a field that crowded scenes hold no more of it."""


def draw_parameters(
    draws: Draws, family: str, choices: SceneChoices | None = None
) -> SceneParameters:
    """Draw every number of a scene; what `choices` fixes does not shift any other draw."""
    generator = draws.stream("parameters")
    if family == "generic":
        ranges = _generic(generator)
    elif family == NEAR_FOCUS:
        ranges = _near_focus(generator)
    elif family == "held_out_layout":
        ranges = held_out_layout(generator)
    else:
        ranges = DOMAINS[family] if family in DOMAINS else TRAINED[family]
    drawn = _crowd(draws.stream("crowding"), ranges, _draw(draws, family, ranges))
    return drawn if choices is None else _apply(drawn, choices)


def _generic(generator: np.random.Generator) -> Family:
    plunged = chance(generator, 0.3)
    everything = {**CELL, "capsids": 0.15, "particles": 0.2, "thylakoids": 0.3, "axoneme": 0.1}
    everything |= {"pyrenoid": 0.05, "starch": 0.06}
    density = generator.uniform(0.1, 1.6)
    return Family(
        thickness_angstrom=(250.0, 2500.0) if plunged else (700.0, 3800.0),
        texture_level=(0.0002, 0.008) if plunged else (0.0015, 0.02),
        texture_slope=(0.9, 1.9),
        dose=(1.5, 30.0) if plunged else (1.5, 5.0),
        defocus_angstrom=(1.5e4, 8e4),
        curtain_probability=0.0 if plunged else 0.5,
        distractors=FILM if plunged else {**LAMELLA, "hole_map": 0.03, "dendrites": 0.05},
        biology={key: value * density for key, value in everything.items()},
    )


def _near_focus(generator: np.random.Generator) -> Family:
    """Any specimen with little defocus: ghosts lie on their grains, and mass alone looks dark."""
    return replace(
        _generic(generator), defocus_angstrom=(3e3, 2e4), absorption_rad=(0.0, 0.12 * math.pi)
    )


def _draw(draws: Draws, family: str, ranges: Family) -> SceneParameters:
    generator = draws.stream("optics")
    shape = draws.stream("shape")
    ice = draws.stream("ice choices")
    voltage = 200.0 if chance(generator, ranges.voltage_200_share) else 300.0
    bare = ranges.unfiltered_share if voltage == 300.0 else ranges.unfiltered_200_share
    energy_filter = not chance(generator, bare)
    phase_plate = chance(generator, ranges.phase_plate_share)
    blocked = chance(generator, ranges.blocked_share)
    defocus = _between(generator, ranges, *ranges.defocus_angstrom)
    path = generator.uniform(3000.0, 4200.0) * (1.0 if voltage == 300.0 else 0.75)
    thickness = _between(shape, ranges, *ranges.thickness_angstrom)
    haze = generator.uniform(0.5, 1.0) * (1.0 - math.exp(-thickness / path))
    level = chance(shape, ranges.level_share)
    return SceneParameters(
        family=family,
        generator=ranges.generator,
        thickness_angstrom=thickness,
        mean_free_path_angstrom=path if energy_filter else path * 1.5,
        texture_level=_between(shape, ranges, *ranges.texture_level),
        texture_slope=shape.uniform(*ranges.texture_slope),
        phase_noise_rad=log_uniform(shape, 0.004, 0.025),
        wedge=shape.uniform(-0.25, 0.25),
        curtain=_curtain(shape, ranges),
        ice_kind=str(ice.choice(ICE_KINDS, p=ranges.ice_kinds)),
        ice_layout=str(ice.choice(ICE_LAYOUTS, p=ranges.ice_layouts)),
        ice_abundance=min(1.0, _between(ice, ranges, *ranges.ice_abundance)),
        bragg_boost=float(ice.choice([0.0, 0.1, 0.5], p=ranges.bragg_boosts)),
        grain_size_angstrom=None,
        distractors=ranges.distractors,
        biology=ranges.biology,
        voltage_kv=voltage,
        energy_filter=energy_filter,
        haze=0.0 if energy_filter else min(0.45, haze),
        dose_e_per_A2=_between(generator, ranges, *ranges.dose),
        dose_efficiency=generator.uniform(0.6, 0.9),
        defocus_angstrom=generator.uniform(3e3, 1e4) if phase_plate else defocus,
        defocus_jitter_angstrom=500.0 if phase_plate else min(5e3, 0.15 * defocus),
        phase_shift_rad=generator.uniform(0.25, 0.65) * math.pi
        if phase_plate
        else draws.stream("absorption").uniform(*ranges.absorption_rad),
        aperture_per_angstrom=BLOCKED_APERTURE
        if blocked
        else float(generator.choice(_OPEN_APERTURES)),
        ghost_efficiency=generator.uniform(0.6, 1.0),
        pretilt_deg=shape.uniform(*ranges.pretilt_deg),
        axis_deg=float(generator.choice([0.0, 90.0])) + generator.uniform(-6.0, 6.0),
        axis_step_deg=float(generator.choice([2.0, 3.0])),
        tilt_range_deg=ranges.tilt_range_deg,
        scheme="level"
        if level
        else str(shape.choice(["dose_symmetric", "bidirectional", "scattered"], p=[0.4, 0.2, 0.4])),
        drift_probability=ranges.drift_probability,
        fading_dose_e_per_A2=log_uniform(ice, 100.0, 400.0) if chance(ice, 0.5) else math.inf,
        grain_rotation_rad=math.radians(ice.uniform(0.0, 0.3)) if chance(ice, 0.5) else 0.0,
    )


def _between(generator: np.random.Generator, ranges: Family, low: float, high: float) -> float:
    """Draw from a range: evenly in its logarithm for training, from a bell for testing."""
    draw = bell if ranges.generator == TEST else log_uniform
    return draw(generator, low, high)


def _curtain(generator: np.random.Generator, ranges: Family) -> float:
    depth = generator.uniform(*ranges.curtain)
    return depth if chance(generator, ranges.curtain_probability) else 0.0


def _crowd(
    generator: np.random.Generator, ranges: Family, drawn: SceneParameters
) -> SceneParameters:
    """Make some scenes crowded and ice-free, some bare, most a little more or less than usual."""
    if chance(generator, ranges.decoy_share):
        factor = generator.uniform(1.5, 3.0)
        drawn = replace(drawn, ice_kind="none")
    elif chance(generator, 0.15):
        factor = generator.uniform(0.0, 0.3)
    else:
        factor = log_uniform(generator, 0.3, 2.5)
    return replace(drawn, distractors=_scaled(drawn, factor))


def _scaled(drawn: SceneParameters, factor: float) -> dict[str, float]:
    most = {name: max(_MOST_LARGE, drawn.distractors.get(name, 0.0)) for name in _LARGE}
    return {k: min(most.get(k, _MOST_DRAWS), v * factor) for k, v in drawn.distractors.items()}


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
    "wedge",
    "curtain",
)


def _apply(drawn: SceneParameters, choices: SceneChoices) -> SceneParameters:
    fixed = {name: getattr(choices, name) for name in _SAME_NAME}
    drawn = replace(drawn, **{name: value for name, value in fixed.items() if value is not None})
    if choices.energy_filter is not None:
        drawn = replace(drawn, haze=0.0 if choices.energy_filter else max(drawn.haze, 0.2))
    if choices.aperture_blocks_ice is not None:
        open_or_not = BLOCKED_APERTURE if choices.aperture_blocks_ice else _OPEN_APERTURES[-1]
        drawn = replace(drawn, aperture_per_angstrom=open_or_not)
    if choices.phase_plate is not None:
        drawn = replace(drawn, phase_shift_rad=0.5 * math.pi if choices.phase_plate else 0.0)
    if choices.dose_fade is not None:
        dose = 200.0 if choices.dose_fade else math.inf
        drawn = replace(drawn, fading_dose_e_per_A2=dose)
    if choices.distractor_level is not None:
        drawn = replace(drawn, distractors=_scaled(drawn, choices.distractor_level))
    return drawn
