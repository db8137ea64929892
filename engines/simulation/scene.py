"""A scene is built once per series: layers of matter, surfaces, crystals, edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy import float32
from numpy.typing import NDArray

from engines.simulation import biology, distractors
from engines.simulation.canvas import PHASE_PER_ANGSTROM, Canvas, Distractor, clip_window
from engines.simulation.crystals import CrystalBuilder
from engines.simulation.drawing import draw_all
from engines.simulation.draws import Draws, chance, log_uniform
from engines.simulation.fields import centred_grid, power_law_pair, smooth, stripes
from engines.simulation.grains import Grains
from engines.simulation.growth import add_specimen_ice
from engines.simulation.lattice import buckle_scale_px, mosaic_scale_px
from engines.simulation.parameters import TEST, TRAINING, SceneParameters
from engines.simulation.second import cell as second_cell
from engines.simulation.second import surface as second_surface
from engines.simulation.second.texture import folds, scattered_grains, scratches

BULK_LAYERS = 6
GENERATORS = {
    TRAINING: (biology.DRAWERS, distractors.DRAWERS),
    TEST: (second_cell.DRAWERS, second_surface.DRAWERS),
}
"""What each generator draws in cells and on surfaces."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the beam goes through, at no tilt, on the device that renders."""

    parameters: SceneParameters
    n: int
    pixel_size_angstrom: float
    layers: torch.Tensor
    """(L, 2, n, n): optical depth and phase of each layer."""
    heights_angstrom: tuple[float, ...]
    presence: torch.Tensor | None
    """(1, n, n) share of the bulk that is there at each place; None without any edge."""
    damage: torch.Tensor | None
    """(1, n, n) optical depth that a dose of 100 electrons per A^2 takes away; None without."""
    masks: torch.Tensor
    """(n * n,) int64 flat: bit 0 vacuum, bit 1 opaque."""
    flags: torch.Tensor
    """(3, n * n) int64: middle, bottom surface, top surface."""
    flagged: tuple[bool, ...]
    """Whether anything is flagged in each of them."""
    grains: Grains | None
    content: tuple[str, ...]
    """Names of what was drawn."""
    ice_kinds: tuple[str, ...]


def empty_canvas(n: int, pixel_size_angstrom: float, thickness: float, path: float) -> Canvas:
    """Return a canvas to draw on, of a thickness and a mean free path in A."""
    return Canvas.empty(n, pixel_size_angstrom, BULK_LAYERS, thickness, path)


def build_scene(
    parameters: SceneParameters,
    draws: Draws,
    n: int,
    pixel_size_angstrom: float,
    tilts: list[NDArray[float32]],
    device: str,
) -> Scene:
    """Draw a scene; `tilts` are the rotations (3, 3) at which it will be seen."""
    p = parameters
    canvas = empty_canvas(n, pixel_size_angstrom, p.thickness_angstrom, p.mean_free_path_angstrom)
    cell, dirt = GENERATORS[p.generator]
    _texture(canvas, p, draws.stream("texture"))
    content = draw_all(canvas, draws, "biology", cell, p.biology)
    builder = CrystalBuilder(p, canvas, tilts)
    kinds = add_specimen_ice(builder, draws)
    _base(canvas, p, draws.stream("base"))
    content += draw_all(canvas, draws, "distractor", dirt, p.distractors)
    _surface_crystals(builder, draws.stream("surface crystals"))
    _cut(canvas)
    grains = None
    if builder.levels:
        generator, draw = draws.stream("mosaic"), folds if p.generator == TEST else smooth
        scales = mosaic_scale_px(pixel_size_angstrom), buckle_scale_px(pixel_size_angstrom)
        turns = [torch.from_numpy(draw(generator, n, scale)) for scale in scales]
        grains = Grains.on(device, builder.levels, builder.table(), *turns)
    return _finish(p, canvas, grains, content, kinds, device)


def _texture(canvas: Canvas, p: SceneParameters, generator: np.random.Generator) -> None:
    """Give the bulk layers independent texture that adds up to the calibrated power."""
    n, px, pairs = canvas.n, canvas.pixel_size_angstrom, canvas.bulk // 2
    fine = generator.uniform(0.1, 0.6)
    for pair in range(pairs):
        first, second = 2 * pair, 2 * pair + 1
        if p.generator == TEST:
            level = p.texture_level / pairs
            canvas.tau[first] = scattered_grains(generator, n, px, level, p.texture_slope)
        else:
            level = p.texture_level / canvas.bulk
            both = power_law_pair(generator, n, px, level, p.texture_slope)
            canvas.tau[first], canvas.tau[second] = both
        noise = generator.standard_normal((n, n), dtype=float32)
        canvas.phase[first] = noise * float32(p.phase_noise_rad / math.sqrt(pairs))
    canvas.phase[: canvas.bulk] += float32(fine) * canvas.tau[: canvas.bulk]


