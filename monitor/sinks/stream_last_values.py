"""Last values: what a new subscriber is told at once, instead of waiting for the next tilt."""

from __future__ import annotations

import time

from monitor.errors import JournalError
from monitor.messages import LAMELLA, STATUS, StatusMessage, utc_now
from monitor.sinks.stream_replay import Past

MAX_LAMELLAE = 500
"""Of the running session, those that were heard of last."""
EVERY_S = 0.5
"""ZeroMQ sends to all subscribers of a topic alike: those that come together share one."""
Frames = tuple[bytes, bytes]


class LastValues:
    """Notes who subscribed and what was last said; used by the publisher thread alone."""

    def __init__(self, past: Past) -> None:
        """Start from what the journal holds."""
        self._past = past
        self._published_seq = past.last_seq()
        self._status: StatusMessage | None = None
        self._wanted: set[str] = set()
        self._free_s = 0.0

    def subscribed(self, event: bytes) -> None:
        """Take in what XPUB tells: a byte 1 and the beginning of the topics that are wanted."""
        if event[:1] == b"\x01":
            prefix = event[1:]
            self._wanted |= {one for one in (STATUS, LAMELLA) if one.encode().startswith(prefix)}

    def published(self, seq: int) -> None:
        """Note how far the stream has come: what is committed but waits is no last value yet."""
        self._published_seq = max(self._published_seq, seq)

    def beat(self, status: StatusMessage) -> None:
        """Note the newest heartbeat."""
        self._status = status

    @property
    def due_in_s(self) -> float | None:
        """When to ask `take` again; None while nobody waits."""
        return max(0.0, self._free_s - time.monotonic()) if self._wanted else None

    def take(self) -> list[Frames]:
        """Give the messages that are due, heartbeat first, lamellae by seq, as they were sent."""
        if self.due_in_s != 0.0 or self._status is None:
            return []
        wanted, self._wanted = self._wanted, set()
        self._free_s = time.monotonic() + EVERY_S
        frames = [self._fresh(self._status)] if STATUS in wanted else []
        return frames + (self._lamellae() if LAMELLA in wanted else [])

    def _fresh(self, status: StatusMessage) -> Frames:
        """Tell the seq of now: to who has more than that, the journal would seem a new one."""
        seq = max(status.last_seq, self._published_seq)
        fresh = status.model_copy(update={"seq": seq, "last_seq": seq, "time": utc_now()})
        return STATUS.encode(), fresh.body()

    def _lamellae(self) -> list[Frames]:
        try:
            found = self._past.lamella_messages(self._past.running_session())
        except JournalError:
            return []  # the state says why; the next message comes all the same
        said = [one for one in found if one.seq <= self._published_seq]
        return [(one.topic.encode(), one.body) for one in said[-MAX_LAMELLAE:]]
