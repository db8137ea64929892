"""Simulated series of a few made-up tilts, whose ice the tiny bundle finds whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import float16, float32, uint8, uint16

from engines.learning.shards import write_series
from engines.simulation import SimulatedSeries
from engines.simulation.tilt import SimulatedTilt

SIDE_PX = 128
PIXEL_SIZE_ANGSTROM = 13.5
CONTRAST = 0.6


def made_tilt(
    percent: float, angle_deg: float, hidden: bool = False, **about: str
) -> SimulatedTilt:
    """A tilt with a dark rectangle of ice; `hidden` ice is in the truth alone."""
    ice = np.zeros((SIDE_PX, SIDE_PX), bool)
    height = SIDE_PX // 2
    ice[10 : 10 + height, 10 : 10 + round(percent / 100 * SIDE_PX**2 / height)] = True
    # a specimen has some structure; nothing but noise counts as a beam without specimen
    electrons = 250.0 * (1.0 + 0.05 * np.sin(np.arange(SIDE_PX) / 9.0)) * np.ones(ice.shape)
    electrons[ice & (not hidden)] *= 1.0 - CONTRAST
    nothing = np.zeros(ice.shape, uint8)
    true_percent = 100.0 * float(ice.mean())
    return SimulatedTilt(
        expected=electrons.astype(float32),
        labels=dict.fromkeys(("0.06", "0.10", "0.15"), ice.astype(uint8)),
        phase=ice.astype(uint8) * 2,
        valid=np.ones(ice.shape, bool),
        distract=np.where(np.arange(SIDE_PX) >= SIDE_PX // 2, 1, 0).astype(uint16) + nothing,
        angle_deg=angle_deg,
        exposure_dose_e_per_A2=2.0,
        ice_percent=true_percent,
        metadata={
            "pixel_size_angstrom": PIXEL_SIZE_ANGSTROM,
            **{f"area_{t}": true_percent for t in ("0.06", "0.10", "0.15")},
            **about,
        },
        present=ice.astype(uint8),
        contrast_dark=(ice * CONTRAST).astype(float16),
        contrast_bright=nothing.astype(float16),
        ignore=np.zeros(ice.shape, bool),
    )


def write_shard(folder: Path, number: int, family: str, *tilts: SimulatedTilt) -> None:
    """Add a series to a data set."""
    folder.mkdir(parents=True, exist_ok=True)
    series = SimulatedSeries(number, family, tilts, PIXEL_SIZE_ANGSTROM, 0.0, 20.0)
    write_series(folder / f"series_{number:06d}.npz", series, number, family)
