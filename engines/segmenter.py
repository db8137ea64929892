"""From an image to its ice map: one bundle, one backend."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy import bool_, float32
from numpy.typing import NDArray

from engines.backends.protocol import Backend
from engines.bundle import SIDE_STEP_PX, Bundle
from engines.domain import domain_flags
from engines.icemap import AMBER, Flag, IceMap
from engines.preprocess import Prepared, prepare, working_shape

MIN_PIXEL_SIZE_ANGSTROM = 0.3
MAX_PIXEL_SIZE_ANGSTROM = 20.0
"""At and beyond this grains are a few pixels, and images are maps."""
MIN_SIDE_PX = 64
MAX_FIELD_PX = 2048 * 2048
"""Working pixels of the widest field, 28 µm square at 13.5 Å; memory grows with it."""
MIN_VALID_SHARE = 0.05
FEWEST_COUNTS = 4.0
"""Mean counts of a working pixel, under which next to no electron came: 0.02 e/Å² at 13.5 Å."""
SMALL_VALID_SHARE = 0.25

PHASES = ("hexagonal", "cubic", "stacking_disordered")
NOT_VALID = "not_valid"

_SHOWN_PX = 608
"""Longer side of the picture of an image that is not measured."""
_OPENING_PX = 5


class Segmenter:
    """Measures images with one bundle on one backend; used by one thread."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self._bundle = bundle
        self._backend = backend
        self._manifest = bundle.manifest

    @property
    def bundle_name(self) -> str:
        return self._manifest.name

    @property
    def bundle_version(self) -> str:
        return self._manifest.version

    @property
    def backend_name(self) -> str:
        return self._backend.name

    def read(self, image: NDArray[Any], pixel_size_angstrom: float | None) -> IceMap:
        """Measure the ice of one image, (rows, columns) of any real dtype, in counts.

        An image that cannot be measured gives an ice map without percentage whose flags say why.
        Raises `BackendError` where the backend fails, after which the segmenter is not to be used
        again.
        """
        if image.ndim != 2 or image.size == 0 or image.dtype.kind not in "biuf":
            return _unmeasured(np.zeros((1, 1), np.float32), (Flag.NOT_AN_IMAGE,), None)
        shape = (image.shape[0], image.shape[1])
        refusal = self._refusal(shape, pixel_size_angstrom)
        if refusal is not None or pixel_size_angstrom is None:
            return _only_shown(image, refusal or Flag.PIXEL_SIZE_UNKNOWN, pixel_size_angstrom)
        prepared = prepare(image, pixel_size_angstrom, self._manifest.pixel_size_angstrom)
        flags = _emptiness(image, prepared) or domain_flags(prepared.picture, prepared.valid, shape)
        if not AMBER.issuperset(flags):
            share = float(prepared.valid.mean())
            return _unmeasured(prepared.picture, flags, prepared.pixel_size_angstrom, share)
        return self._measure(prepared, flags)

    def close(self) -> None:
        """Close the backend."""
        self._backend.close()

    def _refusal(self, shape: tuple[int, int], pixel_size_angstrom: float | None) -> Flag | None:
        """Say why the header alone keeps an image from being measured."""
        if pixel_size_angstrom is None or not math.isfinite(pixel_size_angstrom):
            return Flag.PIXEL_SIZE_UNKNOWN
        if not MIN_PIXEL_SIZE_ANGSTROM <= pixel_size_angstrom < MAX_PIXEL_SIZE_ANGSTROM:
            return Flag.PIXEL_SIZE_OUT_OF_RANGE
        rows, columns = working_shape(
            shape, pixel_size_angstrom, self._manifest.pixel_size_angstrom
        )
        if min(rows, columns) < MIN_SIDE_PX:
            return Flag.TOO_SMALL
        return Flag.FIELD_TOO_WIDE if rows * columns > MAX_FIELD_PX else None

    def _measure(self, prepared: Prepared, flags: tuple[Flag, ...]) -> IceMap:
        manifest = self._manifest
        probability = self._probability(prepared)
        valid = prepared.valid
        if NOT_VALID in manifest.channels:
            valid = valid & ~_opened(probability[manifest.channels.index(NOT_VALID)] > 0.5)
        share = float(valid.mean())
        if share < MIN_VALID_SHARE:
            flags = (*flags, Flag.NO_SPECIMEN)
            return _unmeasured(prepared.picture, flags, prepared.pixel_size_angstrom, share)
        if share < SMALL_VALID_SHARE:
            flags = (*flags, Flag.SMALL_VALID_AREA)
        # A copy: a view would keep every channel alive as long as the ice map.
        of_ice = probability[manifest.channels.index(manifest.ice_channel)].copy()
        nm2_per_px = (prepared.pixel_size_angstrom / 10.0) ** 2
        ice = without_small_parts(
            (of_ice > manifest.threshold) & valid, manifest.min_part_nm2 / nm2_per_px
        )
        raw_percent = 100.0 * float(np.count_nonzero(ice)) / float(np.count_nonzero(valid))
        percent, low, high = manifest.calibration(raw_percent)
        return IceMap(
            picture=prepared.picture,
            valid=valid,
            ice=ice,
            probability=of_ice,
            pixel_size_angstrom=prepared.pixel_size_angstrom,
            percent=percent,
            percent_low=low,
            percent_high=high,
            phases=self._phases(probability, ice),
            valid_area_percent=100.0 * share,
            flags=flags,
            in_domain=True,
        )

    def _probability(self, prepared: Prepared) -> NDArray[float32]:
        """Run the backend on the padded picture: (channels, rows, columns)."""
        rows, columns = prepared.picture.shape
        below, right = -rows % SIDE_STEP_PX, -columns % SIDE_STEP_PX
        picture = cv2.copyMakeBorder(prepared.picture, 0, below, 0, right, cv2.BORDER_REFLECT_101)
        valid = cv2.copyMakeBorder(
            prepared.valid.astype(np.float32), 0, below, 0, right, cv2.BORDER_CONSTANT, value=(0,)
        )
        inference = self._backend.infer(
            np.asarray(picture, np.float32)[None, None], np.asarray(valid, np.float32)[None, None]
        )
        return inference.probability[0, :, :rows, :columns]

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
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area_px
    keep[0] = False
    return np.asarray(keep[labels])


