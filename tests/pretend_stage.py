"""A place for pretend worlds: a folder in memory, and a process whose clocks are theirs."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pretend_session import Clocks
from tests.pretend_world import World

_MEMORY = Path("/dev/shm")


class Stage:
    """Makes worlds, one at a time; the newest has the clocks of this process."""

    def __init__(self, folder: Path) -> None:
        """Take an empty folder."""
        self._folder = folder
        self._numbers = itertools.count()
        self.clocks = Clocks()

    def new_world(self) -> World:
        """Make a world of its own, with a daemon that sees an empty share."""
        self.clocks = Clocks()
        return World(self._folder / str(next(self._numbers)), self.clocks)

    def strike(self, world: World) -> None:
        """Remove a world with all that is in it."""
        world.kill()
        shutil.rmtree(world.folder)


@contextmanager
def pretend_stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Set the stage: whoever asks for the time gets that of the world, and nobody may sleep."""
    where = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="icewatch-once-", dir=where))
    stage = Stage(folder)

    def no_sleep(seconds: float) -> None:
        raise AssertionError("somebody sleeps")

    def monotonic() -> float:
        return stage.clocks.monotonic()

    for defaults, name in _asking_the_real_clock():
        monkeypatch.setitem(defaults, name, monotonic)
    monkeypatch.setattr(time, "monotonic", monotonic)
    monkeypatch.setattr(time, "time", lambda: stage.clocks.wall())
    monkeypatch.setattr(time, "sleep", no_sleep)
    logging.disable(logging.CRITICAL)
    try:
        yield stage
    finally:
        logging.disable(logging.NOTSET)
        shutil.rmtree(folder)


def _asking_the_real_clock() -> Iterator[tuple[dict[str, Any], str]]:
    """Find all parts of the product that take the real clock where no other is given."""
    for module in [one for name, one in sys.modules.items() if name.startswith("monitor.")]:
        for found in list(vars(module).values()):
            function = vars(found).get("__init__") if isinstance(found, type) else found
            defaults = getattr(function, "__kwdefaults__", None) or {}
            for name in [name for name, value in defaults.items() if value is time.monotonic]:
                yield defaults, name
