"""The simulator's physics against values computed by other means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engines.simulation.bragg import Beamline, Contrast, Exposure, diffract
from engines.simulation.canvas import Canvas
from engines.simulation.crystals import CrystalBuilder, GrainLevel, GrainTable
from engines.simulation.diffraction import (
    CUBIC,
    HEXAGONAL,
    cubic_reflections,
    hexagonal_reflections,
    wavelength_angstrom,
)
from engines.simulation.draws import Draws
from engines.simulation.fields import power_law_pair
from engines.simulation.geometry import TiltGeometry
from engines.simulation.grains import Grains, turned
from engines.simulation.imaging import Optics, propagate
from engines.simulation.mosaics import voronoi
from engines.simulation.orientation import bragg_rotation, random_rotations
from engines.simulation.priors import draw_parameters
from engines.simulation.second.texture import scattered_grains
from tests.single_thread import one_thread  # noqa: F401

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
        buckle_rad=np.zeros(1, np.float32),
        fault_angstrom=np.full(1, 100.0, np.float32),
        stripe=np.zeros((1, 3), np.float32),
        counted=np.ones(1, bool),
    )
    level = GrainLevel(ids, np.full((SCENE, SCENE), 500.0, np.float32), 0.0, True, phase)
    flat = torch.zeros(SCENE, SCENE)
    return Grains.on("cpu", [level], table, flat, flat)


def _seen(defocus: float, aperture: float = 0.75, exposure: Exposure | None = None) -> Contrast:
    geometry = TiltGeometry(RENDERED, SCENE, PIXEL, 0.0, 0.0)
    beamline = Beamline(300.0, defocus, aperture, 1.0, PIXEL)
    even = torch.full((RENDERED, RENDERED), 0.6)
    return diffract(_one_grain(), geometry, beamline, even, exposure)


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
    assert min(abs(shift - e) for e in expected) < PIXEL


def test_ghost_moves_with_the_focus_of_its_own_place() -> None:
    higher = Exposure(elevation=torch.full((RENDERED, RENDERED), 1e4))
    near, far = _seen(5e4), _seen(4e4, exposure=higher)
    assert torch.equal(near.ghost, far.ghost)


def test_dose_fades_reflections_and_the_beam_turns_grains() -> None:
    whole, faded = _seen(4e4), _seen(4e4, exposure=Exposure(fade=0.5))
    lost = float((1.0 - whole.direct).sum())
    assert float((1.0 - faded.direct).sum()) == pytest.approx(0.5 * lost, rel=0.02)
    away = _seen(4e4, exposure=Exposure(turns_rad=torch.tensor([[0.01, 0.01, 0.0]])))
    assert float((1.0 - away.direct).sum()) < 0.5 * lost
    small = turned(torch.eye(3)[None], torch.tensor([[0.0, 0.0, 0.005]]))[0]
    assert torch.allclose(small @ small.T, torch.eye(3), atol=1e-4)


def test_open_aperture_keeps_every_electron() -> None:
    seen = _seen(4e4)
    kept = (seen.direct * 0.6 + seen.ghost).sum()
    assert float((1.0 - seen.direct).max()) > 0.3
    assert float(kept) == pytest.approx(0.6 * RENDERED**2, rel=1e-4)


def test_overlapping_grains_under_a_tilt_keep_every_electron() -> None:
    """What several levels of many grains take from the beam lands, all of it, somewhere else."""
    middle, half = SCENE // 2, 30
    levels, tables = [], []
    for index, z in enumerate((-300.0, 300.0)):
        generator = np.random.default_rng(index)
        ids = voronoi(generator, SCENE, 12.0, 1.3, 0.2)
        inside = np.zeros((SCENE, SCENE), bool)
        inside[middle - half : middle + half, middle - half : middle + half] = True
        parameters = draw_parameters(Draws(index, "f11166"), "f11166")
        canvas = Canvas.empty(SCENE, PIXEL, 6, 1200.0, 3500.0)
        builder = CrystalBuilder(parameters, canvas, [np.eye(3, dtype=np.float32)])
        depth = np.full((SCENE, SCENE), 600.0, np.float32)
        builder.add(generator, "cubic", np.where(inside, ids, -1).astype(np.int32), depth, z)
        levels += builder.levels
        tables.append(builder.table())
    first = len(tables[0].phase)
    levels[1].ids = np.where(levels[1].ids < 0, -1, levels[1].ids + first).astype(np.int32)
    names = GrainTable.__dataclass_fields__
    both = {k: np.concatenate([getattr(table, k) for table in tables]) for k in names}
    flat = torch.zeros(SCENE, SCENE)
    grains = Grains.on("cpu", levels, GrainTable(**both), flat, flat)
    lit = 0.5 + 0.1 * torch.rand(RENDERED, RENDERED, generator=torch.Generator().manual_seed(1))
    geometry = TiltGeometry(RENDERED, SCENE, PIXEL, 25.0, 0.0)
    seen = diffract(grains, geometry, Beamline(300.0, 2e4, 1.0, 1.0, PIXEL), lit)
    assert float((1.0 - seen.direct).mean()) > 0.005
    kept = (seen.direct * lit + seen.ghost).sum()
    assert float(kept) == pytest.approx(float(lit.sum()), rel=1e-4)


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
    focused = propagate(wave, Optics(300.0, 0.0, 0.0, 0.0), PIXEL)
    defocused = propagate(wave, Optics(300.0, 5e4, 0.0, 0.0), PIXEL)
    assert float(focused.std()) < 0.02
    assert float(defocused.std()) > 5 * float(focused.std())
    assert float(defocused.mean()) == pytest.approx(0.64, rel=1e-3)
    plate = propagate(wave, Optics(300.0, 0.0, math.pi / 2, 0.0), PIXEL)
    assert float(plate.std()) > 5 * float(focused.std())


def test_each_side_of_a_tilted_field_has_its_own_focus() -> None:
    generator = torch.Generator().manual_seed(2)
    wave = torch.polar(
        torch.full((128, 128), 0.8), 0.1 * torch.randn(128, 128, generator=generator)
    )
    slope = torch.linspace(-3000.0, 3000.0, 128)[None, :].expand(128, 128)
    tilted = propagate(wave, Optics(300.0, 3e4, 0.0, 0.0), PIXEL, slope)
    for column in (4, 64, 123):
        focus = 3e4 + float(slope[0, column])
        level = propagate(wave, Optics(300.0, focus, 0.0, 0.0), PIXEL)
        difference = (tilted - level)[:, column].std() / level[:, column].std()
        assert float(difference) < 0.05


@pytest.mark.parametrize("spin_deg", [0.0, 3.0])
@pytest.mark.parametrize("z", [0.0, 800.0])
def test_pictures_and_indices_look_at_the_same_place(spin_deg: float, z: float) -> None:
    geometry = TiltGeometry(96, 160, PIXEL, 33.0, 87.0, (3.0, -2.0), spin_deg=spin_deg)
    y, x = torch.meshgrid(torch.arange(160.0), torch.arange(160.0), indexing="ij")
    columns, rows = geometry.sample(torch.stack((x, y)), z)
    exact = geometry.coordinates(z)
    assert torch.allclose(columns, exact[0], atol=0.02)
    assert torch.allclose(rows, exact[1], atol=0.02)
    source = geometry.nearest(z)
    assert float((source % 160 - columns).abs().max()) < 0.51
    back, inside = geometry.seen_at(60)
    assert bool(inside.all())
    seen = geometry.nearest(0.0).flatten()[back]
    assert float((seen % 160 - (torch.arange(60) + 50)[None, :]).abs().max()) <= 2


def test_rotation_of_a_tilt_matches_where_its_pixels_come_from() -> None:
    """A point of the specimen, turned, lands where the picture shows it."""
    geometry = TiltGeometry(96, 160, PIXEL, 40.0, 20.0, spin_deg=2.0)
    point = torch.tensor([9.0, -14.0, 0.0])
    x, y, _ = (geometry.matrix() @ point).tolist()
    column, row = round(x + 47.5), round(y + 47.5)
    at_x, at_y = (float(plane[row, column]) for plane in geometry.coordinates(0.0))
    assert at_x - 79.5 == pytest.approx(9.0, abs=1.0)
    assert at_y - 79.5 == pytest.approx(-14.0, abs=1.0)


def _ring_powers(field: NDArray[np.float32]) -> list[float]:
    n = field.shape[0]
    power = np.abs(np.fft.fft2(field)) ** 2 / n**2
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n, 13.12), np.fft.fftfreq(n, 13.12)))
    return [float(power[np.abs(k * d - 1.0) < 0.1].mean()) for d, _ in CALIBRATED]


CALIBRATED = ((350.0, 0.020), (175.0, 0.0081), (105.0, 0.0045), (75.0, 0.0025))


def test_texture_has_the_calibrated_power() -> None:
    pair = power_law_pair(Draws(5).stream("texture"), 400, 13.12, 0.0081, 1.4)
    for field in pair:
        for power, (_, expected) in zip(_ring_powers(field), CALIBRATED, strict=True):
            assert expected / 2 < power < expected * 2
    assert abs(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1]) < 0.05


def test_second_texture_has_the_calibrated_power_and_another_make() -> None:
    powers, skews = [], []
    for seed in range(5):
        field = scattered_grains(Draws(seed).stream("texture"), 400, 13.12, 0.0081, 1.4)
        powers.append(_ring_powers(field))
        skews.append(float((field**3).mean() / field.std() ** 3))
    for power, (_, expected) in zip(np.mean(powers, axis=0), CALIBRATED, strict=True):
        assert expected / 2 < power < expected * 2
    assert np.mean(skews) > 0.3
