"""The simulator's physics against values computed by other means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.simulation.bragg import Beamline, Contrast, Grains, diffract
from engines.simulation.crystals import GrainLevel, GrainTable
from engines.simulation.diffraction import (
    CUBIC,
    HEXAGONAL,
    cubic_reflections,
    hexagonal_reflections,
    two_beam,
    wavelength_angstrom,
)
from engines.simulation.draws import Draws
from engines.simulation.fields import power_law
from engines.simulation.imaging import Optics, TiltGeometry, propagate
from engines.simulation.orientation import bragg_rotation, random_rotations

PIXEL = 13.5
RENDERED, SCENE = 160, 192


def test_wavelength_is_that_of_the_textbooks() -> None:
    assert wavelength_angstrom(300.0) == pytest.approx(0.01969, abs=1e-5)
    assert wavelength_angstrom(200.0) == pytest.approx(0.02508, abs=1e-5)


def test_reflections_have_the_known_spacings_and_numbers() -> None:
    spacings = 1.0 / np.linalg.norm(cubic_reflections().g, axis=1)
    assert len(spacings) == 44
    assert np.isclose(spacings, 3.67, atol=0.01).sum() == 8
    spacings = 1.0 / np.linalg.norm(hexagonal_reflections().g, axis=1)
    for spacing, count in ((3.90, 6), (3.66, 2), (3.44, 12), (2.67, 12), (2.25, 6), (2.07, 12)):
        assert np.isclose(spacings, spacing, atol=0.01).sum() == count


@pytest.mark.parametrize(("angle_deg", "multislice"), [(0.0, 0.50), (0.15, 0.32), (0.30, 0.085)])
def test_two_beam_agrees_with_multislice(angle_deg: float, multislice: float) -> None:
    s = torch.tensor(math.radians(angle_deg) / 3.67)
    assert float(two_beam(s, 500.0, 2040.0)) == pytest.approx(multislice, abs=0.05)


def _one_grain(phase: int = CUBIC, half_px: int = 12) -> Grains:
    """Return a scene with one square grain of 50 nm, at Bragg at no tilt."""
    ids = np.full((SCENE, SCENE), -1, np.int32)
    middle = SCENE // 2
    ids[middle - half_px : middle + half_px, middle - half_px : middle + half_px] = 0
    rotation = bragg_rotation(
        np.random.default_rng(3), phase, np.eye(3, dtype=np.float32), 300.0, 0.0
    )
    table = GrainTable(
        phase=np.array([phase]),
        orientation=rotation[None],
        centre_px=np.array([[middle, middle]], np.float32),
        radius_px=np.array([half_px], np.float32),
        bend_per_px=np.zeros((1, 2), np.float32),
        mosaic_rad=np.zeros(1, np.float32),
        fault_angstrom=np.full(1, 100.0, np.float32),
        stripe=np.zeros((1, 3), np.float32),
    )
    level = GrainLevel(ids, np.full((SCENE, SCENE), 500.0, np.float32), 0.0, True)
    return Grains.on("cpu", [level], table, torch.zeros(SCENE, SCENE))


def _seen(defocus: float, aperture: float = 0.75, efficiency: float = 1.0) -> Contrast:
    geometry = TiltGeometry(RENDERED, SCENE, PIXEL, 0.0, 0.0)
    beamline = Beamline(300.0, defocus, aperture, efficiency, PIXEL)
    return diffract(_one_grain(), geometry, beamline, torch.full((RENDERED, RENDERED), 0.6))


def _centroid(plane: torch.Tensor) -> NDArray[np.float64]:
    values = plane.numpy()
    rows, columns = np.indices(values.shape)
    total = values.sum()
    return np.array([(rows * values).sum() / total, (columns * values).sum() / total])


@pytest.mark.parametrize("defocus", [2e4, 4e4, 6e4])
def test_ghost_moves_by_wavelength_times_defocus_times_g(defocus: float) -> None:
    seen = _seen(defocus)
    shift = np.linalg.norm(_centroid(seen.ghost) - _centroid(1.0 - seen.direct)) * PIXEL
    spacings = (3.67, 2.25)
    expected = [wavelength_angstrom(300.0) * defocus / d for d in spacings]
    assert min(abs(shift - e) for e in expected) < 1.5 * PIXEL


def test_open_aperture_keeps_every_electron() -> None:
    seen = _seen(4e4)
    kept = (seen.direct * 0.6 + seen.ghost).sum()
    assert float((1.0 - seen.direct).max()) > 0.3
    assert float(kept) == pytest.approx(0.6 * RENDERED**2, rel=1e-4)


def test_small_aperture_leaves_no_ghost() -> None:
    seen = _seen(4e4, aperture=0.2)
    assert float(seen.ghost.abs().max()) == 0.0
    assert float((1.0 - seen.direct).max()) > 0.3


def test_rotations_are_rotations() -> None:
    rotations = random_rotations(np.random.default_rng(1), 50)
    product = rotations @ rotations.transpose(0, 2, 1)
    assert np.allclose(product, np.eye(3), atol=1e-5)
    assert np.allclose(np.linalg.det(rotations), 1.0, atol=1e-5)
    turned = bragg_rotation(np.random.default_rng(2), HEXAGONAL, np.eye(3, dtype=np.float32), 300.0)
    assert np.allclose(turned @ turned.T, np.eye(3), atol=1e-4)


def test_lens_keeps_electrons_and_no_defocus_shows_no_phase() -> None:
    generator = torch.Generator().manual_seed(1)
    phase = 0.1 * torch.randn(96, 96, generator=generator)
    wave = torch.polar(torch.full((96, 96), 0.8), phase)
    focused = propagate(wave, Optics(300.0, 0.0, False, 0.75, 0.0, 0.0), PIXEL)
    defocused = propagate(wave, Optics(300.0, 5e4, False, 0.75, 0.0, 0.0), PIXEL)
    assert float(focused.std()) < 0.02
    assert float(defocused.std()) > 5 * float(focused.std())
    assert float(defocused.mean()) == pytest.approx(0.64, rel=1e-3)


def test_texture_has_the_calibrated_power() -> None:
    n = 400
    field = power_law(Draws(5).stream("texture"), n, 13.12, 0.0081, 1.4)
    power = np.abs(np.fft.fft2(field)) ** 2 / n**2
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n, 13.12), np.fft.fftfreq(n, 13.12)))
    for period, expected in ((350.0, 0.020), (175.0, 0.0081), (105.0, 0.0045), (75.0, 0.0025)):
        ring = np.abs(k * period - 1.0) < 0.1
        assert expected / 2 < power[ring].mean() < expected * 2
