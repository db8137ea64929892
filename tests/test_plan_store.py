"""The cache gives back exactly what was kept, or nothing: then the plan is built anew."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.plans.folder import TEMPORARY
from engines.plans.key import BuildOptions, PlanKey
from engines.plans.record import Kind
from engines.plans.store import PlanStore
from tests.plans import CARD, CONTENT, KEY, Kept, files, keys, needs_root, refused
from tests.privileges import as_nobody

OTHER = KEY.model_copy(update={"graph_sha256": "2" * 64})


SHARED_FIXTURE = [HealthCheck.function_scoped_fixture]


REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "state" / "engines")


def test_what_was_kept_comes_back_and_nothing_else(kept: Kept) -> None:
    assert kept.store.load(KEY) == CONTENT
    assert kept.store.load(OTHER) is None and kept.store.load(KEY, "timings") is None
    kept.store.put(OTHER, b"", "empty 1")
    kept.store.put(KEY.without_graph(), b"timings", kind="timings")
    assert kept.store.load(OTHER) == b"" and kept.store.load(KEY) == CONTENT
    assert kept.store.load(KEY.without_graph(), "timings") == b"timings"
    assert kept.said == []
    assert PlanStore(kept.store.directory).load(KEY) == CONTENT
    assert [one.fault for one in kept.store.survey()] == ["", "", ""]


def test_an_empty_cache_is_no_fault_and_is_made_private(tmp_path: Path) -> None:
    store = PlanStore(tmp_path / "a" / "engines")
    assert store.load(KEY) is None and not store.directory.exists()
    store.discard(KEY, "nothing there")
    before = os.umask(0)
    try:
        store.put(KEY, CONTENT)
    finally:
        os.umask(before)
    assert store.directory.stat().st_mode & 0o777 == 0o700
    for one in (store.secret_file, *files(store.directory, KEY)):
        assert one.stat().st_mode & 0o777 == 0o600


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changed=keys)
def test_a_plan_serves_its_own_key_alone(kept: Kept, changed: PlanKey) -> None:
    assert kept.store.load(changed) is None
    assert kept.store.load(KEY) == CONTENT


@pytest.mark.parametrize(
    "change",
    [
        {"library_version": "1.7.2"},
        {"library": "tensorrt"},
        {"recipe": KEY.recipe + 1},
        {"card": None},
        {"card": CARD.model_copy(update={"driver": "581.00"})},
        {"card": CARD.model_copy(update={"error_correction": True})},
        {"options": BuildOptions(precision="fp32")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_plan_for_another_machine_is_not_found_under_its_name(
    kept: Kept, change: dict[str, object]
) -> None:
    other = KEY.model_copy(update=change)
    assert kept.store.load(other) is None
    for mine, theirs in zip(
        files(kept.store.directory, KEY), files(kept.store.directory, other), strict=True
    ):
        shutil.copy(mine, theirs)
    assert kept.store.load(other) is None
    assert "name of another" in kept.said[0]
    assert kept.store.load(KEY) == CONTENT


@needs_root
def test_without_rights_nothing_can_be_kept_and_it_says_so(nobodys_path: Path) -> None:
    os.chown(nobodys_path, 0, 0)
    nobodys_path.chmod(0o755)

    def work() -> str:
        store = PlanStore(nobodys_path / "engines")
        assert store.load(KEY) is None
        return refused(partial(store.put, KEY, CONTENT), "storage")

    assert "icewatch's user" in as_nobody(work)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(nobodys_path: Path) -> None:
    def work() -> tuple[str, list[str]]:
        store = PlanStore(nobodys_path / "engines")
        store.put(KEY, b"small")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            sentence = refused(partial(store.put, OTHER, bytes(2000)), "storage")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert store.load(KEY) == b"small" and store.load(OTHER) is None
        return sentence, sorted(one.name for one in store.directory.iterdir())

    sentence, left = as_nobody(work)
    assert "make room" in sentence
    assert left == sorted(one.name for one in files(nobodys_path, KEY))


def test_only_the_newest_plans_are_kept(tmp_path: Path) -> None:
    store = PlanStore(tmp_path / "engines", most_plans=3)
    made = [KEY.model_copy(update={"recipe": number}) for number in range(6)]
    timings: Kind = "timings"
    store.put(KEY.without_graph(), b"timings", kind=timings)
    for key in made:
        store.put(key, key.digest.encode())
        time.sleep(0.01)
    assert [store.load(key) for key in made] == [
        None,
        None,
        None,
        *(key.digest.encode() for key in made[3:]),
    ]
    assert store.load(KEY.without_graph(), timings) == b"timings"
    assert len(list(store.directory.iterdir())) == 8


def test_what_a_dead_writer_left_is_swept_away_after_a_while(kept: Kept) -> None:
    old, new = (kept.store.directory / f"{TEMPORARY}{name}" for name in ("old", "new"))
    for one in (old, new):
        one.write_bytes(b"half")
    os.utime(old, (0, 0))
    kept.keep()
    assert not old.exists() and new.exists()


def test_a_plan_that_failed_in_use_is_thrown_away(kept: Kept) -> None:
    kept.store.discard(KEY, "it answered NaN.")
    assert kept.said and "answered NaN" in kept.said[0]
    assert kept.store.load(KEY) is None


def test_a_plan_that_the_process_died_of_is_not_loaded_again(kept: Kept) -> None:
    assert not PlanStore(kept.store.directory / "none").died_of(KEY)
    for trial, died in ((kept.store.begin_trial, True), (kept.store.end_trial, False)):
        trial(KEY)
        assert kept.store.died_of(KEY) == died and not kept.store.died_of(OTHER)
    assert kept.store.load(KEY) == CONTENT
    kept.store.begin_trial(KEY)
    assert "died" in kept.is_thrown_away()
    assert not kept.store.died_of(KEY)


WRITER = """
import sys
from pathlib import Path
from engines.plans.store import PlanStore
from tests.plans import KEY
store = PlanStore(Path(sys.argv[1]), print)
print("ready", flush=True)
while True:
    for byte in range(256):
        store.put(KEY, bytes([byte]) * 3000)
        found = store.load(KEY)
        assert found is not None and len(set(found)) == 1, found
