"""What the daemon says of itself: the heartbeat, and all that `icewatch status` shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from monitor.engine import Engine
from monitor.errors import JournalError
from monitor.gpu_facts import GpuWatch
from monitor.health import Health, judge
from monitor.intake import NO_ANSWER_S, Intake
from monitor.journal import Journal
from monitor.messages import LamellaMessage, StatusMessage, parse, utc_now
from monitor.pipeline import Pipeline
from monitor.problems import Problems
from monitor.set_aside import SetAside
from monitor.settings import Settings
from monitor.sinks.metrics import RecalledLamella


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks."""

    version: str
    boot_id: str


class Reporter:
    """Reads off how all parts are; safe to call from any thread, also while the share hangs."""

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        journal: Journal,
        intake: Intake,
        problems: Problems,
        set_aside: SetAside,
        failing_sinks: Callable[[], dict[str, str]],
        replay_endpoint: Callable[[], str],
    ) -> None:
        """Take the parts; `engine` and `pipeline` are filled in once they are there."""
        self._settings = settings
        self._identity = identity
        self._journal = journal
        self._intake = intake
        self._problems = problems
        self._set_aside = set_aside
        self._failing_sinks = failing_sinks
        self._replay_endpoint = replay_endpoint
        self._started_s = time.monotonic()
        self._newest_seq = 0
        self.pipeline: Pipeline | None = None
        self.engine: Engine | None = None
        self.gpu: GpuWatch | None = None

    @property
    def backend_name(self) -> str:
        """The backend that serves now; empty before there is one."""
        return self.engine.backend_name if self.engine else ""

    def health(self) -> Health:
        """Say how the daemon is."""
        return judge(
            warm=self.pipeline is not None,
            intake=self._intake.status(),
            problems=self._problems,
            failing_sinks=self._failing_sinks(),
            unanswered=self._unanswered(),
            set_aside=len(self._set_aside.listed()),
            engine_trouble=self._engine_trouble(),
        )

    def _engine_trouble(self) -> str:
        if self.gpu is not None and self.gpu.lost:
            return "the GPU no longer answers; see what nvidia-smi and the kernel's log say"
        return self.engine.trouble if self.engine else ""

    def _unanswered(self) -> str:
        since_s = self.pipeline.reading_since_s if self.pipeline else None
        waited_s = 0.0 if since_s is None else time.monotonic() - since_s
        if waited_s <= NO_ANSWER_S:
            return ""
        directory = self._settings.acquisition.directory
        return f"a file in '{directory}' could not be read for {waited_s:.0f} s; see to its share"

    def heartbeat(self) -> StatusMessage:
        """Make the message that goes out every second."""
        last_seq = self._last_seq()
        health, intake = self.health(), self._intake.status()
        return StatusMessage(
            seq=last_seq,
            boot_id=self._identity.boot_id,
            time=utc_now(),
            microscope=self._settings.microscope,
            state=health.state,
            reason=health.reason,
            backend=self.backend_name,
            last_seq=last_seq,
            backlog=intake.backlog,
            oldest_unprocessed_s=round(intake.oldest_unprocessed_s, 3),
            replay_endpoint=self._replay_endpoint(),
        )

    def status(self) -> dict[str, Any]:
        """Tell everything that `icewatch status` shows."""
        health, intake = self.health(), self._intake.status()
        return {
            "schema": "icewatch.daemon/1",
            "microscope": self._settings.microscope,
            "version": self._identity.version,
            "state": health.state,
            "reason": health.reason,
            "backend": self.backend_name,
            "bundle": self._settings.model.bundle,
            "acquisition_directory": str(self._settings.acquisition.directory),
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "last_seq": self._last_seq(),
            "backlog": intake.backlog,
            "incomplete": intake.incomplete,
            "watching": intake.watching,
            "files_seen": intake.files_seen,
            "oldest_unprocessed_s": round(intake.oldest_unprocessed_s, 3),
            "zmq_endpoint": self._settings.publish.zmq_endpoint,
            "replay_endpoint": self._replay_endpoint(),
            "verdict_directory": str(self._settings.verdict_directory),
            "sinks_failing": self._failing_sinks(),
            "problems": [asdict(problem) for problem in self._problems.open()],
            "set_aside": self._set_aside.listed(),
            "lamellae": self._lamellae(),
        }

    def _last_seq(self) -> int:
        """Give the newest seq; the last one known while the journal cannot be read."""
        try:
            self._newest_seq = self._journal.last_seq()
        except JournalError as error:
            self._problems.journal_failed(str(error))
        return self._newest_seq

    def _lamellae(self) -> list[dict[str, Any]]:
        try:
            found = recall(self._journal, self._journal.running_session())
        except JournalError:
            return []  # the state says why
        return [message.model_dump(mode="json", by_alias=True) for message in found]


def recall(journal: Journal, session: str) -> list[LamellaMessage]:
    """Give the newest message of each lamella of a session."""
    found = (parse(one.topic, one.body) for one in journal.lamella_messages(session))
    return [message for message in found if isinstance(message, LamellaMessage)]


def recall_with_tilts(journal: Journal, session: str) -> dict[str, RecalledLamella]:
    """Give what the metrics show of each lamella of a session."""
    found = {}
    for message in recall(journal, session):
        readings = journal.history(message.lamella, session).readings
        percents = [one.percent for _, one in readings if one.percent is not None]
        newest = percents[-1] if percents else None
        found[message.lamella] = RecalledLamella(message, newest)
    return found
