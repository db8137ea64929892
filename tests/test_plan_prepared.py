"""Plans that were built ahead are taken from a folder only where nobody else can write."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.plans.key import BuildOptions, Card, PlanKey
from engines.plans.prepared import (
    keep_prepared,
    serves,
    survey_prepared,
    take_prepared,
    take_timings,
)
from engines.plans.store import PlanStore
from tests.plans import CAPABILITIES, CARD, CONTENT, KEY, cards, keys, needs_root, refused
from tests.privileges import NOBODY, as_nobody


def ahead(*named: str, key: PlanKey = KEY) -> PlanKey:
    """Make the key of a plan that was built ahead for cards."""
    options = key.options.model_copy(update={"compute_capabilities": named})
    return key.model_copy(update={"card": None, "options": options})


def with_card(capability: str) -> PlanKey:
    card = CARD.model_copy(update={"compute_capability": capability})
    return KEY.model_copy(update={"card": card})


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(CAPABILITIES), min_size=1, unique=True), cards)
def test_a_plan_serves_the_cards_it_was_built_for(named: list[str], card: Card) -> None:
    wanted = KEY.model_copy(update={"card": card})
    assert serves(ahead(*named), wanted) == (card.compute_capability in named)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_without_named_cards_a_plan_serves_all_from_ampere_on(capability: str) -> None:
    assert serves(ahead(), with_card(capability)) == (float(capability) >= 8.0)


@settings(deadline=None, max_examples=50)
@given(keys, keys)
def test_whatever_else_differs_a_plan_does_not_serve(made: PlanKey, wanted: PlanKey) -> None:
    def rest(key: PlanKey) -> PlanKey:
        return ahead(key=key)

    if serves(made, wanted):
        assert rest(made) == rest(wanted)
    assert serves(wanted, wanted)


@settings(deadline=None, max_examples=50)
@given(cards, cards)
def test_a_plan_of_a_card_serves_just_that_card(one: Card, other: Card) -> None:
    made, wanted = (KEY.model_copy(update={"card": card}) for card in (one, other))
    assert serves(made, wanted) == (one == other)


def test_a_plan_is_taken_where_it_serves(tmp_path: Path) -> None:
    folder, said = tmp_path / "plans", list[str]()
    assert take_prepared(folder, KEY, said.append) is None
    assert "engine build" in said.pop()
    keep_prepared(folder, ahead("8.9"), b"for another card", "tiny 1")
    assert take_prepared(folder, KEY, said.append) is None
    keep_prepared(folder, ahead("8.6", "12.0"), CONTENT, "tiny 1")
    keep_prepared(folder, KEY.without_graph(), b"timings", "", "timings")
    assert take_prepared(folder, KEY, said.append) == CONTENT
    other = KEY.model_copy(update={"graph_sha256": "2" * 64})
    assert take_prepared(folder, other, said.append) is None
    assert said == []
    assert take_timings(folder, KEY) == b"timings"
    assert [one.fault for one in survey_prepared(folder)] == ["", "", ""]


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        flipped,
        Path.unlink,
        lambda path: os.truncate(path, 100),
        lambda path: path.chmod(0o664),
        lambda path: path.chmod(0o646),
        pytest.param(lambda path: os.chown(path, NOBODY, -1), marks=needs_root),
    ],
    ids=["flipped", "missing", "cut", "group", "others", "owner"],
)
@pytest.mark.parametrize("which", ["plan", "record"])
def test_what_is_not_sound_is_passed_over_and_left(
    tmp_path: Path, change: Callable[[Path], object], which: str
) -> None:
    folder, said = tmp_path / "plans", list[str]()
    plan = keep_prepared(folder, ahead("8.6"), CONTENT, "tiny 1")
    record = Path(f"{plan}.json")
    change(plan if which == "plan" else record)
    left = {one.name for one in folder.iterdir()}
    assert take_prepared(folder, KEY, said.append) is None
    assert len(said) == 1 and plan.name in said[0]
    assert {one.name for one in folder.iterdir()} == left
    assert [bool(one.fault) for one in survey_prepared(folder)] == [True]


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_a_new_folder_is_writable_by_its_owner_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        plan = keep_prepared(tmp_path / "plans", ahead(), CONTENT, "tiny 1")
    finally:
        os.umask(before)
    assert plan.stat().st_mode & 0o777 == 0o644
    assert plan.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mode", [0o775, 0o777, 0o757, 0o1777])
def test_a_folder_that_others_can_write_is_refused_with_the_remedy(
    tmp_path: Path, mode: int
) -> None:
    folder = tmp_path / "plans"
    keep_prepared(folder, ahead(), CONTENT, "tiny 1")
    folder.chmod(mode)
    for work in (
        partial(take_prepared, folder, KEY),
        partial(survey_prepared, folder),
        partial(keep_prepared, folder, ahead(), CONTENT, "tiny 1"),
    ):
        assert "chmod -R go-w" in refused(work, "directory")


@needs_root
def test_roots_plans_serve_everyone_and_nobodys_serve_nobody_else(nobodys_path: Path) -> None:
    roots, nobodys = nobodys_path / "roots", nobodys_path / "nobodys"
    for folder in (roots, nobodys):
        keep_prepared(folder, ahead(), CONTENT, "tiny 1")
    for one in (nobodys, *nobodys.iterdir()):
        os.chown(one, NOBODY, NOBODY)
    taken = [as_nobody(partial(take_prepared, folder, KEY)) for folder in (roots, nobodys)]
    assert taken == [CONTENT, CONTENT]
    assert take_prepared(roots, KEY) == CONTENT
    assert f"user {NOBODY}" in refused(partial(take_prepared, nobodys, KEY), "directory")


def test_a_cache_and_a_prepared_folder_do_not_pass_for_each_other(tmp_path: Path) -> None:
    cache, folder, said = tmp_path / "engines", tmp_path / "plans", list[str]()
    PlanStore(cache).put(ahead(), CONTENT, "tiny 1")
    assert take_prepared(cache, KEY, said.append) is None
    assert "not sealed here" in said.pop()
    keep_prepared(folder, KEY, CONTENT, "tiny 1")
    folder.chmod(0o700)
    for one in folder.iterdir():
        one.chmod(0o600)
    assert PlanStore(folder, said.append).load(KEY) is None
    assert "not sealed here" in said[0]


def test_a_plan_under_the_name_of_another_is_not_taken(tmp_path: Path) -> None:
    folder, said = tmp_path / "plans", list[str]()
    wrong = keep_prepared(folder, ahead("8.9"), CONTENT, "tiny 1")
    right = keep_prepared(folder, ahead("8.6"), CONTENT, "tiny 1")
    options = BuildOptions(compute_capabilities=("8.6",))
    assert ahead("8.6").options == options
    for ending in ("", ".json"):
        shutil.move(f"{right}{ending}", f"{wrong}{ending}")
    assert take_prepared(folder, KEY, said.append) is None
    assert "name of another" in said[0]
