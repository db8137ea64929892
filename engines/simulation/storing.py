"""How pictures are resampled before they are kept, and what is kept of their values."""

from __future__ import annotations

import cv2
import numpy as np
from numpy import float32
from numpy.typing import NDArray

Picture = NDArray[float32]

STORAGES = ("float", "integer", "percentile_bytes", "minmax_bytes", "standardised")
_WIDE = 4.0
"""Largest value of bytes scaled from minimum to maximum, over the mean: brighter ones are cut."""


def resample(picture: Picture, kernel: str, width_px: float, scale: float) -> Picture:
    """Bring a picture through one of the kernels of other programs; it keeps its size."""
    if kernel == "gaussian":
        return cv2.GaussianBlur(picture, (0, 0), width_px).astype(float32)
    if kernel == "lanczos":
        soft = cv2.GaussianBlur(picture, (0, 0), 0.8)
        return (1.25 * picture - 0.25 * soft).astype(float32)
    if kernel == "fourier":
        return _band_limited(picture, 0.35 + 0.37 * (width_px - 0.3))
    if kernel == "coarse":
        return _through(picture, scale, cv2.INTER_AREA, width_px)
    if kernel == "uneven":
        return _through(picture, 0.6 + 0.15 * scale, cv2.INTER_LINEAR, width_px)
    return picture.astype(float32)


def _band_limited(picture: Picture, highest: float) -> Picture:
    """Cut frequencies above a limit in cycles per pixel."""
    spectrum = np.fft.rfft2(picture)
    ky = np.fft.fftfreq(picture.shape[0])[:, None]
    kx = np.fft.rfftfreq(picture.shape[1])[None, :]
    keep = np.hypot(ky, kx) < highest
    return np.fft.irfft2(spectrum * keep, s=picture.shape).astype(float32)


def _through(picture: Picture, scale: float, shrink: int, width_px: float) -> Picture:
    """Take a picture through pixels that are `scale` times as large, and back."""
    rows, columns = picture.shape
    between = (max(8, round(columns / scale)), max(8, round(rows / scale)))
    enlarge = cv2.INTER_LINEAR if width_px < 0.5 else cv2.INTER_CUBIC
    small = cv2.resize(picture, between, interpolation=shrink)
    return cv2.resize(small, (columns, rows), interpolation=enlarge).astype(float32)


def store(
    picture: Picture, storage: str, counts_per_electron: float, offset: float, flip_sign: bool
) -> Picture:
    """Return what is left of a picture's values once they are stored."""
    stored = picture * float32(counts_per_electron) + float32(offset)
    if flip_sign:
        stored = stored.max() + stored.min() - stored
    if storage == "integer":
        fine = max(1.0, 30.0 / max(float(stored.mean()), 1e-6))
        stored = np.rint(stored * float32(fine))
    elif storage == "percentile_bytes":
        stored = _bytes(stored, *np.percentile(stored, [0.02, 99.98]))
    elif storage == "minmax_bytes":
        most = max(float(stored.mean()) * _WIDE, float(np.percentile(stored, 99.98)))
        stored = _bytes(stored, float(stored.min()), min(float(stored.max()), most))
    elif storage == "standardised":
        stored = (stored - stored.mean()) / max(float(stored.std()), 1e-6)
    return np.ascontiguousarray(stored, dtype=float32)


def _bytes(stored: Picture, low: float, high: float) -> Picture:
    span = max(high - low, 1e-6)
    return np.asarray(np.clip(np.rint((stored - low) * (255.0 / span)), 0, 255), float32)
