"""What calibration needs of each tilt, measured once and kept: fitting again takes a second."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy import bool_, float32, float64, int64
from numpy.typing import NDArray

from engines.backends.protocol import Backend, Inference, Memory
from engines.bundle import Bundle, Manifest
from engines.icemap import Flag, IceMap
from engines.learning.measuring import Exposure, recorded_series
from engines.learning.shards import THRESHOLDS, list_shards
from engines.percentage import Circumstances, histogram
from engines.segmenter import ICE_PREFIX, Segmenter, without_small_parts
from engines.series import SeriesSoFar

CUTS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9)
"""Probabilities at which masks are cut, before calibration."""
_GOLDEN = (3.0 - math.sqrt(5.0)) / 2.0
CHANNELS = tuple(ICE_PREFIX + threshold for threshold in THRESHOLDS)


@dataclass(frozen=True, slots=True)
class TiltRecord:
    """One tilt: what is true of it, and what the maps say before any calibration."""

    data: str
    """Name of the data set."""
    series: str
    family: str
    index: int
    true_percent: NDArray[float64]
    """(thresholds,)."""
    counts: NDArray[int64]
    """(thresholds, no ice or ice, BINS): measured pixels by probability and truth."""
    masked_percent: NDArray[float64]
    """(thresholds, CUTS)."""
    circumstances: Circumstances
    widening_factor: float
    """By how much doubt about the picture widens its interval."""
    about: Mapping[str, Any]
    """Stage angle and flags."""

    @property
    def headline(self) -> float:
        """True percentage at the headline threshold."""
        return float(self.true_percent[THRESHOLDS.index("0.10")])


class Listening:
    """A backend that keeps what another one answered."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name = backend.name
        self.answers: list[Inference] = []

    def infer(
        self, picture: NDArray[float32], valid: NDArray[float32], memory: Memory | None = None
    ) -> Inference:
        """Pass the question on and keep the answer."""
        answer = self._backend.infer(picture, valid, memory)
        self.answers.append(answer)
        return answer

    def close(self) -> None:
        """Close the other backend."""
        self._backend.close()


def records(
    bundle: Bundle, backend: Backend, data: Path, cache: Path, seed: int, limit: int
) -> Iterator[list[TiltRecord]]:
    """Measure a data set series by series, at most `limit` series; one list for each.

    Tilts are read as they would land, neighbours and all. What is in the folder `cache` is not
    measured again.
    """
    shards = list_shards(data)
    listening = Listening(backend)
    segmenter = Segmenter(bundle, listening)
    cache.mkdir(parents=True, exist_ok=True)
    for number in spread(len(shards))[:limit]:
        path = shards[number]
        kept = cache / path.name
        if not kept.exists():
            so_far = SeriesSoFar() if bundle.manifest.memory_channels else None
            found = [
                _measure(segmenter, bundle.manifest, listening, data.name, one, so_far)
                for one in recorded_series(path, number, seed)
            ]
            _write(kept, [one for one in found if one is not None])
        yield read_records(kept)


def spread(count: int) -> list[int]:
    """Order the places of a data set so that its first ones, however many, are a fair sample.

    Families come in turn in a data set, so the places are walked through in strides that share no
    divisor with their number, next to the golden section of it (Weyl 1916: evenly spread).
    """
    stride = max(1, round(count * _GOLDEN))
    while math.gcd(stride, count) > 1:
        stride += 1
    return [place * stride % count for place in range(count)]


def _measure(
    segmenter: Segmenter,
    manifest: Manifest,
    listening: Listening,
    data: str,
    exposure: Exposure,
    so_far: SeriesSoFar | None,
) -> TiltRecord | None:
    """Measure one tilt; None where the segmenter has no opinion."""
    about = exposure.scene.about
    size, angle = float(about["pixel_size_angstrom"]), float(about["angle_deg"])
    neighbours = so_far.at(angle, str(exposure.index)) if so_far else None
    listening.answers.clear()
    found = segmenter.read(exposure.picture, size, neighbours)
    if found.evidence is None:
        return None
    # a picture that was turned over was looked at twice
    seen = listening.answers[-1 if Flag.INVERTED in found.flags else 0]
    rows, columns = found.valid.shape
    answer = seen.probability[0, :, :rows, :columns]
    maps = dict(zip(manifest.channels, answer, strict=True))
    labels = [_fitted(exposure.scene.label(one), found.valid.shape) for one in THRESHOLDS]
    valid = _fitted(exposure.scene.valid, found.valid.shape)
    whole = max(1, int(valid.sum()))
    counts = [
        [histogram(maps[name], found.valid & ~label), histogram(maps[name], found.valid & label)]
        for name, label in zip(CHANNELS, labels, strict=True)
    ]
    return TiltRecord(
        data=data,
        series=exposure.series,
        family=str(about["family"]),
        index=exposure.index,
        true_percent=np.array([100.0 * float((one & valid).sum()) / whole for one in labels]),
        counts=np.array(counts, int64),
        masked_percent=np.array([_masked(maps[name], found, manifest) for name in CHANNELS]),
        circumstances=found.evidence.circumstances,
        widening_factor=found.evidence.widening_factor,
        about={"angle_deg": angle, "flags": list(found.flags)},
    )


def _fitted(mask: NDArray[bool_], shape: tuple[int, ...]) -> NDArray[bool_]:
    """Bring a mask of the simulator to the shape of the working picture."""
    if mask.shape == shape:
        return mask
    sides = (shape[1], shape[0])
    return cv2.resize(mask.astype(np.uint8), sides, interpolation=cv2.INTER_NEAREST) > 0


def _masked(probability: NDArray[float32], found: IceMap, manifest: Manifest) -> list[float]:
    """Cut the mask at each of CUTS: percent of the valid area."""
    least_px = manifest.min_part_nm2 / ((found.pixel_size_angstrom or 10.0) / 10.0) ** 2
    whole = max(1, int(found.valid.sum()))
    percents = []
    for cut in CUTS:
        mask = (probability > cut) & found.valid
        # nothing there is nothing to drop, and most tilts hold nothing
        mask = without_small_parts(mask, least_px) if mask.any() else mask
        percents.append(100.0 * float(mask.sum()) / whole)
    return percents


def _write(path: Path, found: Sequence[TiltRecord]) -> None:
    """Write one series whole or not at all."""
    texts = [
        {
            "data": one.data,
            "series": one.series,
            "family": one.family,
            "index": one.index,
            "circumstances": asdict(one.circumstances),
            "widening_factor": one.widening_factor,
            "about": dict(one.about),
        }
        for one in found
    ]
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez_compressed(
            stream,
            true_percent=np.array([one.true_percent for one in found], float64),
            counts=np.array([one.counts for one in found], np.int32),
            masked_percent=np.array([one.masked_percent for one in found], float64),
            texts=np.array(json.dumps(texts)),
        )
    partial.replace(path)


def read_records(path: Path) -> list[TiltRecord]:
    """Read what was kept of one series."""
    with np.load(path) as kept:
        texts = json.loads(str(kept["texts"]))
        arrays = [kept[name] for name in ("true_percent", "counts", "masked_percent")]
    return [
        TiltRecord(
            data=text["data"],
            series=text["series"],
            family=text["family"],
            index=text["index"],
            true_percent=true,
            counts=counts.astype(int64),
            masked_percent=masked,
            circumstances=Circumstances(**text["circumstances"]),
            widening_factor=text["widening_factor"],
            about=text["about"],
        )
        for text, true, counts, masked in zip(texts, *arrays, strict=True)
    ]
