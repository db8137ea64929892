"""Readiness in one place: what the daemon is doing, told alike to people, systemd and metrics."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Literal

from monitor.intake import IntakeStatus
from monitor.problems import Problems

State = Literal["starting", "ready", "degraded", "stalled"]


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the daemon and one sentence on why."""

    state: State
    reason: str


def judge(
    *,
    warm: bool,
    intake: IntakeStatus,
    problems: Problems,
    failing_sinks: dict[str, str],
    unanswered: str = "",
    set_aside: int = 0,
    engine_trouble: str = "",
) -> Health:
    """Say how the daemon is; what concerns the operator most comes first.

    `unanswered` says that the worker waits for the file system for too long, `engine_trouble` why
    the CPU serves in place of a GPU.
    """
    if not warm:
        return Health("starting", "the network is being loaded")
    stalled = (intake.reason if intake.stalled else "") or unanswered or problems.share_error
    if stalled:
        return Health("stalled", stalled)
    if problems.journal_error:
        return Health("degraded", problems.journal_error)
    if failing_sinks:
        return Health("degraded", next(iter(failing_sinks.values())))
    if engine_trouble:
        return Health("degraded", engine_trouble)
    return Health("ready", _about_set_aside(set_aside))


def _about_set_aside(tilts: int) -> str:
    if not tilts:
        return ""
    are = "1 tilt is" if tilts == 1 else f"{tilts} tilts are"
    return f"{are} set aside after two deaths each; see icewatch status, then icewatch retry"


def notify_systemd(message: str) -> None:
    """Tell systemd one state line; does nothing where systemd did not start us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.sendto(message.encode(), address)
        except OSError:
            return  # systemd restarts us if it misses the watchdog; nothing better can be done
