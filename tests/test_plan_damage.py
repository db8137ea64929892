"""A plan that was damaged or exchanged is thrown away before anything sees its bytes."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from engines.plans.build import build_plan
from engines.plans.errors import PlanError
from engines.plans.folder import opened, private
from engines.plans.key import BuildOptions
from engines.plans.shelf import Shelf
from engines.plans.store import PlanStore
from tests import tiny_bundle
from tests.plans import CONTENT, KEY, Kept, builder, needs_root, refused
from tests.privileges import NOBODY

OTHER = KEY.model_copy(update={"graph_sha256": "2" * 64})


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "state" / "engines")


def positions(size: int, count: int) -> Iterator[int]:
    return iter({0, size - 1, *range(0, size, max(1, size // count))})


def refuses_damage(directory: Path, content: bytes, count: int) -> int:
    """Flip a bit, and cut, at `count` positions; gives how often the plan was refused."""
    kept = Kept(directory, content)
    times = 0
    with opened(directory, private()) as folder, kept.plan.open("r+b") as file:
        shelf = Shelf(folder, kept.store.secret_file.read_bytes())
        for at in positions(len(content), count):
            os.pwrite(file.fileno(), bytes([content[at] ^ (1 << at % 8)]), at)
            refused(partial(shelf.take, kept.plan.name), "damaged")
            os.pwrite(file.fileno(), content[at : at + 1], at)
            times += 1
        assert shelf.take(kept.plan.name)[1] == content
        for at in sorted(positions(len(content), count), reverse=True):
            file.truncate(at)
            refused(partial(shelf.take, kept.plan.name), "damaged")
            times += 1
    kept.is_thrown_away()
    return times


def test_a_flipped_bit_or_a_cut_is_refused_at_1000_positions(tmp_path: Path) -> None:
    assert refuses_damage(tmp_path / "engines", bytes(range(256)) * 64, 1000) >= 2000


def test_a_real_plan_is_refused_with_a_flipped_bit_or_a_cut(tmp_path: Path) -> None:
    graph = tiny_bundle.tiny_graph().SerializeToString()
    plan = build_plan(builder(), graph, BuildOptions()).plan
    assert refuses_damage(tmp_path / "engines", plan, 40) >= 80


@pytest.mark.slow
def test_a_real_plan_is_refused_with_a_flipped_bit_or_a_cut_at_1000_positions(
    tmp_path: Path,
) -> None:
    graph = tiny_bundle.tiny_graph().SerializeToString()
    plan = build_plan(builder(), graph, BuildOptions()).plan
    assert refuses_damage(tmp_path / "engines", plan, 1000) >= 2000


def test_every_flipped_bit_of_a_record_is_refused(kept: Kept) -> None:
    content = kept.record.read_bytes()
    with opened(kept.store.directory, private()) as folder, kept.record.open("r+b") as file:
        shelf = Shelf(folder, kept.store.secret_file.read_bytes())
        for at, byte in enumerate(content):
            for bit in range(8) if at % 7 == 0 else (at % 8,):
                os.pwrite(file.fileno(), bytes([byte ^ (1 << bit)]), at)
                with pytest.raises(PlanError):
                    shelf.record(kept.plan.name)
            os.pwrite(file.fileno(), bytes([byte]), at)
        assert shelf.take(kept.plan.name)[1] == CONTENT


def spaced(record: Path) -> None:
    record.write_text(json.dumps(json.loads(record.read_text())))


def forged(record: Path) -> None:
    content = json.loads(record.read_text())
    content["bundle"] = "other 1"
    record.write_text(json.dumps(content, indent=1) + "\n")


def linked(path: Path) -> None:
    elsewhere = path.with_name(f"elsewhere-{path.name}.txt")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def doubled(path: Path) -> None:
    path.with_name("second name").hardlink_to(path)


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"1")


def sparse(path: Path) -> None:
    os.truncate(path, 1 << 40)


CHANGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "grown": grown,
    "huge": sparse,
    "link": linked,
    "second name": doubled,
    "pipe": piped,
    "readable by others": lambda path: path.chmod(0o604),
    "writable by the group": lambda path: path.chmod(0o620),
}


RECORD_CHANGES: dict[str, Callable[[Path], object]] = {
    "spaces": spaced,
    "another bundle": forged,
    "deep": lambda path: path.write_text("[" * 60_000),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_plan_that_is_not_as_it_was_left_is_thrown_away(kept: Kept, change: str) -> None:
    CHANGES[change](kept.plan)
    kept.is_thrown_away()


@pytest.mark.parametrize("change", [*CHANGES, *RECORD_CHANGES])
def test_a_record_that_is_not_as_it_was_left_is_thrown_away(kept: Kept, change: str) -> None:
    (CHANGES | RECORD_CHANGES)[change](kept.record)
    kept.is_thrown_away()


def test_links_are_removed_and_what_they_lead_to_stays(kept: Kept, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(CONTENT)
    kept.plan.unlink()
    kept.plan.symlink_to(precious)
    kept.is_thrown_away()
    assert precious.read_bytes() == CONTENT


@needs_root
@pytest.mark.parametrize("which", ["plan", "record"])
def test_a_file_of_another_user_is_thrown_away(kept: Kept, which: str) -> None:
    os.chown(getattr(kept, which), NOBODY, NOBODY)
    assert f"belongs to user {NOBODY}" in kept.is_thrown_away()


def test_a_whole_plan_from_another_cache_is_refused(kept: Kept, tmp_path: Path) -> None:
    other = Kept(tmp_path / "other" / "engines", b"code of somebody else")
    for theirs, mine in ((other.plan, kept.plan), (other.record, kept.record)):
        shutil.copy(theirs, mine)
    assert "not sealed here" in kept.is_thrown_away()


def test_a_cache_that_was_copied_whole_is_worth_nothing(kept: Kept, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "engines"
    shutil.copytree(kept.store.directory, copy)
    copy.chmod(0o700)
    said: list[str] = []
    assert PlanStore(copy, said.append).load(KEY) is None
    assert "not sealed here" in said[0]


@pytest.mark.parametrize(
    "change", [CHANGES[name] for name in ("empty", "link", "readable by others", "grown")]
)
def test_a_secret_that_is_not_as_it_was_left_is_replaced(
    kept: Kept, change: Callable[[Path], object]
) -> None:
    before = kept.store.secret_file.read_bytes()
    change(kept.store.secret_file)
    assert kept.store.load(KEY) is None
    assert [one.startswith("The secret of") for one in kept.said] == [True, False]
    assert kept.store.secret_file.read_bytes() != before
    kept.keep()
    assert kept.store.load(KEY) == CONTENT


@pytest.mark.parametrize("mode", [0o750, 0o702, 0o755, 0o777])
def test_a_folder_that_others_can_enter_is_refused_with_the_remedy(kept: Kept, mode: int) -> None:
    kept.store.directory.chmod(mode)
    other = partial(kept.store.load, OTHER)
    for work in (partial(kept.store.load, KEY), other, partial(kept.store.put, KEY, b"")):
        sentence = refused(work, "directory")
        assert str(kept.store.directory) in sentence and "chmod -R go=" in sentence
    kept.store.directory.chmod(0o700)
    assert kept.store.load(KEY) == CONTENT


@needs_root
def test_a_folder_of_another_user_is_refused(kept: Kept) -> None:
    os.chown(kept.store.directory, NOBODY, NOBODY)
    assert "chown" in refused(partial(kept.store.load, KEY), "directory")


def test_a_folder_behind_a_link_and_a_file_are_refused(kept: Kept, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(kept.store.directory)
    for path in (link, kept.plan):
        refused(partial(PlanStore(path).load, KEY), "directory")
