"""Draws the contents of a scene, each kind from its own random stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from engines.simulation.canvas import Canvas
from engines.simulation.draws import Draws, repeats

Drawer = Callable[[Canvas, np.random.Generator], None]


def draw_all(
    canvas: Canvas,
    draws: Draws,
    subject: str,
    drawers: Mapping[str, Drawer],
    expected: Mapping[str, float],
) -> list[str]:
    """Draw each kind as often as is expected of it; returns the kinds drawn.

    Every kind has its own random stream, so that adding one changes no other.
    """
    drawn = []
    for name, drawer in drawers.items():
        generator = draws.stream(f"{subject} {name}")
        count = repeats(generator, expected.get(name, 0.0))
        for _ in range(count):
            drawer(canvas, generator)
        if count:
            drawn.append(name)
    return drawn
