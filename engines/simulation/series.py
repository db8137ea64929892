"""A simulated tilt series: one scene seen at several tilts, with the exact truth of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy import bool_, float32, uint8, uint16
from numpy.typing import NDArray

from engines.simulation import truth
from engines.simulation.bragg import Beamline, Contrast, diffract
from engines.simulation.canvas import Distractor
from engines.simulation.draws import Draws, chance, log_uniform
from engines.simulation.families import draw_parameters, known
from engines.simulation.imaging import Optics, TiltGeometry, blur, motion_blur, propagate
from engines.simulation.parameters import SceneChoices, SceneParameters
from engines.simulation.scene import Scene, build_scene
from engines.simulation.tilting import grid_bar, tilt_angles, tilt_geometry

_MARGIN_PX = 28


@dataclass(frozen=True, slots=True)
class SimulatedTilt:
    """One tilt without noise, and its truth; all maps (rows, columns)."""

    expected: NDArray[float32]
    """Expected electrons per pixel: dose times transmission times contrast."""
    labels: Mapping[str, NDArray[uint8]]
    """Masks of visible ice, ghosts included, by contrast threshold "0.06", "0.10", "0.15"."""
    phase: NDArray[uint8]
    """0 none, 1 hexagonal, 2 cubic, 3 stacking-disordered, inside label "0.06"."""
    valid: NDArray[bool_]
    distract: NDArray[uint16]
    """Bits of `Distractor`."""
    angle_deg: float
    exposure_dose_e_per_A2: float
    ice_percent: float
    """Label "0.10" over the valid area."""
    metadata: Mapping[str, float | str | int]


@dataclass(frozen=True, slots=True)
class SimulatedSeries:
    """All tilts of one scene."""

    seed: int
    family: str
    tilts: tuple[SimulatedTilt, ...]
    pixel_size_angstrom: float
    present_percent: float
    """Crystalline area of the first tilt, diffracting or not, in percent of its valid area."""


def simulate_series(
    seed: int,
    family: str,
    *,
    n_tilts: int,
    size_px: int = 320,
    pixel_size_angstrom: float = 13.5,
    angles_deg: Sequence[float] | None = None,
    device: str = "cpu",
    overrides: SceneChoices | None = None,
) -> SimulatedSeries:
    """Simulate a tilt series; the same arguments give the same series.

    Raises ValueError for an unknown family or angles that do not match `n_tilts`.
    """
    if not known(family):
        raise ValueError(f"There is no simulated family {family!r}; see FAMILIES.")
    if angles_deg is not None and len(angles_deg) != n_tilts:
        raise ValueError(f"{len(angles_deg)} angles were given for {n_tilts} tilts.")
    draws = Draws(seed, family)
    p = draw_parameters(draws, family, overrides)
    angles = list(angles_deg) if angles_deg is not None else tilt_angles(draws, p, n_tilts)
    rendered = 32 * math.ceil((size_px + 2 * _MARGIN_PX) / 32)
    scene_px = rendered + 2 * round(0.06 * rendered)
    geometries = [
        tilt_geometry(draws, p, index, angle, rendered, scene_px, pixel_size_angstrom, device)
        for index, angle in enumerate(angles)
    ]
    rotations = [g.matrix().cpu().numpy() for g in geometries]
    with torch.inference_mode():
        scene = build_scene(p, draws, scene_px, pixel_size_angstrom, rotations, device)
        rendered_tilts = [
            _render(scene, draws, index, angle, geometry, size_px)
            for index, (angle, geometry) in enumerate(zip(angles, geometries, strict=True))
        ]
    tilts = tuple(tilt for tilt, _ in rendered_tilts)
    present = rendered_tilts[0][1] if rendered_tilts else 0.0
    return SimulatedSeries(seed, family, tilts, pixel_size_angstrom, present)


def _optics(p: SceneParameters, generator: np.random.Generator) -> Optics:
    defocus = p.defocus_angstrom + generator.normal(0, 1) * p.defocus_jitter_angstrom
    return Optics(
        voltage_kv=p.voltage_kv,
        defocus_angstrom=max(defocus, 2000.0),
        phase_plate=p.phase_plate,
        aperture_per_angstrom=p.aperture_per_angstrom,
        envelope_angstrom=generator.uniform(4.0, 12.0),
        haze=0.0 if p.energy_filter else generator.uniform(0.1, 0.35),
    )


def _render(
    scene: Scene,
    draws: Draws,
    index: int,
    angle_deg: float,
    geometry: TiltGeometry,
    size_px: int,
) -> tuple[SimulatedTilt, float]:
    p, generator = scene.parameters, draws.stream(f"tilt {index}")
    optics = _optics(p, generator)
    bar, bar_factor = grid_bar(draws, p, geometry)
    tau, phase = _project(scene, geometry)
    transmission = torch.exp(-tau)
    beamline = Beamline(
        p.voltage_kv,
        optics.defocus_angstrom,
        p.aperture_per_angstrom,
        p.ghost_efficiency,
        scene.pixel_size_angstrom,
    )
    floor = _weak_beams(scene, draws, index)
    contrast = diffract(scene.grains, geometry, beamline, transmission, floor)
    wave = torch.polar(torch.sqrt(transmission * contrast.direct), phase)
    intensity = propagate(wave, optics, scene.pixel_size_angstrom) + blur(contrast.ghost, 0.7)
    if chance(generator, p.drift_probability):
        length, direction = log_uniform(generator, 1.0, 7.0), generator.uniform(0, math.pi)
        intensity = motion_blur(intensity, length, direction)
    electrons = p.dose_e_per_A2 * p.dose_efficiency * scene.pixel_size_angstrom**2
    expected = (intensity * bar_factor * electrons).clamp_min(0.0)
    crop = _crop(geometry.rendered, size_px)
    valid, distract = _areas(scene, geometry, bar)
    tilt, present = _tilt(scene, contrast, transmission, expected, valid, distract, crop)
    metadata: dict[str, float | str | int] = {
        **tilt.metadata,
        "defocus_angstrom": optics.defocus_angstrom,
        "inclination_deg": geometry.angle_deg,
        "tilt_index": index,
        "seed": draws.seed,
    }
    dose = p.dose_e_per_A2
    tilt = replace(tilt, angle_deg=angle_deg, exposure_dose_e_per_A2=dose, metadata=metadata)
    return tilt, present


def _weak_beams(scene: Scene, draws: Draws, index: int) -> torch.Tensor | None:
    """Return what each grain loses to many weak reflections at one tilt, (G,), 0 to 2 %."""
    if scene.grains is None:
        return None
    weak = draws.stream(f"weak beams {index}").uniform(0, 0.02, len(scene.grains.phase))
    return torch.from_numpy(weak.astype(float32)).to(scene.layers.device)


def _project(scene: Scene, geometry: TiltGeometry) -> tuple[torch.Tensor, torch.Tensor]:
    """Return optical depth and phase along the tilted beam, (rendered, rendered) each."""
    total = torch.zeros((2, geometry.rendered, geometry.rendered), device=geometry.device)
    bulk = len(scene.heights_angstrom) - 2
    for planes, height in zip(scene.layers[:bulk], scene.heights_angstrom[:bulk], strict=True):
        total += geometry.sample(planes, height)
    if scene.presence is not None:
        total *= _solid(scene, scene.presence, geometry)
    for planes, height in zip(scene.layers[bulk:], scene.heights_angstrom[bulk:], strict=True):
        total += geometry.sample(planes, height)
    total *= geometry.path_factor
    return total[0], total[1]


def _solid(scene: Scene, presence: torch.Tensor, geometry: TiltGeometry) -> torch.Tensor:
    """Return the share of the path through the bulk that is not in a crack or beyond an edge."""
    parts = 25
    thickness = scene.parameters.thickness_angstrom
    heights = [thickness * ((k + 0.5) / parts - 0.5) for k in range(parts)]
    return sum((geometry.sample(presence, z) for z in heights), torch.zeros(())) / parts


def _areas(
    scene: Scene, geometry: TiltGeometry, bar: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the valid area and the distractor bits, (rendered, rendered) each."""
    masks = scene.masks[geometry.nearest(0.0)]
    half = scene.parameters.thickness_angstrom / 2
    distract = scene.flags[0][geometry.nearest(0.0)]
    distract = distract | scene.flags[1][geometry.nearest(-half)]
    distract = distract | scene.flags[2][geometry.nearest(half)]
    distract = distract | torch.where(bar, int(Distractor.OPAQUE), 0)
    return (masks == 0) & ~bar, distract


