"""`icewatch replay`: a finished session lands once more, with the timing that it had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engines.microscope_step import Step
from monitor.errors import ConfigError, MonitorError
from monitor.simulate.command import Progress, say, summary
from monitor.simulate.driver import Driver
from monitor.simulate.finished import (
    Clock,
    Found,
    StackText,
    files_in,
    image_beside,
    is_image,
    mdoc_time_s,
    movie_time_s,
    shortened,
    stack_text,
)
from monitor.simulate.growing import GrowingMdoc, GrowingStack, copying
from monitor.simulate.request import refuse_place
from monitor.simulate.script import Event, Exposure, Script, Taken, Wait
from monitor.sources.naming import is_ignored, mdoc_of, parse_movie_name, place

LONGEST_GAP_S = 60.0
_LATE_S = 5.0
"""An mdoc that came so long after its movie comes late again."""


@dataclass(frozen=True, slots=True)
class _Act:
    """Something that happens at one time (s)."""

    at_s: float
    rank: tuple[float, str, int]
    """Which comes first of what happens at the same time."""
    do: Callable[[], Iterator[Event]]


def replay(directory: Path, out: Path, *, speed: float, keep_gaps: bool) -> int:
    """Let the files of a directory land in another; returns 0, or 1 if it was ended early."""
    _refuse(directory, out)
    try:
        acts = sorted(plan(directory, out), key=lambda act: (act.at_s, act.rank))
        if not acts:
            raise ConfigError(f"{directory}: holds no files")
        out.mkdir(parents=True, exist_ok=True)
        script = _script(acts, None if keep_gaps else LONGEST_GAP_S)
        exposures = sum(1 for act in acts if act.rank[2] == _EXPOSURE)
        done = Driver(out, speed=speed, on_taken=Progress(exposures)).run(script)
    except OSError as error:
        raise MonitorError(f"{error.filename or out}: {error.strerror}") from error
    say(summary(done, f"in {out}"))
    return 1 if done.stopped else 0


def _refuse(directory: Path, out: Path) -> None:
    if not directory.is_dir():
        raise ConfigError(f"{directory}: there is no such directory")
    refuse_place("--to", out, append=False)
    source, target = directory.resolve(), out.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise ConfigError(f"--to {out}: must lie outside {directory}, which is only read")


def _script(acts: list[_Act], longest_gap_s: float | None) -> Script:
    times = shortened([act.at_s for act in acts], longest_gap_s)
    for act, at_s in zip(acts, times, strict=True):
        yield Wait(at_s)
        yield from act.do()


_OTHER, _EXPOSURE, _MDOC, _END = range(4)


def plan(directory: Path, out: Path) -> list[_Act]:
    """List what happens when a session lands again."""
    files = {found.relative: found for found in files_in(directory)}
    stacks = {name: text for name in files if (text := _stack_of(files, name)) is not None}
    movies = {
        name: movie_time_s(found)
        for name, found in files.items()
        if is_image(found) and name not in stacks and not is_ignored(name)
    }
    clock = Clock(
        [(files[name].modified_s, when) for name, when in movies.items() if when is not None]
        + [(files[name].modified_s, max(one.times_s)) for name, one in stacks.items() if one.dated]
    )
    acts: list[_Act] = []
    for name, found in files.items():
        image = image_beside(found)
        if name in stacks:
            acts += _stack_acts(found, stacks[name], out / name, clock)
        elif image in stacks:
            continue  # it grows with its stack
        elif name in movies:
            when = movies[name]
            at_s = clock.at(found.modified_s) if when is None else when
            acts.append(_movie_act(found, out / name, at_s))
        elif image in movies:
            acts.append(_mdoc_act(found, files[image], out / name, movies[image], clock))
        elif image and image not in files and (text := stack_text(found.path)) is not None:
            acts += _mdoc_only_acts(found, text, out / name, clock)
        else:
            said_s = mdoc_time_s(found.path) if image and image not in files else None
            at_s = clock.at(found.modified_s) if said_s is None else said_s
            acts.append(_Act(at_s, (found.modified_s, name, _OTHER), _copy(found, out / name)))
    return acts


def _stack_of(files: dict[str, Found], name: str) -> StackText | None:
    mdoc = files.get(mdoc_of(name))
    if mdoc is None or not is_image(files[name]) or is_ignored(name):
        return None
    return stack_text(mdoc.path)


def _copy(found: Found, to: Path) -> Callable[[], Iterator[Event]]:
    return lambda: copying(found.path, to)


def _movie_act(found: Found, to: Path, at_s: float) -> _Act:
    name = parse_movie_name(found.path.name)
    key = place(found.relative, name.series).lamella
    exposure = Exposure(name.series, key, name.angle_deg or 0.0, name.number or 0, _when(at_s))

    def do() -> Iterator[Event]:
        yield from copying(found.path, to)
        yield Taken(exposure, (to,))

    return _Act(at_s, (found.modified_s, found.relative, _EXPOSURE), do)


def _mdoc_act(found: Found, movie: Found, to: Path, movie_at_s: float | None, clock: Clock) -> _Act:
    """Let an mdoc come right after its movie, or as late as it came."""
    late_s = found.modified_s - movie.modified_s
    at_s = clock.at(movie.modified_s) if movie_at_s is None else movie_at_s
    if late_s > _LATE_S:
        at_s += late_s
    return _Act(at_s, (movie.modified_s, movie.relative, _MDOC), _copy(found, to))


def _stack_acts(found: Found, text: StackText, to: Path, clock: Clock) -> Iterator[_Act]:
    """Let a stack grow in the order of acquisition, and take its own order at the end."""
    stack = GrowingStack(found.path, to, text)
    base_s = 0.0 if text.dated else clock.at(found.modified_s) - len(text.sections)
    for at, section in enumerate(stack.order):
        at_s = base_s + text.times_s[section]
        do = _section(stack, found, at, section, at_s)
        yield _Act(at_s, (found.modified_s, found.relative, _EXPOSURE), do)
    last_s = base_s + max(text.times_s)
    yield _Act(last_s + 1.0, (found.modified_s, found.relative, _END), stack.finishing)


def _section(
    stack: GrowingStack, found: Found, at: int, section: int, at_s: float
) -> Callable[[], Iterator[Event]]:
    key = place(found.relative, found.path.stem).lamella
    exposure = Exposure(found.path.stem, key, stack.angle_deg(section), at, _when(at_s))

    def do() -> Iterator[Event]:
        yield from stack.adding(section)
        yield Taken(exposure, (stack.path,))

    return do


def _mdoc_only_acts(found: Found, text: StackText, to: Path, clock: Clock) -> Iterator[_Act]:
    """Let an mdoc grow whose stack is not there."""
    mdoc = GrowingMdoc(to, text)
    base_s = 0.0 if text.dated else clock.at(found.modified_s) - len(text.sections)
    for section, time_s in enumerate(text.times_s):
        do = _mdoc_section(mdoc, section)
        yield _Act(base_s + time_s, (found.modified_s, found.relative, _MDOC), do)


def _mdoc_section(mdoc: GrowingMdoc, section: int) -> Callable[[], Iterator[Step]]:
    return lambda: mdoc.adding(section)


def _when(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC).replace(tzinfo=None)
