"""Choose the known tilts of a bundle, by which every backend must prove itself.

python -m engines.learning.reference --bundle DIR --data DATA
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import float32
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.bundle import Bundle
from engines.learning.bundle_files import add_file
from engines.learning.shards import list_shards, read_about, read_scene
from engines.reference import MAX_BYTES, REFERENCE, KnownTilt, packed, read_known, unpacked
from engines.segmenter import Segmenter
from engines.simulation import random_camera, record

SIDE_PX = 320
TILTS_OF_A_SERIES = 2
WANTED_PERCENT = (0.0, 3.0, 8.0, 20.0)
"""Ice that the first tilts of the chosen series shall show, about."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    shard: Path
    first: int
    percent: float


def choose(data: Path, seed: int) -> tuple[KnownTilt, ...]:
    """Record a few series of a data set whose amounts of ice differ.

    Raises ValueError where the data set has no series of several tilts.
    """
    generator = np.random.default_rng(seed)
    candidates = _candidates(data)
    if not candidates:
        raise ValueError(f"{data} holds no series of {TILTS_OF_A_SERIES} tilts.")
    tilts = []
    for number, wanted in enumerate(WANTED_PERCENT):
        chosen = min(candidates, key=lambda one: abs(one.percent - wanted))
        candidates = [one for one in candidates if one.shard != chosen.shard] or candidates
        camera = random_camera(generator)
        for index in range(chosen.first, chosen.first + TILTS_OF_A_SERIES):
            scene = read_scene(chosen.shard, index)
            picture = record(scene.expected, generator, camera)
            angle_deg = float(scene.about["angle_deg"])
            tilts.append(KnownTilt(_middle(picture), angle_deg, number))
    return tuple(tilts)


def _candidates(data: Path) -> list[_Candidate]:
    found = []
    for shard in track(list_shards(data), "looking for series"):
        about = read_about(shard)
        found += [
            _Candidate(shard, k, float(about[k]["ice_percent"]))
            for k in range(len(about) - TILTS_OF_A_SERIES + 1)
        ]
    return found


def _middle(picture: NDArray[np.number]) -> NDArray[float32]:
    """Cut the middle; places without data become 0, as half precision must hold every value."""
    rows, columns = picture.shape
    side = min(SIDE_PX, rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    cut = np.asarray(picture, float32)[top : top + side, left : left + side]
    return np.nan_to_num(cut, posinf=0.0, neginf=0.0).clip(-6e4, 6e4)


def add_to_bundle(directory: Path, tilts: Sequence[KnownTilt]) -> int:
    """Write known tilts into a bundle: their bytes; raises ValueError where these are too many."""
    content = packed(tilts)
    if len(content) > MAX_BYTES:
        raise ValueError(f"the known tilts have {len(content)} bytes, more than {MAX_BYTES}.")
    add_file(directory, REFERENCE, content)
    return len(content)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m engines.learning.reference", description=__doc__
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument(
        "--data", type=Path, required=True, help="a data set that nothing else uses"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    bundle = Bundle.load(given.bundle)
    tilts = choose(given.data, given.seed)
    size = add_to_bundle(given.bundle, tilts)
    backend = OnnxRuntimeSettings().build(bundle)
    found = read_known(
        Segmenter(bundle, backend), unpacked(packed(tilts)), bundle.manifest.pixel_size_angstrom
    )
    backend.close()
    says = ", ".join("none" if one.percent is None else f"{one.percent:.1f}" for one in found)
    Console().print(
        f"{given.bundle / REFERENCE} written: {len(tilts)} tilts, {size} bytes; percent: {says}"
    )


if __name__ == "__main__":
    main()
