"""Records the noise-free tilts of a data set: electrons drawn, one camera for each tilt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.learning.shards import Scene, list_shards, read_about, read_scene
from engines.simulation import random_camera, record


@dataclass(frozen=True, slots=True)
class Exposure:
    """One tilt of a data set, recorded once."""

    series: str
    """Unique within the data set."""
    index: int
    """Place in the series."""
    scene: Scene
    picture: NDArray[float32]
    """(H, W), counts."""


def recorded(data: Path, seed: int, limit: int) -> Iterator[Exposure]:
    """Record each tilt of a data set once, at most `limit`, series by series."""
    tilts = chain.from_iterable(
        recorded_series(path, number, seed) for number, path in enumerate(list_shards(data))
    )
    return islice(tilts, limit)


def recorded_series(path: Path, number: int, seed: int) -> Iterator[Exposure]:
    """Record each tilt of the shard that has the place `number` in its data set."""
    for index in range(len(read_about(path))):
        generator = np.random.default_rng([seed, number, index])
        scene = read_scene(path, index)
        camera = random_camera(generator, str(scene.about["family"]))
        picture = record(scene.expected, generator, camera)
        yield Exposure(path.stem, index, scene, np.asarray(picture, float32))
