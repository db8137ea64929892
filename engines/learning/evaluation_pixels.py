"""Sums over the pixels of many tilts: what is found by contrast and phase, how true the maps are.

Nothing is kept of a tilt but counts, so that any number of them can be added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy import bool_, float32, int64, uint8, uint16
from numpy.typing import NDArray

from engines.icemap import IceMap
from engines.learning.evaluation_tables import Table, number, share
from engines.segmenter import without_small_parts

HEADLINE = "0.10"
LABELS = ("0.06", "0.10", "0.15")
"""Thresholds of the labels of a simulated tilt."""
PHASES = ("none", "hexagonal", "cubic", "stacking disordered")
"""By their number in the truth."""
BUNDLE, CONTRAST_MAP = "the bundle", "contrast map"
"""What tells the area at a threshold: the bundle for some, and its map of the contrast, cut."""
CURVE = (0.03, 0.06, 0.08, 0.10, 0.12, 0.15, 0.20, 0.25)
"""Contrast thresholds at which the map is cut; the simulator notes the true area at each."""
_LEVELS = 256
_FINE_BINS = 100
BINS = 10
"""Of the reliability diagram."""
DECILES = 10
NO_OBJECT, _ALL = 16, 17
"""Rows after those of the bits of objects."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of one simulated tilt, all (rows, columns)."""

    labels: Mapping[str, NDArray[bool_]]
    """Where ice shows, for each of LABELS."""
    phase: NDArray[uint8]
    """Number of one of PHASES."""
    contrast: NDArray[uint8]
    """Square root of the Bragg contrast, 255 = 1 and more."""
    distract: NDArray[uint16]
    """One bit for each kind of object that is not ice."""
    valid: NDArray[bool_]
    area_percent: Mapping[str, float]
    """Share of the valid area that is ice by contrast threshold, as `0.10`."""

    @property
    def ice(self) -> NDArray[bool_]:
        """Ice that counts."""
        return np.asarray(self.labels[HEADLINE] & self.valid)


@dataclass(slots=True)
class PixelSums:
    """Counts over the valid pixels of all tilts that were added."""

    by_contrast: NDArray[int64] = field(
        default_factory=lambda: np.zeros((len(PHASES), _LEVELS, 2), int64)
    )
    """(phase, level of contrast, missed or found): pixels of true ice."""
    by_probability: NDArray[int64] = field(default_factory=lambda: probability_counts())
    """(bin of the probability, no ice or ice)."""
    by_object: NDArray[int64] = field(default_factory=lambda: np.zeros((18, 2), int64))
    """(bit of the object, right or taken for ice): pixels without ice; then no object, then all."""
    areas: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    """By what tells it, then by threshold: true and found percentage of each tilt."""

    def add(self, truth: Truth, found: IceMap, min_part_nm2: float) -> None:
        """Add a measured tilt; parts under the least area are dropped as the bundle does."""
        valid = truth.valid & found.valid
        ice = truth.ice & valid
        where = (truth.phase[ice], truth.contrast[ice], found.ice[ice].astype(int64))
        np.add.at(self.by_contrast, where, 1)
        self.by_probability += probability_counts(found.probability[valid], ice[valid])
        self._add_objects(truth.distract[valid & ~ice], found.ice[valid & ~ice])
        self._add_areas(BUNDLE, truth, found.area_percent)
        if found.contrast is not None:
            self._add_areas(CONTRAST_MAP, truth, _areas_of_map(found, min_part_nm2))

    def _add_objects(self, objects: NDArray[uint16], taken: NDArray[bool_]) -> None:
        insides = [(objects >> bit) & 1 > 0 for bit in range(NO_OBJECT)]
        for row, inside in enumerate([*insides, objects == 0, np.ones(objects.shape, bool)]):
            hit = int(np.count_nonzero(taken[inside]))
            self.by_object[row] += np.count_nonzero(inside) - hit, hit

    def _add_areas(self, source: str, truth: Truth, found: Mapping[str, float]) -> None:
        for threshold in sorted(set(found) & set(truth.area_percent)):
            pairs = self.areas.setdefault(source, {}).setdefault(threshold, [])
            pairs.append((truth.area_percent[threshold], found[threshold]))


def probability_counts(
    probability: NDArray[float32] | None = None, ice: NDArray[bool_] | None = None
) -> NDArray[int64]:
    """Count pixels by probability and truth: (bins, no ice or ice); zeros of nothing."""
    if probability is None or ice is None:
        return np.zeros((_FINE_BINS, 2), int64)
    level = np.minimum((probability * _FINE_BINS).astype(int64), _FINE_BINS - 1)
    counted = np.bincount(2 * level + ice, minlength=2 * _FINE_BINS)
    return np.asarray(counted.reshape(_FINE_BINS, 2), int64)


