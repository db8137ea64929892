"""Exact truth of a tilt: which pixels are ice, of which phase, and how much that is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
import torch
from numpy import bool_, float32, uint8
from numpy.typing import NDArray

from engines.simulation.bragg import Contrast
from engines.simulation.canvas import Distractor
from engines.simulation.diffraction import PHASE_NAMES
from engines.simulation.imaging import blur

CURVE = (0.03, 0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25)
"""Thresholds at which the area of visible ice is noted for each tilt."""
THRESHOLDS: Mapping[str, float] = {"0.06": 0.06, "0.10": 0.10, "0.15": 0.15}
HEADLINE = "0.10"
_BLUR_ANGSTROM = 40.0
_CLOSING_ANGSTROM = 150.0
_SMALLEST_ANGSTROM2 = 1000.0 * 100.0
_RING_ANGSTROM = 40.0
_SURFACE_FLASH = 0.05
_EDGE_SHARE = 0.02
_CAUSE_SPREAD_ANGSTROM = 60.0


def bragg_contrast(
    contrast: Contrast, transmission: torch.Tensor, pixel_size_angstrom: float
) -> tuple[NDArray[float32], NDArray[float32]]:
    """Return dark and bright contrast of counted ice, blurred by 4 nm, (n, n) float32 each.

    Dark is the share of the direct beam that is lost; bright is the ghost over the intensity
    that would be there without ice.
    """
    sigma = _BLUR_ANGSTROM / pixel_size_angstrom
    if not bool(contrast.present.any()):
        return np.zeros(transmission.shape, float32), np.zeros(transmission.shape, float32)
    dark = blur(1.0 - contrast.direct_counted, sigma)
    bright = blur(contrast.ghost_counted / transmission.clamp_min(1e-3), sigma)
    return dark.cpu().numpy(), bright.cpu().numpy()


def label(
    dark: NDArray[float32],
    bright: NDArray[float32],
    threshold: float,
    pixel_size_angstrom: float,
    ghosts: bool = True,
) -> NDArray[uint8]:
    """Return the mask of visible ice at a contrast threshold, (n, n) uint8 of 0 and 1.

    Closed over 15 nm, parts under 1000 nm^2 dropped; `ghosts` includes bright partners.
    """
    mask = dark > threshold
    if ghosts:
        mask = mask | (bright > threshold)
    if not mask.any():
        return np.zeros(mask.shape, uint8)
    kernel = _disc(0.5 * _CLOSING_ANGSTROM / pixel_size_angstrom)
    closed = np.asarray(cv2.morphologyEx(mask.astype(uint8), cv2.MORPH_CLOSE, kernel), uint8)
    return drop_small(closed, _SMALLEST_ANGSTROM2 / pixel_size_angstrom**2)


def drop_small(mask: NDArray[uint8], smallest_px: float) -> NDArray[uint8]:
    """Remove connected parts (8 neighbours) of fewer than `smallest_px` pixels."""
    if not mask.any():
        return mask.astype(uint8)
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= math.ceil(smallest_px)
    large[0] = False
    return np.asarray(large[parts], uint8)


def _disc(radius_px: float) -> NDArray[uint8]:
    side = 2 * round(radius_px) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), uint8)


def phase_map(
    contrast: Contrast,
    mask: NDArray[uint8],
    crop: tuple[slice, slice],
    pixel_size_angstrom: float,
) -> NDArray[uint8]:
    """Return the phase that causes the contrast inside a mask: 1 Ih, 2 Ic, 3 Isd, 0 elsewhere."""
    if not mask.any():
        return np.zeros(mask.shape, uint8)
    spread = _CAUSE_SPREAD_ANGSTROM / pixel_size_angstrom
    best = np.ones(mask.shape, uint8)
    most = blur(contrast.by_phase[0], spread).cpu().numpy()[crop]
    for phase in (2, 3):
        if bool(contrast.path[phase - 1].any()):
            own = blur(contrast.by_phase[phase - 1], spread).cpu().numpy()[crop]
            best[own > most] = phase
            most = np.maximum(most, own)
    return (best * mask).astype(uint8)


def longest_path(contrast: Contrast) -> NDArray[uint8]:
    """Return the phase of the longest crystalline path at each pixel, 0 where there is none."""
    path = contrast.path.cpu().numpy()
    there = path.any(axis=0)
    if not there.any():
        return np.zeros(path.shape[1:], uint8)
    return np.asarray((path.argmax(axis=0) + 1) * there, uint8)


def ignore(
    contrast: Contrast,
    transmission: torch.Tensor,
    soft: tuple[NDArray[float32], NDArray[float32]],
    present: NDArray[uint8],
    labels: Mapping[str, NDArray[uint8]],
    distract: NDArray[np.int64],
    pixel_size_angstrom: float,
) -> NDArray[bool_]:
    """Return where a reading at the headline threshold is neither right nor wrong, (n, n).

    `soft` is dark and bright contrast. Ignored are faint ice (half the threshold and more), a
    border of 8 nm round the label, soft ice, and surface ice that diffracts.
    """
    threshold, label_ = THRESHOLDS[HEADLINE], labels[HEADLINE]
    strongest = np.maximum(*soft)
    left = ((present > 0) | (soft[1] > 0.5 * threshold)) & (strongest > 0.5 * threshold)
    left &= label_ == 0
    if label_.any():
        kernel = _disc(_RING_ANGSTROM / pixel_size_angstrom)
        left |= (cv2.dilate(label_, kernel) != 0) & (cv2.erode(label_, kernel) == 0)
    left |= (distract & int(Distractor.SOFT_ICE)) != 0
    taken = 1.0 - contrast.direct / contrast.direct_counted.clamp_min(1e-3)
    flashed = (contrast.ghost - contrast.ghost_counted) / transmission.clamp_min(1e-3)
    if float(taken.max()) > _SURFACE_FLASH:
        sigma = _BLUR_ANGSTROM / pixel_size_angstrom
        surface = (blur(taken, sigma) > _SURFACE_FLASH) | (blur(flashed, sigma) > _SURFACE_FLASH)
        left |= surface.cpu().numpy() & (label_ == 0)
    return np.asarray(left, bool_)


def edge(size_px: int) -> NDArray[bool_]:
    """Return the outermost 2 % of a picture, whose ice may lie outside: (size, size)."""
    width = max(1, round(_EDGE_SHARE * size_px))
    outer = np.ones((size_px, size_px), bool_)
    outer[width:-width, width:-width] = False
    return outer


def area_curve(
    dark: NDArray[float32],
    bright: NDArray[float32],
    valid: NDArray[bool_],
    pixel_size_angstrom: float,
) -> dict[str, float | str | int]:
    """Return the share of the valid area that is visible ice at each threshold, percent."""
    return {
        f"area_{t:.2f}": percent(label(dark, bright, t, pixel_size_angstrom), valid) for t in CURVE
    }


def phase_shares(present: NDArray[uint8]) -> dict[str, float | str | int]:
    """Return how much of the crystalline area is of each phase, 0 to 1."""
    counts = np.bincount(present.ravel(), minlength=4)
    total = max(1, int(counts[1:].sum()))
    return {f"share_{PHASE_NAMES[k]}": float(counts[k]) / total for k in (1, 2, 3)}


def percent(mask: NDArray[uint8], valid: NDArray[bool_]) -> float:
    """Return the share of the valid area that is ice, in percent; 0 where nothing is valid."""
    area = int(valid.sum())
    return 100.0 * float((mask.astype(bool) & valid).sum()) / area if area else 0.0
