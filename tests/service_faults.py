"""Faults of a daemon under a real systemd; its launcher imports this where a test put it.

A file `fault-NAME` in the state directory lets the fault happen, once: it is taken away first.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monitor.intake
import monitor.pipeline
import monitor.publisher
import monitor.sources.any_source

STATE = Path("/var/lib/icewatch") / os.environ.get("ICEWATCH_INSTANCE", "krios1")
LONG_S = 9.0


def _deadlock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _spin(seconds: float = float("inf")) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pass


def _keep_the_interpreter() -> None:
    ctypes.PyDLL(None).pause()  # with the lock of the interpreter held


def _crash() -> None:
    ctypes.string_at(0)


def _take_all_memory() -> None:
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1 << 20)))


def _failing() -> None:
    raise RuntimeError("a fault of the test")


POINTS: dict[str, tuple[Any, str, Callable[[], None]]] = {
    "worker-commit": (monitor.pipeline.Pipeline, "_commit", _deadlock),
    "worker-decode": (monitor.sources.any_source.AnySource, "pixels", _deadlock),
    "worker-idle": (monitor.intake.Intake, "next", _deadlock),
    "worker-spins": (monitor.pipeline.Pipeline, "_commit", _spin),
    "intake": (monitor.intake.Intake, "step", _deadlock),
    "intake-dies": (monitor.intake.Intake, "step", _failing),
    "publisher": (monitor.publisher.Publisher, "_beat", _deadlock),
    "publisher-sends": (monitor.publisher.Publisher, "_send_waiting", _deadlock),
    "interpreter": (monitor.intake.Intake, "step", _keep_the_interpreter),
    "crash": (monitor.pipeline.Pipeline, "_commit", _crash),
    "memory": (monitor.pipeline.Pipeline, "_commit", _take_all_memory),
    "long-decode": (monitor.sources.any_source.AnySource, "pixels", lambda: _spin(LONG_S)),
}


def _with_fault(name: str, whole: Callable[..., Any], fault: Callable[[], None]) -> Any:
    path = STATE / f"fault-{name}"

    def faulty(*values: Any, **named: Any) -> Any:
        if path.exists():
            path.unlink()
            fault()
        return whole(*values, **named)

    return faulty


for _name, (_owner, _method, _fault) in POINTS.items():
    setattr(_owner, _method, _with_fault(_name, getattr(_owner, _method), _fault))
