"""The store of bundles: whole or not there, whatever is thrown at it and whenever it dies."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from engines.bundle import GRAPH, MANIFEST, manifest_entry
from engines.bundle_store import DEFAULT, BundleStore
from engines.errors import BundleError
from monitor import bundle_actions
from monitor.bundle_actions import Place
from monitor.bundle_choice import CHOICE, read_choice
from monitor.errors import MonitorError
from tests import tiny_bundle
from tests.bundle_store_at import held_out, made
from tests.commands import icewatch
from tests.privileges import as_nobody
from tests.test_journal_daemon import small_disk


def approved(path: Path) -> None:
    """Prove nothing: here the store is tested, not the network."""


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    (tmp_path / "state").mkdir()
    return BundleStore(tmp_path / "state")


def refusal(store: BundleStore, source: Path, **more: Any) -> str:
    """Install what must not be; returns the sentence, and sees that nothing is left of it."""
    before = store.refs()
    with pytest.raises(BundleError) as caught:
        store.install(source, prove=approved, **more)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith("."), sentence
    assert ".unfinished" not in sentence
    assert store.refs() == before
    if store.directory.is_dir():
        assert {path.name for path in store.directory.iterdir()} <= {".lock", *before}
    return sentence


def test_what_is_installed_is_private_and_whole(store: BundleStore, tmp_path: Path) -> None:
    source = made(tmp_path)
    (source / "MODEL_CARD.md").write_text("of which the manifest knows nothing")
    assert store.install(source, prove=approved) == ("tuned@1", True)
    place = store.place("tuned@1")
    assert sorted(path.name for path in place.iterdir()) == [MANIFEST, GRAPH]
    for path in (store.directory, place, *place.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    shutil.rmtree(source)
    assert store.load("tuned@1").read(GRAPH)
    assert store.load(DEFAULT).name == "default"


def test_the_same_bundle_twice_is_no_mistake_and_another_one_is(
    store: BundleStore, tmp_path: Path
) -> None:
    store.install(made(tmp_path), prove=approved)
    assert store.install(made(tmp_path), prove=approved) == ("tuned@1", False)
    assert "is another one" in refusal(store, made(tmp_path, created="2026-02-02"))


def zipped(source: Path, to: Path, folder: str = "") -> Path:
    with zipfile.ZipFile(to, "w") as archive:
        for path in sorted(source.iterdir()):
            archive.write(path, folder + path.name)
    return to


@pytest.mark.parametrize("folder", ["", "tuned-1/"])
def test_a_zip_file_is_as_good_as_a_folder(store: BundleStore, tmp_path: Path, folder: str) -> None:
    source = made(tmp_path)
    assert store.install(zipped(source, tmp_path / "b.zip", folder), prove=approved)[1]
    assert store.load("tuned@1").read(GRAPH) == (source / GRAPH).read_bytes()


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "C:/evil", "..\\evil", "\\evil"]
)
def test_a_zip_file_whose_names_climb_out_is_refused(
    store: BundleStore, tmp_path: Path, name: str
) -> None:
    path = zipped(made(tmp_path), tmp_path / "b.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"evil")
    assert "climbs out" in refusal(store, path)
    assert not list(tmp_path.rglob("evil"))


def test_links_in_a_zip_file_or_folder_are_refused(store: BundleStore, tmp_path: Path) -> None:
    source = made(tmp_path)
    path = zipped(source, tmp_path / "b.zip")
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "symbolic link" in refusal(store, path)
    (source / GRAPH).rename(tmp_path / "graph")
    (source / GRAPH).symlink_to(tmp_path / "graph")
    assert GRAPH in refusal(store, source)


def _cut(source: Path, to: Path) -> Path:
    path = zipped(source, to)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _flipped(source: Path, to: Path) -> Path:
    path = zipped(source, to)
    content = bytearray(path.read_bytes())
    content[content.index(b"onnx") + 200] ^= 1
    path.write_bytes(content)
    return path


def _bomb(source: Path, to: Path) -> Path:
    (source / GRAPH).write_bytes(bytes(5 << 20))
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in source.iterdir():
            archive.write(path, path.name)
    return to


def _empty(source: Path, to: Path) -> Path:
    to.write_bytes(b"")
    return to


def _two(source: Path, to: Path) -> Path:
    zipped(source, to, "a/")
    with zipfile.ZipFile(to, "a") as archive:
        archive.write(source / MANIFEST, "b/" + MANIFEST)
    return to


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_cut, "neither a folder nor a zip"),
        (_flipped, GRAPH),
        (_bomb, "is not what manifest.json says"),
        (_empty, "neither a folder nor a zip"),
        (_two, "more than one manifest.json"),
        (lambda source, to: source / "nowhere", "is not there"),
        (lambda source, to: source.parent, MANIFEST),
    ],
)
def test_damaged_packages_are_refused(
    store: BundleStore, tmp_path: Path, spoil: Callable[[Path, Path], Path], said: str
) -> None:
    assert said in refusal(store, spoil(made(tmp_path), tmp_path / "b.zip"))


def with_graph(path: Path, edit: Callable[[Any], None], name: str = GRAPH) -> Path:
    """Put another graph into a bundle, with the hash that it has."""
    model = tiny_bundle.tiny_graph()
    edit(model)
    return with_file(path, name, model.SerializeToString())


def with_file(path: Path, name: str, content: bytes) -> Path:
    (path / name).write_bytes(content)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][name] = manifest_entry(content)
    (path / MANIFEST).write_text(json.dumps(manifest))
    return path


def _nan(model: Any) -> None:
    """One weight of the channel that nobody looks at."""
    slope = next(one for one in model.graph.initializer if one.name == "slope")
    values = numpy_helper.to_array(slope).copy()
    values[-1] = np.nan
    slope.CopyFrom(numpy_helper.from_array(values, "slope"))


def _nan_in_floats(model: Any) -> None:
    slope = next(one for one in model.graph.initializer if one.name == "slope")
    values = numpy_helper.to_array(slope).ravel()
    slope.ClearField("raw_data")
    slope.float_data.extend([*values[:-1], np.nan])


def _outside(model: Any) -> None:
    slope = next(one for one in model.graph.initializer if one.name == "slope")
    slope.ClearField("raw_data")
    slope.data_location = 1
    entry = slope.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def safetensors(values: Any, kind: str) -> bytes:
    data: bytes = values.tobytes()
    tensor = {"dtype": kind, "shape": list(values.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {}, "a": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + data


def test_weights_that_are_no_numbers_are_found_wherever_they_hide(
    store: BundleStore, tmp_path: Path
) -> None:
    for edit in (_nan, _nan_in_floats):
        assert "NaN" in refusal(store, with_graph(made(tmp_path), edit))
    weights = "weights.safetensors"
    for kind, dtype in (("F32", "<f4"), ("F16", "<f2"), ("F64", "<f8")):
        good = np.array([1.0, 2.0, np.inf], dtype)
        bad = np.array([1.0, np.nan, 2.0], dtype)
        source = made(tmp_path, version=kind)
        store.install(with_file(source, weights, safetensors(good, kind)), prove=approved)
        source = made(tmp_path, version=f"{kind}-nan")
        assert "NaN" in refusal(store, with_file(source, weights, safetensors(bad, kind)))
    for content in (
        b"",
        b"\xff" * 20,
        safetensors(np.zeros(9), "F64")[:-1],
        b"\2" + bytes(7) + b"[]",
    ):
        assert weights in refusal(store, with_file(made(tmp_path), weights, content))


def test_weights_in_other_files_are_refused(store: BundleStore, tmp_path: Path) -> None:
    assert "in other files" in refusal(store, with_graph(made(tmp_path), _outside))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "icewatch.bundle/1"}, "icewatch.bundle/1"),
        ({"name": "default"}, "belongs to the bundle that comes with icewatch"),
        ({"name": "../up"}, "no name to install under"),
        ({"version": "1@2"}, "no name to install under"),
        ({"version": "x" * 65}, "no name to install under"),
        ({"training": {"held_out": {"before": 3}}}, "training.held_out.before"),
        ({"training": {"parent": "me"}}, "training.parent"),
        ({"training": held_out(0.4, 0.9)}, "mean error 0.90 instead of 0.40"),
        ({"files": {GRAPH: {"sha256": "0" * 64, "bytes": 1}}}, "SHA-256"),
        ({"files": {"../" + GRAPH: {"sha256": "0" * 64, "bytes": 1}}}, "files"),
    ],
)
def test_bundles_that_may_not_serve_are_refused(
    store: BundleStore, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert said in refusal(store, tiny_bundle.write(tmp_path / "b", **changes))


def test_worse_is_taken_only_when_told_to(store: BundleStore, tmp_path: Path) -> None:
    worse = made(tmp_path, training=held_out(0.4, 0.9))
    assert "--even-if-worse" in refusal(store, worse)
    assert store.install(worse, even_if_worse=True, prove=approved)[1]
    same = made(tmp_path, "same", training=held_out(0.4, 0.4))
    assert store.install(same, prove=approved)[1], "the starting weights may win"


def test_what_the_proof_says_is_passed_on(store: BundleStore, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="tuned@1 is not installed: it hangs"):
        store.install(made(tmp_path), prove=lambda path: "it hangs")
    assert store.refs() == []


def test_names_need_a_version_only_where_there_are_several(
    store: BundleStore, tmp_path: Path
) -> None:
    store.install(made(tmp_path), prove=approved)
    assert store.find("tuned") == "tuned@1"
    store.install(made(tmp_path, version="2"), prove=approved)
    with pytest.raises(BundleError, match="tuned@1, tuned@2"):
        store.find("tuned")
    with pytest.raises(BundleError, match="installed are default, tuned@1"):
        store.find("other")


def test_a_store_that_others_may_write_to_is_refused(store: BundleStore, tmp_path: Path) -> None:
    store.install(made(tmp_path), prove=approved)
    store.place("tuned@1").chmod(0o777)
    with pytest.raises(BundleError, match="may be written to by others"):
        store.load("tuned@1")
    assert store.listed()[0].fault


def test_a_full_disk_leaves_nothing(nobodys_path: Path) -> None:
    state = nobodys_path / "state"
    source = with_file(made(nobodys_path), "weights.safetensors", safetensors(np.ones(9999), "F64"))

    def work() -> tuple[str, list[str]]:
        state.mkdir()
        store = BundleStore(state)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            sentence = refusal(store, source)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        store.install(source, prove=approved)
        return sentence, store.refs()

    for path in (source, *source.iterdir()):
        path.chmod(0o755)
    sentence, refs = as_nobody(work)
    assert "make room" in sentence
    assert refs == ["tuned@1"]


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_nothing_and_the_daemon_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "state"
    large = with_file(made(tmp_path), "weights.safetensors", safetensors(np.ones(999_999), "F64"))
    with small_disk(state, "6m"):
        store = BundleStore(state)
        store.install(made(tmp_path, "small"), prove=approved)
        used = os.statvfs(state).f_bfree
        assert "No space left" in refusal(store, large)
        assert os.statvfs(state).f_bfree == used
        filler = state / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        before = read_choice(store.directory)
        with pytest.raises(MonitorError, match="No space left"):
            bundle_actions.activate_bundle(Place(store, None), "small")
        assert read_choice(store.directory) == before
        filler.unlink()
        bundle_actions.activate_bundle(Place(store, None), "small")
        assert read_choice(store.directory).active == "small@1"
        assert {path.name for path in store.directory.iterdir()} == {
            ".lock",
            CHOICE,
            "small@1",
        }


def test_without_rights_nothing_is_changed_and_it_says_so(nobodys_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to make what another user may not write to")
    state, source = nobodys_path / "state", made(nobodys_path)
    state.mkdir()
    for path in (source, *source.iterdir()):
        path.chmod(0o755)
    assert "the user that icewatch runs as" in as_nobody(
        lambda: refusal(BundleStore(state), source)
    )
    os.chown(state, 65534, 65534)
    BundleStore(state).install(source, prove=approved)  # as root: it is the daemon's all the same
    assert as_nobody(lambda: BundleStore(state).load("tuned@1").name) == "tuned"


def test_two_commands_at_once_do_not_meet(store: BundleStore, tmp_path: Path) -> None:
    with store.locked():
        assert "wait for its end" in refusal_locked(store, made(tmp_path))


def refusal_locked(store: BundleStore, source: Path) -> str:
    with pytest.raises(BundleError) as caught:
        store.install(source, prove=approved)
    return str(caught.value)


def test_commands_say_what_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundle_actions, "NOTICED_S", 0.0)
    state = tmp_path / "state"
    state.mkdir()
    BundleStore(state).install(made(tmp_path, training=held_out(0.9, 0.4)), prove=approved)

    def said(words: str, status: int = 0) -> str:
        found, out, complaint = icewatch(f"bundle {words}", monkeypatch, capsys)
        assert found == status, complaint
        assert complaint.count("\n") == (status != 0)
        return out + complaint

    table = said(f"list --state {state}")
    assert "default@0.3.0" in table and "0.90" in table and "0.40" in table
    assert "the next start proves it" in said(f"activate tuned --state {state}")
    assert "asked for" in said(f"list --state {state}")
    told = json.loads(said(f"list --json --state {state}"))["bundles"]
    assert [one["part"] for one in told] == ["active", "asked for"]
    assert told[1]["held_out"]["after"]["mean_absolute_error"] == 0.4
    assert "serves, or is to" in said(f"remove tuned --state {state}", 1)
    assert "default is asked for" in said(f"rollback --state {state}")
    assert "nothing was active before" in said(f"rollback --state {state}", 1)
    said(f"activate tuned --state {state}")
    said(f"activate default --state {state}")
    assert "tuned@1 is removed" in said(f"remove tuned --state {state}")
    assert "default is asked for" in said(f"rollback --state {state}"), "not to what is gone"
    assert "nothing was active before" in said(f"rollback --state {state}", 1)
    assert "cannot be removed" in said(f"remove default --state {state}", 1)
    assert "is not installed" in said(f"activate tuned --state {state}", 1)
    assert "start icewatch once" in said(f"install {tmp_path} --state {tmp_path / 'no'}", 1)
    assert "--config FILE, or by --state DIR" in said("list", 2)


# What may happen to a store, one after the other, and what must be true of it all the time.

REFS = ("a@1", "a@2", "b-c@1")
Operation = tuple[str, str, int | None]
"""What, with which bundle, and at which of its steps on the disk it is killed."""
OPERATIONS = st.tuples(
    st.sampled_from(["install", "spoilt", "activate", "rollback", "remove"]),
    st.sampled_from([*REFS, DEFAULT]),
    st.none() | st.integers(0, 12),
)
STEPS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "fchown", "chown")


@dataclass(frozen=True)
class Model:
    """What a store should hold."""

    installed: frozenset[str] = frozenset()
    active: str = DEFAULT
    before: tuple[str, ...] = field(default=())

    def after(self, what: str, ref: str) -> Model:
        """What an operation makes of it; itself where the operation is refused."""
        known = ref in self.installed or ref == DEFAULT
        if what == "install" and ref != DEFAULT:
            return Model(self.installed | {ref}, self.active, self.before)
        if what == "activate" and known:
            before = self.before if ref == self.active else (*self.before, self.active)[-20:]
            return Model(self.installed, ref, before)
        if what == "rollback" and self.before:
            return Model(self.installed, self.before[-1], self.before[:-1])
        if what == "remove" and ref in self.installed and ref != self.active:
            kept = tuple(one for one in self.before if one != ref)
            return Model(self.installed - {ref}, self.active, kept)
        return self


def seen(store: BundleStore) -> Model:
    """What a store holds; all of it must be whole."""
    for ref in store.refs():
        assert store.load(ref).manifest
    choice = read_choice(store.directory)
    return Model(frozenset(store.refs()), choice.active, choice.before)


def operate(store: BundleStore, sources: Path, what: str, ref: str) -> None:
    place = Place(store, None)
    if what in ("install", "spoilt") and ref != DEFAULT:
        store.install(sources / what / ref, prove=approved)
    elif what == "activate":
        bundle_actions.activate_bundle(place, ref)
    elif what == "rollback":
        bundle_actions.roll_back(place)
    elif what == "remove":
        bundle_actions.remove_bundle(place, ref)


def killed(operation: Callable[[], None], at: int) -> None:
    """Run something in a process that is killed before its n-th step on the disk."""
    child = os.fork()
    if child == 0:
        left = iter(range(at, -1, -1))

        def dying(step: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*given: Any, **named: Any) -> Any:
                if next(left) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(*given, **named)

            return counted

        for name in STEPS:
            setattr(os, name, dying(getattr(os, name)))
        try:
            operation()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for ref in REFS:
        name, _, version = ref.partition("@")
        tiny_bundle.write(folder / "install" / ref, name=name, version=version)
        spoilt = tiny_bundle.write(folder / "spoilt" / ref, name=name, version=version, created="x")
        (spoilt / GRAPH).write_bytes(b"no graph")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_actions, "NOTICED_S", -1.0)


def check_sequence(sources: Path, operations: list[Operation]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, model = BundleStore(Path(folder)), Model()
        for what, ref, kill_at in operations:
            wanted = model.after(what, ref)
            half = Model(model.installed, wanted.active, wanted.before)
            if kill_at is None:
                try:
                    operate(store, sources, what, ref)
                except (BundleError, MonitorError):
                    assert wanted == model, (what, ref)
                assert seen(store) == wanted
            else:
                killed(partial(operate, store, sources, what, ref), kill_at)
                found = seen(store)
                # a removal forgets the bundle first, so that no rollback can lead to it
                assert found in (model, wanted, half)
                wanted = found
            model = wanted
            assert {model.active, *model.before} <= {*model.installed, DEFAULT}
        with store.locked():
            left = {path.name for path in store.directory.iterdir()}
        assert {name for name in left if name.startswith(".un")} == set()


@settings(max_examples=8, deadline=None)
@given(operations=st.lists(OPERATIONS, max_size=10))
def test_the_store_is_right_after_anything(sources: Path, operations: list[Operation]) -> None:
    check_sequence(sources, operations)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(operations=st.lists(OPERATIONS, max_size=25))
def test_the_store_is_right_after_very_much(sources: Path, operations: list[Operation]) -> None:
    check_sequence(sources, operations)


@pytest.mark.slow
@pytest.mark.parametrize("at", range(12))
def test_an_installation_that_is_killed_leaves_a_whole_bundle_or_none(
    sources: Path, at: int
) -> None:
    check_sequence(sources, [("install", "a@1", at), ("install", "a@1", None)])
