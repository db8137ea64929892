"""Lengths over which a crystal's lattice turns."""

from __future__ import annotations

import math


def mosaic_scale_px(pixel_size_angstrom: float) -> float:
    """Return the length over which a mosaic crystal turns, about 15 nm, in pixels."""
    return max(4.0, 150.0 / pixel_size_angstrom)


def buckle_scale_px(pixel_size_angstrom: float) -> float:
    """Return the length over which a bent crystal buckles, about 120 nm, in pixels."""
    return max(8.0, 1200.0 / pixel_size_angstrom)


def bend_per_px(degrees_per_um: float, pixel_size_angstrom: float) -> float:
    """Convert a bend from degrees per micrometre to rad per pixel."""
    return math.radians(degrees_per_um) * pixel_size_angstrom * 1e-4