def _areas_of_map(found: IceMap, min_part_nm2: float) -> dict[str, float]:
    """Cut the contrast map at each threshold: percent of the valid area."""
    if found.contrast is None:
        return {}
    min_part_px = min_part_nm2 / ((found.pixel_size_angstrom or 10.0) / 10.0) ** 2
    whole = max(1, int(np.count_nonzero(found.valid)))
    masks = {t: (found.contrast > t) & found.valid for t in CURVE}
    return {
        f"{t:.2f}": 100.0 * np.count_nonzero(without_small_parts(mask, min_part_px)) / whole
        for t, mask in masks.items()
    }


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of the pixels of one phase and one decile of contrast that is found."""

    phase: str
    contrast_from: float
    contrast_to: float
    pixels: int
    recall: float | None


def recalls(by_contrast: NDArray[int64]) -> list[Recall]:
    """Recall of each phase in each decile of the contrast of all true ice; () of no ice."""
    levels = by_contrast.sum(axis=(0, 2))
    if levels.sum() == 0:
        return []
    reached = np.cumsum(levels) / levels.sum()
    inner = [int(np.searchsorted(reached, k / DECILES)) + 1 for k in range(1, DECILES)]
    edges = sorted({0, *inner, _LEVELS})
    found = []
    for number_of_phase, phase in enumerate(PHASES):
        counts = by_contrast[number_of_phase]
        if not counts.any():
            continue
        for start, end in pairwise(edges):
            missed, hit = (int(one) for one in counts[start:end].sum(axis=0))
            ends = ((start / 255.0) ** 2, min(1.0, (end / 255.0) ** 2))
            found.append(Recall(phase, *ends, missed + hit, hit / (missed + hit or 1)))
    return [one if one.pixels else _unknown(one) for one in found]


def _unknown(one: Recall) -> Recall:
    return Recall(one.phase, one.contrast_from, one.contrast_to, 0, None)


def recall_table(found: list[Recall]) -> Table:
    """Share of true ice that is found, one row for each decile of contrast."""
    phases = [phase for phase in PHASES if any(one.phase == phase for one in found)]
    deciles = sorted({(one.contrast_from, one.contrast_to) for one in found})
    rows = []
    for start, end in deciles:
        of_decile = [one for one in found if (one.contrast_from, one.contrast_to) == (start, end)]
        cells = [share(_of_phase(of_decile, phase)) for phase in phases]
        pixels = sum(one.pixels for one in of_decile)
        hits = sum(one.pixels * (one.recall or 0.0) for one in of_decile)
        whole = share(hits / pixels if pixels else None)
        rows.append((f"{start:.2f} to {end:.2f}", f"{pixels:,}", whole, *cells))
    note = (
        "Share of the pixels of true ice that is found, by deciles of its contrast (0: filled in "
        "between grains)."
    )
    columns = ("contrast", "pixels", "all", *phases)
    return Table("Recall by contrast and phase", columns, tuple(rows), note)


def _of_phase(recalls_of_decile: list[Recall], phase: str) -> float | None:
    return next((one.recall for one in recalls_of_decile if one.phase == phase), None)


@dataclass(frozen=True, slots=True)
class AreaError:
    """Mean area at one contrast threshold, percent of the valid area."""

    threshold: float
    true_percent: float
    found_percent: float
    mean_absolute_error: float


def area_errors(areas: Mapping[str, list[tuple[float, float]]]) -> list[AreaError]:
    """Compare true and found areas at each threshold."""
    errors = []
    for threshold in sorted(areas):
        pairs = np.array(areas[threshold])
        true, found = (float(one) for one in pairs.mean(axis=0))
        off = float(np.abs(pairs[:, 1] - pairs[:, 0]).mean())
        errors.append(AreaError(float(threshold), true, found, off))
    return errors


def area_table(errors: list[AreaError], source: str) -> Table:
    """Area against contrast threshold."""
    rows = [
        (
            f"{one.threshold:.2f}",
            number(one.true_percent),
            number(one.found_percent),
            number(one.mean_absolute_error),
        )
        for one in errors
    ]
    columns = ("contrast over", "true %", "found %", "MAE pp")
    note = "Mean share of the valid area over all measured tilts."
    return Table(f"Area against threshold, by {source}", columns, tuple(rows), note)


@dataclass(frozen=True, slots=True)
class Reliable:
    """Pixels whose probability lies in one bin."""

    probability: float
    """Mean, to a hundredth."""
    ice: float
    """Share of them that is ice."""
    pixels: int


def reliability(by_probability: NDArray[int64]) -> list[Reliable]:
    """Compare probability and share of ice in bins of equal width; empty bins are left out."""
    centres = (np.arange(_FINE_BINS) + 0.5) / _FINE_BINS
    found = []
    for part in np.array_split(np.arange(_FINE_BINS), BINS):
        counts = by_probability[part]
        pixels = int(counts.sum())
        if pixels:
            at = float((counts.sum(axis=1) * centres[part]).sum() / pixels)
            found.append(Reliable(at, float(counts[:, 1].sum() / pixels), pixels))
    return found


def calibration_error(bins: list[Reliable]) -> float | None:
    """Mean distance of probability and share of ice, weighted by pixels (ECE, Naeini 2015)."""
    total = sum(one.pixels for one in bins)
    off = sum(abs(one.probability - one.ice) * one.pixels for one in bins)
    return off / total if total else None


@dataclass(frozen=True, slots=True)
class Taken:
    """Pixels of one kind of object that are no ice."""

    name: str
    pixels: int
    taken: float
    """Share of them that is taken for ice."""
    of_false: float
    """Share of all false pixels that lies on such objects."""


def taken_for_ice(by_object: NDArray[int64], names: Mapping[int, str]) -> list[Taken]:
    """Say what is taken for ice, worst first; `names` of the bits of objects."""
    false = max(1, int(by_object[_ALL, 1]))
    found = []
    for row, name in [*names.items(), (NO_OBJECT, "none of these")]:
        right, wrong = (int(one) for one in by_object[row])
        if right + wrong:
            found.append(Taken(name, right + wrong, wrong / (right + wrong), wrong / false))
    return sorted(found, key=lambda one: -one.of_false)


def taken_table(found: list[Taken]) -> Table:
    """What is taken for ice, one row for each kind of object."""
    rows = [
        (one.name, f"{one.pixels:,}", share(one.taken, 2), share(one.of_false)) for one in found
    ]
    note = "Valid pixels without ice on each kind of object; objects may lie over each other."
    columns = ("object", "pixels", "taken for ice", "of all false ice")
    return Table("What is taken for ice", columns, tuple(rows), note)
