"""The data path between its parts: what is read, what is passed over, and when it pauses."""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engines.errors import PixelsError
from monitor.errors import NotReady, Unreadable
from monitor.health import judge
from monitor.intake import IntakeStatus
from monitor.model import FileStat, Landed, TiltId
from monitor.pace import Pace
from monitor.problems import Problems
from tests.builders import tilt
from tests.pipelines import FILE, Parts
from tests.waiting import wait_until

MOVIE = "L1_003_3.0.mrc"
OTHER = Landed(Path("/data/s1/L2.mrc"), "s1/L2.mrc", FileStat(1, 1, 1), 5, 60.0)
FINE = IntakeStatus(False, "", "poll", 0, 0, 0, 0, 0.0, 0.0, ())


def test_the_other_form_of_an_exposure_is_not_read(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    section = replace(tilt(3.0), section=2, movie=MOVIE)
    by_name = TiltId("s1/L1", 3.0, None, MOVIE)
    movie = replace(tilt(3.0), id=by_name, path=f"s1/{MOVIE}", movie=MOVIE, aliases=(tilt(9.0).id,))
    parts.told.tilts = [section, movie]
    assert parts.process()
    assert parts.told.read == [section], "its pixels were never asked for"
    assert parts.angles() == [3.0]
    assert parts.journal.knows(by_name)
    assert parts.journal.knows(tilt(9.0).id), "nor does it come under that name"
    other = replace(movie, id=TiltId("s1/L2", 30.0, None, MOVIE), angle_deg=30.0)
    parts.told.tilts = [other]
    assert parts.process()
    assert parts.angles() == [3.0, 30.0]
    parts.die()


def test_a_tilt_that_came_under_another_name_meanwhile_is_not_read(tmp_path: Path) -> None:
    """A source asks for all names before it yields the first tilt."""
    parts = Parts(tmp_path)
    again = tilt(6.0)
    parts.told.tilts = [replace(tilt(3.0), aliases=(again.id,)), again]
    parts.told.asks_first = True
    assert parts.process()
    assert parts.angles() == [3.0]
    parts.die()


def test_work_pauses_between_two_tilts_when_others_come_first(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.told.tilts = [tilt(angle_deg) for angle_deg in (0.0, 3.0, 6.0)]
    asked: list[str] = []

    def makes_way(landed: Landed) -> bool:
        asked.append(landed.relative)
        return True

    parts.makes_way = makes_way
    for done, angles in ((False, [0.0]), (False, [0.0, 3.0]), (True, [0.0, 3.0, 6.0])):
        assert parts.process() == done
        assert parts.angles() == angles, "one at a time, but always one"
    assert asked == [FILE.relative] * 2, "with the last tilt there is nothing to pause for"
    parts.die()


def test_a_lamella_is_to_have_what_its_series_are_to_have(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    one, other = tilt(0.0), tilt(3.0, "L2")
    parts.told.tilts = [
        replace(one, tilts_expected=41),
        replace(other, lamella=one.lamella, tilts_expected=30),
        replace(tilt(6.0), tilts_expected=3),
    ]
    assert parts.process()
    lamellae = [one.message for one in parts.sent if one.topic == "lamella"]
    assert [one.tilts_expected for one in lamellae] == [41, 71, 33]  # type: ignore[union-attr]
    assert parts.journal.history(one.lamella, "s1").tilts_expected == 33
    parts.die()


def failing(number: int) -> NotReady:
    """What a source makes of an error of the file system."""
    error = NotReady("'L1.mrc' cannot be read: it went wrong", "unreadable")
    error.__cause__ = PixelsError("cannot be read", "unreadable")
    error.__cause__.__cause__ = OSError(number, "it went wrong")
    return error


def state(problems: Problems) -> str:
    return judge(warm=True, intake=FINE, problems=problems, failing_sinks={}).state


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_a_file_system_that_gives_nothing_is_stalled(tmp_path: Path, number: int) -> None:
    parts = Parts(tmp_path)
    parts.told.error = failing(number)
    assert not parts.process()
    health = judge(warm=True, intake=FINE, problems=parts.problems, failing_sinks={})
    assert (health.state, health.reason) == ("stalled", str(parts.told.error))
    parts.told.error = None
    assert parts.process()
    assert state(parts.problems) == "ready"
    parts.die()


def test_one_bad_file_among_good_ones_is_no_stall(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.told.error = failing(errno.EIO)
    assert not parts.process()
    parts.told.error = None
    assert parts.process(OTHER)
    for _ in range(3):
        parts.told.error = failing(errno.EIO)
        assert not parts.process()
        assert state(parts.problems) == "ready"
    parts.told.error = None
    assert parts.process()
    parts.told.error = failing(errno.EIO)
    assert not parts.process()
    assert state(parts.problems) == "stalled", "it was good in between"
    parts.die()


@pytest.mark.parametrize("error", [failing(errno.EACCES), NotReady("a", "b"), Unreadable("a", "b")])
def test_what_is_wrong_with_one_file_is_no_stall(tmp_path: Path, error: Exception) -> None:
    parts = Parts(tmp_path)
    parts.told.error = error
    parts.process()
    assert state(parts.problems) == "ready"
    parts.die()


def test_how_long_the_worker_waits_for_the_file_system(tmp_path: Path) -> None:
    stop = threading.Event()
    pace = Pace(1000.0, stop)
    parts = Parts(tmp_path, pace=pace)
    reached, answer = threading.Event(), threading.Event()

    def hang() -> None:
        reached.set()
        answer.wait(10.0)
        pace(10_000)
        pace(1)

    parts.told.tilts = [tilt(3.0)]
    parts.told.pixels_of = {3.0: hang}
    assert parts.pipeline.reading_since_s is None
    worker = threading.Thread(target=parts.process)
    began_s = time.monotonic()
    worker.start()
    try:
        assert reached.wait(10.0)
        since_s = parts.pipeline.reading_since_s
        assert since_s is not None
        assert began_s <= since_s <= time.monotonic()
        answer.set()
        wait_until(lambda: pace.asked_s == float("inf"), "the pace to hold it back")
        assert parts.pipeline.reading_since_s is None, "the file system owes nothing then"
    finally:
        answer.set()
        stop.set()
        worker.join(10.0)
    assert parts.pipeline.reading_since_s is None
    assert parts.angles() == [], "the stop ended it"
    parts.die()
