"""What can go wrong with a plan."""

from __future__ import annotations

from typing import Literal

from engines.errors import BackendError

Reason = Literal[
    "library_missing",
    "library_old",
    "library_broken",
    "capability",
    "no_gpu",
    "gpu",
    "graph",
    "memory",
    "build",
    "cancelled",
    "directory",
    "damaged",
    "foreign",
    "storage",
]


class PlanError(BackendError):
    """Raised when a plan cannot be built, kept or trusted; the daemon then serves on the CPU.

    `reason` is a short word from a closed list, so that callers can tell cases apart without
    reading the text.
    """

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason
