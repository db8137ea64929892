"""From an image to its ice map: one bundle, one backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy import bool_, float32
from numpy.typing import NDArray

from engines.backends.protocol import Backend, Memory
from engines.bundle import Bundle
from engines.calibrations import AreaCalibration, EvidenceCalibration
from engines.domain import domain_flags
from engines.domain_file import monitor_of
from engines.domain_look import Look, looked_at
from engines.domain_polarity import has_no_zero, turned
from engines.domain_values import value_flags
from engines.domain_widening import widening_factor
from engines.icemap import AMBER, Flag, IceMap, Level
from engines.padding import infer, padded_shape
from engines.percentage import (
    Evidence,
    area_curve,
    area_of,
    circumstances,
    histogram,
    percentage,
)
from engines.preprocess import Prepared, Resampler, prepare
from engines.unmeasured import MIN_VALID_SHARE, emptiness, only_shown, refusal, unmeasured

SMALL_VALID_SHARE = 0.25

PHASES = ("hexagonal", "cubic", "stacking_disordered")
NOT_VALID = "not_valid"
CONTRAST = "contrast"
ICE_PREFIX = "ice_"

_OPENING_PX = 5


class Neighbours(Protocol):
    """The tilts of one series so far, as a segmenter sees them."""

    def memory_for(self, prepared: Prepared, padded: tuple[int, int]) -> Memory | None:
        """Bring what they left onto this tilt, a quarter of `padded` (rows, columns); or None."""
        ...

    def is_odd(self, prepared: Prepared) -> bool:
        """Say whether a tilt is much brighter or darker than the others let expect."""
        ...

    def add(self, found: IceMap) -> None:
        """Take up a tilt that was measured."""
        ...


class Segmenter:
    """Measures images with one bundle on one backend; used by one thread."""

    def __init__(
        self, bundle: Bundle, backend: Backend, resampler: Resampler | None = None
    ) -> None:
        self._resampler = resampler
        self._bundle = bundle
        self._backend = backend
        self._manifest = bundle.manifest
        self._monitor = monitor_of(bundle)

    @property
    def bundle_name(self) -> str:
        return self._manifest.name

    @property
    def bundle_version(self) -> str:
        return self._manifest.version

    @property
    def backend_name(self) -> str:
        return self._backend.name

    def read(
        self,
        image: NDArray[Any],
        pixel_size_angstrom: float | None,
        neighbours: Neighbours | None = None,
        known_flags: tuple[Flag, ...] = (),
    ) -> IceMap:
        """Measure the ice of one image, (rows, columns) of any real dtype, in counts.

        `neighbours` are the tilts of the same series that were read before; this one joins them.
        `known_flags` is what its source lacks (dose, angle): each widens the interval.

        An image that cannot be measured gives an ice map without percentage whose flags say why.
        Raises `BackendError` where the backend fails, after which the segmenter is not to be used
        again.
        """
        if image.ndim != 2 or image.size == 0 or image.dtype.kind not in "biuf":
            return unmeasured(np.zeros((1, 1), np.float32), (Flag.NOT_AN_IMAGE,), None)
        shape = (image.shape[0], image.shape[1])
        target = self._manifest.pixel_size_angstrom
        why_not = refusal(shape, pixel_size_angstrom, target)
        if why_not is not None or pixel_size_angstrom is None:
            return only_shown(image, why_not or Flag.PIXEL_SIZE_UNKNOWN, pixel_size_angstrom)
        prepared = prepare(image, pixel_size_angstrom, target, self._resampler)
        flags = emptiness(image, prepared) or domain_flags(prepared.picture, prepared.valid, shape)
        if not AMBER.issuperset(flags):
            share = float(prepared.valid.mean())
            return unmeasured(prepared.picture, flags, prepared.pixel_size_angstrom, share)
        flags = (*flags, *value_flags(image, flags), *known_flags)
        if neighbours is not None and neighbours.is_odd(prepared):
            flags = (*flags, Flag.UNEXPECTED_BRIGHTNESS)
        look = self._look(prepared, neighbours)
        if look.inverted > 1.0:
            other = self._look(
                prepare(turned(image), pixel_size_angstrom, target, self._resampler), neighbours
            )
            if other.inverted < 1.0:
                look, flags = other, (*flags, Flag.INVERTED)
        if has_no_zero(look.prepared.picture, look.prepared.valid):
            flags = (*flags, Flag.ZERO_UNKNOWN)
        found = self._measure(look, tuple(dict.fromkeys(flags)))
        if neighbours is not None and found.percent is not None:
            neighbours.add(found)
        return found

    def close(self) -> None:
        """Close the backend and the resampler."""
        self._backend.close()
        if self._resampler is not None:
            self._resampler.close()

    def _look(self, prepared: Prepared, neighbours: Neighbours | None) -> Look:
        """Show the network a picture and what its neighbours left."""
        memory = neighbours.memory_for(prepared, padded_shape(prepared)) if neighbours else None
        inference = infer(self._backend, prepared, memory)
        return looked_at(prepared, inference, memory is not None, self._monitor)

    def _measure(self, look: Look, flags: tuple[Flag, ...]) -> IceMap:
        manifest, prepared, inference = self._manifest, look.prepared, look.inference
        rows, columns = prepared.picture.shape
        probability = inference.probability[0, :, :rows, :columns]
        valid = prepared.valid
        if NOT_VALID in manifest.channels:
            valid = valid & ~_opened(probability[manifest.channels.index(NOT_VALID)] > 0.5)
        share = float(valid.mean())
        if share < MIN_VALID_SHARE:
            flags = (*flags, Flag.NO_SPECIMEN)
        elif look.level is Level.RED:
            flags = (*flags, Flag.OUT_OF_DOMAIN)
        elif look.level is Level.AMBER:
            flags = (*flags, Flag.UNFAMILIAR)
        if not AMBER.issuperset(flags):
            size = prepared.pixel_size_angstrom
            return unmeasured(prepared.picture, flags, size, share, look.score)
        if share < SMALL_VALID_SHARE:
            flags = (*flags, Flag.SMALL_VALID_AREA)
        masks = self._masks(probability, valid, prepared.pixel_size_angstrom)
        ice = masks[manifest.ice_channel]
        evidence = self._evidence(prepared, probability, valid, masks, look.used_neighbours)
        evidence = replace(evidence, widening_factor=widening_factor(flags, look.level))
        percent, low, high = percentage(evidence, manifest.calibration)
        curve = area_curve(evidence, manifest.calibration)
        return IceMap(
            picture=prepared.picture,
            valid=valid,
            ice=ice,
            probability=self._probability_of_ice(probability),
            pixel_size_angstrom=prepared.pixel_size_angstrom,
            percent=percent,
            percent_low=low,
            percent_high=high,
            phases=self._phases(probability, ice),
            valid_area_percent=100.0 * share,
            flags=flags,
            in_domain=True,
            area_percent={name.removeprefix(ICE_PREFIX): area for name, area in curve.items()},
            contrast=self._channel(probability, CONTRAST),
            features=None if inference.features is None else inference.features[0],
            memory_left=None if inference.memory_left is None else inference.memory_left[0],
            domain_score=look.score,
            domain_level=look.level,
            used_neighbours=look.used_neighbours,
            evidence=evidence,
        )

    def _masks(
        self, probability: NDArray[float32], valid: NDArray[bool_], pixel_size_angstrom: float
    ) -> dict[str, NDArray[bool_]]:
        """Cut the mask of each contrast threshold, without small parts, by channel."""
        manifest = self._manifest
        least_px = manifest.min_part_nm2 / (pixel_size_angstrom / 10.0) ** 2
        names = [n for n in manifest.channels if n.startswith(ICE_PREFIX)]
        masks = {}
        for name in dict.fromkeys((*names, manifest.ice_channel)):
            area = self._area_calibration(name)
            cut = area.raw_cut(manifest.threshold) if area else manifest.threshold
            of_ice = probability[manifest.channels.index(name)]
            masks[name] = without_small_parts((of_ice > cut) & valid, least_px)
        return masks

    def _evidence(
        self,
        prepared: Prepared,
        probability: NDArray[float32],
        valid: NDArray[bool_],
        masks: Mapping[str, NDArray[bool_]],
        used_neighbours: bool,
    ) -> Evidence:
        """Sum up what the maps say."""
        maps = dict(zip(self._manifest.channels, probability, strict=True))
        areas = {
            name: area_of(
                100.0 * float(mask.sum() / valid.sum()),
                histogram(maps[name], valid),
                self._area_calibration(name),
            )
            for name, mask in masks.items()
        }
        size = prepared.pixel_size_angstrom
        around = circumstances(maps, prepared.picture, valid, size, used_neighbours)
        return Evidence(self._manifest.ice_channel, areas, around)

    def _area_calibration(self, name: str) -> AreaCalibration | None:
        """Say how the map of a channel is calibrated, if it is."""
        calibration = self._manifest.calibration
        return calibration.areas.get(name) if isinstance(calibration, EvidenceCalibration) else None

    def _probability_of_ice(self, probability: NDArray[float32]) -> NDArray[float32]:
        """Calibrate the map of the ice channel; a copy: a view would keep all channels alive."""
        name = self._manifest.ice_channel
        of_ice = probability[self._manifest.channels.index(name)]
        area = self._area_calibration(name)
        return area.probability(of_ice) if area else of_ice.copy()

    def _channel(self, probability: NDArray[float32], name: str) -> NDArray[float32] | None:
        channels = self._manifest.channels
        return probability[channels.index(name)].copy() if name in channels else None

    def _phases(self, probability: NDArray[float32], ice: NDArray[bool_]) -> dict[str, float]:
        """Share out the ice between the phases by their mean probability in it."""
        names = [name for name in PHASES if name in self._manifest.channels]
        if not names or not ice.any():
            return {}
        means = [float(probability[self._manifest.channels.index(n)][ice].mean()) for n in names]
        total = sum(means)
        return {n: m / total for n, m in zip(names, means, strict=True)} if total > 0 else {}


def without_small_parts(mask: NDArray[bool_], min_area_px: float) -> NDArray[bool_]:
    """Drop the connected parts (8 neighbours) of a (rows, columns) mask under an area in pixels."""
    kept = np.zeros(mask.shape, bool)
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return kept
    # ice fills a small part of most fields, and none of many
    around = np.s_[top : top + height, left : left + width]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask[around]).view(np.uint8), connectivity=8
    )
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area_px
    keep[0] = False
    kept[around] = keep[labels]
    return kept


def _opened(mask: NDArray[bool_]) -> NDArray[bool_]:
    """Drop specks that are narrower than the opening."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_OPENING_PX, _OPENING_PX))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    return np.asarray(opened.astype(bool))
