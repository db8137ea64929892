"""From shapes to masks, at any size of the same field of view."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np
from numpy import bool_, float32, float64, intp
from numpy.typing import NDArray

from engines.annotation.model import AnnotatedImage, AnnotationError, Bitmap, Polygon

MAX_ASPECT_ERROR = 0.01


def check_aspect(image: AnnotatedImage, shape: tuple[int, int]) -> None:
    """Raise AnnotationError where a picture cannot show all of a tilt of (rows, columns)."""
    rows, columns = shape
    off = (image.width_px / image.height_px) / (columns / rows)
    if abs(off - 1.0) > MAX_ASPECT_ERROR:
        raise AnnotationError(
            f"The picture '{image.name}' ({image.width_px} x {image.height_px} pixels) has not the "
            f"aspect ratio of its tilt ({columns} x {rows}); annotate pictures of whole tilts, "
            "neither cut nor turned."
        )


def rasterise(
    image: AnnotatedImage, shape: tuple[int, int], labels: Collection[str] | None = None
) -> NDArray[bool_]:
    """Draw what has one of these labels (None: any) as a mask of (rows, columns).

    The whole picture is scaled to that size. A pixel is inside where its centre is: areas are
    right on average, without a rim.
    """
    mask = np.zeros(shape, bool)
    for one in image.shapes:
        if labels is not None and one.label not in labels:
            continue
        draw = _bitmap if isinstance(one, Bitmap) else _polygon
        mask |= draw(one, image, shape)  # type: ignore[arg-type]
    return mask


def _bitmap(one: Bitmap, image: AnnotatedImage, shape: tuple[int, int]) -> NDArray[bool_]:
    whole = np.zeros((image.height_px, image.width_px), float32)
    inside = one.mask[: image.height_px - one.top, : image.width_px - one.left]
    whole[one.top : one.top + inside.shape[0], one.left : one.left + inside.shape[1]] = inside
    if whole.shape != shape:
        finer = shape[0] > whole.shape[0]
        how = cv2.INTER_NEAREST_EXACT if finer else cv2.INTER_AREA
        whole = np.asarray(cv2.resize(whole, (shape[1], shape[0]), interpolation=how), float32)
    return np.asarray(whole > 0.5)


def _polygon(one: Polygon, image: AnnotatedImage, shape: tuple[int, int]) -> NDArray[bool_]:
    """Fill the rings, largest first: one inside an odd number of others is a hole."""
    scale = np.array([shape[1] / image.width_px, shape[0] / image.height_px])
    rings = sorted((ring * scale for ring in one.rings), key=_area, reverse=True)
    mask = np.zeros(shape, bool)
    for index, ring in enumerate(rings):
        around = sum(_inside(ring, other) for other in rings[:index])
        area = filled(ring, shape)
        mask = mask & ~area if around % 2 else mask | area
    return mask


def _area(ring: NDArray[float64]) -> float:
    """Area by the shoelace formula."""
    x, y = ring.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2.0


def _inside(ring: NDArray[float64], other: NDArray[float64]) -> bool:
    outline = other.astype(float32)[:, None]
    return all(cv2.pointPolygonTest(outline, (float(x), float(y)), False) >= 0 for x, y in ring)


def filled(ring: NDArray[float64], shape: tuple[int, int]) -> NDArray[bool_]:
    """Mark the pixels whose centres a ring encloses (even-odd rule): (rows, columns).

    Each edge toggles, in every row of pixels that it crosses, all pixels right of the crossing.
    """
    rows, columns = shape
    toggles = np.zeros((rows, columns + 1), np.int32)
    for ends in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
        # From top to bottom, whichever way it is walked: an edge that is walked twice, to a hole
        # and back, then crosses each row at exactly one place and leaves no trace.
        (y, x), (y_next, x_next) = sorted((y, x) for x, y in ends)
        first, last = (int(np.clip(np.ceil(end - 0.5), 0, rows)) for end in (y, y_next))
        if first >= last:
            continue
        at: NDArray[intp] = np.arange(first, last)
        crossing = x + (at + 0.5 - y) * (x_next - x) / (y_next - y)
        column = np.clip(np.ceil(crossing - 0.5), 0, columns).astype(intp)
        np.add.at(toggles, (at, column), 1)
    return np.asarray(np.cumsum(toggles[:, :columns], axis=1) % 2 == 1)
