"""A pipeline with a real journal, and a source and an engine that do as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from engines.icemap import Flag, IceMap
from engines.segmenter import Neighbours
from monitor.journal import Journal
from monitor.model import FileStat, Landed, Tilt
from monitor.pace import Pace
from monitor.pipeline import Pipeline
from monitor.pipeline_ports import TiltReader
from monitor.policies import MeanOverTiltsSettings
from monitor.problems import Problems
from monitor.sessions import LooseSessions
from monitor.set_aside import SetAside
from monitor.sinks.metrics import Metrics
from monitor.sinks.protocol import Outgoing
from monitor.sources.protocol import Known, Source

_NOTHING = np.zeros((1, 1), np.float32)
_NOWHERE = np.zeros((1, 1), np.bool_)
FILE = Landed(Path("/data/s1/L1.mrc"), "s1/L1.mrc", FileStat(1, 1, 1), 5, 60.0)


class Clock:
    """Moves only when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class ToldSource:
    """Lists what it is told to, and reads nothing."""

    tilts: list[Tilt] = field(default_factory=list)
    pixels_of: dict[float, Callable[[], Any]] = field(default_factory=dict)
    error: Exception | None = None
    """Raised after the last tilt."""
    read: list[Tilt] = field(default_factory=list)
    asks_first: bool = False
    """Whether it asks what is known of all tilts before it yields the first."""
    kind: str = "told"

    def claims(self, relative: str) -> str | None:
        return relative

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        tilts = list(self.tilts)
        if self.asks_first:
            tilts = [tilt for tilt in tilts if not known(tilt.id)]
        for tilt in tilts:
            if self.asks_first or not known(tilt.id):
                yield tilt
        if self.error is not None:
            raise self.error

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        self.read.append(tilt)
        instead = self.pixels_of.get(tilt.angle_deg or 0.0)
        if instead is not None:
            instead()
        return np.zeros((4, 4), np.int16)


class TenPercent:
    """Finds the same ice everywhere."""

    bundle_name, bundle_version, backend_name = "told", "1", "test"

    def read(
        self,
        image: NDArray[Any],
        pixel_size_angstrom: float | None,
        neighbours: Neighbours | None = None,
        known_flags: tuple[Flag, ...] = (),
    ) -> IceMap:
        return IceMap(_NOTHING, _NOWHERE, _NOWHERE, _NOTHING, None, 10.0, 9.0, 11.0)


class Parts:
    """One life of a pipeline and what it needs."""

    def __init__(
        self,
        folder: Path,
        *,
        pace: Pace | None = None,
        source: Source | None = None,
        segmenter: TiltReader | None = None,
        keeps: bool = True,
    ) -> None:
        """Begin; with a `source`, that one is read from, and not the one that is told to.

        With a `segmenter`, that one measures, and does not find the same everywhere.
        `keeps`: whether all that is published is kept in `sent`.
        """
        self.state = folder / "state"
        self.clock = Clock()
        self.waiting = 0
        self.makes_way: Callable[[Landed], bool] = lambda landed: False
        self.sent: list[Outgoing] = []
        self.published = 0
        self.keeps = keeps
        self.told = ToldSource()
        self.source: Source = source or self.told
        self.problems = Problems()
        self.stop = threading.Event()
        self.journal = Journal(self.state, "m")
        self.aside = SetAside(self.state, self.journal, uuid4().hex, self.clock)
        self.pipeline = Pipeline(
            self.source,
            segmenter or TenPercent(),
            MeanOverTiltsSettings().build(10.0),
            self.journal,
            self,
            Metrics("m", "1"),
            self.problems,
            LooseSessions(self.journal, 12.0),
            self.stop,
            microscope="m",
            boot_id="b",
            set_aside=self.aside,
            make_way=lambda landed: self.makes_way(landed),
            waiting=lambda: self.waiting,
            pace=pace,
            clock=self.clock,
        )

    def put(self, messages: Sequence[Outgoing]) -> None:
        self.published += 1
        if self.keeps:
            self.sent.extend(messages)

    def process(self, landed: Landed = FILE) -> bool:
        return self.pipeline.process(landed)

    def angles(self) -> list[float | None]:
        """What was published, in that order."""
        return [
            one.message.tilt.angle_deg
            for one in self.sent
            if one.topic == "tilt" and hasattr(one.message, "tilt")
        ]

    def lamellae(self) -> list[str]:
        """Of which lamella each tilt was that was published, in that order."""
        return [
            one.message.lamella
            for one in self.sent
            if one.topic == "lamella" and hasattr(one.message, "lamella")
        ]

    def die(self) -> None:
        """End as a killed process does."""
        self.aside.close(orderly=False)
        self.journal.close(cleanly=False)
