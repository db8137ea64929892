"""What lay there at start is read too, but what lands meanwhile does not wait for it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from engines.microscope import SerialEMStackWriter
from monitor.intake import Intake
from monitor.model import Landed
from monitor.sources import all_sources
from tests.daemon import ROOT
from tests.pipelines import Clock, Parts

WHEN = datetime(2026, 2, 1, 10, 0, 0)
SHAPE = (16, 16)


class Bench:
    """Real files, intake, sources, pipeline and journal, driven by hand."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "data"
        (self.root / "s").mkdir(parents=True)
        self.stacks: dict[str, SerialEMStackWriter] = {}
        self.counts: dict[str, int] = {}
        self.clock = Clock()
        self.parts = Parts(folder, source=all_sources(self.root))
        self.intake = Intake(
            self.root, self.parts.source, watch="poll", clock=self.clock, poll_interval_s=2.0
        )
        self.parts.makes_way = self.makes_way
        self.between: list[tuple[int, str]] = []
        """After how many tilts in all another one lands, and in which series."""

    def lands(self, series: str, tilts: int = 1) -> None:
        """Add tilts to a stack."""
        if series not in self.stacks:
            self.stacks[series] = SerialEMStackWriter(self.root / f"s/{series}.mrc", SHAPE, 2.0)
        for _ in range(tilts):
            number = self.counts[series] = self.counts.get(series, -1) + 1
            image = np.random.default_rng(number).integers(1, 900, SHAPE).astype(np.int16)
            self.stacks[series].add(image, 3.0 * number, WHEN + timedelta(seconds=26 * number))

    def makes_way(self, landed: Landed) -> bool:
        while self.between and self.parts.published >= self.between[0][0]:
            self.lands(self.between.pop(0)[1])
            self._event()
        return self.intake.make_way(landed)

    def _event(self) -> None:
        """Let the intake hear of what was closed."""
        for path in (self.root / "s").glob("*.mdoc"):
            self.intake._hint(path.relative_to(self.root).as_posix(), True)
        self.later()

    def later(self) -> None:
        """Let the intake scan, a poll later."""
        self.clock.now_s += 2.0
        self.intake.step()

    def work(self) -> None:
        """Let the worker do all that waits."""
        while (offer := self.intake.next(0.0)) is not None:
            done = self.parts.process(offer.landed)
            (self.intake.done if done else self.intake.retry)(offer.landed)

    def order(self) -> list[str]:
        """Which series each published tilt was of."""
        return [lamella.rpartition("/")[2] for lamella in self.parts.lamellae()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_tilt_that_lands_does_not_wait_for_a_long_stack(bench: Bench) -> None:
    bench.lands("old", 12)
    bench.later()
    bench.later()
    bench.between = [(3, "new"), (6, "new"), (7, "newer")]
    bench.work()
    bench.later()
    bench.work()
    order = bench.order()
    assert sorted(order) == ["new"] * 2 + ["newer"] + ["old"] * 12
    assert order.index("new") <= 4, order
    assert order.index("newer") <= 9, order
    bench.parts.die()


def test_a_stack_that_lay_there_and_grows_is_read_first(bench: Bench) -> None:
    for series in ("a", "b", "c"):
        bench.lands(series, 4)
    bench.later()
    bench.later()
    bench.between = [(2, "c")]
    bench.work()
    bench.later()
    bench.work()
    order = "".join(bench.order())
    assert sorted(order) == sorted("aaaabbbbccccc")
    assert order.startswith("aac"), order
    bench.parts.die()


def test_all_tilts_of_a_stack_come_in_order_whoever_comes_between(bench: Bench) -> None:
    bench.lands("old", 20)
    bench.later()
    bench.later()
    bench.between = [(number, "new") for number in range(1, 12)]
    bench.work()
    for _ in range(3):
        bench.later()
        bench.work()
    angles = [
        one.message.tilt.angle_deg  # type: ignore[union-attr]
        for one in bench.parts.sent
        if one.topic == "tilt" and one.message.tilt.series == "old"  # type: ignore[union-attr]
    ]
    assert angles == [3.0 * number for number in range(20)]
    assert bench.order().count("new") == 11
    bench.parts.die()


@pytest.mark.slow
def test_five_thousand_waiting_files_are_drained_with_memory_flat() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.drain", "5000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["published"] == 5000
    assert found["grown_bytes"] < 8 << 20
    assert found["ms_per_file"] < 20.0, "far less than the engine takes"
