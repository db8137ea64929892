"""Who may subscribe: key files, the list of those allowed, and what is refused before a start."""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import ConfigError, MonitorError
from monitor.listen import Keys, listen, load_keys
from monitor.messages import Message
from monitor.publish_settings import CurveSettings, check_keys, stays_here
from monitor.settings import load
from monitor.stream_keys import AllowedKeys, load_pair, load_public, make_pair
from tests.commands import icewatch
from tests.ports import free_port
from tests.privileges import as_nobody
from tests.stream_bench import Bench, running
from tests.waiting import wait_until


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Keys of the daemon, of alice, who is allowed, and of mallory, who is not."""
    keys = tmp_path / "keys"
    for name in ("server", "alice", "mallory"):
        make_pair(keys, name)
    (keys / "allowed").mkdir()
    shutil.copy(keys / "alice.key", keys / "allowed")
    return keys


@contextmanager
def guarded(tmp_path: Path, endpoint: str, folder: Path) -> Iterator[Bench]:
    curve = CurveSettings(server_key=folder / "server.key_secret", allowed_keys=folder / "allowed")
    with running(tmp_path, endpoint, curve=curve) as bench:
        bench.add(0.0)
        yield bench


def keys_of(folder: Path, name: str) -> Keys:
    found = load_keys(folder / "server.key", folder / f"{name}.key_secret")
    assert found is not None
    return found


def client(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    made = context.socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    return made


def first_heard(endpoint: str, keys: Keys | None, within_s: float = 10.0) -> Message:
    heard = listen(endpoint, 0, heard_within_s=within_s, keys=keys)
    try:
        return next(heard)[0]
    finally:
        heard.close()  # type: ignore[attr-defined]


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        public, secret = make_pair(tmp_path, "krios1")
    finally:
        os.umask(before)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    pair = load_pair(secret, "key")
    assert load_public(public, "key") == pair.public
    assert zmq.auth.load_certificate(secret) == (pair.public, pair.secret)
    assert pair.secret not in public.read_bytes()


def test_no_key_is_ever_replaced(tmp_path: Path) -> None:
    public, secret = make_pair(tmp_path, "a")
    kept = public.read_bytes(), secret.read_bytes()
    with pytest.raises(ConfigError, match="is there already; choose another name"):
        make_pair(tmp_path, "a")
    assert (public.read_bytes(), secret.read_bytes()) == kept


@pytest.mark.parametrize("name", ["", "../a", ".a", "a/b", "a b", "ä", "-a", "a\n"])
def test_names_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a key"):
        make_pair(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_keys_of_other_tools_are_read(tmp_path: Path) -> None:
    public, secret = zmq.auth.create_certificates(tmp_path, "theirs")
    Path(secret).chmod(0o600)
    assert load_pair(Path(secret), "key").public == load_public(Path(public), "key")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602, 0o610])
def test_a_secret_that_others_may_read_is_refused(folder: Path, mode: int) -> None:
    path = folder / "server.key_secret"
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"^publish\.x: .* \(mode {mode:04o}\); run `chmod 600 "):
        load_pair(path, "publish.x")


@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_what_is_no_key_file_is_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.key_secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no secret key"):
        load_pair(path, "key")
    with pytest.raises(ConfigError, match="holds no public key"):
        load_public(path, "key")


def test_a_damaged_secret_is_refused(folder: Path) -> None:
    path = folder / "server.key_secret"
    path.write_text('secret-key = "' + "~" * 40 + '"\n')
    with pytest.raises(ConfigError, match="no valid secret key"):
        load_pair(path, "key")


def config(tmp_path: Path, publish: str) -> Path:
    path = tmp_path / "icewatch.toml"
    path.write_text(
        f"[acquisition]\ndirectory = '{tmp_path}/data'\n[state]\ndirectory = '{tmp_path}/state'\n"
        f"[publish]\n{publish}\n"
    )
    return path


CURVE = "[publish.curve]\nserver_key = 'keys/server.key_secret'\nallowed_keys = 'keys/allowed'"
OPEN = "zmq_endpoint = 'tcp://0.0.0.0:5556'\n"


@pytest.mark.parametrize(
    ("publish", "damage", "sentence"),
    [
        (OPEN, "true", "publish.zmq_endpoint: tcp://0.0.0.0:5556 can be reached from other"),
        (OPEN + CURVE, "chmod 644 keys/server.key_secret", "publish.curve.server_key: .*chmod 600"),
        (OPEN + CURVE, "rm keys/server.key_secret", "publish.curve.server_key: there is no file"),
        (OPEN + CURVE, "rm -r keys/allowed", "publish.curve.allowed_keys: there is no folder"),
        (OPEN + CURVE, "chmod o+w keys/allowed", "publish.curve.allowed_keys: .*chmod o-w"),
        (CURVE, "cp keys/alice.key keys/server.key_secret", "server_key: .* holds no secret key"),
        ("[publish.curve]\nserver_key = 'a'", "true", "publish.curve.allowed_keys: is missing"),
        (CURVE + "\nallow = 'x'", "true", "publish.curve.allow: unknown key; did you mean"),
    ],
)
def test_check_and_run_refuse_in_one_sentence(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    publish: str,
    damage: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = config(tmp_path, publish)
    os.system(damage)
    for command in (f"check {path}", f"run --config {path}"):
        status, out, complaint = icewatch(command, monkeypatch, capsys)
        assert (status, out) == (2, "")
        assert complaint.count("\n") == 1
        assert complaint.startswith(f"icewatch: {path}: ")
        assert re.search(sentence, complaint)


def test_what_is_right_passes(tmp_path: Path, folder: Path) -> None:
    path = config(tmp_path, OPEN + CURVE)
    check_keys(path, load(path).publish)


def test_a_key_that_may_not_be_read_is_said(nobodys_path: Path) -> None:
    path = make_pair(nobodys_path, "server")[1]
    path.chmod(0)

    def sentence() -> str:
        try:
            load_pair(path, "key")
        except ConfigError as error:
            return str(error)
        return ""

    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    assert "cannot be read (Permission denied)" in as_nobody(sentence)


@pytest.mark.parametrize(
    ("endpoint", "stays"),
    [
        ("ipc:///run/icewatch/stream", True),
        ("tcp://127.0.0.1:5556", True),
        ("tcp://127.1.2.3:5556", True),
        ("tcp://[::1]:5556", True),
        ("tcp://localhost:5556", True),
        ("tcp://*:5556", False),
        ("tcp://0.0.0.0:5556", False),
        ("tcp://[::]:5556", False),
        ("tcp://10.0.0.1:5556", False),
        ("tcp://krios1:5556", False),
        ("tcp://eth0:5556", False),
        ("tcp://localhost.example.org:5556", False),
    ],
)
def test_what_can_be_reached_from_elsewhere(endpoint: str, stays: bool) -> None:
    assert stays_here(endpoint) is stays


def test_only_who_is_listed_hears_anything(
    tmp_path: Path, endpoint: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with guarded(tmp_path, endpoint, folder), zmq.Context() as context:
        strangers = []
        for name in (None, "mallory"):
            stranger = client(context, zmq.SUB)
            if name:
                keys_of(folder, name).use(stranger)
            stranger.subscribe(b"")
            stranger.connect(endpoint)
            strangers.append(stranger)
        for _ in range(3):
            assert first_heard(endpoint, keys_of(folder, "alice")).microscope == "m"
        assert [stranger.poll(0) for stranger in strangers] == [0, 0]
        wait_until(lambda: "was refused" in caplog.text, "a line on mallory")
        for stranger in strangers:
            stranger.close()
    public = load_public(folder / "mallory.key", "").decode()
    assert [r.levelno for r in caplog.records if public in r.message] == [logging.WARNING]


def test_replay_is_guarded_in_the_same_way(tmp_path: Path, endpoint: str, folder: Path) -> None:
    with guarded(tmp_path, endpoint, folder) as bench, zmq.Context() as context:
        stranger = client(context, zmq.REQ)
        stranger.connect(bench.stream.replay_endpoint)
        stranger.send(b'{"from_seq": 0}')
        friend = client(context, zmq.REQ)
        keys_of(folder, "alice").use(friend)
        friend.connect(bench.stream.replay_endpoint)
        friend.send(b'{"from_seq": 0}')
        assert friend.poll(10_000)
        assert len(friend.recv_multipart()) == 4
        assert stranger.poll(0) == 0
        stranger.close()
        friend.close()


@pytest.mark.timeout(60)
def test_a_key_that_is_added_lets_its_owner_in_by_itself(
    tmp_path: Path, endpoint: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with guarded(tmp_path, endpoint, folder), zmq.Context() as context:
        early = client(context, zmq.SUB)
        early.setsockopt(zmq.HANDSHAKE_IVL, 500)
        keys_of(folder, "mallory").use(early)
        early.subscribe(b"")
        early.connect(endpoint)
        wait_until(lambda: "was refused" in caplog.text, "a refusal")
        shutil.copy(folder / "mallory.key", folder / "allowed")
        assert first_heard(endpoint, keys_of(folder, "mallory")).microscope == "m"
        assert early.poll(20_000), "who knocked too early is not let in later"
        early.close()


def test_a_listener_without_the_right_keys_is_told(
    tmp_path: Path, endpoint: str, folder: Path
) -> None:
    with guarded(tmp_path, endpoint, folder):
        with pytest.raises(MonitorError, match="it asks for keys"):
            first_heard(endpoint, None)
        wrong = Keys(load_public(folder / "alice.key", ""), keys_of(folder, "alice").own)
        with pytest.raises(MonitorError, match="--server-key is not"):
            first_heard(endpoint, wrong)
    with pytest.raises(ConfigError, match="give both"):
        load_keys(None, folder / "alice.key_secret")


def test_a_folder_of_keys_is_looked_at_again(folder: Path) -> None:
    allowed = AllowedKeys(folder / "allowed")
    alice, mallory = (load_public(folder / f"{name}.key", "") for name in ("alice", "mallory"))
    assert allowed.name_of(alice) == "alice"
    assert allowed.name_of(mallory) is None
    (folder / "allowed/junk.key").write_bytes(b"\xff" * 100)
    (folder / "allowed/also.key").mkdir()
    shutil.copy(folder / "mallory.key", folder / "allowed/eve.key")
    wait_until(lambda: allowed.name_of(mallory) == "eve", "the new key")
    assert len(allowed.read()) == 2
    (folder / "allowed/alice.key").unlink()
    wait_until(lambda: allowed.name_of(alice) is None, "the end of the old key")
    shutil.rmtree(folder / "allowed")
    wait_until(lambda: allowed.name_of(mallory) is None, "the end of all keys")
