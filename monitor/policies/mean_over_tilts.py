"""Verdict from the mean ice over the tilts of a lamella, with minimum evidence and hysteresis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from monitor.model import Decision, IceReading, LamellaHistory, Reason, Verdict

_Z90 = 1.6449
"""Half-width of a two-sided 90 % normal interval, in standard deviations."""


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
    """P(mean ice over the tilts > limit), from the spread over tilts and the readings' intervals.

    The mean of n readings has the variance s^2 / n + sum(e_i^2) / n^2 + f^2: s is the scatter over
    the tilts (ice blinks), e_i the error of one reading from its own 90 % interval, on the side
    that faces the limit, and f an error that all readings of one lamella share (the network
    misreads one specimen alike at all tilts), taken as half the mean of the e_i. A Student t with
    n - 1 degrees of freedom judges it.
    """

    settings: MeanOverTiltsSettings
    limit_percent: float

    def decide(self, history: LamellaHistory) -> Verdict:
        """Weigh the readings of one lamella."""
        usable = [reading for _, reading in history.readings if _counts(reading)]
        seen = len(history.readings)
        if not usable:
            reason = Reason.NOTHING_MEASURABLE if seen else Reason.TOO_FEW_TILTS
            text = f"None of {_tilts(seen)} could be measured: keep acquiring."
            verdict = (Decision.UNDECIDED, reason, text)
            return Verdict(*verdict, None, None, None, None, seen, history.tilts_expected)
        mean, error = self._mean_and_error(usable)
        probability = _probability_above(self.limit_percent, mean, error, len(usable))
        decision, reason = self._judge(probability, len(usable), history.previous)
        half = _student_quantile(0.95, len(usable) - 1) * error
        return Verdict(
            decision=decision,
            reason=reason,
            explanation=self._explain(decision, reason, mean, probability, len(usable)),
            ice_percent=round(mean, 3),
            ice_percent_low=round(max(0.0, mean - half), 3),
            ice_percent_high=round(min(100.0, mean + half), 3),
            probability_bad=round(probability, 4),
            tilts_seen=seen,
            tilts_expected=history.tilts_expected,
        )

    def _mean_and_error(self, readings: list[IceReading]) -> tuple[float, float]:
        count = len(readings)
        values = [reading.percent or 0.0 for reading in readings]
        errors = [_error_towards(self.limit_percent, reading) for reading in readings]
        mean = sum(values) / count
        scatter = sum((value - mean) ** 2 for value in values) / max(1, count - 1)
        own = sum(error**2 for error in errors) / count**2
        shared = (sum(errors) / count) ** 2 * _SHARED_SHARE
        return mean, math.sqrt(scatter / count + own + shared)

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


def _counts(reading: IceReading) -> bool:
    return reading.percent is not None and reading.in_domain


def _tilts(count: int) -> str:
    return f"{count} tilt" if count == 1 else f"{count} tilts"


_SHARED_SHARE = 0.25
"""Share of a reading's error variance taken as common to all tilts of a lamella."""


def _error_towards(limit: float, reading: IceReading) -> float:
    """Standard error of a reading on the side of its interval where the limit lies."""
    if reading.percent is None or reading.percent_low is None or reading.percent_high is None:
        return 0.0
    above = reading.percent > limit
    reach = (
        reading.percent - reading.percent_low if above else reading.percent_high - reading.percent
    )
    return reach / _Z90


def _probability_above(limit: float, mean: float, error: float, count: int) -> float:
    if error <= 0.0:
        return 1.0 if mean > limit else 0.0
    return _student_cdf((mean - limit) / error, max(1, count - 1))


def _student_cdf(t: float, degrees: int) -> float:
    """Cumulative Student t for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    theta = math.atan(t / math.sqrt(degrees))
    cosine, total, term = math.cos(theta), 0.0, 1.0
    if degrees % 2:
        term = cosine
        for k in range(1, degrees - 1, 2):
            total += term
            term *= cosine**2 * (k + 1) / (k + 2)
        return 0.5 + (theta + (math.sin(theta) * total if degrees > 1 else 0.0)) / math.pi
    for k in range(0, degrees - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    return 0.5 + math.sin(theta) * total / 2.0


def _student_quantile(probability: float, degrees: int) -> float:
    """Inverse of `_student_cdf` above one half, by bisection."""
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (
            (middle, high) if _student_cdf(middle, max(1, degrees)) < probability else (low, middle)
        )
    return high
