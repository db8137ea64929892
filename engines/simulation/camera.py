"""The camera: electrons are drawn, counted, resampled and stored, differently at each site."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.simulation.draws import chance, log_uniform

Picture = NDArray[float32]

KERNELS = ("area", "fourier", "gaussian", "lanczos", "aliased")


@dataclass(frozen=True, slots=True)
class CameraChoices:
    """What one recording adds to the expected electrons."""

    dose_factor: float = 1.0
    kernel: str = "area"
    """How the picture was brought to this pixel size, one of KERNELS."""
    kernel_width_px: float = 0.5
    alias_gain: float = 1.0
    """For `aliased`: by how much shot noise is stronger than with every electron kept."""
    low_frequency_loss: float = 0.0
    """Counting loss: share of power missing at low frequency."""
    gain_error: float = 0.0
    """Relative deviation of the fixed pattern."""
    column_error: float = 0.0
    hot_pixels: int = 0
    dead_pixels: int = 0
    vignette: float = 0.0
    fringe: float = 0.0
    counts_per_electron: float = 1.0
    offset: float = 0.0
    eight_bit: bool = False
    flip_sign: bool = False


def random_camera(generator: np.random.Generator) -> CameraChoices:
    """Draw a camera and a way of storing; the sign is never flipped."""
    kernel = str(generator.choice(KERNELS, p=[0.45, 0.15, 0.2, 0.1, 0.1]))
    spoiled = chance(generator, 0.3)
    return CameraChoices(
        dose_factor=log_uniform(generator, 0.5, 1.7),
        kernel=kernel,
        kernel_width_px=generator.uniform(0.3, 0.7),
        alias_gain=generator.uniform(1.2, 3.0),
        low_frequency_loss=generator.uniform(0.0, 0.15) if chance(generator, 0.5) else 0.0,
        gain_error=generator.uniform(0.0, 0.01),
        column_error=generator.uniform(0.0, 0.008) if chance(generator, 0.15) else 0.0,
        hot_pixels=int(generator.integers(1, 30)) if spoiled else 0,
        dead_pixels=int(generator.integers(0, 20)) if spoiled else 0,
        vignette=generator.uniform(0.02, 0.25) if chance(generator, 0.2) else 0.0,
        fringe=generator.uniform(0.01, 0.06) if chance(generator, 0.1) else 0.0,
        counts_per_electron=log_uniform(generator, 0.02, 40.0),
        offset=generator.uniform(0.0, 50.0) if chance(generator, 0.1) else 0.0,
        eight_bit=chance(generator, 0.12),
    )


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
    if c.vignette > 0 or c.fringe > 0:
        mean = mean * _beam(generator, mean.shape, c)
    counted = _electrons(generator, mean, c.alias_gain if c.kernel == "aliased" else 1.0)
    if c.low_frequency_loss > 0:
        noise = counted - mean
        counted = counted - c.low_frequency_loss * cv2.GaussianBlur(noise, (0, 0), 2.5)
    if c.gain_error > 0:
        pattern = generator.standard_normal(mean.shape, dtype=float32)
        counted = counted * (1.0 + c.gain_error * pattern)
    if c.column_error > 0:
        columns = generator.standard_normal((1, mean.shape[1]), dtype=float32)
        counted = counted * (1.0 + c.column_error * columns)
    picture = _resample(counted, c)
    _spoil(generator, picture, c)
    return _store(picture, c)


def _electrons(generator: np.random.Generator, mean: Picture, noise_gain: float) -> Picture:
    """Draw Poisson counts; above 50 electrons a normal draw with a skew term is the same."""
    if float(mean.min(initial=0.0)) > 50.0:
        normal = generator.standard_normal(mean.shape, dtype=float32)
        drawn = mean + np.sqrt(mean) * normal * noise_gain + (normal**2 - 1.0) / 6.0
        return np.asarray(np.maximum(drawn, 0.0), float32)
    drawn = generator.poisson(mean).astype(float32)
    return np.maximum(mean + (drawn - mean) * noise_gain, 0.0).astype(float32)


def _beam(generator: np.random.Generator, shape: tuple[int, ...], c: CameraChoices) -> Picture:
    rows, columns = shape
    y = np.linspace(-1, 1, rows, dtype=float32)[:, None] - generator.uniform(-0.4, 0.4)
    x = np.linspace(-1, 1, columns, dtype=float32)[None, :] - generator.uniform(-0.4, 0.4)
    distance = x * x + y * y
    beam = 1.0 - c.vignette * distance / 2
    if c.fringe > 0:
        rings = np.cos(generator.uniform(10, 25) * distance)
        beam = beam * (1.0 + c.fringe * rings * np.exp(-2 * np.abs(2.0 - distance)))
    return np.maximum(beam, 0.05).astype(float32)


def _resample(picture: Picture, c: CameraChoices) -> Picture:
    if c.kernel == "gaussian":
        return cv2.GaussianBlur(picture, (0, 0), c.kernel_width_px).astype(float32)
    if c.kernel == "lanczos":
        sharp = cv2.GaussianBlur(picture, (0, 0), 0.8)
        return (1.25 * picture - 0.25 * sharp).astype(float32)
    if c.kernel == "fourier":
        spectrum = np.fft.rfft2(picture)
        ky = np.fft.fftfreq(picture.shape[0])[:, None]
        kx = np.fft.rfftfreq(picture.shape[1])[None, :]
        keep = np.hypot(ky, kx) < 0.35 + 0.3 * (c.kernel_width_px - 0.3)
        return np.fft.irfft2(spectrum * keep, s=picture.shape).astype(float32)
    return picture.astype(float32)


def _spoil(generator: np.random.Generator, picture: Picture, c: CameraChoices) -> None:
    """Set hot pixels (several times the mean) and dead pixels, in place."""
    rows, columns = picture.shape
    mean = float(picture.mean())
    for count, low, high in ((c.hot_pixels, 1.5, 6.0), (c.dead_pixels, 0.0, 0.3)):
        if count:
            at = (generator.integers(0, rows, count), generator.integers(0, columns, count))
            picture[at] = mean * generator.uniform(low, high, count).astype(float32)


def _store(picture: Picture, c: CameraChoices) -> Picture:
    stored = picture * float32(c.counts_per_electron) + float32(c.offset)
    if c.flip_sign:
        stored = stored.max() + stored.min() - stored
    if c.eight_bit:
        low, high = np.percentile(stored, [0.02, 99.98])
        span = max(float(high - low), 1e-6)
        stored = np.clip(np.rint((stored - low) * (255.0 / span)), 0, 255)
    return np.ascontiguousarray(stored, dtype=float32)
