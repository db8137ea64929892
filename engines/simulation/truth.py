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
from engines.simulation.imaging import blur

THRESHOLDS: Mapping[str, float] = {"0.06": 0.06, "0.10": 0.10, "0.15": 0.15}
HEADLINE = "0.10"
_BLUR_ANGSTROM = 40.0
_CLOSING_ANGSTROM = 150.0
_SMALLEST_ANGSTROM2 = 1000.0 * 100.0


def bragg_contrast(
    contrast: Contrast, transmission: torch.Tensor, pixel_size_angstrom: float
) -> tuple[NDArray[float32], NDArray[float32]]:
    """Return dark and bright contrast of counted ice, blurred by 4 nm, (n, n) float32 each.

    Dark is the share of the direct beam that is lost; bright is the ghost over the intensity
    that would be there without ice.
    """
    sigma = _BLUR_ANGSTROM / pixel_size_angstrom
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
    side = 2 * round(0.5 * _CLOSING_ANGSTROM / pixel_size_angstrom) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
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


def phase_map(
    contrast: Contrast, mask: NDArray[uint8], pixel_size_angstrom: float
) -> NDArray[uint8]:
    """Return the phase that causes the contrast inside a mask: 1 Ih, 2 Ic, 3 Isd, 0 elsewhere."""
    if not mask.any():
        return np.zeros(mask.shape, uint8)
    spread = 60.0 / pixel_size_angstrom
    scores = torch.stack([blur(plane, spread) for plane in contrast.by_phase])
    best = (scores.argmax(dim=0) + 1).cpu().numpy().astype(uint8)
    return (best * mask).astype(uint8)


def percent(mask: NDArray[uint8], valid: NDArray[bool_]) -> float:
    """Return the share of the valid area that is ice, in percent; 0 where nothing is valid."""
    area = int(valid.sum())
    return 100.0 * float((mask.astype(bool) & valid).sum()) / area if area else 0.0