"""


def test_a_plan_is_whole_or_not_there_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    said: list[str] = []
    store = PlanStore(tmp_path / "engines", said.append)
    command = [sys.executable, "-c", WRITER, str(store.directory)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "ready\n"
        found: list[bytes | None] = []
        while len([one for one in found if one]) < 30:
            found.append(store.load(KEY))
        writer.send_signal(signal.SIGKILL)
        assert writer.communicate()[0] == ""
    found.append(store.load(KEY))
    contents = [one for one in found if one is not None]
    assert all(len(one) == 3000 and len(set(one)) == 1 for one in contents)
    assert len(said) <= 1, "only what was being written when the writer was killed"


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("put", "load", "swap", "flip", "cut", "record", "mode", "again")),
            st.sampled_from((KEY, OTHER)),
            st.integers(0, 10**6),
        ),
        max_size=12,
    )
)
def test_whatever_happens_to_the_files_wrong_bytes_never_come_out(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, PlanKey, int]]
) -> None:
    directory = tmp_path_factory.mktemp("state") / "engines"
    # an older plan of the same key is ours too, and as good
    store, ours = (
        PlanStore(directory),
        dict[PlanKey, set[bytes | None]]({KEY: {None}, OTHER: {None}}),
    )
    for action, key, number in steps:
        plan, record = files(directory, key)
        if action == "put":
            content = f"{number}".encode() * 10
            ours[key].add(content)
            store.put(key, content)
        elif action == "load":
            assert store.load(key) in ours[key]
        elif action == "again":
            store = PlanStore(directory)
        elif action == "swap" and plan.exists():
            other = files(directory, OTHER if key is KEY else KEY)
            for mine, theirs in zip((plan, record), other, strict=True):
                shutil.copy(mine, theirs)
                theirs.chmod(0o600)
        elif plan.exists() and record.exists():
            path = record if action == "record" else plan
            damaged = bytearray(path.read_bytes())
            if action == "mode":
                path.chmod(0o644)
            elif action == "cut":
                path.write_bytes(damaged[: number % len(damaged)])
            else:
                damaged[number % len(damaged)] ^= 1 << number % 8
                path.write_bytes(damaged)
    for key in (KEY, OTHER):
        assert store.load(key) in ours[key]
