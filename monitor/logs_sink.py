"""The sink that logs one line for each tilt and one for each verdict, with fields for journald."""

from __future__ import annotations

import logging

from monitor.logs import Fields
from monitor.messages import LamellaMessage, TiltMessage
from monitor.sinks.protocol import Outgoing

logger = logging.getLogger(__name__)


class LogLines:
    """Logs what was committed, once."""

    name = "log"

    def publish(self, outgoing: Outgoing) -> None:
        """Log what was committed; what is sent again after a death was logged before it."""
        message = outgoing.message
        if outgoing.resent:
            return
        if isinstance(message, TiltMessage):
            logger.info("%s", _tilt_text(message), extra={"fields": _tilt_fields(message)})
        elif isinstance(message, LamellaMessage):
            logger.info("%s", _verdict_text(message), extra={"fields": _verdict_fields(message)})

    def beat(self) -> None:
        """Nothing is due between tilts."""


def _tilt_text(message: TiltMessage) -> str:
    tilt, ice = message.tilt, message.ice
    angle = "?" if tilt.angle_deg is None else f"{tilt.angle_deg:+.1f}"
    flags = f" [{', '.join(message.quality.flags)}]" if message.quality.flags else ""
    if ice.percent is None or ice.percent_low is None or ice.percent_high is None:
        measured = "not measured"
    else:
        measured = f"{ice.percent:.1f} % ice ({ice.percent_low:.1f}-{ice.percent_high:.1f})"
    return (
        f"tilt {tilt.lamella} {angle} deg: {measured}{flags}, {message.latency_s:.2f} s after it "
        "landed"
    )


def _tilt_fields(message: TiltMessage) -> Fields:
    tilt, ice = message.tilt, message.ice
    return {
        "EVENT": "tilt",
        "MICROSCOPE": message.microscope,
        "SEQ": message.seq,
        "SESSION": tilt.session,
        "GRID": tilt.grid,
        "LAMELLA": tilt.lamella,
        "SERIES": tilt.series,
        "TILT_ID": tilt.id,
        "TILT_PATH": tilt.path,
        "SECTION": tilt.section,
        "ANGLE_DEG": tilt.angle_deg,
        "ICE_PERCENT": ice.percent,
        "ICE_PERCENT_LOW": ice.percent_low,
        "ICE_PERCENT_HIGH": ice.percent_high,
        "FLAGS": ",".join(message.quality.flags),
        "IN_DOMAIN": str(message.quality.in_domain).lower(),
        "MODEL": f"{message.model.name} {message.model.version}",
        "BACKEND": message.model.backend,
        "LATENCY_S": message.latency_s,
    }


def _verdict_text(message: LamellaMessage) -> str:
    return f"verdict {message.lamella} {message.verdict}: {message.explanation}"


def _verdict_fields(message: LamellaMessage) -> Fields:
    return {
        "EVENT": "verdict",
        "MICROSCOPE": message.microscope,
        "SEQ": message.seq,
        "SESSION": message.session,
        "GRID": message.grid,
        "LAMELLA": message.lamella,
        "SERIES": message.series,
        "VERDICT": message.verdict,
        "REASON": message.reason,
        "ICE_PERCENT": message.ice_percent,
        "ICE_PERCENT_LOW": message.ice_percent_low,
        "ICE_PERCENT_HIGH": message.ice_percent_high,
        "PROBABILITY_BAD": message.probability_bad,
        "TILTS_SEEN": message.tilts_seen,
        "TILTS_EXPECTED": message.tilts_expected,
    }
