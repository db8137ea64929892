"""Runs a script in real or accelerated time, and keeps the truth of what it did."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from engines.microscope_step import Step
from monitor.simulate.script import Script, Taken, Wait

StepSeen = Callable[[Step, float, float], None]
"""Called after each step with it, and with when it began and was done (s, as `time.time`)."""


@dataclass(slots=True)
class Done:
    """What a session came to."""

    exposures: int = 0
    incomplete: int = 0
    series: set[str] = field(default_factory=set)
    bytes_written: int = 0
    took_s: float = 0.0
    stopped: bool = False
    """Whether it was ended before its time."""


class Driver:
    """Takes a script step by step, waits where it waits, and writes the truth file."""

    def __init__(
        self,
        root: Path,
        *,
        speed: float = 1.0,
        write_mb_per_s: float | None = None,
        truth: TextIO | None = None,
        on_step: StepSeen = lambda step, began_s, ended_s: None,
        on_taken: Callable[[Taken, Done], None] = lambda taken, done: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the acquisition directory, and how many times faster than real time it goes."""
        self._root = root
        self._speed = speed
        self._bytes_per_s = None if write_mb_per_s is None else write_mb_per_s * 1e6 * speed
        self._truth = truth
        self._on_step = on_step
        self._on_taken = on_taken
        self._sleep = sleep

    def run(self, script: Script) -> Done:
        """Go through the script; Ctrl-C ends it where it is."""
        done, started_s = Done(), time.monotonic()
        try:
            self._run(script, done, started_s)
        except KeyboardInterrupt:
            done.stopped = True
        done.took_s = time.monotonic() - started_s
        return done

    def _run(self, script: Script, done: Done, started_s: float) -> None:
        began_s = time.time()
        for event in script:
            if isinstance(event, Wait):
                due_s = started_s + event.until_s / self._speed
                self._sleep(max(0.0, due_s - time.monotonic()))
            elif isinstance(event, Taken):
                self._note(event, done)
            else:
                self._on_step(event, began_s, time.time())
                done.bytes_written += event.size
                if self._bytes_per_s:
                    self._sleep(event.size / self._bytes_per_s)
            began_s = time.time()

    def _note(self, taken: Taken, done: Done) -> None:
        done.exposures += taken.complete
        done.incomplete += not taken.complete
        done.series.add(f"{taken.exposure.lamella}/{taken.exposure.series}")
        if self._truth is not None:
            self._truth.write(json.dumps(truth_line(taken, self._root)) + "\n")
            self._truth.flush()
        self._on_taken(taken, done)


def truth_line(taken: Taken, root: Path) -> dict[str, object]:
    """Put what is true of one exposure into words for a file."""
    one = taken.exposure
    return {
        "series": one.series,
        "lamella": one.lamella,
        "angle_deg": one.angle_deg,
        "time": one.acquired_at.isoformat(),
        "order": one.order,
        "paths": [path.relative_to(root).as_posix() for path in taken.paths],
        "ice_percent": one.ice_percent,
        "complete": taken.complete,
        "kept": taken.kept,
    }
