"""Contact sheets of simulated recordings, to be looked at beside real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from engines.simulation.camera import random_camera, record
from engines.simulation.parameters import SceneChoices
from engines.simulation.series import SimulatedTilt, simulate_series
from engines.simulation.truth import HEADLINE


def tone(picture: NDArray[float32]) -> NDArray[uint8]:
    """Scale a picture to 8 bit between its 0.5th and 99.5th percentile."""
    low, high = np.percentile(picture, [0.5, 99.5])
    scaled = np.clip((picture - low) / max(float(high - low), 1e-6), 0, 1)
    return np.asarray(scaled * 255, uint8)


def draw_tile(tilt: SimulatedTilt, generator: np.random.Generator, caption: str) -> NDArray[uint8]:
    """Record a tilt and outline its ice (red), colour tile (rows, columns, 3) in BGR order."""
    grey = tone(record(tilt.expected, generator, random_camera(generator)))
    tile = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    outlines, _ = cv2.findContours(tilt.labels[HEADLINE], cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tile, outlines, -1, (0, 0, 255), 1)
    border, _ = cv2.findContours(
        (~tilt.valid).astype(uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(tile, border, -1, (255, 160, 0), 1)
    cv2.putText(tile, caption, (3, tile.shape[0] - 5), 0, 0.38, (0, 255, 255), 1)
    return np.asarray(tile, uint8)


def draw_sheet(
    path: Path,
    families: Sequence[str],
    seeds: Sequence[int],
    size_px: int = 320,
    overrides: SceneChoices | None = None,
) -> None:
    """Write a PNG: one row for each family, one tilt for each seed."""
    rows = []
    for family in families:
        tiles = []
        for seed in seeds:
            series = simulate_series(seed, family, n_tilts=1, size_px=size_px, overrides=overrides)
            tilt = series.tilts[0]
            kind, layout = tilt.metadata["ice_kind"], tilt.metadata["ice_layout"]
            caption = f"{family} {seed} {kind} {layout} {tilt.ice_percent:.1f}%"
            tiles.append(draw_tile(tilt, np.random.default_rng(seed), caption))
        rows.append(np.hstack(tiles))
    cv2.imwrite(str(path), np.vstack(rows))
