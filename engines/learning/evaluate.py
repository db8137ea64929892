"""Evaluates a bundle on simulated data sets, through the segmenter that the daemon uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.icemap import IceMap
from engines.learning.evaluation import EvaluationError, TiltFigures, figures_of
from engines.learning.evaluation_exposures import Exposure, recorded
from engines.learning.evaluation_pixels import LABELS, Truth
from engines.learning.evaluation_report import Report, model_of
from engines.learning.evaluation_series import Rule, lamella_of
from engines.learning.evaluation_sheets import overlay_of
from engines.learning.evaluation_simulated import Found, fill
from engines.learning.evaluation_tables import progress
from engines.learning.shards import PHASE_SHIFT, DamagedShardError, Scene, list_shards, read_about
from engines.segmenter import Segmenter

DEFAULT_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Simulated:
    """What is evaluated, and how."""

    data: tuple[Path, ...]
    """Folders that hold simulated series."""
    seed: int = 1
    """Of the electrons and cameras: other seeds record the same tilts anew."""
    limit: int = DEFAULT_LIMIT
    """Tilts of each data set at most."""
    min_part_nm2: float = 1000.0


def evaluate_simulated(
    segmenter: Segmenter,
    asked: Simulated,
    out: Path | None,
    begin: Callable[[], Rule] | None = None,
) -> Report:
    """Measure simulated data sets; draws into the folder `out`, if any; returns the report.

    `begin` starts the daemon's rule for one series; without it lamellae have neither interval nor
    verdict. Raises EvaluationError where a folder holds no simulated series, or a damaged one.
    """
    try:
        found = measure_simulated(segmenter, asked, begin)
    except DamagedShardError as error:
        raise EvaluationError(str(error)) from error
    settings = {"data": [str(d) for d in asked.data], "seed": asked.seed, "limit": asked.limit}
    report = Report("simulated", model_of(segmenter), settings)
    fill(report, found, out)
    return report


def measure_simulated(
    segmenter: Segmenter, asked: Simulated, begin: Callable[[], Rule] | None = None
) -> Found:
    """Measure simulated data sets, series by series; raises EvaluationError."""
    totals = {data: min(_count(data), asked.limit) for data in asked.data}
    found = Found.empty(asked.seed)
    with progress() as bar:
        for data, total in totals.items():
            steps = recorded(data, asked.seed, asked.limit)
            tracked = bar.track(steps, total=total, description=data.name)
            for series, exposures in groupby(tracked, lambda one: one.series):
                _measure_series(segmenter, f"{data.name}/{series}", exposures, asked, found, begin)
    return found


def _count(data: Path) -> int:
    """Count the tilts of a data set; raises EvaluationError where there is none."""
    shards = list_shards(data)
    if not shards:
        raise EvaluationError(
            f"{data} holds no simulated series (series_*.npz): name folders that "
            "`icewatch simulate dataset` wrote."
        )
    return sum(len(read_about(path)) for path in shards)


def _measure_series(
    segmenter: Segmenter,
    series: str,
    exposures: Iterable[Exposure],
    asked: Simulated,
    found: Found,
    begin: Callable[[], Rule] | None,
) -> None:
    rule = begin() if begin else None
    tilts: list[TiltFigures] = []
    occupancy: float | None = None
    for exposure in exposures:
        about = exposure.scene.about
        size = float(about["pixel_size_angstrom"])
        angle_deg = float(about["angle_deg"])
        before = rule.before(angle_deg) if rule else None
        icemap = segmenter.read(exposure.picture, size, before)
        if rule:
            rule.add(angle_deg, icemap)
        tilts.append(_measure(exposure, series, icemap, asked, found))
        occupancy = about.get("occupancy_percent")
    found.tilts += tilts
    if not tilts[0].kind:
        found.lamellae.append(lamella_of(tilts, rule.judged() if rule else None, occupancy))


def _measure(
    exposure: Exposure, series: str, icemap: IceMap, asked: Simulated, found: Found
) -> TiltFigures:
    about = exposure.scene.about
    truth = truth_at(exposure.scene, icemap.picture.shape)
    names = TiltFigures(
        str(about["family"]),
        series,
        exposure.scene.percent,
        float(about["angle_deg"]),
        kind=kind_of(about),
    )
    tilt = figures_of(icemap, truth.ice, exposure.scene.percent, names)
    if icemap.percent is not None and not tilt.kind:
        found.pixels.add(truth, icemap, asked.min_part_nm2)
    error = abs((tilt.percent or 0.0) - tilt.true_percent)
    for name in _galleries_of(tilt):
        found.galleries[name].offer(error, lambda: overlay_of(tilt, icemap, truth.ice))
    return tilt


def kind_of(about: Mapping[str, Any]) -> str:
    """Say what an out-of-domain picture shows; "" for a tilt."""
    family = str(about["family"])
    if not family.startswith("foreign"):
        return ""
    return str(about.get("kind") or family)


def _galleries_of(tilt: TiltFigures) -> tuple[str, ...]:
    if tilt.kind:
        return () if tilt.percent is None else ("foreign",)
    return ("unmeasured",) if tilt.percent is None else ("worst", "random")


def truth_at(scene: Scene, shape: tuple[int, ...]) -> Truth:
    """Bring the truth of a tilt to the size of an ice map, each pixel from the nearest one."""
    packed, contrast, distract = (
        _resized(one, shape) for one in (scene.packed, scene.contrast, scene.distract)
    )
    at_size = Scene(scene.expected, packed, distract, contrast, scene.about)
    prefix = "area_"
    areas = {k.removeprefix(prefix): v for k, v in scene.about.items() if k.startswith(prefix)}
    return Truth(
        labels={threshold: at_size.label(threshold) for threshold in LABELS},
        phase=np.asarray((packed >> PHASE_SHIFT) & 3, np.uint8),
        contrast=contrast,
        distract=distract,
        valid=at_size.valid,
        area_percent=areas,
    )


def _resized(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if values.shape == shape:
        return values
    size = (shape[1], shape[0])
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST_EXACT))
