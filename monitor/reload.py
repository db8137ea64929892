"""Takes changed settings into use while the daemon runs (SIGHUP), or says why it cannot.

What can change without a restart is what no thread was started with: when a lamella is flagged,
and how much of the past is kept. A file that is wrong changes nothing at all.
"""

from __future__ import annotations

import datetime
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from monitor.errors import ConfigError
from monitor.health import notify_systemd
from monitor.messages import StatusMessage
from monitor.model import LamellaHistory, Verdict
from monitor.policies import Policy
from monitor.settings import Settings, StateSettings, VerdictSettings, load
from monitor.sinks.protocol import Recall
from monitor.sinks.verdict_files import VerdictFiles

logger = logging.getLogger(__name__)

LIVE_KEYS = (
    "verdict.mode",
    "verdict.skip_above_ice_percent",
    "verdict.policy",
    "state.keep_days",
    "state.max_size_gb",
)
"""These, and all below them, are taken over at once; every other key needs a restart."""


class LivePolicy:
    """A policy that can be exchanged between two tilts; implements `monitor.policies.Policy`."""

    def __init__(self, settings: VerdictSettings) -> None:
        """Begin with these settings."""
        self._now = _policy_of(settings)

    def decide(self, history: LamellaHistory) -> Verdict:
        """Weigh the readings of one lamella by the settings of this moment."""
        return self._now.decide(history)

    def change(self, settings: VerdictSettings) -> None:
        """Judge by other settings from the next tilt on; any thread may call it."""
        self._now = _policy_of(settings)


def _policy_of(settings: VerdictSettings) -> Policy:
    return settings.policy.build(settings.skip_above_ice_percent)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """How the last reload went."""

    at_s: float
    """Seconds since 1970."""
    trouble: str = ""
    """Why the settings from before hold; empty where the new ones were taken."""
    needs_restart: tuple[str, ...] = ()
    """Keys that changed in the file and hold only after a restart."""

    @property
    def sentence(self) -> str:
        """What a person should know of it; empty where all is as the file says."""
        if self.trouble:
            return f"the settings from before hold, as the changed file is wrong: {self.trouble}"
        if self.needs_restart:
            return f"changed in the file, but only a restart takes it: {_named(self.needs_restart)}"
        return ""


