"""The daemon and `score` read a tilt with those before it: agreement, restart, bounds, messages."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy import float32, int16
from numpy.typing import NDArray

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.bundle import Bundle
from engines.icemap import IceMap
from engines.microscope import SerialEMStackWriter
from engines.segmenter import Segmenter
from monitor.errors import JournalError
from monitor.journal import Journal
from monitor.messages import LamellaMessage, TiltMessage
from monitor.model import Tilt
from monitor.readings import occupancy_of
from monitor.recent_series import FORGOTTEN_AFTER_TILTS, RecentSeries
from monitor.score import Request, score_paths
from tests import tiny_bundle
from tests.alike import SIDE, all_valid, moved_by, seen, specimen
from tests.builders import history, reading, tilt
from tests.daemon import PIXEL_SIZE_ANGSTROM
from tests.pipelines import Parts, ToldSource

ANGLES_DEG = (0.0, 3.0, -3.0, 6.0)


@lru_cache(maxsize=1)
def whole() -> NDArray[float32]:
    return specimen(0)


def picture(number: int) -> NDArray[int16]:
    """A tilt of one specimen: one dark disc stays, another is somewhere else each time."""
    y, x = np.mgrid[:SIDE, :SIDE]
    shift = (4.0 * number, -3.0 * number)
    stays = (x - 70 - shift[0]) ** 2 + (y - 80 - shift[1]) ** 2 < 15**2
    flashes = (x - 60 - 50 * number - shift[0]) ** 2 + (y - 200 - shift[1]) ** 2 < 15**2
    counts = seen(whole(), moved_by(shift), seed=number)
    return np.where(stays | flashes, 0.4 * counts, counts).astype(int16)


@dataclass
class Pictures(ToldSource):
    """Lists what it is told to, and reads the picture of its section."""

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        super().pixels(tilt)
        return picture(tilt.section)


TILTS = [
    replace(tilt(angle_deg), section=number, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
    for number, angle_deg in enumerate(ANGLES_DEG)
]


def write_stack(folder: Path) -> None:
    """Write the tilts as SerialEM does."""
    folder.mkdir()
    stack = SerialEMStackWriter(folder / "L1.mrc", (SIDE, SIDE), PIXEL_SIZE_ANGSTROM)
    for number, angle_deg in enumerate(ANGLES_DEG):
        stack.add(picture(number), angle_deg, datetime.datetime(2026, 1, 1, 10, number))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle.write_with_memory(tmp_path / "bundle")


@pytest.fixture
def segmenter(bundle: Path) -> Iterator[Segmenter]:
    loaded = Bundle.load(bundle)
    made = Segmenter(loaded, OnnxRuntimeSettings(threads=1).build(loaded))
    yield made
    made.close()


def test_what_cannot_be_measured_leaves_nothing_behind(segmenter: Segmenter) -> None:
    recent = RecentSeries()
    smooth = np.full((SIDE, SIDE), 100.0, float32)
    smooth += np.linspace(0.0, 50.0, SIDE, dtype=float32)
    for number in range(FORGOTTEN_AFTER_TILTS + 9):
        one = replace(tilt(0.0), id=replace(tilt(0.0).id, series_key=f"s{number}"))
        held = recent.at(one)
        assert recent.nbytes <= held.nbytes, "nothing is left of the one before"
        assert segmenter.read(smooth, PIXEL_SIZE_ANGSTROM, held).percent is None
    assert len(recent._held) <= FORGOTTEN_AFTER_TILTS + 2


def messages(parts: Parts) -> tuple[list[TiltMessage], list[LamellaMessage]]:
    sent = [one.message for one in parts.sent]
    return (
        [one for one in sent if isinstance(one, TiltMessage)],
        [one for one in sent if isinstance(one, LamellaMessage)],
    )


def test_score_and_daemon_agree_and_a_restart_begins_anew(
    tmp_path: Path, bundle: Path, segmenter: Segmenter, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = Parts(tmp_path, source=Pictures(TILTS), segmenter=segmenter)
    assert parts.process()
    tilts, lamellae = messages(parts)
    assert [one.quality.used_neighbours for one in tilts] == [False, True, True, True]
    percents = [one.ice.percent or 0.0 for one in tilts]
    assert percents[0] == pytest.approx(2 * percents[1], rel=0.1), "what stays is no ice"
    assert [one.occupancy_percent for one in lamellae[:2]] == [None, None]
    assert lamellae[3].occupancy_percent is not None
    assert lamellae[3].occupancy_percent > 1.5 * max(percents[1:]), "a union, not a mean"
    parts.die()

    write_stack(tmp_path / "data")
    assert score_paths(Request((tmp_path / "data",), as_json=True, bundle=str(bundle))) == 0
    scored = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["ice"]["percent"] for one in scored] == percents
    assert [one["quality"]["used_neighbours"] for one in scored] == [False, True, True, True]

    again = Parts(tmp_path, source=Pictures([replace(TILTS[0], id=tilt(9.0).id)]))
    again.pipeline._segmenter = segmenter
    assert again.process()
    tilts, lamellae = messages(again)
    assert not tilts[0].quality.used_neighbours
    assert lamellae[0].occupancy_percent is not None, "what was reached before stays"
    again.die()


def test_score_shows_the_occupancy(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stack(tmp_path / "data")
    assert score_paths(Request((tmp_path / "data",), bundle=str(bundle))) == 0
    assert "occupancy" in capsys.readouterr().out


def test_a_tilt_whose_commit_failed_is_not_its_own_neighbour(
    tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tmp_path, source=Pictures(TILTS[:1]), segmenter=segmenter)
    commit = Journal.add

    def full(*given: Any) -> Any:
        raise JournalError("the disk is full; free space")

    monkeypatch.setattr(Journal, "add", full)
    assert not parts.process()
    monkeypatch.setattr(Journal, "add", commit)
    assert parts.process()
    assert not messages(parts)[0][0].quality.used_neighbours
    parts.die()


def measured(number: int = 0) -> IceMap:
    image = picture(number).astype(float32)
    nothing = np.zeros(image.shape, bool)
    left = np.zeros((2, SIDE // 4, SIDE // 4), float32)
    return IceMap(
        image, all_valid(image), nothing, image, PIXEL_SIZE_ANGSTROM, 0.0, memory_left=left
    )


def test_many_series_in_turn_share_the_budget() -> None:
    one = RecentSeries()
    for angle_deg in ANGLES_DEG:
        one.at(tilt(angle_deg)).add(measured())
    full = one.nbytes
    shared = RecentSeries(budget_bytes=full)
    for angle_deg in ANGLES_DEG:
        for name in ("A", "B"):
            series = shared.at(tilt(angle_deg, name))
            assert series.kept_tilts > 0 or angle_deg == 0.0, "each has some"
            series.add(measured())
    assert shared.nbytes <= full + one.nbytes / len(ANGLES_DEG)
    for number in range(2 * len(ANGLES_DEG)):
        shared.at(tilt(0.0, f"C{number}")).add(measured())
    assert shared.nbytes <= full + one.nbytes / len(ANGLES_DEG)
    assert shared.at(tilt(0.0, "A")).kept_tilts == 0, "the one that was seen longest ago is gone"


def test_series_that_are_over_go_first() -> None:
    alone = RecentSeries()
    for angle_deg in ANGLES_DEG:
        alone.at(tilt(angle_deg)).add(measured())
    recent = RecentSeries(budget_bytes=alone.nbytes)
    recent.at(tilt(0.0, "over")).add(measured())
    for number in range(FORGOTTEN_AFTER_TILTS + 1):
        recent.at(tilt(float(number), "runs"))
    for angle_deg in ANGLES_DEG:
        recent.at(tilt(angle_deg, "runs")).add(measured())
    assert recent.at(tilt(6.0, "runs")).kept_tilts == len(ANGLES_DEG)
    assert recent.at(tilt(3.0, "over")).kept_tilts == 0


def test_occupancy_of_a_lamella_is_the_highest_reached() -> None:
    assert occupancy_of(history([])) is None
    assert occupancy_of(history([1.0, None])) is None
    reached = (None, 4.0, 7.0, None, 2.0)
    pairs = tuple(
        (tilt(3.0 * k), replace(reading(1.0), occupancy_percent=one))
        for k, one in enumerate(reached)
    )
    assert occupancy_of(replace(history([]), readings=pairs)) == 7.0
