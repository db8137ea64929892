"""The tilt that was published last, for people who ask how the daemon is."""

from __future__ import annotations

import datetime
import time
from typing import Any

from monitor.errors import JournalError
from monitor.journal import Journal
from monitor.messages import TiltMessage, parse
from monitor.sinks.protocol import Outgoing

_LOOK_BACK = 20
"""The newest tilt is among the last messages: each has a verdict beside it."""


class LastTilt:
    """A sink that remembers one message; `told` may be called from any thread."""

    name = "last_tilt"

    def __init__(self, message: TiltMessage | None = None) -> None:
        """Begin with a tilt of an earlier boot, if there is one."""
        self._message = message

    @classmethod
    def recalled(cls, journal: Journal) -> LastTilt:
        """Take up the last tilt that the journal knows."""
        return cls(newest_tilt(journal))

    def publish(self, outgoing: Outgoing) -> None:
        """Remember a tilt."""
        if isinstance(outgoing.message, TiltMessage):
            self._message = outgoing.message

    def beat(self) -> None:
        """Nothing is due between tilts."""

    def told(self) -> dict[str, Any] | None:
        """Tell what is known of it; None before the first."""
        return None if self._message is None else tell(self._message)


def newest_tilt(journal: Journal) -> TiltMessage | None:
    """Give the newest tilt of a journal; None where there is none that can be read."""
    try:
        found = journal.messages_from(max(1, journal.last_seq() - _LOOK_BACK), -1)
    except JournalError:
        return None
    for one in reversed(found):
        message = readable(one.topic, one.body)
        if message is not None:
            return message
    return None


def readable(topic: str, body: bytes) -> TiltMessage | None:
    """Give a message if it is a tilt that can be read."""
    try:
        message = parse(topic, body)
    except (ValueError, KeyError):
        return None
    return message if isinstance(message, TiltMessage) else None


def tell(message: TiltMessage) -> dict[str, Any]:
    """Tell the few things that say whether all goes well."""
    return {
        "seq": message.seq,
        "published_at": message.time,
        "seconds_ago": round(max(0.0, time.time() - _seconds(message.time)), 1),
        "lamella": message.tilt.lamella,
        "angle_deg": message.tilt.angle_deg,
        "ice_percent": message.ice.percent,
        "flags": list(message.quality.flags),
        "latency_s": message.latency_s,
    }


def _seconds(time_utc: str) -> float:
    return datetime.datetime.fromisoformat(time_utc.replace("Z", "+00:00")).timestamp()
