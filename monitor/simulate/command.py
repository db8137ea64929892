"""`icewatch simulate`: checks what is asked for, lets the session land, and sums it up."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TextIO

from monitor.errors import ConfigError, MonitorError
from monitor.simulate.custom import CONFIGURATION
from monitor.simulate.driver import Done, Driver
from monitor.simulate.layouts import SCRIPTS
from monitor.simulate.request import Request, refuse_wrong
from monitor.simulate.script import Taken
from monitor.simulate.session import Session


def simulate(request: Request) -> int:
    """Write the session; returns 0, or 1 if it was ended before its time."""
    refuse_wrong(request)
    session = Session(request)
    with ExitStack() as open_files:
        truth = None
        if request.truth is not None:
            truth = open_files.enter_context(_opened(request))
        driver = Driver(
            request.out,
            speed=request.speed,
            write_mb_per_s=request.write_mb_per_s,
            truth=truth,
            on_taken=Progress(request.series * request.tilts),
        )
        try:
            request.out.mkdir(parents=True, exist_ok=True)
            done = driver.run(SCRIPTS[request.layout](session))
        except OSError as error:
            raise MonitorError(
                f"{error.filename or request.out}: cannot be written: {error.strerror}"
            ) from error
    say(summary(done, f"in {session.folder}"))
    if request.layout == "custom":
        say(CONFIGURATION)
    return 1 if done.stopped else 0


def _opened(request: Request) -> TextIO:
    assert request.truth is not None
    try:
        return request.truth.open("a" if request.append else "w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--truth {request.truth}: {error.strerror}") from error


class Progress:
    """Says on standard error what was taken last, on a terminal in one line."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._on_terminal = sys.stderr.isatty()

    def __call__(self, taken: Taken, done: Done) -> None:
        one = taken.exposure
        number = done.exposures + done.incomplete
        line = f"{number}/{self._expected}  {one.series}  {one.angle_deg:+.1f}°"
        sys.stderr.write(f"\r\033[K{line}" if self._on_terminal else f"{line}\n")
        sys.stderr.flush()


def summary(done: Done, where: str) -> str:
    """Say in one sentence what a session came to."""
    how = "stopped: " if done.stopped else ""
    cut = f" and {done.incomplete} that will never be whole" if done.incomplete else ""
    return (
        f"{how}{done.exposures} exposures of {len(done.series)} series{cut} {where}, "
        f"{done.bytes_written / 1e6:.1f} MB in {done.took_s:.1f} s"
    )


def say(sentence: str) -> None:
    """End the line of the progress, and say something on standard error."""
    sys.stderr.write(f"\r\033[K{sentence}\n" if sys.stderr.isatty() else f"{sentence}\n")
