"""Pictures without a reading, drawn for testing: objects placed one by one on a painted field."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import cv2
import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.simulation.canvas import clip_window
from engines.simulation.draws import bell, chance
from engines.simulation.second.marks import Stamp, block, disc, segment_field, sphere, walk
from engines.simulation.second.texture import folds, scattered_grains, scratches

Field = NDArray[float32]
_SUB = 16
"""Drawing functions take sixteenths of a pixel."""


def _mesh(n: int) -> tuple[Field, Field]:
    y, x = np.mgrid[:n, :n].astype(float32)
    return y - n / 2, x - n / 2


def _put(field: Field, x: float, y: float, stamp: Stamp) -> None:
    window = clip_window(field.shape[0], y, x, stamp.shape)
    if window is not None:
        target, source = window
        field[target] += stamp[source]


def _places(
    generator: np.random.Generator, n: int, pitch: float, hexagonal: bool = False
) -> Iterator[tuple[float, float]]:
    """Yield the places x, y of a turned lattice that covers a field."""
    turn, reach = generator.uniform(0, math.pi), math.ceil(n / pitch) + 2
    off_x, off_y = generator.uniform(0, pitch, 2)
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            u = (column + (0.5 * (row % 2) if hexagonal else 0.0)) * pitch + off_x
            v = row * pitch * (math.sqrt(0.75) if hexagonal else 1.0) + off_y
            x = u * math.cos(turn) - v * math.sin(turn) + n / 2
            y = u * math.sin(turn) + v * math.cos(turn) + n / 2
            if -pitch < x < n + pitch and -pitch < y < n + pitch:
                yield x, y


def _polygon(field: Field, corners: NDArray[np.float64], value: float) -> None:
    points = np.round(corners * _SUB).astype(np.int32)
    cv2.fillPoly(field, [points], value, cv2.LINE_AA, 4)


def _turned(half_x: float, half_y: float, turn: float, x: float, y: float) -> NDArray[np.float64]:
    """Return the corners of a rectangle, (4, 2) x, y."""
    corners = np.array([(-half_x, -half_y), (half_x, -half_y), (half_x, half_y), (-half_x, half_y)])
    c, s = math.cos(turn), math.sin(turn)
    return np.asarray(corners @ np.array([[c, s], [-s, c]]) + (x, y))


def _litter(generator: np.random.Generator, n: int, count: int, largest: float) -> Field:
    """Drop spheres and blocks on a field: optical depth."""
    tau = np.zeros((n, n), float32)
    for _ in range(count):
        radius = bell(generator, 1.5, largest)
        lump = (
            block(generator, radius, int(generator.integers(4, 8)))
            if chance(generator, 0.4)
            else sphere(radius, generator.uniform(0, 0.4), 0.9, generator.uniform(0, 3.1))
        )
        x, y = generator.uniform(0, n, 2)
        for at_x, at_y in walk(generator, x, y, 1.2 * radius, int(generator.integers(0, 3)), 1.0):
            _put(tau, at_x, at_y, lump * float32(generator.uniform(0.3, 3.0)))
    return tau


def _blurred(field: Field, generator: np.random.Generator) -> Field:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), generator.uniform(0.4, 1.2)), float32)


def beam_without_specimen(generator: np.random.Generator, n: int, _: float) -> Field:
    """Show a beam that is round, cut by an aperture, or wider than the field."""
    y, x = _mesh(n)
    seen = 1.0 + generator.uniform(0.0, 0.05) * folds(generator, n, n / 3)
    look = int(generator.integers(3))
    if look == 0:
        width = n * bell(generator, 0.35, 1.2)
        seen = seen * np.exp(-0.5 * (x * x + y * y) / width**2)
    elif look == 1:
        edge = disc(n * generator.uniform(0.3, 0.6), generator.uniform(1.0, 12.0), n)
        middle = edge.shape[0] // 2
        from_x, from_y = (middle - n // 2 + int(generator.normal(0, n / 8)) for _ in range(2))
        window = edge[max(0, from_y) :, max(0, from_x) :][:n, :n]
        field = np.zeros((n, n), float32)
        field[: window.shape[0], : window.shape[1]] = window
        inner = cv2.GaussianBlur(field, (0, 0), generator.uniform(2.0, 6.0))
        seen = seen * field * (1.0 + generator.uniform(0.0, 0.8) * (field - inner)) + 2e-3
    if chance(generator, 0.3):
        seen = seen * (1.0 + 0.01 * scratches(generator, n, generator.uniform(0, 3.1), 8.0))
    if chance(generator, 0.3):
        seen = seen * np.exp(-0.1 * np.minimum(_litter(generator, n, 4, 0.04 * n), 1.0))
    return np.asarray(seen, float32)


def closed_shutter(generator: np.random.Generator, n: int, _: float) -> Field:
    """Show readout alone: banks of columns, a warm corner, pixels that glow."""
    level = bell(generator, 2e-3, 20.0)
    banks = np.repeat(generator.normal(1.0, 0.2, math.ceil(n / 16)), 16)[:n]
    dark = np.ones((n, n)) * (banks[None, :] if chance(generator, 0.5) else 1.0)
    y, x = _mesh(n)
    if chance(generator, 0.4):
        dark = dark + generator.uniform(0, 1.0) * np.exp((x + y) / n * 3.0 - 3.0)
    if chance(generator, 0.4):
        dark = dark * (1.0 + 0.1 * generator.standard_normal((1, n)))
    for _ in range(int(generator.exponential(20.0))):
        row, column = generator.integers(0, n, 2)
        dark[row, column] += generator.exponential(20.0)
    return np.asarray(level * np.clip(dark, 0, None), float32)


def grid_bar(generator: np.random.Generator, n: int, pixel_size: float) -> Field:
    """Let one bar, or two that cross, shade most of the field."""
    film = scattered_grains(generator, n, pixel_size, bell(generator, 1e-3, 8e-3), 1.3)
    tau = film + generator.uniform(0.1, 0.8) + _litter(generator, n, 3, 0.05 * n)
    turn = generator.uniform(0, math.pi)
    bar = np.zeros((n, n), float32)
    # The share of the field that is left open is drawn; the rest is bar.
    open_px = n * generator.uniform(0.0, 0.35)
    corners = _turned(2 * n, n, turn, *_beyond(n, turn, open_px))
    _polygon(bar, corners, 1.0)
    if chance(generator, 0.35):
        across = turn + math.pi / 2
        _polygon(bar, _turned(2 * n, n, across, *_beyond(n, across, open_px * 1.5)), 1.0)
    ragged = folds(generator, n, n / 10) * generator.uniform(0.0, 5.0)
    y, x = np.mgrid[:n, :n].astype(float32)
    moved = cv2.remap(bar, x + ragged, y + ragged, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    shade = cv2.GaussianBlur(moved, (0, 0), generator.uniform(0.5, 4.0))
    near = cv2.GaussianBlur(moved, (0, 0), generator.uniform(5.0, 25.0))
    total = tau + generator.uniform(0, 1.0) * near + shade * bell(generator, 4.0, 9.0)
    return np.asarray(np.exp(-total), float32)


def _beyond(n: int, turn: float, open_px: float) -> tuple[float, float]:
    """Return the middle of a half plane whose edge leaves about `open_px` of a field open."""
    away = n - (0.5 * n - open_px) if open_px < n else n
    return n / 2 - away * math.sin(turn), n / 2 + away * math.cos(turn)


def atlas(generator: np.random.Generator, n: int, _: float) -> Field:
    """Show a grid of squares, each painted by itself, and the round rim it hangs in."""
    pitch = n / bell(generator, 4.0, 22.0)
    seen = np.full((n, n), generator.uniform(0.0005, 0.15), float32)
    turn, share = generator.uniform(0, math.pi / 2), generator.uniform(0.3, 0.43)
    slope = generator.normal(0, 1.0, 2) / n
    lost, dark = generator.uniform(0, 0.25), generator.uniform(0, 0.3)
    c, s = math.cos(turn), math.sin(turn)
    reach = math.ceil(n / pitch) + 1
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            x = (column * c - row * s) * pitch + n / 2
            y = (column * s + row * c) * pitch + n / 2
            thick = np.clip(0.6 + slope @ (x - n / 2, y - n / 2) + generator.normal(0, 0.3), 0, 4)
            value = math.exp(-float(thick))
            if chance(generator, dark):
                value *= 0.03
            corners = _turned(share * pitch, share * pitch, turn, x, y)
            _polygon(seen, corners, value)
            if chance(generator, lost):
                torn = corners[generator.permutation(4)[:3]]
                _polygon(seen, torn + generator.normal(0, 0.05 * pitch, (3, 2)), 1.0)
    seen = seen * np.exp(-0.25 * np.abs(folds(generator, n, pitch / 3)))
    if chance(generator, 0.5):
        y0, x0 = _mesh(n)
        centre = generator.normal(0, 0.2 * n, 2)
        away = np.hypot(x0 - centre[0], y0 - centre[1])
        seen = seen * (away < n * generator.uniform(0.4, 0.8)) + 5e-4
    seen = seen * np.exp(-_litter(generator, n, int(generator.exponential(8.0)), 0.04 * n))
    return _blurred(seen.astype(float32), generator)


def _holes(generator: np.random.Generator, n: int, pitch: float) -> Field:
    """Return the optical depth of a film with a lattice of holes, square or hexagonal."""
    radius = pitch * generator.uniform(0.2, 0.4)
    depth = bell(generator, 0.15, 4.0)
    tau = np.full((n, n), depth, float32)
    tau += 0.05 * depth * scratches(generator, n, generator.uniform(0, 3.1), 20.0)
    base, icy, empty = (
        bell(generator, 0.02, 0.6),
        generator.uniform(0, 0.2),
        generator.uniform(0, 0.4),
    )
    soft = generator.uniform(0.6, 2.0)
    for x, y in _places(generator, n, pitch, hexagonal=chance(generator, 0.4)):
        own = radius * generator.normal(1.0, 0.02)
        inside = disc(own, soft)
        fill = 0.0 if chance(generator, empty) else base * generator.uniform(0.5, 1.5)
        if chance(generator, icy):
            fill += generator.uniform(0.5, 3.0)
        _put(tau, x, y, inside * float32(fill - depth))
    return np.clip(tau, 0.0, None)


def hole_map(generator: np.random.Generator, n: int, _: float) -> Field:
    """Show a lattice of holes, some icy, empty or broken into each other by cracks."""
    tau = _holes(generator, n, n / bell(generator, 2.5, 9.0))
    tau = tau + bell(generator, 0.02, 0.6) * np.clip(folds(generator, n, n / 2), 0, None)
    if chance(generator, 0.35):
        x, y = generator.uniform(0, n, 2)
        path = walk(generator, x, y, n / 12, 12, 0.6)
        crack = segment_field(n, [(*a, *b) for a, b in pairwise(path)])
        tau = tau * (crack > n * generator.uniform(0.005, 0.05))
    tau = tau + _litter(generator, n, int(generator.exponential(7.0)), 0.05 * n)
    return _blurred(np.exp(-tau).astype(float32), generator)


def square_map(generator: np.random.Generator, n: int, pixel_size: float) -> Field:
    """Show one square, its corner, or a slab cut free among dark cells."""
    if chance(generator, 0.25):
        return _slab(generator, n)
    turn, half = generator.uniform(0, math.pi / 2), n * generator.uniform(0.25, 0.6)
    at = n / 2 + generator.normal(0, 0.12 * n, 2)
    window = np.zeros((n, n), float32)
    corners = _turned(half, half * generator.uniform(0.9, 1.0), turn, *at)
    _polygon(window, corners, 1.0)
    window = (cv2.GaussianBlur(window, (0, 0), half * generator.uniform(0.02, 0.12)) > 0.5).astype(
        float32
    )
    inner = cv2.distanceTransform((window > 0).astype(np.uint8), cv2.DIST_L2, 5)
    tau = _holes(generator, n, n / bell(generator, 10.0, 32.0))
    tau = tau + bell(generator, 0.1, 3.0) * np.exp(-inner / (half * bell(generator, 0.03, 0.3)))
    tau = tau + 0.3 * np.abs(folds(generator, n, n / 3))
    tau = tau + _litter(generator, n, int(generator.exponential(9.0)), 0.04 * n)
    opaque = bell(generator, 3.5, 8.0)
    soft = cv2.GaussianBlur(window, (0, 0), generator.uniform(0.5, 1.5))
    return _blurred(np.exp(-tau - (1.0 - soft) * opaque).astype(float32), generator)


def _slab(generator: np.random.Generator, n: int) -> Field:
    """Show a thin slab between two trenches, far smaller than the field."""
    tau = np.zeros((n, n), float32)
    for _ in range(int(generator.integers(25, 70))):
        x, y = generator.uniform(-20, n + 20, 2)
        lump = sphere(n * generator.uniform(0.06, 0.2), 0.2, 0.9, generator.uniform(0, 3))
        _put(tau, x, y, lump * float32(generator.uniform(1.0, 4.0)))
    turn, at = generator.uniform(0, math.pi), n / 2 + generator.normal(0, 0.1 * n, 2)
    long, wide = n * generator.uniform(0.1, 0.22), n * generator.uniform(0.03, 0.07)
    slot = np.zeros((n, n), float32)
    _polygon(slot, _turned(long, 2.5 * wide, turn, *at), 1.0)
    slab = np.zeros((n, n), float32)
    _polygon(slab, _turned(1.2 * long, wide, turn, *at), 1.0)
    grey = generator.uniform(0.4, 1.0) + 0.1 * folds(generator, n, 12.0)
    tau = (tau + 0.3) * (1.0 - slot) + slab * slot * grey
    return _blurred(np.exp(-tau).astype(float32), generator)


def diffraction(generator: np.random.Generator, n: int, _: float) -> Field:
    """Show diffraction: discs or dots of one crystal, a powder's arcs, a stop that hides some."""
    y, x = _mesh(n)
    off = generator.normal(0, 0.05 * n, 2)
    r = np.hypot(x - off[0], y - off[1])
    seen = bell(generator, 2.0, 60.0) / (1.0 + (r / (0.03 * n)) ** generator.uniform(1.5, 2.8))
    seen = seen + generator.uniform(0.0, 0.1)
    if chance(generator, 0.65):
        spot = disc(bell(generator, 0.8, 4.0), 0.8)
        for at_x, at_y in _places(
            generator, n, n * bell(generator, 0.04, 0.18), chance(generator, 0.5)
        ):
            away = math.hypot(at_x - n / 2 - off[0], at_y - n / 2 - off[1])
            size = float(generator.exponential(1.0)) * math.exp(-away / (0.3 * n))
            _put(seen, at_x, at_y, spot * float32(size * bell(generator, 1.0, 40.0)))
    if chance(generator, 0.6):
        around = np.arctan2(y - off[1], x - off[0])
        for _ in range(int(generator.integers(1, 7))):
            radius, width = n * generator.uniform(0.1, 0.6), bell(generator, 0.8, 14.0)
            arcs = 1.0 + generator.uniform(0, 1) * np.cos(
                generator.integers(1, 9) * around + generator.uniform(0, 6)
            )
            seen = seen + arcs * bell(generator, 0.2, 6.0) * np.exp(
                -0.5 * ((r - radius) / width) ** 2
            )
    if chance(generator, 0.5):
        turn, wide = generator.uniform(0, 6.3), n * generator.uniform(0.01, 0.025)
        hidden = np.zeros((n, n), float32)
        centre = n / 2 + off
        arm = centre + n * np.array([math.cos(turn), math.sin(turn)]) / 2
        _polygon(hidden, _turned(0.52 * n, wide, turn, *arm), 1.0)
        _put(hidden, centre[0], centre[1], disc(wide * generator.uniform(1.5, 4.0), 1.0))
        seen = seen * (1.0 - np.minimum(hidden, 1.0)) + 1e-3
    else:
        _put(seen, n / 2 + off[0], n / 2 + off[1], disc(bell(generator, 2, 9), 2.0) * float32(500))
    return np.asarray(seen, float32)


