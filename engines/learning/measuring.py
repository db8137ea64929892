"""Measure simulated exposures through the very code that the daemon measures with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import bool_, float32
from numpy.typing import NDArray

from engines.backends.protocol import Inference, check_inference, check_inputs
from engines.bundle import GRAPH, Bundle, BundleFile, Calibration, Manifest
from engines.icemap import IceMap
from engines.learning.shards import Scene, list_shards, read_about, read_scene
from engines.networks import CHANNELS, IceModel
from engines.segmenter import Segmenter, without_small_parts
from engines.simulation import random_camera, record

MIN_PART_NM2 = 1000.0
AS_IT_IS = Calibration(
    kind="piecewise",
    predicted_percent=(0.0, 100.0),
    percent=(0.0, 100.0),
    low=(0.0, 100.0),
    high=(0.0, 100.0),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One exposure, what is true of it, and what was found."""

    scene: Scene
    picture: NDArray[float32]
    found: IceMap

    @property
    def true_percent(self) -> float:
        return self.scene.percent

    def masked_percent(self, threshold: float) -> float:
        """Share of the measured area under a mask cut at `threshold`, 0 to 100."""
        size_nm = (self.found.pixel_size_angstrom or 1.0) / 10.0
        mask = (self.found.probability > threshold) & self.found.valid
        area = np.count_nonzero(without_small_parts(mask, MIN_PART_NM2 / size_nm**2))
        return 100.0 * float(area) / max(1, int(np.count_nonzero(self.found.valid)))


class TorchBackend:
    """Runs a network before it is exported; in every other way a backend."""

    name = "torch"

    def __init__(self, model: IceModel) -> None:
        self._model = model.eval()

    def infer(self, picture: NDArray[float32], valid: NDArray[float32]) -> Inference:
        """Run the network on a batch."""
        check_inputs(picture, valid)
        with torch.inference_mode():
            probability, area = self._model(torch.from_numpy(picture), torch.from_numpy(valid))
        inference = Inference(probability.numpy(), area.numpy())
        return check_inference(inference, picture, len(CHANNELS), self.name)

    def close(self) -> None:
        """Nothing to give back."""


def segmenter_of(model: IceModel) -> Segmenter:
    """Build a segmenter on a network that is not calibrated yet."""
    manifest = Manifest(
        schema="icewatch.bundle/1",
        name="not exported",
        version="0",
        created="-",
        pixel_size_angstrom=model.settings.pixel_size_angstrom,
        channels=CHANNELS,
        ice_channel="ice_0.10",
        threshold=0.5,
        min_part_nm2=MIN_PART_NM2,
        calibration=AS_IT_IS,
        files={GRAPH: BundleFile(sha256="0" * 64, bytes=0)},
    )
    return Segmenter(Bundle(Path(), manifest), TorchBackend(model))


def measure(
    segmenter: Segmenter, data: Path, seed: int, limit: int, pixel_size_angstrom: float
) -> Iterator[Measured]:
    """Record each tilt of a data set once, and measure it.

    The electrons of a tilt depend on `seed` and its place in the data set alone.
    """
    for scene, picture in exposures(data, seed, limit):
        yield Measured(scene, picture, segmenter.read(picture, pixel_size_angstrom))


def exposures(data: Path, seed: int, limit: int) -> Iterator[tuple[Scene, NDArray[float32]]]:
    """Record each tilt of a data set once, at most `limit`: scene and picture (H, W)."""
    places = (
        (number, index, path)
        for number, path in enumerate(list_shards(data))
        for index in range(len(read_about(path)))
    )
    for _, (number, index, path) in zip(range(limit), places, strict=False):
        generator = np.random.default_rng([seed, number, index])
        scene = read_scene(path, index)
        picture = record(scene.expected, generator, random_camera(generator))
        yield scene, np.asarray(picture, float32)


def overlap(found: NDArray[bool_], truth: NDArray[bool_]) -> tuple[int, int]:
    """Count the pixels of the intersection and of the union of two masks."""
    return int(np.count_nonzero(found & truth)), int(np.count_nonzero(found | truth))
