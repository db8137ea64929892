"""What a look at something found: how bad it is, why, and what to do, in one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table."""

    level: Level
    topic: str
    """What was looked at: a key of the configuration, or one word."""
    cause: str
    remedy: str = ""


def ok(topic: str, cause: str) -> Finding:
    """Say that something is as it should be."""
    return Finding("ok", topic, cause)


def warning(topic: str, cause: str, remedy: str) -> Finding:
    """Say what may do harm one day."""
    return Finding("warning", topic, cause, remedy)


def problem(topic: str, cause: str, remedy: str) -> Finding:
    """Say what keeps icewatch from its work."""
    return Finding("problem", topic, cause, remedy)


def split(topic: str, sentence: str) -> Finding:
    """Make a problem of the sentence of an error: the remedy stands behind its last semicolon."""
    cause, semicolon, remedy = sentence.rstrip(".").rpartition("; ")
    if not semicolon:
        return problem(topic, sentence, "mend that; deploy/runbook.md has more on it")
    return problem(topic, cause, remedy)
