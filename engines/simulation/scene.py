"""A scene is built once per series: layers of matter, surfaces, crystals, edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy import float32
from numpy.typing import NDArray

from engines.simulation.biology import draw_biology
from engines.simulation.bragg import Grains, mosaic_scale_px
from engines.simulation.canvas import PHASE_PER_ANGSTROM, Canvas, Distractor, clip_window
from engines.simulation.crystals import CrystalBuilder, add_specimen_ice
from engines.simulation.distractors import draw_distractors
from engines.simulation.draws import Draws, chance, log_uniform
from engines.simulation.fields import centred_grid, power_law, scattered_blobs, smooth, stripes
from engines.simulation.parameters import SceneParameters

BULK_LAYERS = 4


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
    masks: torch.Tensor
    """(n * n,) int64 flat: bit 0 vacuum, bit 1 opaque."""
    flags: torch.Tensor
    """(3, n * n) int64: middle, bottom surface, top surface."""
    grains: Grains | None
    content: tuple[str, ...]
    """Names of what was drawn."""
    ice_kinds: tuple[str, ...]


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
    canvas = Canvas.empty(
        n, pixel_size_angstrom, BULK_LAYERS, p.thickness_angstrom, p.mean_free_path_angstrom
    )
    _texture(canvas, p, draws.stream("texture"))
    content = draw_biology(canvas, draws, p.biology)
    builder = CrystalBuilder(p, canvas, tilts)
    kinds = add_specimen_ice(builder, draws)
    _base(canvas, p, draws.stream("base"))
    content += draw_distractors(canvas, draws, p.distractors)
    _surface_crystals(builder, draws.stream("surface crystals"))
    _cut(canvas)
    grains = None
    if builder.levels:
        field = smooth(draws.stream("mosaic"), n, mosaic_scale_px(pixel_size_angstrom))
        grains = Grains.on(device, builder.levels, builder.table(), torch.from_numpy(field))
    return _finish(p, canvas, grains, content, kinds, device)


def _texture(canvas: Canvas, p: SceneParameters, generator: np.random.Generator) -> None:
    """Give the bulk layers independent texture that adds up to the calibrated power."""
    share = canvas.bulk
    fine = generator.uniform(0.5, 1.0)
    for layer in range(canvas.bulk):
        if p.texture_model == "blobs":
            level = p.texture_level * 2.0 / share
            tex = scattered_blobs(generator, canvas.n, canvas.pixel_size_angstrom, level)
        else:
            level, slope = p.texture_level / share, p.texture_slope
            tex = power_law(generator, canvas.n, canvas.pixel_size_angstrom, level, slope)
        noise = generator.standard_normal((canvas.n, canvas.n), dtype=float32)
        canvas.tau[layer] = tex
        canvas.phase[layer] = fine * tex + noise * p.phase_noise_rad / math.sqrt(share)


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
    """Remove what lies in vacuum and keep optical depth physical."""
    canvas.tau[: canvas.bulk] = np.maximum(canvas.tau[: canvas.bulk], 0.002)
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
    masks = vacuum.astype(np.int64) | (canvas.opaque.astype(np.int64) << 1)
    if grains is not None:
        gone = torch.from_numpy(canvas.presence.ravel() < 0.5).to(device)
        for ids in grains.ids:
            ids[gone] = -1
    return Scene(
        parameters=p,
        n=canvas.n,
        pixel_size_angstrom=canvas.pixel_size_angstrom,
        layers=layers,
        heights_angstrom=(*inner, -half, half),
        presence=presence,
        masks=torch.from_numpy(masks.ravel()).to(device),
        flags=torch.from_numpy(canvas.flags.reshape(3, -1).astype(np.int64)).to(device),
        grains=grains,
        content=tuple(content),
        ice_kinds=tuple(kinds),
    )
