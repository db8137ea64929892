"""Folders of plans that were built ahead of time, perhaps on another machine.

What is protected: root or icewatch's own user must own folder and files, and nobody else may be
able to write there; hashes then show damage on the way (a copy that was cut, a failing disk).
What is not: whoever may write there as one of these two, and the machine that built the plans,
are trusted, as they are with any program that is installed. A plan fetched from anywhere else
can carry any code: build it instead, that takes seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from engines.plans.errors import PlanError
from engines.plans.folder import opened, shared
from engines.plans.key import PlanKey
from engines.plans.record import NO_SECRET, Kind, stem
from engines.plans.shelf import Found, Shelf

_LIBRARYS_OWN_CHOICE_FROM = (8, 0)
"""Without named cards tensorrt_rtx builds for Ampere (8.0) and all later ones."""


def prepare(directory: Path) -> None:
    """Make the folder where it is not there, and check it; raises `PlanError`."""
    with opened(directory, shared(), create=True):
        pass


def keep_prepared(
    directory: Path, key: PlanKey, content: bytes, bundle: str, kind: Kind = "plan"
) -> Path:
    """Write a plan into a folder, made where it is not there; raises `PlanError`."""
    with opened(directory, shared(), create=True) as folder:
        return directory / Shelf(folder, NO_SECRET).put(key, kind, content, bundle)


def take_timings(directory: Path, key: PlanKey) -> bytes:
    """Give what an earlier build for such a key taught; empty where that is not there or not sound.

    Raises `PlanError` for the folder alone.
    """
    try:
        with opened(directory, shared()) as folder:
            name = stem(key.without_graph(), "timings")
            with contextlib.suppress(PlanError):
                return Shelf(folder, NO_SECRET).take(name)[1]
    except FileNotFoundError:
        pass
    return b""


def take_prepared(
    directory: Path, wanted: PlanKey, report: Callable[[str], None] = lambda _: None
) -> bytes | None:
    """Look for a sound plan of this graph and library that runs on this card.

    `wanted` is the key of the plan that would be built here, with the card. What is damaged or
    foreign is reported and passed over, never deleted. Raises `PlanError` for the folder alone.
    """
    try:
        with opened(directory, shared()) as folder:
            shelf = Shelf(folder, NO_SECRET)
            for name in shelf.names():
                if not name.endswith(".plan"):
                    continue
                try:
                    if serves(shelf.record(name).key, wanted):
                        return shelf.take(name)[1]
                except FileNotFoundError:
                    continue
                except PlanError as error:
                    report(f"The plan {name} in '{directory}' is not used: {error}")
    except FileNotFoundError:
        report(f"'{directory}' is not there: build plans with icewatch engine build --out.")
    return None


def survey_prepared(directory: Path) -> list[Found]:
    """Check every plan in a folder; raises `FileNotFoundError` and `PlanError`."""
    with opened(directory, shared()) as folder:
        return Shelf(folder, NO_SECRET).survey()


def serves(made: PlanKey, wanted: PlanKey) -> bool:
    """Whether a plan with the key `made` may run where `wanted` would be built."""
    own_choice = {"compute_capabilities": ()}
    bare = made.model_copy(
        update={"card": None, "options": made.options.model_copy(update=own_choice)}
    )
    asked = wanted.model_copy(
        update={"card": None, "options": wanted.options.model_copy(update=own_choice)}
    )
    return bare == asked and _runs_on(made, wanted)


def _runs_on(made: PlanKey, wanted: PlanKey) -> bool:
    if made.card is not None or wanted.card is None:
        return made.card == wanted.card
    capability = wanted.card.compute_capability
    named = made.options.compute_capabilities
    if named:
        return capability in named
    major, minor = capability.split(".")
    return (int(major), int(minor)) >= _LIBRARYS_OWN_CHOICE_FROM
