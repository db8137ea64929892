"""By how much doubt about a picture widens its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engines.icemap import Flag, Level

FACTORS: Mapping[Flag, float] = {
    Flag.UNFAMILIAR: 1.5,
    Flag.UNEXPECTED_BRIGHTNESS: 1.5,
    Flag.INVERTED: 1.5,
    Flag.SCALED_BYTES: 1.25,
    Flag.ZERO_UNKNOWN: 1.25,
    Flag.CLIPPED: 1.25,
    Flag.PARTLY_SATURATED: 1.5,
    Flag.SMALL_VALID_AREA: 1.25,
    Flag.DOSE_UNKNOWN: 1.1,
    Flag.ANGLE_UNKNOWN: 1.1,
}
"""Times the distance from the percentage to either end of its interval."""
_WIDEST = 3.0


def widening_factor(flags: Iterable[Flag], level: Level) -> float:
    """Give the factor of an interval: 1 for a familiar picture without flags, at most 3.

    Doubts of different kinds add up in squares, as errors that have nothing to do with each other
    do. An amber level counts as `unfamiliar` where no flag says so.
    """
    doubts = set(flags)
    if level is Level.AMBER:
        doubts.add(Flag.UNFAMILIAR)
    more = sum(FACTORS[flag] ** 2 - 1.0 for flag in doubts if flag in FACTORS)
    return float(min(_WIDEST, (1.0 + more) ** 0.5))
