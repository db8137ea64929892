"""What is kept of an ice map: the reading that is journalled, published and judged."""

from __future__ import annotations

from pathlib import PurePosixPath

from engines.icemap import Flag, IceMap
from monitor.journal_records import tilts_expected
from monitor.model import IceReading, LamellaHistory, Tilt

DECODING_FAILED = "decoding_failed"


def reading_of(
    icemap: IceMap | None,
    model: tuple[str, str, str],
    source_flags: tuple[str, ...] = (),
    occupancy_percent: float | None = None,
) -> IceReading:
    """Keep of an ice map all but the arrays; None where the pixels could not be had.

    `occupancy_percent` is that of the series, this tilt included.
    """
    if icemap is None:
        flags = (*source_flags, DECODING_FAILED)
        return IceReading(None, None, None, {}, 0.0, flags, False, *model)
    return IceReading(
        icemap.percent,
        icemap.percent_low,
        icemap.percent_high,
        dict(icemap.phases),
        icemap.valid_area_percent,
        tuple(dict.fromkeys((*source_flags, *(str(flag) for flag in icemap.flags)))),
        icemap.in_domain,
        *model,
        icemap.used_neighbours,
        None if occupancy_percent is None else round(occupancy_percent, 3),
        {contrast: round(area, 3) for contrast, area in icemap.area_percent.items()},
    )


def occupancy_of(history: LamellaHistory) -> float | None:
    """Give the occupancy of a lamella: the highest that any of its series reached so far.

    The daemon knows the tilts of a series from its own start on only, so that after a restart
    the union of what flashed begins anew; what was reached before is not lost.
    """
    reached = [reading.occupancy_percent for _, reading in history.readings]
    return max((one for one in reached if one is not None), default=None)


def missing_of(tilt: Tilt) -> tuple[Flag, ...]:
    """Say what the microscope did not tell of a tilt, each of which makes its reading less sure."""
    dose = tilt.exposure_dose_e_per_A2
    missing = () if dose is not None and dose > 0.0 else (Flag.DOSE_UNKNOWN,)
    return missing if tilt.angle_deg is not None else (*missing, Flag.ANGLE_UNKNOWN)


def overlay_name(tilt: Tilt) -> PurePosixPath:
    """Name the overlay of a tilt: folder and stem of its file, then the section."""
    path = PurePosixPath(tilt.path)
    return path.with_name(f"{path.stem}_{tilt.section:04d}.overlay")


def with_reading(history: LamellaHistory, tilt: Tilt, reading: IceReading) -> LamellaHistory:
    """Add a reading to the history of its lamella."""
    readings = (*history.readings, (tilt, reading))
    return LamellaHistory(
        lamella=history.lamella,
        readings=readings,
        previous=history.previous,
        tilts_expected=tilts_expected(one for one, _ in readings),
    )