def _base(canvas: Canvas, p: SceneParameters, generator: np.random.Generator) -> None:
    """Add the mean thickness with its wedge and curtains."""
    y, x = centred_grid(canvas.n)
    angle = generator.uniform(0, 2 * math.pi)
    slope = 2 * (x * math.cos(angle) + y * math.sin(angle)) / canvas.n
    relative = (1.0 + p.wedge * slope).astype(float32)
    if p.curtain > 0:
        direction = angle + generator.uniform(-0.2, 0.2)
        period = canvas.px(log_uniform(generator, 100.0, 2000.0))
        streaks = stripes(generator, canvas.n, direction, period)
        if p.generator == TEST:
            streaks = scratches(generator, canvas.n, direction, period)
        if chance(generator, 0.4):
            streaks = streaks * (0.4 + 0.6 * (smooth(generator, canvas.n, canvas.n / 2) > 0))
        relative = relative + p.curtain * streaks
        canvas.flags[0][np.abs(p.curtain * streaks) > 0.05] |= np.uint16(Distractor.CURTAIN)
    depth = (p.thickness_angstrom / canvas.bulk * relative.clip(0.05)).astype(float32)
    canvas.tau[: canvas.bulk] += depth / p.mean_free_path_angstrom
    canvas.phase[: canvas.bulk] += depth * PHASE_PER_ANGSTROM


def _surface_crystals(builder: CrystalBuilder, generator: np.random.Generator) -> None:
    """Make single crystals of the surface lumps that were marked so; they never count."""
    canvas = builder.canvas
    for surface in (0, 1):
        ids = np.full((canvas.n, canvas.n), -1, np.int32)
        depth = np.zeros((canvas.n, canvas.n), float32)
        lumps = [c for c in canvas.surface_crystals if c.surface == surface]
        for index, lump in enumerate(lumps):
            thickness = lump.thickness_angstrom
            window = clip_window(canvas.n, lump.row, lump.column, thickness.shape)
            if window is None:
                continue
            target, source = window
            inside = thickness[source] > 30.0
            ids[target][inside] = index
            depth[target][inside] = thickness[source][inside]
        if (ids >= 0).any():
            z = builder.parameters.thickness_angstrom * (surface - 0.5)
            builder.add(generator, "hexagonal", ids, depth, z, counted=False)


def _cut(canvas: Canvas) -> None:
    """Remove what lies in vacuum, and add what hangs into it."""
    canvas.damage_tau *= canvas.presence
    canvas.tau[canvas.bulk :] *= canvas.presence
    canvas.phase[canvas.bulk :] *= canvas.presence
    canvas.tau[canvas.bulk] += canvas.matter_tau


def _finish(
    p: SceneParameters,
    canvas: Canvas,
    grains: Grains | None,
    content: list[str],
    kinds: list[str],
    device: str,
) -> Scene:
    layers = torch.from_numpy(np.stack((canvas.tau, canvas.phase), axis=1)).to(device)
    half = p.thickness_angstrom / 2
    presence = None
    if canvas.presence.min() < 1.0:
        presence = torch.from_numpy(canvas.presence[None]).to(device)
    inner = [p.thickness_angstrom * ((k + 0.5) / canvas.bulk - 0.5) for k in range(canvas.bulk)]
    vacuum = (canvas.presence < 0.5) & (canvas.matter_tau < 0.05)
    damage = (
        torch.from_numpy(canvas.damage_tau[None]).to(device) if canvas.damage_tau.any() else None
    )
    masks = vacuum.astype(np.int64) | (canvas.opaque.astype(np.int64) << 1)
    if grains is not None:
        gone = torch.from_numpy(canvas.presence.ravel() < 0.5).to(device)
        for level in grains.levels:
            level.ids[gone] = -1
    return Scene(
        parameters=p,
        n=canvas.n,
        pixel_size_angstrom=canvas.pixel_size_angstrom,
        layers=layers,
        heights_angstrom=(*inner, -half, half),
        presence=presence,
        damage=damage,
        masks=torch.from_numpy(masks.ravel()).to(device),
        flags=torch.from_numpy(canvas.flags.reshape(3, -1).astype(np.int64)).to(device),
        flagged=tuple(bool(plane.any()) for plane in canvas.flags),
        grains=grains,
        content=tuple(content),
        ice_kinds=tuple(kinds),
    )
