"""Renders one tilt of a scene: what the beam meets, what the lens makes of it, what is true."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy import bool_, float32, uint8, uint16
from numpy.typing import NDArray

from engines.simulation import truth
from engines.simulation.bragg import Beamline, Contrast, Exposure, diffract
from engines.simulation.canvas import Distractor
from engines.simulation.draws import Draws, chance, log_uniform
from engines.simulation.geometry import TiltGeometry
from engines.simulation.imaging import Optics, blur, motion_blur, propagate
from engines.simulation.parameters import SceneParameters
from engines.simulation.scene import Scene
from engines.simulation.tilt import SimulatedTilt
from engines.simulation.tilting import Visit, grid_bar

_DAMAGE_DOSE_E_PER_A2 = 100.0
_MOST_DAMAGE = 1.5
_OPAQUE_TRANSMISSION = 0.01
"""Where less of the beam comes through, nothing is to be seen: not valid."""
_MOST_HEIGHTS = 40


@dataclass(frozen=True, slots=True)
class Rendered:
    """A tilt, and what only its series needs."""

    tilt: SimulatedTilt
    flashed: NDArray[bool_]
    """(rendered, rendered) dark as counted ice, margins included."""
    seen: NDArray[bool_]
    """(rendered, rendered) valid, margins included."""


def render(
    scene: Scene, draws: Draws, visit: Visit, geometry: TiltGeometry, size_px: int
) -> Rendered:
    """Render one tilt."""
    p, px = scene.parameters, scene.pixel_size_angstrom
    generator = draws.stream(f"tilt {visit.index}")
    optics = _optics(p, generator)
    bar, bar_factor = grid_bar(draws, p, geometry)
    tau, phase = _project(scene, geometry, visit.dose_before_e_per_A2)
    transmission = torch.exp(-tau)
    beamline = Beamline(
        p.voltage_kv, optics.defocus_angstrom, p.aperture_per_angstrom, p.ghost_efficiency, px
    )
    elevation = geometry.elevation()
    exposure = _exposure(scene, draws, visit, elevation)
    contrast = diffract(scene.grains, geometry, beamline, transmission, exposure)
    wave = torch.polar(torch.sqrt(transmission * contrast.direct), phase)
    intensity = propagate(wave, optics, px, elevation)
    if scene.grains is not None:
        intensity = intensity + blur(contrast.ghost, 0.7)
    if chance(generator, p.drift_probability):
        length, direction = log_uniform(generator, 1.0, 7.0), generator.uniform(0, math.pi)
        intensity = motion_blur(intensity, length, direction)
    electrons = p.dose_e_per_A2 * p.dose_efficiency * px**2
    expected = (intensity * bar_factor * electrons).clamp_min(0.0)
    opaque = bar | (blur(transmission, 2.0) < _OPAQUE_TRANSMISSION)
    valid, distract = _areas(scene, geometry, opaque)
    about: dict[str, float | str | int] = {
        **_describe(scene),
        "defocus_angstrom": optics.defocus_angstrom,
        "inclination_deg": geometry.angle_deg,
        "tilt_index": visit.index,
        "dose_before_e_per_A2": visit.dose_before_e_per_A2,
        "seed": draws.seed,
    }
    return _tilt(contrast, transmission, expected, (valid, distract), visit, about, px, size_px)


def _optics(p: SceneParameters, generator: np.random.Generator) -> Optics:
    defocus = p.defocus_angstrom + generator.normal(0, 1) * p.defocus_jitter_angstrom
    return Optics(
        voltage_kv=p.voltage_kv,
        defocus_angstrom=max(defocus, 2000.0),
        phase_shift_rad=p.phase_shift_rad,
        envelope_angstrom=generator.uniform(4.0, 12.0),
        haze=p.haze,
    )


def _exposure(scene: Scene, draws: Draws, visit: Visit, elevation: torch.Tensor) -> Exposure:
    """Return what the beam has done to the crystals by this tilt."""
    if scene.grains is None:
        return Exposure()
    p, device = scene.parameters, scene.layers.device
    counts = {"ice": scene.grains.counted, "surface ice": 0}
    counts["surface ice"] = len(scene.grains.phase) - scene.grains.counted
    drawn = []
    for name, count in counts.items():
        generator = draws.stream(f"beam on {name} {visit.index}")
        drawn.append(
            np.hstack(
                (generator.uniform(0, 0.02, (count, 1)), generator.normal(0, 1.0, (count, 3)))
            )
        )
    both = torch.from_numpy(np.concatenate(drawn).astype(float32)).to(device)
    weak, turns = both[:, 0], both[:, 1:]
    relative = p.dose_e_per_A2 / p.fading_dose_e_per_A2
    fade = math.exp(-visit.dose_before_e_per_A2 / p.fading_dose_e_per_A2)
    if relative > 0:
        fade *= -math.expm1(-relative) / relative
    turned = turns * p.grain_rotation_rad if p.grain_rotation_rad > 0 else None
    return Exposure(floor=weak, turns_rad=turned, fade=fade, elevation=elevation)


def _project(
    scene: Scene, geometry: TiltGeometry, dose_before: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return optical depth and phase along the tilted beam, (rendered, rendered) each."""
    bulk = len(scene.heights_angstrom) - 2
    seen = geometry.sample(scene.layers, scene.heights_angstrom)
    inside = seen[:bulk].sum(0)
    if scene.damage is not None:
        grown = min(_MOST_DAMAGE, dose_before / _DAMAGE_DOSE_E_PER_A2 + 0.02)
        inside[0] += grown * geometry.sample(scene.damage, 0.0)[0]
    inside[0].clamp_(min=0.002)
    if scene.presence is not None:
        inside *= _solid(scene, scene.presence, geometry)
    total = (inside + seen[bulk:].sum(0)) * geometry.path_factor
    return total[0].clamp_min(0.0), total[1]


