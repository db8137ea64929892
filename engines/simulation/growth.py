"""Grows the crystalline ice of a specimen: where it lies, in which grains, how thick."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import float32, int32

from engines.simulation.canvas import Canvas, label_plane
from engines.simulation.crystals import HABITS, PHASES, CrystalBuilder
from engines.simulation.diffraction import STACKING
from engines.simulation.draws import Draws, chance, log_uniform
from engines.simulation.mosaics import Ids, Plane, grain_geometry, ice_region, voronoi
from engines.simulation.orientation import random_rotations
from engines.simulation.parameters import TEST, SceneParameters
from engines.simulation.second import mosaic as second_mosaic

_SOFT_SHARE, _RELIEF_SHARE = 0.35, 0.4
"""Of the levels of the training generator: grains without sharp borders, film of uneven depth."""


def add_specimen_ice(builder: CrystalBuilder, draws: Draws) -> list[str]:
    """Grow the crystalline ice of a scene; returns the kinds grown, [] if there is none."""
    p = builder.parameters
    if p.ice_kind == "none":
        return []
    generator = draws.stream("ice")
    kinds = [p.ice_kind]
    if p.ice_kind == "mixed":
        kinds = [str(k) for k in generator.choice(["hexagonal", "cubic", "stacking"], 2, False)]
    for kind in kinds:
        _grow(builder, generator, kind)
    return kinds


def _grow(builder: CrystalBuilder, generator: np.random.Generator, kind: str) -> None:
    p, canvas, habit = builder.parameters, builder.canvas, HABITS[kind]
    layout = "whole" if kind == "brushstroke" else p.ice_layout
    size = p.grain_size_angstrom or log_uniform(generator, *habit.size_angstrom)
    if layout == "sparse":
        size = p.grain_size_angstrom or log_uniform(generator, 400.0, 2400.0)
    form = _Form(
        kind=kind,
        layout=layout,
        size_angstrom=size,
        anisotropy=generator.uniform(*habit.anisotropy),
        levels=_levels(p, layout, size),
        warp=generator.uniform(0.05, 0.5),
        exclusion=generator.uniform(*habit.exclusion),
    )
    common, phase = None, PHASES[kind]
    if kind == "brushstroke" or chance(generator, 0.3):
        common = random_rotations(generator, 1)[0]
    if kind == "brushstroke" and chance(generator, 0.4):
        phase = STACKING
    draw_region = second_mosaic.ice_region if p.generator == TEST else ice_region
    region = draw_region(generator, canvas.n, layout, p.ice_abundance)
    heights = [p.thickness_angstrom * ((k + 0.5) / form.levels - 0.5) for k in range(form.levels)]
    if layout == "skin":
        near = 0.5 * (p.thickness_angstrom - min(size, p.thickness_angstrom))
        heights = [near if chance(generator, 0.5) else -near]
    for level, z in enumerate(heights):
        ids, thickness = _keep(builder, generator, _mosaic(builder, generator, form), region, form)
        builder.add(generator, kind, ids, thickness, z, common, phase=phase)
        _exclude(canvas, generator, builder.levels[-1].ids, form, level, z)
        if p.generator != TEST and chance(generator, _RELIEF_SHARE):
            _relief(canvas, generator, builder.levels[-1].ids)


def _relief(canvas: Canvas, generator: np.random.Generator, ids: Ids) -> None:
    """Let the film be thicker over some grains than over others, and grooved between them."""
    grain = ids.clip(0)
    deep = log_uniform(generator, 0.005, 0.06) * canvas.thickness_angstrom
    steps = generator.normal(0.0, deep, int(grain.max()) + 1).astype(float32)
    relief = np.where(ids < 0, 0.0, steps[grain]).astype(float32)
    relief = np.asarray(cv2.GaussianBlur(relief, (0, 0), generator.uniform(1.0, 4.0)), float32)
    canvas.lay_ice(canvas.bulk // 2, relief)


@dataclass(frozen=True, slots=True)
class _Form:
    """How the ice of one kind grows in one scene."""

    kind: str
    layout: str
    size_angstrom: float
    anisotropy: float
    levels: int
    warp: float
    exclusion: float


def _levels(p: SceneParameters, layout: str, size_angstrom: float) -> int:
    """Return how many grains lie one above the other."""
    most = {"sparse": 2, "skin": 1}.get(layout, 5)
    return int(np.clip(round(p.thickness_angstrom / size_angstrom), 1, most))


def _mosaic(builder: CrystalBuilder, generator: np.random.Generator, form: _Form) -> Ids:
    n, size_px = builder.canvas.n, builder.canvas.px(form.size_angstrom)
    if builder.parameters.generator == TEST:
        return second_mosaic.grains(generator, n, max(size_px, 6.0), form.anisotropy, form.kind)
    return voronoi(generator, n, max(size_px, 6.0), form.anisotropy, form.warp)


def _keep(
    builder: CrystalBuilder, generator: np.random.Generator, ids: Ids, region: Plane, form: _Form
) -> tuple[Ids, Plane]:
    """Keep the grains within the region; shape their thickness.

    Cubic ice devitrified: some vitreous ice is left between its grains.
    """
    p, n, sparse = builder.parameters, builder.canvas.n, form.layout == "sparse"
    centre, radius = grain_geometry(ids)
    at = np.clip(np.round(centre), 0, n - 1).astype(int)
    kept = region[at[:, 1], at[:, 0]] > 0
    full = min(p.thickness_angstrom / form.levels, 1.2 * form.size_angstrom)
    if sparse:
        kept &= generator.random(len(kept)) < 0.03 + 0.3 * p.ice_abundance
        full = min(p.thickness_angstrom * 0.9, form.size_angstrom * generator.uniform(0.5, 1.1))
    if form.kind == "cubic":
        kept &= generator.random(len(kept)) < generator.uniform(0.3, 0.9)
    height = (full * generator.uniform(0.5, 1.0, len(kept))).astype(float32)
    kept_ids = np.where(kept[ids], ids, -1).astype(int32)
    rounded = chance(generator, 0.6 if form.kind in ("cubic", "hexagonal") else 0.3)
    taper = generator.uniform(0.6, 1.0) if rounded or sparse else generator.uniform(0.0, 0.4)
    position = np.arange(n, dtype=float32)
    x, y = centre.astype(float32).T
    dx, dy = position[None, :] - x[ids], position[:, None] - y[ids]
    wide = generator.uniform(0.9, 1.15) if rounded else generator.uniform(0.85, 1.5)
    reach = np.maximum(wide * radius, 1.0).astype(float32) ** -2
    inside = (dx * dx + dy * dy) * reach[ids]
    if sparse:
        kept_ids[inside > 1.0] = -1
    profile = np.sqrt(np.clip(1.0 - float32(taper) * inside, 0.02, 1.0))
    if p.generator != TEST and chance(generator, _SOFT_SHARE):
        # Lens-shaped: it thins out towards its neighbours, so that no border is sharp.
        profile = np.clip(1.0 - inside, 0.0, 1.0) ** float32(generator.uniform(0.6, 1.5))
    return kept_ids, (height[ids] * profile).astype(float32)


def _exclude(
    canvas: Canvas,
    generator: np.random.Generator,
    ids: Ids,
    form: _Form,
    level: int,
    z_angstrom: float,
) -> None:
    """Push solute out of the crystals into their rims, in the layers of this level."""
    inside = (ids >= 0).astype(float32)
    rim = np.zeros(inside.shape, float32)
    if form.kind != "cubic":
        borders = label_plane(ids).astype(float32)
        rim = np.asarray(cv2.GaussianBlur(borders, (0, 0), generator.uniform(0.8, 1.6)), float32)
    amount = float(generator.uniform(0.0, 0.05)) * (0.3 if form.levels > 2 else 1.0)
    keep = 1.0 - form.exclusion * cv2.GaussianBlur(inside, (0, 0), 1.2)
    middle = int(canvas.bulk * (z_angstrom / canvas.thickness_angstrom + 0.5))
    middle = min(canvas.bulk - 1, max(0, middle))
    for layer in range(canvas.bulk):
        own = layer == middle if form.layout == "skin" else True
        if not own or layer * form.levels // canvas.bulk != level:
            continue
        mean = canvas.tau[layer].mean()
        canvas.tau[layer] = mean + (canvas.tau[layer] - mean) * keep
        canvas.phase[layer] *= keep
    canvas.tau[middle] += rim * amount
    canvas.phase[middle] += rim * amount * 4.0
