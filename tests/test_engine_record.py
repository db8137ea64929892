"""Deaths in calls of the GPU are counted over restarts, and end in service by the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.engine_record import DEATHS_MAX, FILE, REST_S, SOUND_AFTER_CALLS, EngineRecord


class Clock:
    def __init__(self) -> None:
        self.now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


def die_in_call(directory: Path, clock: Clock, plan: str = "a") -> None:
    record = EngineRecord(directory, clock)
    record.may_serve(plan)
    with pytest.raises(RuntimeError), record.call():
        raise RuntimeError
    record.close()


def test_nothing_happened_yet(tmp_path: Path) -> None:
    record = EngineRecord(tmp_path)
    assert not record.died_in_call
    assert record.may_serve("a")
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_an_end_between_calls_is_no_death(tmp_path: Path) -> None:
    record = EngineRecord(tmp_path)
    record.may_serve("a")
    with record.call():
        pass
    assert not EngineRecord(tmp_path).died_in_call


def test_deaths_in_a_row_keep_the_gpu_from_serving_until_it_rested(tmp_path: Path) -> None:
    clock = Clock()
    for _ in range(DEATHS_MAX):
        assert EngineRecord(tmp_path, clock).may_serve("a")
        die_in_call(tmp_path, clock)
    assert not EngineRecord(tmp_path, clock).may_serve("a")
    clock.now_s += REST_S - 1
    assert not EngineRecord(tmp_path, clock).may_serve("a")
    clock.now_s += 2
    assert EngineRecord(tmp_path, clock).may_serve("a")
    die_in_call(tmp_path, clock)
    assert not EngineRecord(tmp_path, clock).may_serve("a")


def test_a_clock_set_back_does_not_keep_the_gpu_out_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    for _ in range(DEATHS_MAX):
        die_in_call(tmp_path, clock)
    assert not EngineRecord(tmp_path, clock).may_serve("a")
    clock.now_s -= 1e6
    assert EngineRecord(tmp_path, clock).may_serve("a")


def test_another_plan_starts_from_zero(tmp_path: Path) -> None:
    clock = Clock()
    for _ in range(DEATHS_MAX):
        die_in_call(tmp_path, clock)
    assert EngineRecord(tmp_path, clock).may_serve("b")
    assert EngineRecord(tmp_path, clock).may_serve("b")


def test_many_sound_calls_make_up_for_a_death(tmp_path: Path) -> None:
    clock = Clock()
    die_in_call(tmp_path, clock)
    record = EngineRecord(tmp_path, clock)
    assert record.deaths == 1
    for _ in range(SOUND_AFTER_CALLS):
        with record.call():
            pass
    assert EngineRecord(tmp_path, clock).deaths == 0


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(1)", "os.abort()"])
def test_a_process_that_dies_in_a_call_is_counted(tmp_path: Path, end: str) -> None:
    code = (
        "import os, sys; from pathlib import Path; from monitor.engine_record import EngineRecord\n"
        "record = EngineRecord(Path(sys.argv[1])); record.may_serve('a')\n"
        f"with record.call(): {end}"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=Path.cwd())
    record = EngineRecord(tmp_path)
    assert record.died_in_call
    assert record.deaths == 1


@given(content=st.binary(max_size=200))
def test_any_content_of_the_file_is_taken(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    directory = tmp_path_factory.mktemp("state")
    (directory / FILE).write_bytes(content)
    record = EngineRecord(directory)
    record.may_serve("a")
    record.close()
    assert (directory / FILE).stat().st_size <= 4096
