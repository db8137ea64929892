"""Contact sheets: simulated recordings, by themselves or beside real pictures.

`python -m engines.simulation.sheet OUT.png [--families f10987,h2_plunged] [--seeds 1,2,3]
[--real FOLDER=ANGSTROM_PER_PIXEL ...]`: one row of pictures for each folder and each family.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from engines.readers.movie import sum_of_frames
from engines.simulation.camera import random_camera, record
from engines.simulation.families import FAMILIES
from engines.simulation.parameters import SceneChoices
from engines.simulation.series import SimulatedTilt, simulate_series
from engines.simulation.truth import HEADLINE

PIXEL_SIZE_ANGSTROM = 13.5
Colour = tuple[int, int, int]
ICE: Colour = (0, 0, 255)
INVALID: Colour = (255, 160, 0)
IGNORED: Colour = (0, 190, 190)
_WORDS = (0, 255, 255)
Tile = NDArray[uint8]


def tone(picture: NDArray[float32]) -> Tile:
    """Scale a picture to 8 bit between its 0.5th and 99.5th percentile."""
    low, high = np.percentile(picture, [0.5, 99.5])
    scaled = np.clip((picture - low) / max(float(high - low), 1e-6), 0, 1)
    return np.asarray(scaled * 255, uint8)


def draw_tile(tilt: SimulatedTilt, generator: np.random.Generator, caption: str) -> Tile:
    """Record a tilt and outline its ice (red), what is ignored (yellow) and not valid (blue).

    Returns a colour tile, (rows, columns, 3), in BGR order.
    """
    camera = random_camera(generator, str(tilt.metadata["family"]))
    areas = ((tilt.ignore, IGNORED), (tilt.labels[HEADLINE], ICE), (~tilt.valid, INVALID))
    return captioned(outlined(record(tilt.expected, generator, camera), areas), caption)


def outlined(picture: NDArray[float32], areas: Sequence[tuple[NDArray[Any], Colour]]) -> Tile:
    """Draw a picture in grey with areas outlined: (rows, columns, 3), BGR; the last on top."""
    tile = cv2.cvtColor(tone(picture), cv2.COLOR_GRAY2BGR)
    kinds = (cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for area, colour in areas:
        outlines, _ = cv2.findContours(np.asarray(area, uint8), *kinds)
        cv2.drawContours(tile, outlines, -1, colour, 1)
    return np.asarray(tile, uint8)


def captioned(tile: Tile, caption: str) -> Tile:
    """Write a caption into the lower left corner of a tile, in place."""
    cv2.putText(tile, caption, (3, tile.shape[0] - 5), 0, 0.38, _WORDS, 1)
    return tile


def draw_row(
    family: str, seeds: Sequence[int], size_px: int, overrides: SceneChoices | None = None
) -> Tile:
    """Draw one tilt of a family for each seed, side by side."""
    tiles = []
    for seed in seeds:
        series = simulate_series(seed, family, n_tilts=1, size_px=size_px, overrides=overrides)
        tilt = series.tilts[0]
        kind, layout = tilt.metadata["ice_kind"], tilt.metadata["ice_layout"]
        caption = f"{family} {seed} {kind} {layout} {tilt.ice_percent:.1f}%"
        tiles.append(draw_tile(tilt, np.random.default_rng(seed), caption))
    return np.asarray(np.hstack(tiles), uint8)


def draw_real_rows(folder: Path, pixel_size_angstrom: float, columns: int, size_px: int) -> Tile:
    """Draw the MRC pictures of a folder in the sampling and scaling of the simulated ones."""
    tiles = []
    for path in sorted(folder.glob("*.mrc")):
        picture = np.asarray(sum_of_frames(path), float32)
        zoom = pixel_size_angstrom / PIXEL_SIZE_ANGSTROM
        small = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        grey = tone(np.asarray(small[::-1][:size_px, :size_px], float32))
        tile = np.zeros((size_px, size_px, 3), uint8)
        tile[: grey.shape[0], : grey.shape[1]] = grey[..., None]
        tiles.append(captioned(tile, path.stem))
    tiles += [np.zeros((size_px, size_px, 3), uint8)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[at : at + columns]) for at in range(0, len(tiles), columns)]
    return np.asarray(np.vstack(rows), uint8)


def draw_sheet(
    path: Path,
    families: Sequence[str],
    seeds: Sequence[int],
    size_px: int = 320,
    overrides: SceneChoices | None = None,
    real: Sequence[tuple[Path, float]] = (),
) -> None:
    """Write a PNG: real pictures of folders (with their A per pixel), then a row a family."""
    rows = [draw_real_rows(folder, px, len(seeds), size_px) for folder, px in real]
    rows += [draw_row(family, seeds, size_px, overrides) for family in families]
    cv2.imwrite(str(path), np.vstack(rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--real", nargs="*", default=[], metavar="FOLDER=ANGSTROM_PER_PIXEL")
    given = parser.parse_args(arguments)
    real = [(Path(folder), float(px)) for folder, px in (one.rsplit("=", 1) for one in given.real)]
    seeds = [int(seed) for seed in given.seeds.split(",")]
    draw_sheet(given.out, given.families.split(","), seeds, real=real)


if __name__ == "__main__":
    main()
