"""Says how familiar a picture is to a network: features of several depths, and physical checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import bool_, float32, float64
from numpy.typing import NDArray

from engines.domain_physics import PHYSICS
from engines.icemap import Level

RED = 1.0
"""Score from which on there is no opinion."""
_FARTHEST = 8.0
"""Standard deviations beyond which a coordinate counts no more."""
_LARGEST_SCORE = 20.0
_STRANGENESS_SEEN = (-3.0, 6.0)
_WHITE = 0.7
"""Octaves of power from the finest scale to the next under which what is finest is noise.

Where structure is stronger than noise, it misleads about what is dark and what is bright.
"""
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class View:
    """Where pictures in domain lie in the features of one depth, or in the physical ones.

    Standardised features on their first principal axes, shrunk variances along them, and one
    for what no axis holds: a Mahalanobis distance (probabilistic principal components, Tipping
    and Bishop 1999).
    """

    centre: NDArray[float32]
    """(features,)."""
    scale: NDArray[float32]
    """(features,), above 0."""
    axes: NDArray[float32]
    """(axes, features)."""
    spread: NDArray[float32]
    """(axes + 1,), above 0: standard deviations along the axes, and of the rest."""
    middle: float
    """Of the log distance in domain."""
    span: float
    """From there to where next to none in domain lies, above 0."""

    def coordinates(self, features: NDArray[float32]) -> tuple[NDArray[float64], NDArray[float64]]:
        """Place pictures, (pictures, features): coordinates (pictures, axes), strangeness."""
        at, log_distance = self.placed(features)
        return at.clip(-_FARTHEST, _FARTHEST), (log_distance - self.middle) / self.span

    def placed(self, features: NDArray[float32]) -> tuple[NDArray[float64], NDArray[float64]]:
        """Give coordinates in standard deviations and the log of the distance."""
        centred = (features.astype(float64) - self.centre) / self.scale
        along = centred @ self.axes.T.astype(float64)
        rest = np.maximum(np.square(centred).sum(axis=1) - np.square(along).sum(axis=1), 0.0)
        at = along / self.spread[:-1]
        # what no axis holds counts as much as all axes together
        square = np.square(at).mean(axis=1) + rest / float(self.spread[-1]) ** 2
        return at, 0.5 * np.log(square / 2.0 + _TINY)


@dataclass(frozen=True, slots=True)
class Line:
    """A linear rule on the coordinates of all views: above its limit is what it looks for."""

    weights: NDArray[float32]
    """(coordinates of all views and their strangeness,)."""
    middle: float
    """Its value in domain."""
    span: float
    """From there to the limit, above 0."""

    def __call__(self, seen: NDArray[float64]) -> NDArray[float64]:
        """Judge pictures, (pictures, coordinates): 0 as most in domain, 1 at the limit."""
        return np.asarray((seen @ self.weights.astype(float64) - self.middle) / self.span)


@dataclass(frozen=True, slots=True)
class Judgement:
    """How familiar one picture is."""

    score: float
    """0 as most pictures in domain; from `RED` on no opinion."""
    level: Level
    inverted: float
    """Above 1 dark and bright look exchanged; 0 where nothing tells."""


@dataclass(frozen=True, slots=True)
class DomainMonitor:
    """Judges pictures; what it knows is a file of the bundle."""

    views: tuple[View, ...]
    """One for each depth of the features, the physical one last."""
    unfamiliar_limit: float
    """Strangeness of all views together at which there is no opinion, above 0."""
    foreign: Line
    """Looks for the kinds of pictures that are known to be no tilts."""
    inverted: Line
    amber: float
    """Score from which on a picture is unfamiliar."""

    def judge(self, features: NDArray[float32] | None, physics: NDArray[float32]) -> Judgement:
        """Judge one picture by its features, (features,), and its physical ones."""
        row = np.empty(0, float32) if features is None else features
        score, inverted = self.scores(row[None], physics[None])
        value = float(score[0])
        red, amber = value >= RED, value >= self.amber
        level = Level.RED if red else Level.AMBER if amber else Level.GREEN
        return Judgement(value, level, float(inverted[0]))

    def scores(
        self, features: NDArray[float32], physics: NDArray[float32]
    ) -> tuple[NDArray[float64], NDArray[float64]]:
        """Judge pictures, one row each: scores, and how exchanged dark and bright look."""
        seen, strangeness = seen_by(self.views, features, physics)
        unfamiliar = together(strangeness) / self.unfamiliar_limit
        score = np.maximum(unfamiliar, self.foreign(seen))
        inverted = np.where(shows_noise(physics), self.inverted(seen), 0.0)
        return score.clip(-_LARGEST_SCORE, _LARGEST_SCORE), inverted


def seen_by(
    views: Sequence[View], features: NDArray[float32], physics: NDArray[float32]
) -> tuple[NDArray[float64], NDArray[float64]]:
    """Place pictures in all views: (pictures, coordinates), strangeness (pictures, views)."""
    parts = split(features, physics, [len(view.centre) for view in views])
    placed = [view.coordinates(part) for view, part in zip(views, parts, strict=True)]
    strangeness = np.stack([strange for _, strange in placed], axis=1)
    seen = [*(at for at, _ in placed), strangeness.clip(*_STRANGENESS_SEEN)]
    return np.concatenate(seen, axis=1), strangeness


def split(
    features: NDArray[float32], physics: NDArray[float32], sizes: Sequence[int]
) -> list[NDArray[float32]]:
    """Part the features by depth; the physical ones come last."""
    ends = np.cumsum(sizes[:-1])[:-1]
    return [*(np.split(features, ends, axis=1) if len(sizes) > 1 else []), physics]


def shows_noise(physics: NDArray[float32]) -> NDArray[bool_]:
    """Say of pictures, (pictures, len(PHYSICS)), whether noise is what they show finest."""
    return np.asarray(physics[:, PHYSICS.index("slope_2")] < _WHITE)


def together(strangeness: NDArray[float64]) -> NDArray[float64]:
    """Join what the views say, (pictures, views): any of them may see what the others miss."""
    return np.asarray(np.sqrt(np.square(strangeness.clip(0.0, None)).mean(axis=1)))
