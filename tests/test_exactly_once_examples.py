"""Sequences in which tilts were once lost or doubled, each as short as it could be made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pretend_session import Series
from tests.pretend_stage import pretend_stage
from tests.pretend_world import World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with pretend_stage(monkeypatch) as stage:
        made = stage.new_world()
        yield made
        stage.strike(made)


def tilt(world: World, series: Series, where: int = 0) -> None:
    series.begin("tilt", where)
    world.write(series)


def read(world: World) -> None:
    """Let two looks find the same, and the worker read it."""
    for _ in range(2):
        world.pass_time(2.0)
        world.scan()
        world.work()


def test_what_was_not_sent_survives_a_death_right_after_the_next_start(world: World) -> None:
    tilt(world, world.begin_series("stack", "s1"))
    world.arm_kill("committed", 1)
    read(world)
    assert world.daemon is None
    world.pass_time(480.0)
    world.start()
    world.kill()
    world.end()


def test_what_was_not_sent_survives_a_wall_clock_that_is_set_back(world: World) -> None:
    stack = world.begin_series("stack", "s1")
    tilt(world, stack)
    read(world)
    world.clocks.wall_jump_s = -86400.0
    tilt(world, stack)
    world.arm_kill("committed", 1)
    read(world)
    assert world.daemon is None
    world.end()


def test_a_section_is_overwritten_while_its_stack_waits_for_the_worker(world: World) -> None:
    stack = world.begin_series("stack", "s1")
    tilt(world, stack)
    for _ in range(2):
        world.pass_time(2.0)
        world.scan()
    stack.begin("overwrite")
    world.write(stack, 1)
    world.work()
    world.end()


@pytest.mark.parametrize("when_the_mdoc_comes", [0, 1, 2])
def test_a_stack_outside_any_folder_and_its_movies_in_one(
    world: World, when_the_mdoc_comes: int
) -> None:
    tilt(world, world.begin_series("stack and movies", ""), when_the_mdoc_comes)
    world.end()


def test_a_movie_is_taken_again_under_its_name(world: World) -> None:
    movies = world.begin_series("movies", "s1")
    tilt(world, movies)
    read(world)
    movies.begin("again")
    world.write(movies)
    world.end()
    assert sorted(world.truth.published) == [1, 2]


def test_a_tilt_is_set_aside_after_two_deaths_and_read_when_asked_for(world: World) -> None:
    tilt(world, world.begin_series("stack", "s1"))
    for _ in range(2):
        world.start()
        world.arm_kill("inference", 1)
        world.attend()
        assert world.daemon is None
    world.start()
    world.attend()
    assert not world.truth.published
    world.end()
    assert list(world.truth.published) == [1]


def test_a_tilt_that_is_written_while_another_is_read(world: World) -> None:
    stack = world.begin_series("stack", "s1")
    tilt(world, stack)

    def written() -> None:
        tilt(world, stack)
        world.scan_meanwhile()

    world.moments.arm("pixels", 1, written)
    read(world)
    world.end()
    assert sorted(world.truth.published) == [1, 2]


def test_a_suspect_in_a_stack_that_ends_in_half_a_tilt(world: World) -> None:
    stack = world.begin_series("stack", "s1")
    tilt(world, stack)
    world.arm_kill("inference", 1)
    read(world)
    assert world.daemon is None
    stack.begin("tilt")
    world.write(stack, 3)
    world.end()


def test_a_section_is_overwritten_after_the_servers_clock_was_set_back(world: World) -> None:
    stack = world.begin_series("stack", "s1")
    tilt(world, stack)
    world.clocks.server_jump_s = -3600.0
    stack.begin("overwrite")
    world.write(stack, 2)
    world.hint(stack, closed=True)
    world.scan()
    world.work()
    world.end()
