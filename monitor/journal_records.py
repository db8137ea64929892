"""How tilts and readings are kept in the journal, and what is summed up over them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from monitor.model import IceReading, Tilt, TiltId


def tilt_text(tilt: Tilt) -> str:
    """Write a tilt as JSON."""
    return json.dumps(asdict(tilt))


def tilt_from(text: str) -> Tilt:
    """Read a tilt back; one that an older icewatch wrote lacks the newer fields."""
    raw: dict[str, Any] = json.loads(text)
    raw["id"] = TiltId(**raw["id"])
    raw["flags"] = tuple(raw.get("flags", ()))
    raw["aliases"] = tuple(TiltId(**alias) for alias in raw.get("aliases", ()))
    return Tilt(**raw)


def reading_text(reading: IceReading) -> str:
    """Write a reading as JSON."""
    return json.dumps(asdict(reading))


def reading_from(text: str) -> IceReading:
    """Read a reading back."""
    raw: dict[str, Any] = json.loads(text)
    raw["flags"] = tuple(raw["flags"])
    return IceReading(**raw)


def tilts_expected(tilts: Iterable[Tilt]) -> int | None:
    """Say how many tilts a lamella is to have, from those that came, in the order of arrival.

    Each of its series counts with what was said last of it, and with no less than came of it;
    None where nothing was ever said of one series.
    """
    said: dict[str, int | None] = {}
    seen: dict[str, int] = {}
    for tilt in tilts:
        series = tilt.id.series_key
        said[series] = tilt.tilts_expected or said.get(series)
        seen[series] = seen.get(series, 0) + 1
    total = 0
    for series, expected in said.items():
        if expected is None:
            return None
        total += max(expected, seen[series])
    return total or None
