"""Pretends to be a person who outlines ice: another threshold, coarse polygons, things missed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import float32, uint8
from numpy.typing import NDArray

from engines.simulation import truth
from engines.simulation.draws import chance
from engines.simulation.tilt import SimulatedSeries, SimulatedTilt


@dataclass(frozen=True, slots=True)
class Annotator:
    """How one person sees and draws."""

    threshold: float
    """Contrast from which on they see ice."""
    counts_ghosts: bool
    miss_rate: float
    """Probability that an object at their threshold is missed; strong ones are missed less."""
    corners: tuple[int, int]
    """Least corners of a polygon, and one more than the most."""
    dilation_angstrom: float
    drift: float
    """Relative spread of the threshold from one series to the next."""
    washed_out: bool
    """Whether their display shows weak contrast only."""


def random_annotator(generator: np.random.Generator) -> Annotator:
    """Draw a person."""
    return Annotator(
        threshold=float(np.clip(0.10 * generator.lognormal(0.0, 0.5), 0.03, 0.4)),
        counts_ghosts=chance(generator, 0.7),
        miss_rate=generator.uniform(0.0, 0.4),
        corners=(5, 10),
        dilation_angstrom=generator.uniform(50.0, 150.0),
        drift=0.2,
        washed_out=chance(generator, 0.15),
    )


def annotate_series(
    series: SimulatedSeries, annotator: Annotator, generator: np.random.Generator
) -> list[NDArray[uint8]]:
    """Return a person's masks of all tilts of a series: their threshold drifts between series."""
    drifted = annotator.threshold * math.exp(annotator.drift * generator.standard_normal())
    return [
        annotate(tilt, annotator, generator, series.pixel_size_angstrom, drifted)
        for tilt in series.tilts
    ]


def annotate(
    tilt: SimulatedTilt,
    annotator: Annotator,
    generator: np.random.Generator,
    pixel_size_angstrom: float,
    threshold: float | None = None,
) -> NDArray[uint8]:
    """Return the mask that a person draws on a tilt, (rows, columns) uint8 of 0 and 1."""
    seen_from = annotator.threshold if threshold is None else threshold
    if annotator.washed_out:
        seen_from *= 1.6
    dark, bright = tilt.contrast_dark.astype(float32), tilt.contrast_bright.astype(float32)
    found = truth.label(dark, bright, seen_from, pixel_size_angstrom, annotator.counts_ghosts)
    drawn = np.zeros(found.shape, uint8)
    strength = np.maximum(dark, bright) if annotator.counts_ghosts else dark
    count, parts = cv2.connectedComponents(found, connectivity=8)
    for index in range(1, count):
        part = parts == index
        excess = float(strength[part].max()) / seen_from
        if not chance(generator, annotator.miss_rate / max(excess, 1.0)):
            _draw_polygon(drawn, part.astype(uint8), int(generator.integers(*annotator.corners)))
    radius = max(1, round(annotator.dilation_angstrom / pixel_size_angstrom))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return (cv2.dilate(drawn, kernel) * tilt.valid).astype(uint8)


def _draw_polygon(drawn: NDArray[uint8], part: NDArray[uint8], corners: int) -> None:
    """Fill a polygon of at most so many corners about one object."""
    outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    coarse = 0.005 * cv2.arcLength(outline, True)
    polygon = cv2.approxPolyDP(outline, coarse, True)
    while len(polygon) > corners:
        coarse *= 1.3
        polygon = cv2.approxPolyDP(outline, coarse, True)
    cv2.fillPoly(drawn, [polygon], 1)
