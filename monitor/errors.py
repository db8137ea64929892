"""The error table: what can go wrong in the daemon, and whether trying again helps."""

from __future__ import annotations

from typing import ClassVar, Literal


class MonitorError(Exception):
    """Base of everything that the daemon raises on purpose; the text is one clear sentence."""

    stage: ClassVar[Literal["starting", "receiving", "processing", "sending"]] = "processing"


class ConfigError(MonitorError):
    """Raised when the configuration is wrong; names the file, the key and the remedy."""

    stage = "starting"


class SourceError(MonitorError):
    """Raised when a landed file cannot be turned into tilts.

    `reason` is a short word from a closed list, for counters.
    """

    stage = "receiving"

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotReady(SourceError):  # noqa: N818  a state to wait out, not a fault
    """Raised when a file is not complete yet: it is looked at again."""


class Unreadable(SourceError):  # noqa: N818  named for what the file is
    """Raised when a file can never be read as it is: set aside until it changes."""


class JournalError(MonitorError):
    """Raised when the journal cannot be opened, is newer than this program, or cannot commit."""


class SinkError(MonitorError):
    """Raised when a sink cannot publish; the others go on."""

    stage = "sending"
