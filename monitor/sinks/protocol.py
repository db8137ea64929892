"""What every sink offers to the publisher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from engines.icemap import IceMap
from monitor.messages import LamellaMessage, Message

Recall = Callable[[str], list[LamellaMessage]]
"""Gives the newest message of each lamella of a session, from the journal."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A committed message on its way out."""

    seq: int
    topic: str
    body: bytes
    message: Message
    """The same content as `body`, parsed."""
    resent: bool = False
    """True where an earlier boot committed it and may have sent it already."""
    icemap: IceMap | None = None
    """The picture and mask of a tilt, while they are still at hand."""
    overlay_name: PurePosixPath | None = None
    """Relative path of the overlay of this tilt, without a suffix."""
    landed_s: float | None = None
    """When the tilt was complete on disk, by our monotonic clock (s); None if resent."""


class Sink(Protocol):
    """One way out; called by the publisher thread alone."""

    name: str

    def publish(self, outgoing: Outgoing) -> None:
        """Send one committed message; raises `SinkError`, which stops no other sink."""
        ...

    def beat(self) -> None:
        """Do what is due every second; raises `SinkError`."""
        ...