def _opened(mask: NDArray[bool_]) -> NDArray[bool_]:
    """Drop specks that are narrower than the opening."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_OPENING_PX, _OPENING_PX))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    return np.asarray(opened.astype(bool))


def _emptiness(image: NDArray[Any], prepared: Prepared) -> tuple[Flag, ...]:
    """Say why an image holds next to nothing, if so."""
    native_area = image.size / prepared.picture.size
    counts = float(prepared.picture.mean()) * native_area
    if image.dtype.kind in "iu" and prepared.picture.min() >= 0 and 0 < counts < FEWEST_COUNTS:
        return (Flag.NO_ELECTRONS,)
    if prepared.valid.mean() >= MIN_VALID_SHARE:
        return ()
    if np.mean(np.isfinite(image)) < MIN_VALID_SHARE:
        return (Flag.NOT_FINITE,)
    low, high = np.percentile(prepared.picture, (0.5, 99.5))
    return (Flag.BLANK,) if high - low <= 1e-5 * abs(high) else (Flag.NO_SPECIMEN,)


def _only_shown(image: NDArray[Any], flag: Flag, pixel_size_angstrom: float | None) -> IceMap:
    """Reduce an image that is not measured to a size for looking at."""
    prepared = prepare(image, min(1.0, _SHOWN_PX / max(image.shape)), 1.0)
    flags = (flag, *_emptiness(image, prepared))
    if pixel_size_angstrom is not None and math.isfinite(pixel_size_angstrom):
        scale = math.sqrt(image.size / prepared.picture.size)
        return _unmeasured(prepared.picture, flags, pixel_size_angstrom * scale)
    return _unmeasured(prepared.picture, flags, None)


def _unmeasured(
    picture: NDArray[float32],
    flags: tuple[Flag, ...],
    pixel_size_angstrom: float | None,
    valid_share: float = 0.0,
) -> IceMap:
    nothing = np.zeros(picture.shape, bool)
    return IceMap(
        picture=picture,
        valid=nothing,
        ice=nothing,
        probability=np.zeros(picture.shape, np.float32),
        pixel_size_angstrom=pixel_size_angstrom,
        valid_area_percent=100.0 * valid_share,
        flags=flags,
    )
