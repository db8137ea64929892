"""Statistics of an evaluation: area under the ROC curve, intervals drawn by bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy import bool_, float64, int64
from numpy.typing import NDArray

Interval = tuple[float, float]

DRAWS = 1000
_OUTSIDE = 0.025
"""Left out at either end of a bootstrap interval: it is one of 95 %."""


def auroc(score: NDArray[float64], positive: NDArray[bool_]) -> float | None:
    """Chance that a positive scores above a negative, ties counted half; None without either.

    The Mann-Whitney statistic over the product of both counts (Hanley and McNeil 1982).
    """
    above, others = score[positive], np.sort(score[~positive])
    if len(above) == 0 or len(others) == 0:
        return None
    below = np.searchsorted(others, above, "left") + np.searchsorted(others, above, "right")
    return float(below.mean() / 2.0 / len(others))


def auroc_interval(
    score: NDArray[float64], positive: NDArray[bool_], seed: int = 0
) -> Interval | None:
    """95 % bootstrap interval of the AUROC; positives and negatives are drawn apart."""
    yes, no = np.flatnonzero(positive), np.flatnonzero(~positive)
    if min(len(yes), len(no)) < 2:
        return None

    def draw(generator: np.random.Generator) -> float:
        at = np.concatenate([generator.choice(yes, len(yes)), generator.choice(no, len(no))])
        return auroc(score[at], positive[at]) or 0.0

    return bootstrap(draw, seed)


def mean_interval(
    values: NDArray[float64], groups: Sequence[str], seed: int = 0
) -> Interval | None:
    """95 % bootstrap interval of a mean; whole groups are drawn, as their members are alike.

    `values` is (n,), `groups` names the group of each. None with fewer than two groups. (Cluster
    bootstrap: Field and Welsh 2007.)
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.bincount(group).astype(float64) if len(group) else np.zeros(0)
    if len(counts) < 2:
        return None
    sums = np.bincount(group, weights=values)

    def draw(generator: np.random.Generator) -> float:
        at: NDArray[int64] = generator.integers(0, len(counts), len(counts))
        return float(sums[at].sum() / counts[at].sum())

    return bootstrap(draw, seed)


def bootstrap(draw: Callable[[np.random.Generator], float], seed: int) -> Interval:
    """Interval that holds 95 % of what `draw` gives."""
    generator = np.random.default_rng(seed)
    drawn = [draw(generator) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [_OUTSIDE, 1.0 - _OUTSIDE])
    return float(low), float(high)


def mean(values: NDArray[float64] | Sequence[float]) -> float | None:
    """Mean, or None of nothing."""
    return float(np.mean(values)) if len(values) else None
