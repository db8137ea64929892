"""Whatever happens on the server and to the daemon, each exposure is published exactly once.

A state machine draws what a microscope, other people, a share and a daemon do, step by step: its
real intake, sources, pipeline and journal run against a model that knows every exposure. Each
exposure shows a number of its own in all its pixels, so the model also sees whose pixels were read.

What must hold, for every message when it is sent:
- no exposure is published twice, whatever name it came under; the same message may come again
  after a death, byte for byte and under its old seq;
- what is said of an exposure (angle, time, file) goes with the pixels that were read;
- no exposure is published that was never complete on disk;
- nothing below the acquisition directory is opened to be written, nobody sleeps, and no
  unexpected error is swallowed.
And for every exposure: once it lies there complete, and nobody touched its series while a daemon
scanned and worked for about a minute, it is published. At the end everything is put right, and all
that lies there complete then is published; the seqs have no gaps.

Not lost is therefore, and only, what nobody could have read for long enough:
- an exposure that was overwritten, deleted or begun anew within that minute, while no daemon ran,
  or while the share was away;
- one that never became complete, because the microscope stopped in the middle of it;
- one of two movies that had the same name one after the other, where one of them has no mdoc with
  a usable time: nothing tells them apart then, and doubling would be the other mistake;
- a tilt at which the daemon died twice in a row, until somebody asks for it with `icewatch retry`
  (at the end somebody does).

What the microscope keeps to: five seconds between two exposures, and no pause while sections are
replaced in place, since a finished copy looks just like a replacement that was left half done.
A file or folder that is renamed for good, within the directory, is another series by definition,
so files are renamed to names that are no images, or out of the directory, and back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.pretend_session import Series
from tests.pretend_stage import Stage, pretend_stage

MOST_SERIES = 4
ANY = st.integers(0, 8)
PLACES = st.integers(0, 5000)
COUNTS = st.integers(1, 5)
STEPS = st.integers(1, 9)
KINDS = st.sampled_from(["stack", "movies", "stack and movies", "Tomography"])
FOLDERS = st.sampled_from(["s1", "s1/gridA", "s2", ""])
OPERATIONS = st.sampled_from(["tilt", "overwrite", "rewrite", "sort", "sort in place", "again"])
TAMPERING = st.sampled_from(["cut", "aside", "folder", "gone", "replace", "touch"])
MOMENTS = st.sampled_from(
    ["open", "list", "inference", "pixels", "draft", "committed", "put", "any"]
)
PAUSES_S = st.sampled_from([1.0, 3.0, 6.0, 20.0, 70.0, 4000.0, 90000.0])
SERVER_JUMPS_S = st.sampled_from([0.0, 3600.0, -3600.0, 86400.0, -86400.0, -1.7e9, 2.5e9])
WALL_JUMPS_S = st.sampled_from([0.0, 3600.0, -86400.0])


class ExactlyOnce(RuleBasedStateMachine):
    """Draws sequences of all that can happen."""

    stage: ClassVar[Stage]

    def __init__(self) -> None:
        super().__init__()
        self.world = self.stage.new_world()

    def teardown(self) -> None:
        try:
            self.world.end()
        finally:
            self.stage.strike(self.world)

    @invariant()
    def nothing_went_wrong(self) -> None:
        self.world.judge()

    def one(self, at: int) -> Series:
        return self.world.series[at % len(self.world.series)]

    @initialize(kind=KINDS, folder=FOLDERS, is_coarse=st.booleans())
    def first_series(self, kind: str, folder: str, is_coarse: bool) -> None:
        self.world.clocks.is_coarse = is_coarse
        self.world.begin_series(kind, folder)

    # The microscope.

    @rule(kind=KINDS, folder=FOLDERS, crlf=st.booleans())
    def series_begins(self, kind: str, folder: str, crlf: bool) -> None:
        if len(self.world.series) < MOST_SERIES:
            self.world.begin_series(kind, folder, "\r\n" if crlf else "\n")

    @rule(at=ANY, tilts=st.integers(1, 4), where=ANY)
    def whole_tilts(self, at: int, tilts: int, where: int) -> None:
        series = self.one(at)
        self.world.write(series)
        for _ in range(tilts):
            series.begin("tilt", where)
            self.world.write(series)

    @rule(at=ANY, what=OPERATIONS, where=ANY, steps=STEPS)
    def some_writes(self, at: int, what: str, where: int, steps: int) -> None:
        series = self.one(at)
        series.begin(what, where)
        self.world.write(series, steps)

    @rule(at=ANY)
    def the_rest_is_written(self, at: int) -> None:
        self.world.write(self.one(at))

    # Other people, the share, and the clocks.

    @rule(at=ANY, what=TAMPERING, where=PLACES)
    def somebody_tampers(self, at: int, what: str, where: int) -> None:
        self.world.tamper(self.one(at), what, where)

    @rule()
    def somebody_puts_it_right(self) -> None:
        self.world.put_one_right()

    @rule(otherwise=st.booleans())
    def the_share_goes_or_comes(self, otherwise: bool) -> None:
        if self.world.mounted:
            self.world.blink(empty=otherwise)
        else:
            self.world.remount(anew=otherwise)

    @rule(server_s=SERVER_JUMPS_S, wall_s=WALL_JUMPS_S)
    def clocks_jump(self, server_s: float, wall_s: float) -> None:
        self.world.clocks.server_jump_s = server_s
        self.world.clocks.wall_jump_s = wall_s

    @rule(seconds=PAUSES_S)
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    # The daemon.

    @rule(turns=st.integers(0, 3), pause_s=st.sampled_from([2.0, 0.0, 6.0]))
    def scanned(self, turns: int, pause_s: float) -> None:
        self.world.start()
        self.world.pass_time(pause_s)
        self.world.scan()
        self.world.work(turns)

    @rule(at=ANY, closed=st.booleans())
    def hinted(self, at: int, closed: bool) -> None:
        self.world.hint(self.one(at), closed=closed)
        self.world.scan()

    @rule()
    def all_is_attended_to(self) -> None:
        self.world.attend()

    @rule(cleanly=st.booleans(), again=st.booleans())
    def the_daemon_ends_or_starts(self, cleanly: bool, again: bool) -> None:
        (self.world.stop if cleanly else self.world.kill)()
        if again:
            self.world.start()

    # What happens between two steps of the daemon.

    @rule(kind=MOMENTS, count=COUNTS, at=ANY, what=OPERATIONS, steps=STEPS)
    def written_to_meanwhile(self, kind: str, count: int, at: int, what: str, steps: int) -> None:
        series = self.one(at)

        def write() -> None:
            series.begin(what)
            self.world.write(series, steps)
            if steps % 2:
                self.world.scan_meanwhile()

        self.world.moments.arm(kind, count, write)
        self.worker_is_given(series)

    @rule(kind=MOMENTS, count=COUNTS, at=ANY, what=TAMPERING, where=PLACES)
    def tampered_with_meanwhile(
        self, kind: str, count: int, at: int, what: str, where: int
    ) -> None:
        series = self.one(at)
        self.world.moments.arm(kind, count, lambda: self.world.tamper(series, what, where))
        self.worker_is_given(series)

    @rule(kind=MOMENTS, count=COUNTS, at=ANY)
    def killed_meanwhile(self, kind: str, count: int, at: int) -> None:
        self.world.arm_kill(kind, count)
        self.worker_is_given(self.one(at))

    def worker_is_given(self, series: Series) -> None:
        """See to it that there is a tilt to read, and have the worker read it."""
        self.world.start()
        series.begin("tilt")
        self.world.write(series)
        for _ in range(2):
            self.world.pass_time(2.0)
            self.world.scan()
            self.world.work(2)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pretend_stage(monkeypatch) as made:
        monkeypatch.setattr(ExactlyOnce, "stage", made, raising=False)
        yield


def run(sequences: int, number: int | None) -> None:
    """Run so many sequences: always the same ones, or those that a seed gives."""
    run_state_machine_as_test(
        ExactlyOnce if number is None else seed(number)(ExactlyOnce),
        settings=settings(
            max_examples=sequences,
            stateful_step_count=15,
            deadline=None,
            derandomize=number is None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("stage")
def test_each_exposure_is_published_exactly_once() -> None:
    run(2_000, None)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.usefixtures("stage")
def test_each_exposure_is_published_exactly_once_in_many_more_sequences() -> None:
    sequences = int(os.environ.get("ICEWATCH_SEQUENCES", "50000"))
    number = int(os.environ.get("ICEWATCH_SEED", "1"))
    print(f"{sequences} sequences with seed {number}")
    run(sequences, number)
