"""Fits the out-of-domain monitor: where pictures in domain lie, and what tells foreign ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy import bool_, float32, float64
from numpy.typing import NDArray

from engines.domain_monitor import (
    DomainMonitor,
    Line,
    View,
    seen_by,
    shows_noise,
    split,
    together,
)
from engines.learning.domain_data import Sample

MOST_AXES = 32
SHRUNK = 0.1
"""Weight of the mean variance in that of each axis (Ledoit and Wolf 2004)."""
_FAR_SHARE = 0.01
"""Share in domain that is stranger than 1 to a single view."""
_RIDGE = 10.0
_ROUNDS = 25
_FOLDS = 5
_FEWEST = 10
_LEAST_SPAN = 1e-3
_TINY = 1e-6


@dataclass(frozen=True, slots=True)
class Shares:
    """How many pictures in domain may be judged wrongly, by pictures that were held apart."""

    unfamiliar: float = 0.003
    """No opinion as they are unlike the others."""
    foreign: float = 0.01
    """No opinion as they look like a kind that is no tilt: an atlas that is taken for a lamella
    does more harm than a tilt in a hundred without an opinion."""
    amber: float = 0.05
    """Unfamiliar, no opinion included."""
    inverted: float = 0.002
    """Taken for exchanged."""
    margin: float = 1.5
    """Times as far as the rest a picture must lie to be refused for its strangeness alone, or to be
    turned: real pictures lie a little beside the simulated ones that the limits come from."""


def fit_monitor(
    sample: Sample, sizes: Sequence[int], shares: Shares | None = None
) -> DomainMonitor:
    """Fit on pictures in domain (some of them inverted) and foreign ones.

    `sizes` are those of the features by depth; foreign pictures have a family that begins with
    `foreign`. Limits come from pictures whose family had no part in the fit (or, of a single
    family, whose series had none): what is met later is a new family too.
    """
    shares = shares or Shares()
    inside = _inside(sample)
    if np.count_nonzero(inside & ~sample.inverted & ~sample.refused) < _FEWEST:
        raise ValueError("too few pictures in domain to fit a monitor: name larger data sets.")
    monitor = _fitted(sample, sizes)
    held = [_held_apart(sample, sizes, part) for part in _folds(sample)]
    strange, foreign, inverted = (np.concatenate(one) for one in zip(*held, strict=True))
    limit = shares.margin * _quantile(strange, shares.unfamiliar)
    line = _limited(monitor.foreign, foreign, shares.foreign)
    turned = _limited(monitor.inverted, inverted, shares.inverted)
    score = np.maximum(strange / limit, (foreign - np.median(foreign)) / line.span)
    return replace(
        monitor,
        unfamiliar_limit=limit,
        foreign=line,
        inverted=replace(turned, span=shares.margin * turned.span),
        amber=float(np.clip(_quantile(score, shares.amber), _LEAST_SPAN, 1.0)),
    )


def _inside(sample: Sample) -> NDArray[bool_]:
    return ~np.char.startswith(sample.family, "foreign")


def _folds(sample: Sample) -> Iterator[NDArray[bool_]]:
    """Part the pictures in domain by family; a single family by series."""
    inside = _inside(sample)
    groups = sample.family if np.unique(sample.family[inside]).size > 1 else sample.series
    names = np.unique(groups[inside])
    for part in np.array_split(names, min(_FOLDS if groups is sample.series else 99, names.size)):
        yield inside & np.isin(groups, part)


def _held_apart(
    sample: Sample, sizes: Sequence[int], part: NDArray[bool_]
) -> tuple[NDArray[float64], NDArray[float64], NDArray[float64]]:
    """Judge one part by the others: strangeness, and the values of both rules, uninverted.

    The last is of the pictures alone that are asked for it.
    """
    others = _fitted(sample.where(~part), sizes)
    own = sample.where(part & ~sample.inverted & ~sample.refused)
    seen, strangeness = seen_by(others.views, own.features, own.physics)
    shown = shows_noise(own.physics)
    return together(strangeness), others.foreign(seen), others.inverted(seen)[shown]


def _fitted(sample: Sample, sizes: Sequence[int]) -> DomainMonitor:
    """Fit views and rules, without limits: rules give their plain value."""
    inside = _inside(sample)
    usual = inside & ~sample.inverted & ~sample.refused
    parts = split(sample.features, sample.physics, [*sizes, sample.physics.shape[1]])
    views = tuple(_view(part[usual]) for part in parts)
    seen, _ = seen_by(views, sample.features, sample.physics)
    told = ~sample.inverted & ~(inside & sample.refused)
    foreign = _rule(seen[told], ~inside[told])
    turned = inside & ~sample.refused
    inverted = _rule(seen[turned], sample.inverted[turned])
    return DomainMonitor(views, 1.0, foreign, inverted, 1.0)


def _view(features: NDArray[float32]) -> View:
    """Fit where pictures lie, (pictures, features)."""
    centre = np.median(features, axis=0)
    scale = features.std(axis=0, dtype=float64)
    scale = np.maximum(scale, _TINY * max(1.0, float(np.abs(centre).max())))
    centred = ((features - centre) / scale).clip(-10.0, 10.0).astype(float64)
    count = min(MOST_AXES, centred.shape[1], max(1, len(centred) // 4))
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    variance = np.square(sizes) / max(1, len(centred) - 1)
    axes, kept = axes[:count], variance[:count]
    rest = np.maximum(np.square(centred).sum(axis=1) - np.square(centred @ axes.T).sum(axis=1), 0.0)
    spread = np.sqrt((1.0 - SHRUNK) * kept + SHRUNK * kept.mean())
    spread = np.append(spread, np.sqrt(max(float(rest.mean()), _TINY * centred.shape[1])))
    view = View(
        centre=np.asarray(centre, float32),
        scale=np.asarray(scale, float32),
        axes=np.asarray(axes, float32),
        spread=np.asarray(spread, float32),
        middle=0.0,
        span=1.0,
    )
    _, distance = view.placed(features)
    middle = float(np.median(distance))
    span = max(float(np.quantile(distance, 1.0 - _FAR_SHARE)) - middle, _LEAST_SPAN)
    return replace(view, middle=middle, span=span)


def _rule(seen: NDArray[float64], wanted: NDArray[bool_]) -> Line:
    """Fit a ridge logistic regression by Newton's method, both kinds of equal weight."""
    weights = np.zeros(seen.shape[1] + 1)
    if wanted.all() or not wanted.any():
        return Line(np.asarray(weights[1:], float32), 0.0, 1.0)
    design = np.column_stack([np.ones(len(seen)), seen])
    share = np.where(wanted, 0.5 / wanted.mean(), 0.5 / (~wanted).mean())
    ridge = np.diag(np.append(_TINY, np.full(seen.shape[1], _RIDGE)))
    for _ in range(_ROUNDS):
        chance = 1.0 / (1.0 + np.exp(-(design @ weights).clip(-30.0, 30.0)))
        slope = design.T @ (share * (wanted - chance)) - ridge @ weights
        curve = (design.T * (share * np.maximum(chance * (1.0 - chance), _TINY))) @ design + ridge
        step = np.linalg.solve(curve, slope)
        weights += step
        if float(np.abs(step).max()) < 1e-6:
            break
    return Line(np.asarray(weights[1:], float32), -float(weights[0]), 1.0)


def _limited(line: Line, values: NDArray[float64], share: float) -> Line:
    """Move a rule so that 0 is the middle of what was held apart and 1 its limit.

    `values` are what rules without limits gave of pictures in domain. The limit is never where a
    picture is more likely in domain than not.
    """
    if len(values) == 0:
        return line
    middle = float(np.median(values))
    limit = max(_quantile(values, share), 0.0)
    return replace(line, middle=line.middle + middle, span=max(limit - middle, _LEAST_SPAN))


def _quantile(values: NDArray[float64], share: float) -> float:
    """Give the value that a share of others exceeds, with the correction for a finite sample."""
    level = min(1.0, (1.0 - share) * (len(values) + 1) / max(1, len(values)))
    return max(float(np.quantile(values, level)), _LEAST_SPAN)
