"""The series that were read lately, each with what its tilts left for the next ones."""

from __future__ import annotations

from dataclasses import dataclass

from engines.series import SeriesSoFar
from monitor.model import Tilt

BUDGET_BYTES = 64 << 20
"""For all series together: ten with all their tilts at 608 x 608 pixels, forty with one each."""
FORGOTTEN_AFTER_TILTS = 128
"""A series of which none of the latest tilts came is over, or visited too rarely to be held."""


@dataclass(slots=True)
class _Held:
    series: SeriesSoFar
    seen_at: int


class RecentSeries:
    """Gives each tilt its series; used by one thread, and begun anew with the process.

    Microscopes that visit many targets at each angle take tilts of all of them in turn. Where all
    need more than the budget, each keeps fewer tilts, so that every one has some.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._held: dict[str, _Held] = {}
        """The one seen last is the last."""
        self._tilts = 0

    def at(self, tilt: Tilt) -> SeriesSoFar:
        """Give the tilts of a series that were read before this one, which is read next."""
        if self._held:  # a tilt that could not be measured left its pixels behind
            next(reversed(self._held.values())).series.at(None)
        self._make_room()
        self._tilts += 1
        held = self._held.pop(tilt.id.series_key, None) or _Held(SeriesSoFar(), 0)
        held.seen_at = self._tilts
        self._held[tilt.id.series_key] = held
        return held.series.at(tilt.angle_deg, str(tilt.id))

    @property
    def nbytes(self) -> int:
        """Memory that all of it takes."""
        return sum(one.series.nbytes for one in self._held.values())

    def _make_room(self) -> None:
        """Forget until the budget is kept: series that are over, then tilts, then series."""
        over = [k for k, v in self._held.items() if self._tilts - v.seen_at > FORGOTTEN_AFTER_TILTS]
        for key in over:
            if self._held[key].series.kept_tilts == 0 or self.nbytes > self._budget_bytes:
                del self._held[key]
        while self.nbytes > self._budget_bytes:
            # Of several with as many tilts, the one that was seen longest ago.
            key, held = max(self._held.items(), key=lambda item: item[1].series.kept_tilts)
            held.series.forget_oldest()
            if held.series.kept_tilts == 0:
                del self._held[key]
