"""What the out-of-domain monitor learns from: features of recorded pictures, seen by a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import bool_, float32
from numpy.typing import NDArray

from engines.backends.protocol import Backend
from engines.bundle import Manifest
from engines.domain import domain_flags
from engines.domain_physics import PHYSICS, physics_of
from engines.domain_polarity import turned
from engines.icemap import AMBER
from engines.learning.shards import list_shards, read_about, read_scene
from engines.padding import infer
from engines.preprocess import prepare
from engines.simulation import random_camera, record

_CROPPED_SHARE = 0.3
_LEAST_SIDE_PX = 160


@dataclass(frozen=True, slots=True)
class Seen:
    """One recorded picture as the network and the physical checks see it."""

    family: str
    series: str
    storage: str
    inverted: bool
    """Whether dark and bright were exchanged on purpose."""
    refused: bool
    """Whether physical checks alone give no opinion."""
    features: NDArray[float32]
    """(features,): empty for a bundle without any."""
    physics: NDArray[float32]
    """(len(PHYSICS),)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Many pictures, one row each."""

    family: NDArray[np.str_]
    series: NDArray[np.str_]
    storage: NDArray[np.str_]
    inverted: NDArray[bool_]
    refused: NDArray[bool_]
    features: NDArray[float32]
    """(pictures, features)."""
    physics: NDArray[float32]
    """(pictures, len(PHYSICS))."""

    def __len__(self) -> int:
        return len(self.family)

    def where(self, chosen: NDArray[bool_]) -> Sample:
        """Keep the chosen rows, (pictures,)."""
        return Sample(*(getattr(self, name)[chosen] for name in self.__slots__))

    @classmethod
    def of(cls, pictures: Iterable[Seen]) -> Sample:
        """Stack pictures; raises ValueError where there are none."""
        rows = list(pictures)
        if not rows:
            raise ValueError("there is no picture to learn from: name data sets that hold some.")
        return cls(
            np.array([one.family for one in rows], np.str_),
            np.array([one.series for one in rows], np.str_),
            np.array([one.storage for one in rows], np.str_),
            np.array([one.inverted for one in rows], bool),
            np.array([one.refused for one in rows], bool),
            np.stack([one.features for one in rows]).astype(float32),
            np.stack([one.physics for one in rows]).astype(float32),
        )


@dataclass(frozen=True, slots=True)
class Collection:
    """What is taken from data sets."""

    seed: int = 0
    series: int = 600
    """Of each data set, at most."""
    tilts: int = 1
    """Of each series, at most."""
    turn: bool = False
    """Whether each picture is also seen with dark and bright exchanged."""


def pictures_in(data: Path, wanted: Collection) -> int:
    """Count the series that are taken of a data set."""
    return min(wanted.series, len(list_shards(data)))


def collect(
    manifest: Manifest, backend: Backend, data: Path, wanted: Collection
) -> Iterator[list[Seen]]:
    """Record pictures of a data set and look at them, one list for each series.

    Part of the pictures is cropped, so that small fields are familiar too. The same arguments
    give the same pictures.
    """
    for number, path in enumerate(list_shards(data)[: wanted.series]):
        generator = np.random.default_rng([wanted.seed, number])
        tilts = generator.permutation(len(read_about(path)))[: wanted.tilts]
        found = []
        for index in tilts.tolist():
            scene = read_scene(path, index)
            family = str(scene.about["family"])
            camera = random_camera(generator, family)
            picture = _cropped(record(scene.expected, generator, camera), generator)
            for inverted in (False, True) if wanted.turn else (False,):
                image = turned(picture) if inverted else picture
                refused, features, physics = look(manifest, backend, image)
                found.append(
                    Seen(
                        family,
                        f"{data.name}/{path.stem}",
                        camera.storage,
                        inverted,
                        refused,
                        features,
                        physics,
                    )
                )
        yield found


def look(
    manifest: Manifest, backend: Backend, image: NDArray[float32]
) -> tuple[bool, NDArray[float32], NDArray[float32]]:
    """See an image at the bundle's pixel size: refused by physics, features, physics."""
    size = manifest.pixel_size_angstrom
    prepared = prepare(image, size, size)
    shape = (image.shape[0], image.shape[1])
    refused = bool(set(domain_flags(prepared.picture, prepared.valid, shape)) - AMBER)
    physics = physics_of(prepared.picture, prepared.valid)
    assert physics.shape == (len(PHYSICS),)
    found = infer(backend, prepared).features if manifest.feature_sizes else None
    return refused, np.empty(0, float32) if found is None else found[0], physics


def _cropped(picture: NDArray[float32], generator: np.random.Generator) -> NDArray[float32]:
    """Cut out a part, now and then."""
    least = min(*picture.shape, _LEAST_SIDE_PX)
    if generator.random() >= _CROPPED_SHARE:
        return picture
    sides = [int(generator.integers(least, length + 1)) for length in picture.shape]
    top, left = (
        int(generator.integers(0, n - s + 1)) for n, s in zip(picture.shape, sides, strict=True)
    )
    return np.ascontiguousarray(picture[top : top + sides[0], left : left + sides[1]])
