"""Small real records for tests."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.model import Decision, IceReading, LamellaHistory, Tilt, TiltId


def tilt(
    angle_deg: float = 0.0,
    series: str = "L1",
    session: str = "s1",
    acquired_at: str | None = None,
) -> Tilt:
    """A tilt of `<session>/<series>.mrc`; every angle is its own exposure."""
    key = f"{session}/{series}"
    time = acquired_at or f"2026-01-01T10:{abs(int(angle_deg)):02d}:{int(angle_deg < 0):02d}"
    return Tilt(
        id=TiltId(key, angle_deg, time),
        session=session,
        grid="",
        lamella=key,
        series=series,
        path=f"{key}.mrc",
        section=0,
        angle_deg=angle_deg,
        acquired_at=time,
        pixel_size_angstrom=1.97,
    )


def reading(
    percent: float | None,
    half_width: float = 1.0,
    *,
    in_domain: bool = True,
    flags: tuple[str, ...] = (),
) -> IceReading:
    """A reading with a symmetric 90 % interval."""
    if percent is None:
        return IceReading(None, None, None, {}, 0.0, flags or ("blank",), False, "b", "1", "test")
    low, high = max(0.0, percent - half_width), min(100.0, percent + half_width)
    return IceReading(percent, low, high, {}, 95.0, flags, in_domain, "b", "1", "test")


def history(
    percents: Sequence[float | None],
    half_width: float = 1.0,
    previous: Decision = Decision.UNDECIDED,
) -> LamellaHistory:
    """A lamella whose tilts showed these percentages."""
    pairs = tuple(
        (tilt(3.0 * index), reading(percent, half_width)) for index, percent in enumerate(percents)
    )
    return LamellaHistory("s1/L1", pairs, previous)