def negative_stain(generator: np.random.Generator, n: int, pixel_size: float) -> Field:
    """Show pale bodies in dark stain that dried in drifts and grains."""
    size, level = bell(generator, 2.5, 9.0), bell(generator, 0.3, 1.0)
    drifts = np.exp(bell(generator, 0.06, 0.5) * folds(generator, n, n / generator.uniform(2, 10)))
    grain = generator.gamma(generator.uniform(4.0, 20.0), 1.0, (n, n)).astype(float32)
    grain = cv2.GaussianBlur(grain / grain.mean(), (0, 0), generator.uniform(0.5, 1.0))
    bodies = np.zeros((n, n), float32)
    kind = int(generator.integers(3))
    for _ in range(int(bell(generator, 40.0, 500.0))):
        x, y = generator.uniform(0, n, 2)
        turn = generator.uniform(0, 3.1)
        if kind == 0:
            _put(bodies, x, y, sphere(size, 0.3, generator.uniform(0.8, 1.0), turn))
        elif kind == 1:
            _put(bodies, x, y, block(generator, size, int(generator.integers(3, 7))))
        else:
            _polygon(bodies, _turned(1.6 * size, 0.6 * size, turn, x, y), 1.0)
    bodies = np.minimum(bodies, 1.0)
    shore = np.clip(cv2.GaussianBlur(bodies, (0, 0), 0.8 * size) - bodies, 0, None)
    tau = level * drifts * grain * (1.0 - generator.uniform(0.5, 0.95) * bodies)
    tau = tau + level * generator.uniform(0.5, 1.5) * shore
    tau = tau + _litter(generator, n, int(generator.exponential(2.0)), 0.06 * n)
    return _blurred(np.exp(-tau).astype(float32), generator)


DRAWERS: Mapping[str, Callable[[np.random.Generator, int, float], Field]] = {
    "beam_without_specimen": beam_without_specimen,
    "closed_shutter": closed_shutter,
    "grid_bar": grid_bar,
    "atlas": atlas,
    "square_map": square_map,
    "hole_map": hole_map,
    "diffraction": diffraction,
    "negative_stain": negative_stain,
}
