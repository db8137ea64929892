"""The contact sheet of a data set: a row of recorded tilts for each family, truth outlined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy import uint8

from engines.learning.shards import IGNORE_BIT, Scene, read_about, read_scene
from engines.simulation import random_camera, record
from engines.simulation.sheet import ICE, IGNORED, INVALID, Tile, captioned, outlined

CONTACT_SHEET = "contact_sheet.jpg"
COLUMNS = 6
_MOST_SIDE_PX = 320
_GAP_PX = 4


def write_contact_sheet(path: Path, shards: Sequence[Path]) -> None:
    """Write a JPEG of up to COLUMNS tilts of each family, the iciest of each of its first series.

    Ice is outlined red, what is ignored yellow, what is not valid blue; in the caption are
    family, ice percent and kind. Each tilt is recorded by a camera drawn from its seed.
    """
    rows = [
        np.hstack([_tile(read_scene(shard, index)) for shard, index in chosen])
        for chosen in _by_family(shards).values()
    ]
    widest = max((row.shape[1] for row in rows), default=0)
    rows = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows]
    if rows:
        cv2.imwrite(str(path), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


def _by_family(shards: Sequence[Path]) -> dict[str, list[tuple[Path, int]]]:
    """Choose the tilt with most ice of each of the first series of each family."""
    chosen: dict[str, list[tuple[Path, int]]] = {}
    for shard in shards:
        about = read_about(shard)
        row = chosen.setdefault(str(about[0]["family"]), [])
        if len(row) < COLUMNS:
            percents = [float(tilt["ice_percent"]) for tilt in about]
            row.append((shard, int(np.argmax(percents))))
    return dict(sorted(chosen.items()))


def _tile(scene: Scene) -> Tile:
    about = scene.about
    generator = np.random.default_rng(int(about["seed"]))
    picture = record(scene.expected, generator, random_camera(generator, str(about["family"])))
    left = (scene.packed & IGNORE_BIT) > 0
    areas = ((left, IGNORED), (scene.label("0.10"), ICE), (~scene.valid, INVALID))
    tile = outlined(picture, areas)
    scale = min(1.0, _MOST_SIDE_PX / max(tile.shape[:2]))
    if scale < 1.0:
        tile = np.asarray(cv2.resize(tile, None, fx=scale, fy=scale), uint8)
    tile = captioned(tile, f"{about['family']} {scene.percent:.1f}% {about.get('ice_kind', '')}")
    return np.pad(tile, ((0, _GAP_PX), (0, _GAP_PX), (0, 0)))
