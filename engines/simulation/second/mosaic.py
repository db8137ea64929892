"""Mosaics of bricks, thrown polygons, laths and ribbons, and regions of ellipses and strips."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy import float32, int32
from numpy.typing import NDArray

from engines.simulation.second.texture import folds

Plane = NDArray[float32]
Ids = NDArray[int32]

_MOST_SHAPES = 4000


def grains(
    generator: np.random.Generator, n: int, size_px: float, anisotropy: float, kind: str
) -> Ids:
    """Draw a mosaic of grains as the kind of ice grows them, (n, n) int32 >= 0."""
    if kind == "brushstroke":
        return _ribbons(generator, n, size_px, anisotropy)
    ids = _bricks(generator, n, size_px)
    if kind == "stacking":
        return _throw(generator, ids, size_px, anisotropy, corners=(4, 5), square=True)
    return _throw(generator, ids, size_px, anisotropy, corners=(5, 10), square=False)


def _bricks(generator: np.random.Generator, n: int, size_px: float) -> Ids:
    """Fill the field with rows of bricks, sheared so that no row runs along the picture."""
    y, x = np.mgrid[:n, :n].astype(float32)
    turn = generator.uniform(0, math.pi)
    u = x * math.cos(turn) + y * math.sin(turn) + 0.4 * size_px * folds(generator, n, 3 * size_px)
    v = y * math.cos(turn) - x * math.sin(turn) + 0.4 * size_px * folds(generator, n, 3 * size_px)
    v = v - v.min()
    row = (v / (0.9 * size_px)).astype(int32)
    offsets = generator.uniform(0, size_px, int(row.max()) + 1).astype(float32)
    widths = (size_px * generator.uniform(0.7, 1.5, len(offsets))).astype(float32)
    column = ((u - u.min() + offsets[row]) / widths[row]).astype(int32)
    _, ids = np.unique(row * (int(column.max()) + 1) + column, return_inverse=True)
    return ids.reshape(n, n).astype(int32)


def _throw(
    generator: np.random.Generator,
    ids: Ids,
    size_px: float,
    anisotropy: float,
    corners: tuple[int, int],
    square: bool,
) -> Ids:
    """Throw polygons or laths over a mosaic, each a grain of its own."""
    n, first = ids.shape[0], int(ids.max()) + 1
    common = generator.uniform(0, math.pi)
    for index in range(min(_MOST_SHAPES, max(8, round(1.6 * (n / size_px) ** 2)))):
        stretch = math.sqrt(anisotropy * generator.uniform(0.8, 1.3))
        if square:
            angles = math.pi / 4 + np.arange(4) * math.pi / 2
            turn = common + float(generator.choice([0.0, 1.23])) + generator.normal(0, 0.15)
        else:
            angles = np.sort(generator.uniform(0, 2 * math.pi, int(generator.integers(*corners))))
            turn = generator.uniform(0, math.pi)
        radius = 0.65 * size_px * float(generator.lognormal(0.0, 0.4))
        x, y = radius * stretch * np.cos(angles), radius / stretch * np.sin(angles)
        turned = np.stack(
            (x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn))
        )
        points = (generator.uniform(0, n, (2, 1)) + turned).T
        cv2.fillConvexPoly(ids, np.round(points).astype(np.int32), first + index)
    return ids


def _ribbons(generator: np.random.Generator, n: int, size_px: float, anisotropy: float) -> Ids:
    """Fill the field with bent, crossing ribbons."""
    y, x = np.mgrid[:n, :n].astype(float32)
    turn = generator.uniform(0, math.pi)
    bent = 0.8 * size_px * folds(generator, n, n / 3)
    u = x * math.cos(turn) + y * math.sin(turn) + bent
    v = y * math.cos(turn) - x * math.sin(turn)
    narrow, long = size_px / math.sqrt(anisotropy), size_px * anisotropy
    column = ((u - u.min()) / narrow).astype(int32)
    starts = generator.uniform(0, long, int(column.max()) + 1).astype(float32)
    row = ((v - v.min() + starts[column]) / long).astype(int32)
    _, ids = np.unique(column * (int(row.max()) + 1) + row, return_inverse=True)
    return ids.reshape(n, n).astype(int32)


def ice_region(generator: np.random.Generator, n: int, layout: str, abundance: float) -> Plane:
    """Return a field whose values above 0 are where ice may be, (n, n)."""
    if layout in ("whole", "sparse"):
        return np.ones((n, n), float32)
    region = np.zeros((n, n), np.uint8)
    if layout == "band":
        middle = (generator.uniform(0, n), generator.uniform(0, n))
        size = (3.0 * n, n * generator.uniform(0.08, 0.3))
        box = cv2.boxPoints((middle, size, generator.uniform(0, 180)))
        cv2.fillConvexPoly(region, np.round(box).astype(np.int32), 1)
    elif layout in ("centre", "outside"):
        at = [int(generator.uniform(0.3, 0.7) * n) for _ in range(2)]
        axes = [int(generator.uniform(0.15, 0.4) * n) for _ in range(2)]
        cv2.ellipse(region, at, axes, generator.uniform(0, 180), 0, 360, 1, -1)
        region = region if layout == "centre" else (1 - region).astype(np.uint8)
    else:
        _ellipses(generator, region, 0.02 + 0.4 * abundance)
    return region.astype(float32) - 0.5


def _ellipses(generator: np.random.Generator, region: NDArray[np.uint8], share: float) -> None:
    """Add ellipses, in chains, until they cover a share of the field."""
    n = region.shape[0]
    x, y = generator.uniform(0, n, 2)
    for _ in range(60):
        if region.mean() >= share:
            return
        if generator.random() < 0.4:
            x, y = generator.uniform(0, n, 2)
        reach = n * generator.uniform(0.03, 0.16)
        axes = (int(reach), max(2, int(reach * generator.uniform(0.4, 1.0))))
        cv2.ellipse(region, (int(x), int(y)), axes, generator.uniform(0, 180), 0, 360, 1, -1)
        x, y = x + generator.normal(0, 1.3) * reach, y + generator.normal(0, 1.3) * reach
