"""Measure simulated exposures through the very code that the daemon measures with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import bool_, float32
from numpy.typing import NDArray

from engines.backends.protocol import Inference, Memory, Ports, check_inference, check_inputs
from engines.bundle import GRAPH, Bundle, BundleFile, Manifest
from engines.calibrations import PiecewiseCalibration
from engines.icemap import IceMap
from engines.learning.evaluation_exposures import Exposure, recorded, recorded_series
from engines.learning.shards import Scene
from engines.networks import CHANNELS, IceModel
from engines.segmenter import Segmenter, without_small_parts

__all__ = [
    "AS_IT_IS",
    "MIN_PART_NM2",
    "Exposure",
    "Measured",
    "TorchBackend",
    "exposures",
    "manifest_of",
    "measure",
    "overlap",
    "recorded",
    "recorded_series",
    "segmenter_of",
]

MIN_PART_NM2 = 1000.0
AS_IT_IS = PiecewiseCalibration(
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

    def __init__(self, model: IceModel, ports: Ports) -> None:
        self._model = model.eval()
        self._ports = ports

    def infer(
        self,
        picture: NDArray[float32],
        valid: NDArray[float32],
        memory: Memory | None = None,
    ) -> Inference:
        """Run the network on a batch."""
        check_inputs(picture, valid, memory)
        given = self._ports.inputs(picture, valid, memory)
        with torch.inference_mode():
            answers = self._model(*(torch.from_numpy(values) for values in given.values()))
        inference = self._ports.inference([one.numpy() for one in answers])
        return check_inference(inference, picture, self._ports, self.name)

    def close(self) -> None:
        """Nothing to give back."""


def ports_of(model: IceModel) -> Ports:
    """Tell how many channels of each kind a network has."""
    return Ports(len(CHANNELS), sum(model.feature_sizes), model.settings.memory_channels)


def segmenter_of(model: IceModel) -> Segmenter:
    """Build a segmenter on a network that is not calibrated yet."""
    manifest = manifest_of(model)
    return Segmenter(Bundle(Path(), manifest), TorchBackend(model, Ports.of(manifest)))


def manifest_of(model: IceModel) -> Manifest:
    """Describe a network that is not exported yet, as if its masks were right as they are."""
    return Manifest(
        schema="icewatch.bundle/2",
        name="not exported",
        version="0",
        created="-",
        pixel_size_angstrom=model.settings.pixel_size_angstrom,
        channels=CHANNELS,
        ice_channel="ice_0.10",
        threshold=0.5,
        min_part_nm2=MIN_PART_NM2,
        calibration=AS_IT_IS,
        feature_sizes=model.feature_sizes,
        memory_channels=model.settings.memory_channels,
        files={GRAPH: BundleFile(sha256="0" * 64, bytes=0)},
    )


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
    for exposure in recorded(data, seed, limit):
        yield exposure.scene, exposure.picture


def overlap(found: NDArray[bool_], truth: NDArray[bool_]) -> tuple[int, int]:
    """Count the pixels of the intersection and of the union of two masks."""
    return int(np.count_nonzero(found & truth)), int(np.count_nonzero(found | truth))
