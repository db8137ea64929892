"""Pictures that no reading belongs to: no specimen, no beam, maps, diffraction, negative stain."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy import bool_, float16, float32, uint8, uint16
from numpy.typing import NDArray

from engines.simulation.draws import chance, log_uniform
from engines.simulation.fields import centred_grid, smooth
from engines.simulation.foreign_drawing import ForeignDrawer
from engines.simulation.foreign_fields import FIELD_DRAWERS
from engines.simulation.foreign_maps import MAP_DRAWERS
from engines.simulation.parameters import TEST, TRAINING
from engines.simulation.second.foreign import DRAWERS as SECOND_DRAWERS
from engines.simulation.tilt import SimulatedSeries, SimulatedTilt
from engines.simulation.truth import THRESHOLDS

FOREIGN_KINDS = (
    "beam_without_specimen",
    "closed_shutter",
    "grid_bar",
    "atlas",
    "square_map",
    "hole_map",
    "diffraction",
    "negative_stain",
)
FOREIGN_FAMILIES = tuple(f"foreign_{kind}" for kind in FOREIGN_KINDS)
FOREIGN_TEST_FAMILIES = tuple(f"foreign_test_{kind}" for kind in FOREIGN_KINDS)
_DRAWERS: Mapping[str, Mapping[str, ForeignDrawer]] = {
    TRAINING: {**FIELD_DRAWERS, **MAP_DRAWERS},
    TEST: SECOND_DRAWERS,
}
_ELECTRONS_PER_PX: Mapping[str, tuple[float, float]] = {
    "closed_shutter": (1.0, 1.0),
    "diffraction": (0.5, 300.0),
    "atlas": (3.0, 600.0),
    "square_map": (3.0, 600.0),
    "hole_map": (15.0, 1500.0),
}
_USUAL_ELECTRONS_PER_PX = (30.0, 3000.0)


@dataclass(frozen=True, slots=True)
class ForeignPicture:
    """A picture without noise that is no tilt of a vitrified specimen."""

    expected: NDArray[float32]
    """(H, W), electrons per pixel."""
    kind: str
    """One of FOREIGN_KINDS."""
    metadata: Mapping[str, float | str | int]


def foreign_picture(
    seed: int,
    kind: str,
    generator: str = TRAINING,
    *,
    size_px: int = 320,
    pixel_size_angstrom: float = 13.5,
) -> ForeignPicture:
    """Draw a picture; the same arguments give the same one, `generator` "training" or "test".

    Maps are drawn at magnifications of their own: `pixel_size_angstrom` is what a wrong header
    would say of them, and the scale of what is drawn for the other kinds.
    Raises ValueError for an unknown kind or generator.
    """
    if generator not in _DRAWERS or kind not in FOREIGN_KINDS:
        raise ValueError(f"There is no {generator!r} picture of kind {kind!r}; see FOREIGN_KINDS.")
    source = np.random.default_rng([seed, zlib.crc32(f"{generator}/{kind}".encode())])
    transmission = _DRAWERS[generator][kind](source, size_px, pixel_size_angstrom)
    electrons = log_uniform(source, *_ELECTRONS_PER_PX.get(kind, _USUAL_ELECTRONS_PER_PX))
    lit = transmission if kind == "closed_shutter" else transmission * _beam(source, size_px)
    expected = np.maximum(lit * electrons, 0.0).astype(float32)
    about: dict[str, float | str | int] = {
        "kind": kind,
        "generator": generator,
        "pixel_size_angstrom": pixel_size_angstrom,
        "electrons_per_px": electrons,
        "seed": seed,
    }
    return ForeignPicture(expected, kind, about)


def simulate_foreign(
    seed: int, family: str, size_px: int, pixel_size_angstrom: float = 13.5
) -> SimulatedSeries:
    """Draw a picture of one of FOREIGN_FAMILIES or FOREIGN_TEST_FAMILIES as a series of one."""
    tested = family in FOREIGN_TEST_FAMILIES
    prefix = "foreign_test_" if tested else "foreign_"
    picture = foreign_picture(
        seed,
        family.removeprefix(prefix),
        TEST if tested else TRAINING,
        size_px=size_px,
        pixel_size_angstrom=pixel_size_angstrom,
    )
    tilt = without_truth(picture)
    return SimulatedSeries(seed, family, (tilt,), pixel_size_angstrom, 0.0, 0.0)


def without_truth(picture: ForeignPicture) -> SimulatedTilt:
    """Return a picture as a tilt that has no ice anywhere, for the same shards and readers."""
    shape, about = picture.expected.shape, picture.metadata
    nothing, zero = np.zeros(shape, uint8), np.zeros(shape, float16)
    dose = float(about["electrons_per_px"]) / float(about["pixel_size_angstrom"]) ** 2
    return SimulatedTilt(
        expected=picture.expected,
        labels=dict.fromkeys(THRESHOLDS, nothing),
        phase=nothing,
        valid=np.ones(shape, bool_),
        distract=np.zeros(shape, uint16),
        angle_deg=0.0,
        exposure_dose_e_per_A2=dose,
        ice_percent=0.0,
        metadata=about,
        present=nothing,
        contrast_dark=zero,
        contrast_bright=zero,
        ignore=np.zeros(shape, bool_),
    )


def _beam(generator: np.random.Generator, n: int) -> NDArray[float32]:
    """Return how evenly the field is lit, about 1."""
    if chance(generator, 0.4):
        return np.ones((n, n), float32)
    y, x = (axis / n for axis in centred_grid(n))
    fall = generator.uniform(0.0, 0.8)
    at_x, at_y = generator.normal(0, 0.25, 2)
    lit = np.exp(-fall * ((x - at_x) ** 2 + (y - at_y) ** 2))
    return np.asarray(lit * (1.0 + 0.02 * smooth(generator, n, n / 2)), float32)
