"""SIGHUP: thresholds change without losing a tilt, and a file that is wrong changes nothing."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.model import Decision
from monitor.reload import LIVE_KEYS, LivePolicy, Reloader, live_keys, reload_for_systemd
from monitor.settings import Settings, load
from tests.builders import history
from tests.daemon import Daemon, Microscope, Subscriber, picture
from tests.waiting import wait_until


class Taken:
    """A reloader, what it applied, and what it noted."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "krios1.toml"
        self.folder = folder
        self.write()
        self.applied: list[Settings] = []
        self.noted: list[bool] = []
        started = load(self.path)
        self.reloader = Reloader(self.path, started, self.applied.append, self.noted.append)

    def write(self, more: str = "", state: str = "state", keep: str = "") -> None:
        self.path.write_text(
            f'[acquisition]\ndirectory = "{self.folder}/data"\n[state]\n'
            f'directory = "{self.folder}/{state}"\n{keep}\n{more}'
        )


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    return Taken(tmp_path)


def test_thresholds_are_taken_over(taken: Taken, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    taken.write(
        "[verdict]\nmode = 'act'\nskip_above_ice_percent = 4.0\npolicy = {minimum_tilts = 2}\n",
        keep="keep_days = 3\n",
    )
    last = taken.reloader.reload()
    assert (last.trouble, last.needs_restart, last.sentence) == ("", (), "")
    (settings,) = taken.applied
    assert settings == taken.reloader.settings
    assert settings.verdict.mode == "act"
    assert settings.verdict.policy.minimum_tilts == 2
    assert settings.state.keep_days == 3
    assert taken.noted == [True]
    assert "verdict.skip_above_ice_percent = 4.0" in caplog.text


def test_what_needs_a_restart_is_named_and_not_taken(
    taken: Taken, caplog: pytest.LogCaptureFixture
) -> None:
    taken.write(
        "[verdict]\nmode = 'confirm'\ndirectory = '/tmp/v'\n[model]\nbackend = 'openvino'\n",
        state="other",
    )
    keys = ("model.backend", "state.directory", "verdict.directory")
    for _ in range(2):
        last = taken.reloader.reload()
        assert last.needs_restart == keys
        assert "only a restart takes it: model.backend, state.directory" in last.sentence
    held = taken.reloader.settings
    assert held.verdict.mode == "confirm"
    assert held.verdict.directory is None
    assert held.state.directory == taken.folder / "state"
    assert "a restart is needed for: model.backend, state.directory, verdict." in caplog.text
    taken.write()
    assert taken.reloader.reload().needs_restart == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[verdict\n",
        "[verdict]\nskip_above_ice_percent = 'much'\n",
        "[verdict]\nskip_above_ice_percent = nan\n",
        "\x00",
        None,
    ],
)
def test_a_file_that_is_wrong_changes_nothing(
    taken: Taken, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    before = taken.reloader.settings
    if text is None:
        taken.path.unlink()
    else:
        taken.path.write_text(text)
    last = taken.reloader.reload()
    assert last.trouble.startswith(str(taken.path))
    assert "the settings from before hold" in last.sentence
    assert taken.reloader.settings == before
    assert (taken.applied, taken.noted) == ([], [False])
    assert "settings not reloaded" in caplog.text
    taken.write()
    assert taken.reloader.reload().sentence == ""
    assert taken.noted == [False, True]


def test_every_key_is_either_live_or_needs_a_restart(taken: Taken) -> None:
    live = live_keys(taken.reloader.settings)
    assert live == {
        "verdict.mode",
        "verdict.skip_above_ice_percent",
        "verdict.policy.kind",
        "verdict.policy.minimum_tilts",
        "verdict.policy.decide_at",
        "verdict.policy.reconsider_at",
        "state.keep_days",
        "state.max_size_gb",
    }
    assert all(any(key.startswith(one) for key in live) for one in LIVE_KEYS)


def test_the_next_tilt_is_judged_by_the_new_limit(taken: Taken) -> None:
    settings = taken.reloader.settings.verdict
    policy = LivePolicy(settings)
    icy = history([20.0] * 6)
    assert policy.decide(icy).decision is Decision.SKIP
    policy.change(settings.model_copy(update={"skip_above_ice_percent": 50.0}))
    assert policy.decide(icy).decision is Decision.KEEP


def test_systemd_hears_of_a_reload_only_once_the_daemon_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10.0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        done: list[int] = []
        reload_for_systemd(lambda: done.append(1), lambda: False)
        reload_for_systemd(lambda: done.append(2), lambda: True)
        first, second = systemd.recv(1000).decode(), systemd.recv(1000).decode()
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", first)
    assert second == "READY=1"
    assert done == [1, 2]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all tests but the last of this module, which ends it."""
    found = Daemon(tmp_path_factory.mktemp("reload"))
    found.acquisition.mkdir()
    found.start()
    try:
        found.wait_for_state("ready")
        yield found
    finally:
        found.stop()


def hang_up(daemon: Daemon, text: str) -> dict[str, Any]:
    """Change the file, send the signal, and wait until the daemon has read it."""
    before = reloads(daemon)
    daemon.config.write_text(text)
    assert daemon.process is not None
    os.kill(daemon.process.pid, signal.SIGHUP)
    return wait_until(
        lambda: found if (found := reloads(daemon)) != before else None, "the reload", 30.0
    )


def reloads(daemon: Daemon) -> dict[str, Any]:
    status = daemon.status()
    return {**status["settings"], "mode": status["mode"], "limit": status["skip_above_ice_percent"]}


def metric(daemon: Daemon, name: str) -> float:
    match = re.search(rf"^{name}\{{.*\}} (\S+)$", daemon.metrics(), re.MULTILINE)
    assert match is not None
    return float(match[1])


def race(daemon: Daemon, count: int) -> None:
    """Reload, with right and wrong files by turns, while tilts land."""
    right = daemon.config.read_text()
    first = daemon.status()["last_seq"] + 1
    subscriber = Subscriber(daemon.endpoint)
    microscope = Microscope(daemon.acquisition)
    wait_until(lambda: subscriber.messages("status"), "the subscription", 30.0)

    def landed(topic: str) -> list[dict[str, Any]] | None:
        found = [one for one in subscriber.messages(topic) if one["seq"] >= first]
        return found if len(found) >= count else None

    assert daemon.process is not None
    try:
        for number in range(count):
            more = f"[verdict]\nskip_above_ice_percent = {1 + number % 50}\n"
            daemon.config.write_text(right + (more if number % 3 else "[verdict]\nmode = 1\n"))
            os.kill(daemon.process.pid, signal.SIGHUP)
            microscope.add(
                f"race{first}/L{number // 10}", float(number % 10), picture(12.0, number)
            )
        tilts = wait_until(lambda: landed("tilt"), "all tilts", 90.0)
        verdicts = wait_until(lambda: landed("lamella"), "all verdicts", 30.0)
    finally:
        subscriber.close()
        daemon.config.write_text(right)
    assert len(tilts) == len({one["tilt"]["id"] for one in tilts}) == count
    seqs = sorted(one["seq"] for one in [*tilts, *verdicts])
    assert seqs == list(range(first, first + 2 * count))
    assert daemon.status()["state"] == "ready"


def test_no_tilt_is_lost_over_reloads(daemon: Daemon) -> None:
    race(daemon, 12)


@pytest.mark.slow
def test_no_tilt_is_lost_over_100_reloads(daemon: Daemon) -> None:
    race(daemon, 100)


def get(daemon: Daemon, path: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(daemon.web_address, timeout=10.0)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        return answer.status, found
    finally:
        connection.close()


def test_the_pages_for_probes(daemon: Daemon) -> None:
    assert get(daemon, "/live") == (200, {"live": True})
    code, told = get(daemon, "/ready")
    assert (code, told["ready"], told["state"]) == (200, True, "ready")
    Microscope(daemon.acquisition).add("pages/L1", 3.0, picture(12.0))

    def newest() -> dict[str, Any] | None:
        found: dict[str, Any] = get(daemon, "/status")[1]["last_tilt"] or {}
        return found if found.get("lamella") == "pages/L1" else None

    tilt = wait_until(newest, "the tilt", 30.0)
    assert tilt["angle_deg"] == 3.0
    assert tilt["ice_percent"] == pytest.approx(12.0, abs=3.0)
    assert 0.0 <= tilt["seconds_ago"] < 60.0
    code, status = get(daemon, "/status")
    assert (code, status["backend"]) == (200, "onnxruntime")
    assert status["settings"]["file"] == str(daemon.config)
    assert get(daemon, "/nothing")[0] == 404


def test_a_running_daemon_takes_new_limits_and_says_what_it_cannot_take(daemon: Daemon) -> None:
    right = daemon.config.read_text()
    told = hang_up(daemon, right + "[verdict]\nskip_above_ice_percent = 3.0\nmode = 'act'\n")
    assert (told["taken"], told["limit"], told["mode"]) == (True, 3.0, "act")
    assert metric(daemon, "icewatch_config_last_reload_successful") == 1.0
    at_s = metric(daemon, "icewatch_config_last_reload_success_timestamp_seconds")
    told = hang_up(daemon, right + "[verdict]\nskip_above_ice_percnt = 9.0\n")
    assert (told["taken"], told["limit"], told["mode"]) == (False, 3.0, "act")
    assert "did you mean 'skip_above_ice_percent'?" in told["trouble"]
    status = daemon.status()
    assert status["state"] == "ready"
    assert status["reason"].startswith("the settings from before hold")
    taken = "icewatch_config_last_reload_successful"
    wait_until(lambda: metric(daemon, taken) == 0.0, "the metric to follow", 10.0)
    assert metric(daemon, "icewatch_config_last_reload_success_timestamp_seconds") == at_s
    listed = daemon.state / "verdicts" / "verdicts.json"
    wait_until(lambda: json.loads(listed.read_text())["mode"] == "act", "the files to follow")
    told = hang_up(daemon, right.replace('microscope = "test"', 'microscope = "other"'))
    assert (told["taken"], told["needs_restart"]) == (True, ["microscope"])
    assert (told["limit"], told["mode"]) == (10.0, "advise")
    code, log = daemon.signal(signal.SIGTERM)
    assert code == 0
    assert "settings reloaded: verdict.mode = act, verdict.skip_above_ice_percent = 3.0" in log
    assert "settings not reloaded, those from before hold: " in log
    assert log.endswith("a restart is needed for: microscope\n")
    assert "Traceback" not in log


def test_it_is_not_ready_before_the_network_is(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path).start()
    try:
        wait_until(daemon.status, "an answer", 30.0)
        code, told = get(daemon, "/ready")
        if told["state"] == "starting":  # unless it was quicker than we are
            assert (code, told["ready"]) == (503, False)
            assert get(daemon, "/live")[0] == 200
        daemon.wait_for_state("stalled")
        code, told = get(daemon, "/ready")
        assert (code, told["ready"]) == (503, False)
        assert str(daemon.acquisition) in told["reason"]
    finally:
        daemon.stop()
