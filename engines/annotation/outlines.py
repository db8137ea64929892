"""From a mask to few-cornered polygons that a person can edit, holes included.

CVAT has no polygons with holes: a ring inside another is shown, and can be exported, as an area
of its own. A hole is therefore joined to the outline around it by an edge that is walked there and
back, which every program fills rightly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy import bool_, float32, float64, int32, uint8
from numpy.typing import NDArray

from engines.annotation.raster import filled

LEAST_IOU = 0.985
"""Of each part with its own polygon, which is simplified no further."""
_FINER = 3
"""A mask is traced at three times its size, where every outline is next to an edge of pixels."""
_TOLERANCES_PX = (1.0, 0.75, 0.5, 0.25, 0.0)
_MARGIN_PX = 2

Ring = NDArray[float64]
"""(points, 2): x and y; closed by itself."""


def outlines_of(mask: NDArray[bool_], scale: tuple[float, float] = (1.0, 1.0)) -> list[Ring]:
    """Give one polygon for each connected part of a mask, its holes joined in.

    In pixels of the mask times `scale` (x, y). No outline is further than a pixel from the edge of
    the mask, and each part agrees with its polygon to `LEAST_IOU`.
    """
    count, parts = cv2.connectedComponents(mask.astype(uint8), connectivity=8)
    found = []
    for number in range(1, count):
        part = parts == number
        left, top, width, height = cv2.boundingRect(part.astype(uint8))
        inside = np.pad(part[top : top + height, left : left + width], _MARGIN_PX)
        ring = _simplest(inside) + np.array([left - _MARGIN_PX, top - _MARGIN_PX])
        found.append(np.asarray(ring * np.array(scale), float64))
    return found


def _simplest(part: NDArray[bool_]) -> Ring:
    """Give the polygon with the fewest corners that still agrees with a part."""
    edges = list(_edges(part))
    ring: Ring = np.empty((0, 2))
    for tolerance_px in _TOLERANCES_PX:
        rings = [_simplified(edge, tolerance_px) for edge in edges]
        kept = [one for one in rings if len(one) >= 3]
        if not kept or len(rings[0]) < 3:
            continue
        ring = _joined(kept)
        if _agrees(filled(ring, (part.shape[0], part.shape[1])), part):
            return ring
    return ring


def _agrees(drawn: NDArray[bool_], part: NDArray[bool_]) -> bool:
    """Whether a polygon differs from its part by little, and only at the edge."""
    pixels, around = part.astype(uint8), np.ones((3, 3), uint8)
    inside = cv2.erode(pixels, around) == cv2.dilate(pixels, around)
    enough = (drawn & part).sum() >= LEAST_IOU * (drawn | part).sum()
    return bool(enough and not ((drawn != part) & inside).any())


def _edges(part: NDArray[bool_]) -> Iterator[Ring]:
    """Trace a connected part along the edges of its pixels: its outline first, then its holes.

    From the middle of an edge to that of the next: stairs become slopes, and the centre of each
    pixel stays on its side.
    """
    fine = np.kron(part, np.ones((_FINER, _FINER), bool)).astype(uint8)
    traced, tree = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    order = sorted(range(len(traced)), key=lambda index: bool(tree[0][index][3] >= 0))
    for index in order:
        corners = np.rint((traced[index].reshape(-1, 2) + 0.5) / _FINER).astype(int32)
        moved = (corners != np.roll(corners, 1, axis=0)).any(axis=1)
        yield _middles(corners[moved].astype(float64))


def _middles(corners: Ring) -> Ring:
    """Give the middle of each edge of a pixel along a ring that turns at right angles."""
    sides = np.roll(corners, -1, axis=0) - corners
    counts = np.abs(sides).max(axis=1).astype(int)
    steps = np.repeat(sides / counts[:, None], counts, axis=0)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    along = np.arange(len(steps)) - first + 0.5
    return np.asarray(np.repeat(corners, counts, axis=0) + steps * along[:, None], float64)


def _simplified(ring: Ring, tolerance_px: float) -> Ring:
    """Leave out corners that are no further than this from the line without them."""
    kept = cv2.approxPolyDP(ring.astype(float32)[:, None], tolerance_px, True)
    return np.asarray(kept.reshape(-1, 2), float64)


def _joined(rings: list[Ring]) -> Ring:
    """Join holes to their outline, each by an edge from its leftmost corner to the nearest one.

    From left to right, so that an edge seldom has to cross another hole (where it does, no pixel
    changes).
    """
    whole, *holes = rings
    for hole in sorted(holes, key=lambda ring: float(ring[:, 0].min())):
        turned = np.roll(hole, -int(hole[:, 0].argmin()), axis=0)
        at = int(np.hypot(*(whole - turned[0]).T).argmin())
        whole = np.concatenate([whole[: at + 1], turned, turned[:1], whole[at:]])
    return whole


def area_px(ring: Ring) -> float:
    """Give the area inside a ring by the shoelace formula; a joined hole counts as none."""
    x, y = ring.T
    return abs(math.fsum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2.0