def _crop(rendered: int, size_px: int) -> tuple[slice, slice]:
    start = (rendered - size_px) // 2
    return slice(start, start + size_px), slice(start, start + size_px)


def _tilt(
    scene: Scene,
    contrast: Contrast,
    transmission: torch.Tensor,
    expected: torch.Tensor,
    valid_map: torch.Tensor,
    distract: torch.Tensor,
    crop: tuple[slice, slice],
) -> tuple[SimulatedTilt, float]:
    px = scene.pixel_size_angstrom
    dark, bright = truth.bragg_contrast(contrast, transmission, px)
    labels = {name: truth.label(dark, bright, t, px)[crop] for name, t in truth.THRESHOLDS.items()}
    valid = valid_map.cpu().numpy()[crop]
    labels = {name: np.ascontiguousarray(mask * valid) for name, mask in labels.items()}
    widest = np.zeros(dark.shape, uint8)
    widest[crop] = labels["0.06"]
    ice = truth.percent(labels[truth.HEADLINE], valid)
    present = contrast.present.cpu().numpy()[crop]
    visible = (dark[crop] > 0.10) & present
    tilt = SimulatedTilt(
        expected=np.ascontiguousarray(expected.cpu().numpy()[crop], dtype=float32),
        labels=labels,
        phase=np.ascontiguousarray(truth.phase_map(contrast, widest, px)[crop]),
        valid=np.ascontiguousarray(valid),
        distract=np.ascontiguousarray(distract.cpu().numpy()[crop].astype(uint16)),
        angle_deg=0.0,
        exposure_dose_e_per_A2=0.0,
        ice_percent=ice,
        metadata={
            **_describe(scene),
            "present_percent": truth.percent(present.astype(uint8), valid),
            "visible_share": float(visible.sum() / max(int(present.sum()), 1)),
        },
    )
    return tilt, truth.percent(present.astype(uint8), valid)


def _describe(scene: Scene) -> dict[str, float | str | int]:
    """Return what a scene is made of, for the metadata of its tilts."""
    p = scene.parameters
    return {
        "ice_kind": p.ice_kind,
        "ice_layout": p.ice_layout,
        "thickness_angstrom": p.thickness_angstrom,
        "mean_free_path_angstrom": p.mean_free_path_angstrom,
        "aperture_per_angstrom": p.aperture_per_angstrom,
        "voltage_kv": p.voltage_kv,
        "content": " ".join(scene.content),
    }
