"""From a raw image to the picture that a network sees: one code for training and serving."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy import bool_, float32, int64
from numpy.typing import NDArray

from engines.errors import PixelsError

MAX_WORKING_PX = 1 << 26
"""Pixels of the largest picture that is made; more is a wrong pixel size, not an image."""

_LARGEST_VALUE = 1e15
"""Beyond this a value is no count of any camera and treated as infinite: its square and sums of
such would overflow float32."""
_DILUTED = 1e-6
"""Share of its value that a lone native pixel leaves in an average, at least."""
_MIN_LINE_PX = 32
"""A shorter row or column can hold one repeated value by chance."""
_LINES_AT_A_TIME = 64
_FLAT_TOLERANCE = 2e-6
"""Relative difference that averaging one repeated value may leave in float32."""
_MIN_FLAT_SHARE = 0.001
_OPAQUE_LEVEL = 0.04
"""Share of the bright level that inelastic and stray electrons stay below."""
_OPAQUE_BLUR_PX = 9
_MIN_OPAQUE_SHARE = 0.005
_MIN_OPAQUE_SHARE_INSIDE = 0.02
"""An opaque part that does not reach the edge must be this large: an ice grain is smaller."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tilt at the bundle's pixel size."""

    picture: NDArray[float32]
    """(rows, columns), mean counts per native pixel; finite everywhere."""
    valid: NDArray[bool_]
    """(rows, columns): pixels that hold data (no border, not opaque, finite)."""
    pixel_size_angstrom: float


@dataclass(frozen=True, slots=True)
class _Rectangle:
    """Native rows and columns that hold data, ends exclusive."""

    top: int
    bottom: int
    left: int
    right: int


