"""A session as a script: what the microscope does, waits for, and has done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engines.microscope_step import Step


@dataclass(frozen=True, slots=True)
class Exposure:
    """One tilt that was taken."""

    series: str
    lamella: str
    """Folder below the acquisition directory, and name."""
    angle_deg: float
    """As the stage read it."""
    order: int
    """In the series, from 0."""
    acquired_at: datetime
    """The microscope's wall clock."""
    ice_percent: float | None = None
    """None where it is not known."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing happens until so long after the start, in the microscope's own seconds."""

    until_s: float


@dataclass(frozen=True, slots=True)
class Taken:
    """An exposure is on disk for good, or will never be whole."""

    exposure: Exposure
    paths: tuple[Path, ...]
    """The files that hold its pixels, any of which will do."""
    complete: bool = True
    kept: bool = True
    """False where a later exposure has taken its place by the end of the session."""


Event = Step | Wait | Taken
Script = Iterator[Event]
