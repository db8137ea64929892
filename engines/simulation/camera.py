"""The camera: electrons are drawn, counted, resampled and stored, differently at each site."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.simulation.draws import chance, log_uniform
from engines.simulation.storing import STORAGES, resample, store

__all__ = ["KERNELS", "STORAGES", "CameraChoices", "random_camera", "record"]

Picture = NDArray[float32]

KERNELS = ("area", "fourier", "gaussian", "lanczos", "aliased", "coarse", "uneven")
RESAMPLED_FAMILY = "h10_resampled"
"""The one family whose pictures are always resampled and stored badly."""


@dataclass(frozen=True, slots=True)
class CameraChoices:
    """What one recording adds to the expected electrons."""

    dose_factor: float = 1.0
    kernel: str = "area"
    """How the picture was brought to this pixel size, one of KERNELS."""
    kernel_width_px: float = 0.5
    kernel_scale: float = 1.5
    """For `coarse` and `uneven`: pixel size in between, over this one."""
    alias_gain: float = 1.0
    """For `aliased`: by how much shot noise is stronger than with every electron kept."""
    low_frequency_loss: float = 0.0
    """Counting loss: share of power missing at low frequency."""
    gain_error: float = 0.0
    """Relative deviation of the fixed pattern."""
    column_error: float = 0.0
    seam: float = 0.0
    """Relative step between the halves of the sensor."""
    hot_pixels: int = 0
    dead_pixels: int = 0
    spikes: int = 0
    """X-ray hits of one to three pixels."""
    vignette: float = 0.0
    fringe: float = 0.0
    beam_stop: float = 0.0
    """Side of a shaded corner, as a share of the picture."""
    counts_per_electron: float = 1.0
    offset: float = 0.0
    storage: str = "float"
    """How values are stored, one of STORAGES."""
    flip_sign: bool = False


def random_camera(generator: np.random.Generator, family: str = "") -> CameraChoices:
    """Draw a camera and a way of storing; the sign is never flipped.

    Of the families only `h10_resampled` changes anything: its pictures are always resampled or
    stored badly.
    """
    bad = family == RESAMPLED_FAMILY
    kernels = [0.0, 0.0, 0.1, 0.1, 0.25, 0.3, 0.25] if bad else _USUAL_KERNELS
    storages = [0.0, 0.0, 0.4, 0.4, 0.2] if bad else _USUAL_STORAGES
    spoiled = chance(generator, 0.5 if bad else 0.3)
    return CameraChoices(
        dose_factor=log_uniform(generator, 0.5, 1.7),
        kernel=str(generator.choice(KERNELS, p=kernels)),
        kernel_width_px=generator.uniform(0.3, 0.7),
        kernel_scale=log_uniform(generator, 1.05, 2.2),
        alias_gain=generator.uniform(1.2, 3.0),
        low_frequency_loss=generator.uniform(0.0, 0.15) if chance(generator, 0.5) else 0.0,
        gain_error=generator.uniform(0.0, 0.01),
        column_error=generator.uniform(0.0, 0.008) if chance(generator, 0.15) else 0.0,
        seam=generator.normal(0.0, 0.015) if chance(generator, 0.1) else 0.0,
        hot_pixels=int(generator.integers(1, 50)) if spoiled else 0,
        dead_pixels=int(generator.integers(0, 20)) if spoiled else 0,
        spikes=int(generator.integers(1, 6)) if chance(generator, 0.1) else 0,
        vignette=generator.uniform(0.02, 0.25) if chance(generator, 0.2) else 0.0,
        fringe=generator.uniform(0.01, 0.06) if chance(generator, 0.1) else 0.0,
        beam_stop=generator.uniform(0.05, 0.3) if chance(generator, 0.03) else 0.0,
        counts_per_electron=log_uniform(generator, 0.02, 40.0),
        offset=generator.uniform(0.0, 50.0) if chance(generator, 0.1) else 0.0,
        storage=str(generator.choice(STORAGES, p=storages)),
    )


_USUAL_KERNELS = [0.4, 0.13, 0.17, 0.1, 0.1, 0.05, 0.05]
_USUAL_STORAGES = [0.6, 0.2, 0.1, 0.05, 0.05]


def record(
    expected: NDArray[float32],
    generator: np.random.Generator,
    camera: CameraChoices | None = None,
) -> NDArray[float32]:
    """Draw one recording of expected electrons (rows, columns), float32 counts.

    Without `camera` every electron is kept and nothing but counting noise is added.
    """
    c = camera or CameraChoices()
    mean = np.maximum(expected * float32(c.dose_factor), 0.0).astype(float32)
    if c.vignette > 0 or c.fringe > 0 or c.beam_stop > 0:
        mean = mean * _beam(generator, mean.shape, c)
    counted = _electrons(generator, mean, c.alias_gain if c.kernel == "aliased" else 1.0)
    if c.low_frequency_loss > 0:
        noise = counted - mean
        counted = counted - c.low_frequency_loss * cv2.GaussianBlur(noise, (0, 0), 2.5)
    counted = counted * _gain(generator, mean.shape, c)
    picture = resample(counted, c.kernel, c.kernel_width_px, c.kernel_scale)
    _spoil(generator, picture, c)
    return store(picture, c.storage, c.counts_per_electron, c.offset, c.flip_sign)


def _electrons(generator: np.random.Generator, mean: Picture, noise_gain: float) -> Picture:
    """Draw Poisson counts; above 50 electrons a normal draw with a skew term is the same."""
    if float(mean.min(initial=0.0)) > 50.0:
        normal = generator.standard_normal(mean.shape, dtype=float32)
        drawn = mean + np.sqrt(mean) * normal * noise_gain + (normal**2 - 1.0) / 6.0
        return np.asarray(np.maximum(drawn, 0.0), float32)
    drawn = generator.poisson(mean).astype(float32)
    return np.maximum(mean + (drawn - mean) * noise_gain, 0.0).astype(float32)


def _gain(generator: np.random.Generator, shape: tuple[int, ...], c: CameraChoices) -> Picture:
    """Return what the sensor multiplies by, (rows, columns) or less."""
    gain = np.ones((1, 1), float32)
    if c.gain_error > 0:
        gain = gain + c.gain_error * generator.standard_normal(shape, dtype=float32)
    if c.column_error > 0:
        gain = gain + c.column_error * generator.standard_normal((1, shape[1]), dtype=float32)
    if c.seam:
        gain = gain + c.seam * (np.arange(shape[0], dtype=float32)[:, None] > shape[0] / 2)
    return np.asarray(gain, float32)


def _beam(generator: np.random.Generator, shape: tuple[int, ...], c: CameraChoices) -> Picture:
    rows, columns = shape
    y = np.linspace(-1, 1, rows, dtype=float32)[:, None] - generator.uniform(-0.4, 0.4)
    x = np.linspace(-1, 1, columns, dtype=float32)[None, :] - generator.uniform(-0.4, 0.4)
    distance = x * x + y * y
    beam = 1.0 - c.vignette * distance / 2
    if c.fringe > 0:
        rings = np.cos(generator.uniform(10, 25) * distance)
        beam = beam * (1.0 + c.fringe * rings * np.exp(-2 * np.abs(2.0 - distance)))
    if c.beam_stop > 0:
        depth = np.linspace(0, 1, rows)[:, None] + np.linspace(0, 1, columns)[None, :]
        beam = beam / (1.0 + np.exp(np.clip((c.beam_stop - depth) / 0.004, -30, 6)))
    return np.maximum(beam, 0.002).astype(float32)


def _spoil(generator: np.random.Generator, picture: Picture, c: CameraChoices) -> None:
    """Set hot pixels (several times the mean), dead pixels and X-ray hits, in place."""
    rows, columns = picture.shape
    mean = float(picture.mean())
    for count, low, high in ((c.hot_pixels, 1.5, 6.0), (c.dead_pixels, 0.0, 0.3)):
        if count:
            at = (generator.integers(0, rows, count), generator.integers(0, columns, count))
            picture[at] = mean * generator.uniform(low, high, count).astype(float32)
    for _ in range(c.spikes):
        row, column = int(generator.integers(rows)), int(generator.integers(columns))
        size = int(generator.integers(1, 4))
        picture[row : row + 1, column : column + size] += mean * log_uniform(generator, 3.0, 30.0)
