"""What is odd about the annotations of a picture: said, or refused where it cannot be meant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy import bool_, float64
from numpy.typing import NDArray

from engines.annotation.labels import Meanings
from engines.annotation.model import AnnotatedImage, AnnotationError, Bitmap, Polygon
from engines.annotation.picture import picture_shape
from engines.annotation.raster import rasterise

MOSTLY = 0.5
"""Ice of which more than this share is to be ignored, or is called no ice, cannot be meant."""
FINEST_PX = 4096
"""Larger pictures are looked at reduced to this side."""
_WORTH_SAYING = 0.01
_OUTSIDE_PX = 1.0
_MOST_CORNERS = 4000
_PHASES = ("hexagonal", "cubic", "stacking_disordered")


def findings_of(image: AnnotatedImage, meanings: Meanings) -> list[str]:
    """Say in short what is odd about a picture; raises AnnotationError where labels contradict."""
    polygons = [one for one in image.shapes if isinstance(one, Polygon)]
    found = [
        *_counted(sum(_is_outside(one, image) for one in polygons), "outline", "outside, cut off"),
        *_counted(sum(_is_empty(one, image) for one in image.shapes), "area", "without extent"),
        *_counted(sum(_crosses_itself(one) for one in polygons), "outline", "crossing itself"),
    ]
    return found + _contradictions(image, meanings)


def _counted(count: int, noun: str, what: str) -> list[str]:
    return [f"{count} {noun}{'s' if count > 1 else ''} {what}"] if count else []


def _is_outside(one: Polygon, image: AnnotatedImage) -> bool:
    points = np.concatenate(one.rings)
    corner = np.array([image.width_px, image.height_px]) + _OUTSIDE_PX
    return bool((points < -_OUTSIDE_PX).any() or (points > corner).any())


def _is_empty(one: Polygon | Bitmap, image: AnnotatedImage) -> bool:
    alone = AnnotatedImage(image.name, image.width_px, image.height_px, (one,))
    shape = picture_shape((image.height_px, image.width_px), FINEST_PX)
    return not rasterise(alone, shape).any()


def _crosses_itself(one: Polygon) -> bool:
    return any(crosses_itself(ring) for ring in one.rings)


def crosses_itself(ring: NDArray[float64]) -> bool:
    """Say whether two edges of a ring cross; that they touch, as where a hole is joined, is none.

    Of rings with thousands of corners, which nobody drew, only the first ones are looked at.
    """
    start = ring[:_MOST_CORNERS]
    end = np.roll(ring, -1, axis=0)[:_MOST_CORNERS]
    return any(_crossed(start[index], end[index], start, end) for index in range(len(start)))


def _crossed(
    a: NDArray[float64], b: NDArray[float64], start: NDArray[float64], end: NDArray[float64]
) -> bool:
    """Whether the edge from a to b crosses any of these edges inside of both."""
    sides = _side(a, b, start) * _side(a, b, end)
    if not (sides < 0).any():
        return False
    mine = _side(start, end, a) * _side(start, end, b)
    return bool(((sides < 0) & (mine < 0)).any())


def _side(a: NDArray[float64], b: NDArray[float64], point: NDArray[float64]) -> NDArray[float64]:
    """Sign of the side of the line from a to b on which a point lies; 0 within a hundredth px."""
    along, to = b - a, point - a
    cross = along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]
    length = np.maximum(np.hypot(along[..., 0], along[..., 1]), 1e-9)
    return np.asarray(np.sign(np.where(np.abs(cross / length) < 0.02, 0.0, cross)))


def _contradictions(image: AnnotatedImage, meanings: Meanings) -> list[str]:
    shape = picture_shape((image.height_px, image.width_px), FINEST_PX)
    drawn = {one.label for one in image.shapes}
    if not drawn & meanings.ice:
        return []
    ice = rasterise(image, shape, meanings.ice)
    pairs = ((meanings.ignore, "ignore"), (meanings.not_ice, "no ice"))
    found = []
    for labels, what in pairs:
        if not drawn & labels or not ice.any():
            continue
        share = float((ice & rasterise(image, shape, labels)).sum() / ice.sum())
        if share > MOSTLY:
            names = " and ".join(f"'{one}'" for one in sorted(drawn & labels))
            raise AnnotationError(
                f"On the picture '{image.name}' {100 * share:.0f} % of the ice is labelled {names} "
                "as well, and both cannot be meant; delete one of the two in CVAT."
            )
        if share > _WORTH_SAYING:
            found.append(f"{100 * share:.0f} % of the ice is {what} too: left out")
    return found + _phases(image, drawn & meanings.ice)


def _phases(image: AnnotatedImage, labels: set[str]) -> list[str]:
    """Say where two phases are said of one place, which then counts as ice of no phase."""
    shape = picture_shape((image.height_px, image.width_px), FINEST_PX)
    phases = [one for one in sorted(labels) if any(name in _plain(one) for name in _PHASES)]
    masks = [rasterise(image, shape, {one}) for one in phases]
    both = _doubly(masks)
    return [f"{' and '.join(phases)} overlap: ice all the same"] if both else []


def _doubly(masks: Sequence[NDArray[bool_]]) -> bool:
    return len(masks) > 1 and bool((np.sum(masks, axis=0) > 1).mean() > 1e-4)


def _plain(label: str) -> str:
    return label.lower().replace(" ", "_").replace("-", "_")