class Resampler(Protocol):
    """Averages some kinds of images faster than this module does, to the same values."""

    def takes(self, image: NDArray[Any], shape: tuple[int, int]) -> bool:
        """Whether this image to this shape is its business."""
        ...

    def __call__(self, image: NDArray[Any], shape: tuple[int, int]) -> NDArray[float32]:
        """Average an image, (rows, columns), to another shape in float32."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


def prepare(
    image: NDArray[Any],
    pixel_size_angstrom: float,
    target_pixel_size_angstrom: float,
    resampler: Resampler | None = None,
) -> Prepared:
    """Average an image down to the target pixel size and find where it holds data.

    `image` is (rows, columns) of any real dtype and byte order, in counts; both pixel sizes are
    in angstrom. The whole field of view is kept: sides are rounded to whole working pixels. A
    coarser image than the target is interpolated linearly. `resampler` averages what it takes.
    Raises `PixelsError` for what is not an image of real numbers and for pixel sizes that cannot
    be meant.
    """
    _check(image, pixel_size_angstrom, target_pixel_size_angstrom)
    rows, columns = image.shape
    shape = working_shape((rows, columns), pixel_size_angstrom, target_pixel_size_angstrom)
    with np.errstate(over="ignore", invalid="ignore"):
        taken = resampler is not None and resampler.takes(image, shape)
        average = resampler if resampler is not None and taken else resample
        picture = average(image, shape)
        valid = _inside(_data_rectangle(image), image.shape, shape)
        peak = max(float(picture.max()), -float(picture.min()))  # NaN where any pixel is
        if not peak < _DILUTED * _LARGEST_VALUE:
            picture, covered = _mend(image, shape)
            valid &= covered
    valid &= ~_flat_at_edge(picture, valid)
    valid &= ~_opaque(picture, valid)
    scale = math.sqrt(rows * columns / (shape[0] * shape[1]))
    return Prepared(picture, valid, pixel_size_angstrom * scale)


def working_shape(
    shape: tuple[int, int], pixel_size_angstrom: float, target_pixel_size_angstrom: float
) -> tuple[int, int]:
    """Tell the (rows, columns) that an image has at the target pixel size, at least 1 each."""
    ratio = pixel_size_angstrom / target_pixel_size_angstrom
    return max(1, round(shape[0] * ratio)), max(1, round(shape[1] * ratio))


def _check(image: NDArray[Any], pixel_size: float, target: float) -> None:
    if image.ndim != 2 or image.size == 0:
        raise PixelsError(
            f"An image must have rows and columns, this one has the shape {image.shape}; "
            "hand over one section of a stack.",
            "mode",
        )
    if image.dtype.kind not in "biuf":
        raise PixelsError(
            f"An image must hold real numbers, this one holds {image.dtype}; transform it back "
            "to real space.",
            "mode",
        )
    sizes_ok = all(math.isfinite(s) and s > 0 for s in (pixel_size, target))
    if not sizes_ok or math.prod(s * pixel_size / target for s in image.shape) > MAX_WORKING_PX:
        raise PixelsError(
            f"A pixel size of {pixel_size} Å cannot be right for {image.shape[0]} x "
            f"{image.shape[1]} pixels; correct it in the header or name it.",
            "header",
        )


def resample(image: NDArray[Any], shape: tuple[int, int]) -> NDArray[float32]:
    """Bring an image to (rows, columns) in float32: averaged where finer, else interpolated."""
    if shape[0] > image.shape[0] or shape[1] > image.shape[1]:
        fine = cv2.resize(
            image.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR
        )
        return np.asarray(fine, np.float32)
    turned = cv2.transpose(_average_rows(image, shape[0]))
    return np.asarray(cv2.transpose(_average_rows(turned, shape[1])), np.float32)


def _average_rows(image: NDArray[Any], count: int) -> NDArray[float32]:
    """Average an image along its rows to `count` rows, each native row by its share.

    The same as OpenCV's INTER_AREA, but in half of its time and without a float copy of the
    whole image, and without its stripes (it drops shares below 1e-3, which shows on an offset).
    """
    rows, columns = image.shape
    if count == rows:
        return np.ascontiguousarray(image, np.float32)
    first, weights = area_shares(rows, count)
    span = weights.shape[1]
    band = np.empty((span, columns), np.float32)
    out = np.empty((count, columns), np.float32)
    for row, (start, weight) in enumerate(zip(first.tolist(), weights, strict=True)):
        np.copyto(band, image[start : start + span], casting="unsafe")
        np.dot(weight, band, out=out[row])
    return out


def area_shares(native: int, working: int) -> tuple[NDArray[int64], NDArray[float32]]:
    """Tell which native lines make up each working line, and with which share of its width.

    Gives the first native line of each working one, (working,), and the shares of the lines from
    there on, (working, lines), which add up to one.
    """
    step = native / working
    low = np.arange(working) * step
    span = min(math.ceil(step) + 1, native)
    first = np.minimum(low.astype(np.int64), native - span)
    index = first[:, None] + np.arange(span)
    share = np.minimum(index + 1, (low + step)[:, None]) - np.maximum(index, low[:, None])
    share = share.clip(0.0, None)
    return first, (share / share.sum(axis=1, keepdims=True)).astype(np.float32)


def _mend(image: NDArray[Any], shape: tuple[int, int]) -> tuple[NDArray[float32], NDArray[bool_]]:
    """Resample from the finite pixels alone; second: where at least half of them are finite."""
    finite = np.abs(image) < _LARGEST_VALUE
    total = resample(np.where(finite, image, 0).astype(np.float32), shape)
    share = resample(finite.view(np.uint8), shape)
    covered = share >= 0.5
    some = share > 1e-3
    told = covered if covered.any() else some
    typical = float(np.median(total[told] / share[told])) if told.any() else 0.0
    picture = np.full(shape, typical, np.float32)
    np.divide(total, share, out=picture, where=some)
    return picture, covered


def _data_rectangle(image: NDArray[Any]) -> _Rectangle:
    """Leave out rows and columns of one repeated value at the edges, in turns until none is."""
    top, left = 0, 0
    bottom, right = image.shape
    while top < bottom and left < right:
        before = (top, bottom, left, right)
        top += _repeated_lines(image[top:bottom, left:right])
        bottom -= _repeated_lines(image[top:bottom, left:right][::-1])
        left += _repeated_lines(image[top:bottom, left:right].T)
        right -= _repeated_lines(image[top:bottom, left:right].T[::-1])
        if before == (top, bottom, left, right):
            break
    return _Rectangle(top, bottom, left, right)


def _repeated_lines(lines: NDArray[Any]) -> int:
    """Count the leading lines that hold one repeated value each."""
    count, length = len(lines), lines.shape[1]
    if length < _MIN_LINE_PX:
        return 0
    for start in range(0, count, _LINES_AT_A_TIME):
        if lines[start, 0] != lines[start, length // 2]:
            return start
        block = lines[start : start + _LINES_AT_A_TIME]
        repeated = (block == block[:, :1]).all(axis=1)
        if not repeated.all():
            return start + int(repeated.argmin())
    return count


def _inside(data: _Rectangle, native: tuple[int, ...], shape: tuple[int, int]) -> NDArray[bool_]:
    """Mark the working pixels that no native pixel outside the rectangle has a part in."""
    rows = _inside_line(data.top, data.bottom, native[0], shape[0])
    columns = _inside_line(data.left, data.right, native[1], shape[1])
    return np.asarray(rows[:, None] & columns[None, :])


def _inside_line(start: int, stop: int, native: int, count: int) -> NDArray[bool_]:
    step = native / count
    reach = max(step, 1.0) / 2  # linear interpolation reaches half a native pixel to each side
    centre = (np.arange(count) + 0.5) * step
    low = np.maximum(centre - reach, 0.0) if start == 0 else centre - reach
    high = np.minimum(centre + reach, native) if stop == native else centre + reach
    return np.asarray((low >= start - 1e-6) & (high <= stop + 1e-6))


def _flat_at_edge(picture: NDArray[float32], valid: NDArray[bool_]) -> NDArray[bool_]:
    """Find large parts of one repeated value at the edge: what turning an image leaves."""
    near = np.abs(picture) * _FLAT_TOLERANCE
    down = np.abs(picture[1:] - picture[:-1]) <= near[1:]
    right = np.abs(picture[:, 1:] - picture[:, :-1]) <= near[:, 1:]
    block = down[:, 1:] & down[:, :-1] & right[1:] & right[:-1]
    nothing = np.zeros(picture.shape, bool)
    if np.count_nonzero(block) < _MIN_FLAT_SHARE / 2 * picture.size:
        return nothing
    flat = np.zeros(picture.shape, np.uint8)
    flat[1:, 1:] = block
    flat = np.asarray(cv2.dilate(flat, np.ones((2, 2), np.uint8), anchor=(0, 0)), np.uint8)
    flat[~valid] = 0
    parts = _large_parts(flat, valid, _MIN_FLAT_SHARE, math.inf)
    return _grown(parts, 5)  # blocks miss slanting rims, and the next pixel over is a mixture


def _opaque(picture: NDArray[float32], valid: NDArray[bool_]) -> NDArray[bool_]:
    """Find large parts where next to no electron comes through: grid bar, platinum.

    Counts without a meaningful zero (an offset, both signs) have no such parts; a dark ice grain
    is kept because it neither reaches the edge nor fills a fiftieth of the field.
    """
    nothing = np.zeros(picture.shape, bool)
    smooth = cv2.blur(picture, (_OPAQUE_BLUR_PX, _OPAQUE_BLUR_PX))
    sample = smooth[::4, ::4][valid[::4, ::4]]
    if sample.size == 0:
        return nothing
    bottom, level = np.percentile(sample, (0.1, 99.0))
    if level <= 0 or bottom >= _OPAQUE_LEVEL * level or bottom < -_OPAQUE_LEVEL * level:
        return nothing
    dark = ((smooth < _OPAQUE_LEVEL * level) & valid).astype(np.uint8)
    parts = _large_parts(dark, valid, _MIN_OPAQUE_SHARE, _MIN_OPAQUE_SHARE_INSIDE)
    return _grown(parts, _OPAQUE_BLUR_PX)  # blurring has eaten their rims


def _large_parts(
    mask: NDArray[np.uint8], valid: NDArray[bool_], edge_share: float, inside_share: float
) -> NDArray[bool_]:
    """Keep the connected parts that are large enough: at the edge of the data, or inside it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA] / mask.size
    outside = cv2.copyMakeBorder(
        (~valid).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(1,)
    )
    rim = cv2.dilate(outside, np.ones((3, 3), np.uint8))[1:-1, 1:-1].astype(bool)
    at_edge = np.bincount(labels[rim], minlength=count) > 0
    keep = (area >= inside_share) | (at_edge & (area >= edge_share))
    keep[0] = False
    return np.asarray(keep[labels])


def _grown(mask: NDArray[bool_], size_px: int) -> NDArray[bool_]:
    if not mask.any():
        return mask
    kernel = np.ones((size_px, size_px), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel).astype(bool))