def _solid(scene: Scene, presence: torch.Tensor, geometry: TiltGeometry) -> torch.Tensor:
    """Return the share of the path through the bulk that is not in a crack or beyond an edge."""
    thickness = scene.parameters.thickness_angstrom
    inclined = math.radians(abs(geometry.angle_deg))
    sideways_px = thickness / geometry.pixel_size_angstrom * math.tan(inclined)
    parts = min(_MOST_HEIGHTS, math.ceil(0.8 * sideways_px) + 2)
    heights = [thickness * ((k + 0.5) / parts - 0.5) for k in range(parts)]
    return sum((geometry.sample(presence, z) for z in heights), torch.zeros(())) / parts


def _areas(
    scene: Scene, geometry: TiltGeometry, opaque: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the valid area and the distractor bits, (rendered, rendered) each."""
    half = scene.parameters.thickness_angstrom / 2
    middle = geometry.nearest(0.0)
    distract = scene.flags[0][middle]
    for plane, z in ((1, -half), (2, half)):
        if scene.flagged[plane]:
            distract = distract | scene.flags[plane][geometry.nearest(z)]
    distract = distract | torch.where(opaque, int(Distractor.OPAQUE), 0)
    return (scene.masks[middle] == 0) & ~opaque, distract


def _tilt(
    contrast: Contrast,
    transmission: torch.Tensor,
    expected: torch.Tensor,
    areas: tuple[torch.Tensor, torch.Tensor],
    visit: Visit,
    about: dict[str, float | str | int],
    px: float,
    size_px: int,
) -> Rendered:
    """Cut the picture out of its margins and work out what is true of it."""
    start = (expected.shape[0] - size_px) // 2
    crop = (slice(start, start + size_px), slice(start, start + size_px))
    dark, bright = truth.bragg_contrast(contrast, transmission, px)
    valid, distract = (area.cpu().numpy() for area in areas)
    whole = {name: truth.label(dark, bright, t, px) for name, t in truth.THRESHOLDS.items()}
    seen = np.ascontiguousarray(valid[crop])
    labels = {name: np.ascontiguousarray(mask[crop] * seen) for name, mask in whole.items()}
    present = truth.longest_path(contrast)
    ice = truth.percent(labels[truth.HEADLINE], seen)
    ignore = truth.ignore(contrast, transmission, (dark, bright), present, whole, distract, px)
    ignore[crop] |= truth.edge(size_px)
    there = (present[crop] > 0) & seen
    visible = (dark[crop] > truth.THRESHOLDS[truth.HEADLINE]) & there
    about |= truth.area_curve(dark[crop], bright[crop], seen, px)
    about |= {
        "present_percent": truth.percent(there.astype(uint8), seen),
        "visible_share": float(visible.sum() / max(int(there.sum()), 1)),
        **truth.phase_shares(present[crop]),
    }
    tilt = SimulatedTilt(
        expected=np.ascontiguousarray(expected.cpu().numpy()[crop], dtype=float32),
        labels=labels,
        phase=np.ascontiguousarray(truth.phase_map(contrast, labels["0.06"], crop, px)),
        valid=seen,
        distract=np.ascontiguousarray(distract[crop].astype(uint16)),
        angle_deg=visit.angle_deg,
        exposure_dose_e_per_A2=float(about["dose_e_per_A2"]),
        ice_percent=ice,
        metadata=about,
        present=np.ascontiguousarray(present[crop]),
        contrast_dark=np.ascontiguousarray(dark[crop].astype(np.float16)),
        contrast_bright=np.ascontiguousarray(bright[crop].clip(0, 1e4).astype(np.float16)),
        ignore=np.ascontiguousarray(ignore[crop]),
    )
    flashed = truth.label(dark, bright, truth.THRESHOLDS[truth.HEADLINE], px, ghosts=False) > 0
    return Rendered(tilt, flashed, valid)


def _describe(scene: Scene) -> dict[str, float | str | int]:
    """Return what a scene is made of, for the metadata of its tilts."""
    p = scene.parameters
    return {
        "family": p.family,
        "generator": p.generator,
        "pixel_size_angstrom": scene.pixel_size_angstrom,
        "ice_kind": p.ice_kind,
        "ice_layout": p.ice_layout,
        "ice_abundance": p.ice_abundance,
        "bragg_boost": p.bragg_boost,
        "thickness_angstrom": p.thickness_angstrom,
        "mean_free_path_angstrom": p.mean_free_path_angstrom,
        "aperture_per_angstrom": p.aperture_per_angstrom,
        "voltage_kv": p.voltage_kv,
        "energy_filter": int(p.energy_filter),
        "phase_shift_rad": p.phase_shift_rad,
        "dose_e_per_A2": p.dose_e_per_A2,
        "pretilt_deg": p.pretilt_deg,
        "axis_deg": p.axis_deg,
        "scheme": p.scheme,
        "content": " ".join(scene.content),
    }
