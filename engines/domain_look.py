"""One picture as the network saw it, with how familiar it looks."""

from __future__ import annotations

from dataclasses import dataclass

from engines.backends.protocol import Inference
from engines.domain_monitor import DomainMonitor, Judgement
from engines.domain_physics import physics_of
from engines.domain_polarity import is_negated
from engines.icemap import Level
from engines.preprocess import Prepared

_SURELY = 10.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a network made of a prepared picture."""

    prepared: Prepared
    inference: Inference
    """Padded below and to the right."""
    used_neighbours: bool
    score: float | None
    """How strange the picture is; None where the bundle has no monitor."""
    level: Level
    inverted: float
    """Above 1 dark and bright are exchanged."""


def looked_at(
    prepared: Prepared, inference: Inference, used_neighbours: bool, monitor: DomainMonitor | None
) -> Look:
    """Judge a picture by the features that the network gave of it, and by its noise."""
    inverted = _SURELY if is_negated(prepared.picture) else 0.0
    if monitor is None:
        return Look(prepared, inference, used_neighbours, None, Level.GREEN, inverted)
    judged: Judgement = monitor.judge(
        None if inference.features is None else inference.features[0],
        physics_of(prepared.picture, prepared.valid),
    )
    inverted = max(inverted, judged.inverted)
    return Look(prepared, inference, used_neighbours, judged.score, judged.level, inverted)
