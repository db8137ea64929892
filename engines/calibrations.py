"""The kinds of calibration that a manifest may hold: from areas to the ice percentage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from numpy import float32
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Percent = Annotated[float, Field(ge=0.0, le=100.0)]
Coefficient = Annotated[float, Field(ge=0.0, le=1000.0)]
Widening = Annotated[float, Field(ge=-100.0, le=100.0)]
NEXT_TO_ZERO = 0.2
"""Share of the reading under which the low end of its interval is 0: so many tilts hold no ice that
an end between would stand for nothing."""
LEAST_REACH = 0.05
"""Percentage points that an interval reaches to either side at least: readings are told to a tenth,
and no calibration is so sure of nothing that it may leave out a few pixels."""
_SMALLEST_ODDS = 1e-9


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PiecewiseCalibration(_Frozen):
    """From the raw share of a mask to the ice percentage and its 90 % interval.

    Straight lines between knots, level beyond the first and the last.
    """

    kind: Literal["piecewise"] = "piecewise"
    predicted_percent: tuple[Percent, ...] = Field(min_length=1)
    percent: tuple[Percent, ...]
    low: tuple[Percent, ...]
    high: tuple[Percent, ...]

    @model_validator(mode="after")
    def _check_knots(self) -> PiecewiseCalibration:
        lines = {"percent": self.percent, "low": self.low, "high": self.high}
        _check_lines("predicted_percent", self.predicted_percent, lines)
        if any(not a <= b <= c for a, b, c in zip(self.low, self.percent, self.high, strict=True)):
            raise ValueError("percent must lie between low and high at every knot")
        return self

    def __call__(self, raw_percent: float) -> tuple[float, float, float]:
        """Give percent, low and high for the raw percentage of a mask."""
        at = self.predicted_percent
        percent, low, high = (
            float(np.interp(raw_percent, at, line)) for line in (self.percent, self.low, self.high)
        )
        return percent, low, high


class AreaCalibration(_Frozen):
    """From the map of one channel to the area that it stands for.

    First its probability is set right (Platt 1999, on the logit of the network); then the area
    under the mask and the sum of the probabilities, mixed, go through monotone knots, which
    takes off what is found where there is none and makes good for what is missed (the adjusted
    count of Forman 2008, bent).
    """

    slope: float = Field(gt=0.0, le=20.0)
    offset: float = Field(ge=-20.0, le=20.0)
    """Calibrated logit = slope * logit + offset."""
    mask_share: float = Field(ge=0.0, le=1.0)
    """Weight of the masked percentage; the rest is that of the sum of the probabilities."""
    mixed_percent: tuple[Percent, ...] = Field(min_length=2)
    percent: tuple[Percent, ...]

    @model_validator(mode="after")
    def _check_knots(self) -> AreaCalibration:
        _check_lines("mixed_percent", self.mixed_percent, {"percent": self.percent})
        return self

    def probability(self, raw: NDArray[float32]) -> NDArray[float32]:
        """Calibrate probabilities, any shape."""
        odds = np.maximum(raw, float32(_SMALLEST_ODDS)) / np.maximum(
            float32(1.0) - raw, float32(_SMALLEST_ODDS)
        )
        logit = np.log(odds) * float32(self.slope) + float32(self.offset)
        return np.asarray(float32(1.0) / (float32(1.0) + np.exp(-logit)))

    def raw_cut(self, threshold: float) -> float:
        """Give the probability before calibration that becomes `threshold`, in (0, 1)."""
        logit = (np.log(threshold / (1.0 - threshold)) - self.offset) / self.slope
        return float(1.0 / (1.0 + np.exp(-logit)))

    def __call__(self, masked_percent: float, expected_percent: float) -> float:
        """Give the percentage for the area under the mask and the sum of the probabilities."""
        mixed = self.mask_share * masked_percent + (1.0 - self.mask_share) * expected_percent
        return float(np.interp(mixed, self.mixed_percent, self.percent))


class Reach(_Frozen):
    """How far the truth may lie from a reading: a sum over the evidence, in percentage points.

    Only the base may take away, so that no doubt can be outweighed by another.
    """

    base: float = Field(default=0.0, ge=-100.0, le=100.0)
    percent: Coefficient = 0.0
    """For each point of the reading."""
    root: Coefficient = 0.0
    """For its square root."""
    doubtful: Coefficient = 0.0
    """For each point of the sum of p (1 - p)."""
    gap: Coefficient = 0.0
    """For each point between the mask and the sum of the probabilities."""
    spread: Coefficient = 0.0
    """For each point between the masks of the lowest and the highest contrast."""
    distractor: Coefficient = 0.0
    """For the square root of the percentage under what is no ice."""
    noise: Coefficient = 0.0
    """For the reading times the relative noise of a pixel."""

    def __call__(self, terms: Mapping[str, float]) -> float:
        """Add up the terms, which are named as the fields are; may be negative."""
        return float(sum(getattr(self, name) * terms[name] for name in Reach.model_fields))


class EvidenceCalibration(_Frozen):
    """From everything that the maps of a tilt say to the percentage and its 90 % interval.

    `low` and `high` are quantile regressions of the error; the widening, by reading, makes them
    cover what they say (conformalised: Romano, Patterson and Candès 2019).
    """

    kind: Literal["evidence"] = "evidence"
    areas: dict[str, AreaCalibration] = Field(min_length=1)
    """By channel; the ice channel of the manifest must be one of them."""
    low: Reach
    high: Reach
    widening_at_percent: tuple[Percent, ...] = Field(min_length=1)
    widening_low: tuple[Widening, ...]
    widening_high: tuple[Widening, ...]
    """Percentage points to be added to each side, by the reading."""

    @model_validator(mode="after")
    def _check_widening(self) -> EvidenceCalibration:
        at = self.widening_at_percent
        if len(self.widening_low) != len(at) or len(self.widening_high) != len(at):
            raise ValueError(
                "widening_low and widening_high need one value for each widening_at_percent"
            )
        if any(b <= a for a, b in pairwise(at)):
            raise ValueError("widening_at_percent must rise from knot to knot")
        return self

    def interval(self, percent: float, terms: Mapping[str, float]) -> tuple[float, float]:
        """Give low and high around a reading."""
        sides = ((self.low, self.widening_low), (self.high, self.widening_high))
        below, above = (
            max(
                LEAST_REACH,
                reach(terms) + float(np.interp(percent, self.widening_at_percent, widening)),
            )
            for reach, widening in sides
        )
        low = percent - below
        return (low if low >= NEXT_TO_ZERO * percent else 0.0), min(100.0, percent + above)


Calibration = Annotated[PiecewiseCalibration | EvidenceCalibration, Field(discriminator="kind")]


def _check_lines(name: str, at: Sequence[float], lines: Mapping[str, Sequence[float]]) -> None:
    """Refuse knots that do not rise, and lines over them that are cut or fall."""
    whole = " and ".join(", ".join(lines).rsplit(", ", 1))
    if any(len(line) != len(at) for line in lines.values()):
        raise ValueError(f"{whole} need one value for each {name}")
    if any(b <= a for a, b in pairwise(at)):
        raise ValueError(f"{name} must rise from knot to knot")
    if any(b < a for line in lines.values() for a, b in pairwise(line)):
        raise ValueError(f"{whole} must not fall from knot to knot")
