"""Verdict from the mean ice over the tilts of a lamella, with minimum evidence and hysteresis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from engines.lamella import Measured, mean_of, probability_above
from monitor.model import Decision, IceReading, LamellaHistory, Reason, Verdict


class MeanOverTiltsSettings(BaseModel):
    """How much evidence the rule wants before it speaks."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["mean_over_tilts"] = "mean_over_tilts"
    minimum_tilts: Annotated[int, Field(ge=2, le=100)] = 4
    """Measured, in-domain tilts before any verdict: ice blinks, one dark tilt proves nothing."""
    decide_at: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Probability that settles a verdict, either way."""
    reconsider_at: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.70
    """A settled verdict holds until its probability falls below this."""

    def build(self, skip_above_ice_percent: float) -> MeanOverTilts:
        """Make the rule for one limit, in percent."""
        return MeanOverTilts(self, skip_above_ice_percent)


@dataclass(frozen=True, slots=True)
class MeanOverTilts:
    """P(mean ice of the lamella > limit), from the readings' intervals and their scatter.

    The published interval is that of the mean over the tilts seen; the probability is about the
    whole lamella (`engines.lamella`).
    """

    settings: MeanOverTiltsSettings
    limit_percent: float

    def decide(self, history: LamellaHistory) -> Verdict:
        """Weigh the readings of one lamella."""
        usable = [one for _, reading in history.readings if (one := _measured(reading))]
        seen = len(history.readings)
        if not usable:
            reason = Reason.NOTHING_MEASURABLE if seen else Reason.TOO_FEW_TILTS
            text = f"None of {_tilts(seen)} could be measured: keep acquiring."
            verdict = (Decision.UNDECIDED, reason, text)
            return Verdict(*verdict, None, None, None, None, seen, history.tilts_expected)
        mean, probability = mean_of(usable), probability_above(self.limit_percent, usable)
        decision, reason = self._judge(probability, len(usable), history.previous)
        return Verdict(
            decision=decision,
            reason=reason,
            explanation=self._explain(decision, reason, mean.percent, probability, len(usable)),
            ice_percent=round(mean.percent, 3),
            ice_percent_low=round(mean.low, 3),
            ice_percent_high=round(mean.high, 3),
            probability_bad=round(probability, 4),
            tilts_seen=seen,
            tilts_expected=history.tilts_expected,
        )

    def _judge(self, bad: float, measured: int, previous: Decision) -> tuple[Decision, Reason]:
        if measured < self.settings.minimum_tilts:
            return Decision.UNDECIDED, Reason.TOO_FEW_TILTS
        settled, held = self.settings.decide_at, self.settings.reconsider_at
        if bad >= (held if previous is Decision.SKIP else settled):
            return Decision.SKIP, Reason.ICE_ABOVE_LIMIT
        if 1.0 - bad >= (held if previous is Decision.KEEP else settled):
            return Decision.KEEP, Reason.ICE_BELOW_LIMIT
        return Decision.UNDECIDED, Reason.NOT_SURE_YET

    def _explain(
        self, decision: Decision, reason: Reason, mean: float, bad: float, measured: int
    ) -> str:
        limit = f"the limit of {self.limit_percent:g} %"
        mean_text = f"Mean ice {mean:.1f} % over {_tilts(measured)}"
        if reason is Reason.TOO_FEW_TILTS:
            wanted = self.settings.minimum_tilts
            return f"{mean_text}; a verdict needs {wanted} measured tilts: keep acquiring."
        if decision is Decision.SKIP:
            return f"{mean_text} lies above {limit} (probability {bad:.0%}): skip this lamella."
        if decision is Decision.KEEP:
            return f"{mean_text} lies below {limit} (probability {1 - bad:.0%}): keep it."
        return f"{mean_text} is not yet surely above or below {limit}: keep acquiring."


def _measured(reading: IceReading) -> Measured | None:
    """Take what counts of a reading; None where it has no say."""
    percent, low, high = reading.percent, reading.percent_low, reading.percent_high
    if percent is None or not reading.in_domain:
        return None
    return Measured(percent, percent if low is None else low, percent if high is None else high)


def _tilts(count: int) -> str:
    return f"{count} tilt" if count == 1 else f"{count} tilts"
