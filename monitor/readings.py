"""What is kept of an ice map: the reading that is journalled, published and judged."""

from __future__ import annotations

import logging
from pathlib import PurePosixPath

from engines.icemap import IceMap
from monitor.journal_records import tilts_expected
from monitor.messages import encodable
from monitor.model import IceReading, LamellaHistory, Tilt

logger = logging.getLogger(__name__)

DECODING_FAILED = "decoding_failed"


def reading_of(
    icemap: IceMap | None, model: tuple[str, str, str], source_flags: tuple[str, ...] = ()
) -> IceReading:
    """Keep of an ice map all but the arrays; None where the pixels could not be had."""
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
    )


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


def log_reading(tilt: Tilt, reading: IceReading, decision: str) -> None:
    """Say in one line what was read."""
    logger.info(
        "tilt series=%s angle_deg=%s ice_percent=%s flags=%s verdict=%s",
        ascii(encodable(tilt.series)),
        tilt.angle_deg,
        "none" if reading.percent is None else f"{reading.percent:.2f}",
        ",".join(reading.flags) or "-",
        decision,
    )
