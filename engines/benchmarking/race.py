"""Runs all contenders on the same tilts, turn by turn, so that a busy machine hurts all alike."""

from __future__ import annotations

import json
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy import bool_
from numpy.typing import NDArray

from engines.benchmarking.child import Answer, Task
from engines.benchmarking.contenders import title, why_absent

START_WITHIN_S = 1200.0
"""Compiling a network in PyTorch, or building a plan, takes minutes, on a busy machine many."""
_ANSWER_WITHIN_S = 300.0
_END_WITHIN_S = 5.0
BATCH_ROUNDS = 3
_LAST_WORDS_CHARACTERS = 160


@dataclass(slots=True)
class Lap:
    """All that was measured of one contender."""

    name: str
    why_not: str | None = None
    """Why there are no figures, in a few words; None where there are."""
    hello: Answer = field(default_factory=dict)
    wall_s: dict[str, list[float]] = field(default_factory=dict)
    """By what was run: `bare`, `network`, `whole`."""
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    """The same on the CPU, all threads together: hardly the longer on a busy machine."""
    batch_s: dict[int, list[float]] = field(default_factory=dict)
    percents: dict[int, float | None] = field(default_factory=dict)
    """By number of the tilt."""
    masks: dict[int, NDArray[bool_]] = field(default_factory=dict)
    device_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """What is run."""

    bundle: str
    folder: Path
    """Holds the tilts, `<number>.raw`: int16, `size_px` squared."""
    tilts: int
    """How many different ones there are."""
    rounds: int
    batches: tuple[int, ...]
    size_px: int
    pixel_size_angstrom: float
    threads: int = 0

    def task(self, name: str) -> Task:
        """Say what one contender is to run."""
        size = (self.size_px, self.pixel_size_angstrom)
        return Task(name, self.bundle, self.threads, *size, str(self.folder))

    @property
    def steps(self) -> int:
        """How many steps each contender takes, starting included."""
        return 1 + self.rounds + len(self.batches) * (1 + BATCH_ROUNDS)


class FallenError(Exception):
    """Raised when a contender died, hangs or gave up; the text says so in a few words."""


class Racer:
    """A contender in a process of its own; a context manager."""

    def __init__(self, task: Task, command: Sequence[str] = ()) -> None:
        """Start it; `command` replaces the program that runs, for tests of what goes wrong."""
        module = ("-m", "engines.benchmarking.child")
        self._last_words = Path(task.folder) / f"{task.name}.log"
        with self._last_words.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *(command or module), json.dumps(asdict(task))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def __enter__(self) -> Racer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                # What was never read by the dead cannot be flushed.
                try:
                    stream.close()
                except BrokenPipeError:
                    continue

    def ask(self, order: Answer, within_s: float = _ANSWER_WITHIN_S) -> Answer:
        """Give an order and wait for its answer; raises FallenError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise FallenError(self._how_it_ended()) from None
        return self.hear(within_s)

    def hear(self, within_s: float) -> Answer:
        """Wait for an answer; raises FallenError."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(within_s):
                raise FallenError(f"no answer within {within_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise FallenError(self._how_it_ended())
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise FallenError(answer["error"])
        return answer

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            return "stopped answering"
        if status < 0:
            return f"died of {signal.Signals(-status).name}"
        lines = self._last_words.read_text(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1][:_LAST_WORDS_CHARACTERS] if said else f"ended with status {status}"


def race(
    course: Course,
    names: Sequence[str],
    tell: Callable[[str], None],
    start: Callable[[Task], Racer] = Racer,
) -> list[Lap]:
    """Run contenders over a course: one lap for each, in the order of `names`.

    `tell` is called after each step with what comes next.
    """
    laps = [Lap(name, why_absent(name)) for name in names]
    racers: dict[str, Racer] = {}
    try:
        for lap in laps:
            if lap.why_not is None:
                tell(f"starting {title(lap.name)}")
                racers[lap.name] = start(course.task(lap.name))
                _step(lap, partial(_begin, lap, racers[lap.name]))
        _rounds(course, laps, racers, tell)
        for lap in laps:
            if lap.why_not is None:
                _step(lap, partial(_end, lap, racers[lap.name]))
    finally:
        for racer in racers.values():
            racer.__exit__(None, None, None)
    return laps


def _rounds(
    course: Course, laps: list[Lap], racers: dict[str, Racer], tell: Callable[[str], None]
) -> None:
    for number in range(course.rounds):
        for lap in _turned(laps, number):
            tell(f"tilt {number + 1}: {title(lap.name)}")
            _step(lap, partial(_tilt, lap, racers[lap.name], course, number))
    for size in course.batches:
        for number in range(1 + BATCH_ROUNDS):
            for lap in _turned(laps, number):
                tell(f"batches of {size}: {title(lap.name)}")
                # The first of a size is for getting ready.
                _step(lap, partial(_batch, lap, racers[lap.name], size, keep=number > 0))


def _turned(laps: list[Lap], number: int) -> list[Lap]:
    """List who is still running; in each round another one comes first."""
    running = [lap for lap in laps if lap.why_not is None]
    at = number % max(1, len(running))
    return running[at:] + running[:at]


def _step(lap: Lap, do: Callable[[], None]) -> None:
    try:
        do()
    except FallenError as error:
        lap.why_not = str(error)


def _begin(lap: Lap, racer: Racer) -> None:
    lap.hello = racer.hear(START_WITHIN_S)


def _tilt(lap: Lap, racer: Racer, course: Course, number: int) -> None:
    which = number % course.tilts
    found = racer.ask({"do": "tilt", "number": which, "turn": number})
    for taken, name in ((lap.wall_s, "wall_s"), (lap.cpu_s, "cpu_s")):
        for what, seconds in found[name].items():
            taken.setdefault(what, []).append(seconds)
    lap.percents[which] = found["percent"]
    bits = np.fromfile(course.task(lap.name).mask_file(which), np.uint8)
    lap.masks[which] = np.unpackbits(bits).astype(bool)


def _batch(lap: Lap, racer: Racer, size: int, *, keep: bool) -> None:
    found = racer.ask({"do": "batch", "size": size}, START_WITHIN_S)
    if keep:
        lap.batch_s.setdefault(size, []).append(found["batch_s"])


def _end(lap: Lap, racer: Racer) -> None:
    lap.device_memory_bytes = racer.ask({"do": "end"})["device_memory_bytes"]


def where_and_when() -> dict[str, Any]:
    """Say on what machine this runs: for the report."""
    processor = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return {
        "processor": processor,
        "load": round(float(Path("/proc/loadavg").read_text().split()[0]), 2),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
