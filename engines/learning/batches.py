"""Draw training pictures: new electrons, new camera, new crop each time a scene is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy import bool_, float32
from numpy.typing import NDArray
from torch import Tensor

from engines.learning.shards import Scene, read_about, read_scene
from engines.simulation import CameraChoices, Distractor, random_camera, record

Value = TypeVar("Value", bound=np.generic)

OPAQUE_SHARE = 0.05
"""Pixels under this share of the median count may come in marked as not valid already."""
VISIBLE_PERCENT = 0.3
DISTRACTING = (
    Distractor.CONTAMINATION
    | Distractor.DIFFRACTING_SURFACE
    | Distractor.ETHANE
    | Distractor.FROST
    | Distractor.BUBBLE
    | Distractor.METAL
    | Distractor.CARBON
    | Distractor.STACKED_MEMBRANES
    | Distractor.GRANULE
    | Distractor.SOFT_ICE
    | Distractor.CLOUD
)
"""What the distractor channel marks; single membranes and particles are specimen."""


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How pictures are varied beyond what the simulator varies."""

    crops_px: tuple[int, ...] = (256, 320)
    """Sides of the square crops, multiples of 32; one is drawn for each batch."""
    foreign_scale: float = 0.1
    """Share of pictures whose values are no counts: another offset and gain, half of them bytes."""
    seek_ice: float = 0.4
    """Share of pictures for which tilts without visible ice are passed over, three times at most:
    more than half of all tilts show none."""
    border: float = 0.15
    """Share of pictures with a border without data."""
    other_optics: float = 0.3
    """Share of pictures whose fine contrast is raised or lowered, as by optics never simulated."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Training pictures with their truth, all (B, H, W) but the first two."""

    picture: Tensor
    """(B, 1, H, W) float32."""
    valid: Tensor
    """(B, 1, H, W) float32: where there is data."""
    packed: Tensor
    """uint8, as in `Scene`."""
    distract: Tensor
    """bool."""
    contrast: Tensor
    """float32: square root of the Bragg contrast, 0 to 1."""

    def to(self, device: torch.device) -> Batch:
        """Move to a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def draw_batch(
    shards: Sequence[Path], size: int, generator: np.random.Generator, settings: AugmentSettings
) -> Batch:
    """Draw a batch of `size` pictures from random tilts of random shards."""
    crop = int(generator.choice(settings.crops_px))
    pictures, valids, packed, distract, contrast = [], [], [], [], []
    for _ in range(size):
        scene = read_scene(*choose(shards, generator, settings))
        scene = turn(cut(scene, crop, generator), generator)
        picture, valid = expose(scene, generator, settings)
        pictures.append(picture)
        valids.append(valid)
        packed.append(scene.packed)
        distract.append((scene.distract & int(DISTRACTING)) > 0)
        contrast.append(scene.contrast.astype(float32) / 255.0)
    return Batch(
        torch.from_numpy(np.stack(pictures)[:, None]),
        torch.from_numpy(np.stack(valids)[:, None].astype(float32)),
        torch.from_numpy(np.stack(packed)),
        torch.from_numpy(np.stack(distract)),
        torch.from_numpy(np.stack(contrast)),
    )


def choose(
    shards: Sequence[Path], generator: np.random.Generator, settings: AugmentSettings
) -> tuple[Path, int]:
    """Choose a tilt: its shard, and its place there."""
    tries = 4 if generator.random() < settings.seek_ice else 1
    for _ in range(tries):
        path = shards[int(generator.integers(len(shards)))]
        about = read_about(path)
        index = int(generator.integers(len(about)))
        if about[index]["ice_percent"] > VISIBLE_PERCENT:
            break
    return path, index


def cut(scene: Scene, side: int, generator: np.random.Generator) -> Scene:
    """Cut a random square; a scene smaller than that is left whole."""
    rows, columns = scene.expected.shape
    top = int(generator.integers(max(1, rows - side + 1)))
    left = int(generator.integers(max(1, columns - side + 1)))
    window = (slice(top, top + side), slice(left, left + side))
    return Scene(
        scene.expected[window],
        scene.packed[window],
        scene.distract[window],
        scene.contrast[window],
        scene.about,
    )


def turn(scene: Scene, generator: np.random.Generator) -> Scene:
    """Turn by a random multiple of 90 degrees and mirror every other time."""
    quarters, mirror = int(generator.integers(4)), bool(generator.integers(2))

    def turned(plane: NDArray[Value]) -> NDArray[Value]:
        plane = np.rot90(plane, quarters)
        return np.ascontiguousarray(plane[:, ::-1] if mirror else plane)

    return Scene(
        turned(scene.expected),
        turned(scene.packed),
        turned(scene.distract),
        turned(scene.contrast),
        scene.about,
    )


def expose(
    scene: Scene,
    generator: np.random.Generator,
    settings: AugmentSettings,
    camera: CameraChoices | None = None,
) -> tuple[NDArray[float32], NDArray[bool_]]:
    """Record a scene anew and vary how it is stored: picture (H, W) and where it holds data."""
    chosen = camera or random_camera(generator)
    expected = scene.expected
    if generator.random() < settings.other_optics:
        expected = other_optics(expected, generator)
    picture = record(expected, generator, chosen).astype(float32)
    valid = np.isfinite(picture)
    picture[~valid] = 0.0
    if generator.random() < 0.5:
        valid &= scene.valid | (picture > OPAQUE_SHARE * np.median(picture))
    if generator.random() < settings.foreign_scale:
        picture = foreign_scale(picture, generator)
    if generator.random() < settings.border:
        valid &= ~border(picture.shape, generator)
        picture[~valid] = 0.0
    return picture, valid


def other_optics(
    expected: NDArray[np.floating[Any]], generator: np.random.Generator
) -> NDArray[float32]:
    """Raise or lower contrast finer than about 40 pixels by a smooth curve over frequency.

    Coarse contrast, which says how strongly a grain diffracts, stays as it is.
    """
    knots_per_px = np.log([1e-3, 0.025, 0.05, 0.1, 0.2, 0.7])
    gains = np.exp([0.0, 0.0, *generator.normal(0.0, 0.35, 4)])
    rows, columns = expected.shape
    k = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None])
    gain = np.interp(np.log(np.maximum(k, 1e-3)), knots_per_px, gains)
    varied = np.fft.irfft2(np.fft.rfft2(expected.astype(float32)) * gain, expected.shape)
    return np.asarray(varied.clip(0.0), float32)


def foreign_scale(picture: NDArray[float32], generator: np.random.Generator) -> NDArray[float32]:
    """Store as grey values whose zero means nothing: bytes, or an unknown offset and gain."""
    if generator.random() < 0.5:
        low, high = np.percentile(picture, [generator.uniform(0, 1), generator.uniform(99, 100)])
        scaled = (picture - low) / max(float(high - low), 1e-6) * 255.0
        return np.asarray(scaled.clip(0, 255).round(), float32)
    scaled = (picture - picture.mean()) / max(float(picture.std()), 1e-6)
    return np.asarray(scaled * np.exp(generator.normal(0, 2)) + generator.normal(0, 30), float32)


def border(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[bool_]:
    """Draw a border without data on one or two sides: True where there is none."""
    empty = np.zeros(shape, bool)
    for _ in range(int(generator.integers(1, 3))):
        width = int(generator.integers(2, max(3, shape[0] // 4)))
        side = np.zeros(shape, bool)
        side[:width] = True
        empty |= np.rot90(side, int(generator.integers(4))) if shape[0] == shape[1] else side
    return empty
