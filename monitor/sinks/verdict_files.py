"""`verdicts.json` and `ice_skip.txt`: the only files that the microscope's side may read."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from functools import partial
from pathlib import Path
from typing import Literal

from monitor.errors import SinkError
from monitor.messages import LamellaMessage, TiltMessage, TiltPart, utc_now
from monitor.model import Decision
from monitor.sinks.patience import HeldUpError, Patience
from monitor.sinks.protocol import Outgoing, Recall

_RUNS_FOR_S = 600.0
"""A session of which nothing came for this long gives way to any other, whatever clocks say."""
_COUNTER_EVERY_S = 5.0
"""A reader gives up on a counter that stood still for 30 s; the promise is 10 s."""
_FIRST_LINE = re.compile(r"icewatch 1 (\d+)")


class VerdictFiles:
    """Keeps both files true to the lamellae of the running session, replaced atomically."""

    name = "verdict_files"

    def __init__(
        self,
        directory: Path,
        microscope: str,
        mode: Literal["advise", "confirm", "act"],
        recall: Recall,
        session: str,
    ) -> None:
        """Start from what is known of the session that runs."""
        self._directory = directory
        self._microscope = microscope
        self._mode = self._written_mode = mode
        self._recall = recall
        self._session = session
        self._followed_s = -_RUNS_FOR_S
        """When (monotonic) its last tilt came."""
        self._newest_at = ""
        """When the newest tilt of the running session was taken, by the microscope's clock."""
        self._lamellae = {message.lamella: message for message in recall(session)}
        self._counter: int | None = None
        self._counter_due_s = 0.0
        self._patience = Patience("verdict files")

    def change_mode(self, mode: Literal["advise", "confirm", "act"]) -> None:
        """List by another mode from the next beat on, at most a second later; any thread."""
        self._mode = mode

    def publish(self, outgoing: Outgoing) -> None:
        """Take a verdict in and rewrite the files."""
        message = outgoing.message
        if isinstance(message, TiltMessage):
            self._follow(message.tilt)
        if isinstance(message, LamellaMessage) and message.session == self._session:
            self._lamellae[message.lamella] = message
            self._write()

    def _follow(self, tilt: TiltPart) -> None:
        """Turn to the session of a tilt, unless that was taken before others that are known.

        While a backlog is read between tilts that land, the running session stays that of these.
        """
        taken_at = tilt.acquired_at or ""
        now_s = time.monotonic()
        runs = now_s - self._followed_s < _RUNS_FOR_S
        is_older = bool(taken_at) and taken_at < self._newest_at
        if tilt.session != self._session and not (runs and is_older):
            self._session, self._newest_at = tilt.session, ""
            self._lamellae = {one.lamella: one for one in self._recall(self._session)}
        if tilt.session == self._session:
            self._newest_at, self._followed_s = max(self._newest_at, taken_at), now_s

    def beat(self) -> None:
        """Raise the counter, which tells readers that icewatch lives."""
        if time.monotonic() >= self._counter_due_s or self._mode != self._written_mode:
            self._write()

    def _write(self) -> None:
        self._counter_due_s = 0.0  # at every beat, until it works
        mode = self._mode
        verdicts, skipped = self._verdicts(), "".join(f"{name}\n" for name in self._skipped())
        try:
            self._patience.run(partial(self._write_both, verdicts, skipped))
        except HeldUpError as error:
            raise SinkError(
                f"verdict.directory '{self._directory}' does not answer; icewatch goes on and "
                "writes there when it does; until then the microscope acquires everything"
            ) from error
        except OSError as error:
            raise SinkError(
                f"verdict.directory '{self._directory}' cannot be written ({error.strerror}); make "
                "it writable or free space; until then the microscope acquires everything"
            ) from error
        self._counter_due_s = time.monotonic() + _COUNTER_EVERY_S
        self._written_mode = mode

    def _write_both(
        self, verdicts: dict[str, object], skipped: str, given_up: threading.Event
    ) -> None:
        """Write as long as somebody waits for it: later, a verdict may have been taken back."""
        if self._counter is None:
            self._counter = self._counter_on_disk()
        self._counter += 1
        self._directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**verdicts, "counter": self._counter}, indent=1) + "\n"
        self._replace("verdicts.json", text, given_up)
        self._replace("ice_skip.txt", f"icewatch 1 {self._counter}\n{skipped}", given_up)

    def _skipped(self) -> list[str]:
        """Give what may be skipped; in `confirm` nothing is until a person accepts it.

        A name that does not fit on one line cannot be told to a reader: it is acquired.
        """
        if self._mode != "act":
            return []
        return sorted(
            name
            for name, message in self._lamellae.items()
            if message.verdict is Decision.SKIP and name.isprintable()
        )

    def _verdicts(self) -> dict[str, object]:
        lamellae = [
            message.model_dump(mode="json", exclude={"boot_id", "microscope", "schema_"})
            for message in self._lamellae.values()
        ]
        return {
            "schema": "icewatch.verdicts/1",
            "microscope": self._microscope,
            "mode": self._mode,
            "written_at": utc_now(),
            "session": self._session,
            "lamellae": lamellae,
        }

    def _replace(self, name: str, text: str, given_up: threading.Event) -> None:
        # A fixed name for the temporary file: a crash leaves at most one behind, overwritten next.
        temporary = self._directory / f".{name}.tmp"
        temporary.write_text(text, "utf-8")
        if given_up.is_set():
            return
        os.replace(temporary, self._directory / name)  # noqa: PTH105  says what matters: atomic

    def _counter_on_disk(self) -> int:
        """Go on from the old counter, so that a reader sees it move after a restart."""
        try:
            with (self._directory / "ice_skip.txt").open(encoding="utf-8") as file:
                match = _FIRST_LINE.match(file.readline(100))
        except (OSError, UnicodeDecodeError):
            return 0
        return int(match[1]) if match else 0