class Reloader:
    """Reads the file again when told to; used by one thread, `last` may be read by all."""

    def __init__(
        self,
        path: Path,
        settings: Settings,
        apply: Callable[[Settings], None],
        note: Callable[[bool], None] = lambda taken: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take the file, what the daemon was started with, and who hears of new settings.

        `note` hears whether a file was taken, for metrics.
        """
        self.path = path
        self._started_with = settings
        self.settings = settings
        """What holds now."""
        self._apply = apply
        self._note = note
        self._now = now
        self.last = Reloaded(now())

    def reload(self) -> Reloaded:
        """Take the file over as far as that goes; raises nothing."""
        try:
            found = load(self.path)
        except ConfigError as error:
            return self._refused(str(error))
        except (OSError, ValueError, RuntimeError, TypeError, LookupError) as error:
            return self._refused(f"{self.path}: {type(error).__name__}: {error}")
        changed = set(_changed(self.settings, found))
        live = {key for key in changed if _is_live(key)}
        frozen = tuple(sorted(_changed(self._started_with, found) - live_keys(found)))
        if live:
            self.settings = _with_live(self.settings, found)
            self._apply(self.settings)
        self._note(True)
        self.last = Reloaded(self._now(), needs_restart=frozen)
        logger.info("settings reloaded: %s", _what_changed(live, self.settings))
        if frozen:
            logger.warning("a restart is needed for: %s", _named(frozen))
        return self.last

    def _refused(self, why: str) -> Reloaded:
        self._note(False)
        self.last = Reloaded(self._now(), trouble=why)
        logger.error("settings not reloaded, those from before hold: %s", why)
        return self.last


def live_keys(settings: Settings) -> set[str]:
    """Give all keys that a reload takes over."""
    return {key for key, _ in _flat(settings) if _is_live(key)}


def _is_live(key: str) -> bool:
    return any(key == live or key.startswith(f"{live}.") for live in LIVE_KEYS)


def _flat(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _changed(before: Settings, after: Settings) -> set[str]:
    old, new = dict(_flat(before)), dict(_flat(after))
    return {key for key in old.keys() | new.keys() if old.get(key, ...) != new.get(key, ...)}


def _with_live(settings: Settings, found: Settings) -> Settings:
    verdict, state = found.verdict, found.state
    return settings.model_copy(
        update={
            "verdict": verdict.model_copy(update={"directory": settings.verdict.directory}),
            "state": state.model_copy(update={"directory": settings.state.directory}),
        }
    )


def _what_changed(live: set[str], settings: Settings) -> str:
    values = dict(_flat(settings))
    return ", ".join(f"{key} = {values.get(key)}" for key in sorted(live)) or "nothing changed"


def _named(keys: tuple[str, ...]) -> str:
    return ", ".join(keys)


class HangUps:
    """Calls something, in a thread of its own, at each SIGHUP.

    The signal is blocked in every thread and waited for in one, so that it interrupts nothing.
    """

    def __init__(self, reload: Callable[[], object], hung_up: Callable[[], object]) -> None:
        """Take what is to be called, and what instead where the terminal is gone."""
        self._reload = reload
        self._hung_up = hung_up
        self._has_terminal = _terminal_is_there()

    @staticmethod
    def block() -> None:
        """Keep the signal for the thread that waits; to be called before any thread is started."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

    def listen(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._wait, name="reload", daemon=True).start()

    def _wait(self) -> None:
        while True:
            signal.sigwait({signal.SIGHUP})
            if self._has_terminal and not _terminal_is_there():
                self._hung_up()  # who started it by hand went away: no wish for new settings
                return
            self._reload()


def _terminal_is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def reload_for_systemd(reload: Callable[[], object], is_ready: Callable[[], bool]) -> None:
    """Reload, and tell systemd when that begins and ends."""
    tell = is_ready()  # else READY=1 would say that a daemon that still starts is up
    if tell:
        stamp_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={stamp_us}")
    try:
        reload()
    finally:
        if tell:
            notify_systemd("READY=1")


class LiveSettings:
    """What of the daemon follows the file; `told` and `worded` may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        path: Path | None,
        recall: Recall,
        session: str,
        keep: Callable[[StateSettings], None],
        note: Callable[[bool], None],
    ) -> None:
        """Begin with the settings of the start; `path` is None where they come from no file.

        `keep` hears of new limits for what is stored, `note` of each reload and how it went.
        """
        self.policy = LivePolicy(settings.verdict)
        self.verdict_files = VerdictFiles(
            settings.verdict_directory,
            settings.microscope,
            settings.verdict.mode,
            recall,
            session,
        )
        self._keep = keep
        self._reloader = Reloader(path or Path(), settings, self._take, note)
        self._has_file = path is not None

    def _take(self, settings: Settings) -> None:
        self.policy.change(settings.verdict)
        self.verdict_files.change_mode(settings.verdict.mode)
        self._keep(settings.state)

    def listen(self, is_up: Callable[[], bool], hung_up: Callable[[], object]) -> None:
        """Reload at each SIGHUP from now on; `hung_up` is called where the terminal went away."""
        if self._has_file:
            reload = partial(reload_for_systemd, self._reloader.reload, is_up)
            HangUps(reload, hung_up).listen()

    def worded(self, beat: StatusMessage) -> StatusMessage:
        """Say that the settings are not those of the file, where nothing else needs saying."""
        word = self._reloader.last.sentence
        return beat.model_copy(update={"reason": word}) if word and not beat.reason else beat

    def told(self, status: dict[str, Any]) -> dict[str, Any]:
        """Add to a status which settings hold and how the last reload went."""
        last, holding = self._reloader.last, self._reloader.settings
        at = datetime.datetime.fromtimestamp(last.at_s, datetime.UTC)
        return {
            **status,
            "reason": status["reason"] or last.sentence,
            "mode": holding.verdict.mode,
            "skip_above_ice_percent": holding.verdict.skip_above_ice_percent,
            "settings": {
                "file": str(self._reloader.path) if self._has_file else "",
                "read_at": at.isoformat(timespec="seconds").replace("+00:00", "Z"),
                "taken": not last.trouble,
                "trouble": last.trouble,
                "needs_restart": list(last.needs_restart),
            },
        }
