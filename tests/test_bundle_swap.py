"""The real daemon changes over from bundle to bundle while tilts land: none lost, none doubled."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from engines.bundle import GRAPH, MANIFEST, Bundle
from monitor.bundle_choice import CHOICE, SERVING, Choice, Serving, write_word
from tests.bundle_store_at import DEFAULT, command, done, installed, lines, made, served
from tests.daemon import PATIENCE_S, Daemon, Microscope, Subscriber, picture
from tests.test_engine_daemon import GpuDaemon
from tests.waiting import wait_until

SHIPPED = f"default@{Bundle.load('default').version}"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "data").mkdir()
    found = Daemon(tmp_path, bundle=DEFAULT)
    yield found
    found.stop()


@pytest.fixture
def subscriber(daemon: Daemon) -> Iterator[Subscriber]:
    found = Subscriber(daemon.endpoint)
    yield found
    found.close()


def spoke(message: dict[str, Any]) -> str:
    return f"{message['model']['name']}@{message['model']['version']}"


def check_each_once(subscriber: Subscriber, count: int) -> list[dict[str, Any]]:
    """See that every tilt came once, with the verdict after it, and no seq is missing."""
    tilts = subscriber.wait_for("tilt", count)
    wait_until(lambda: len(subscriber.messages("lamella")) >= count, "all verdicts")
    assert len({one["tilt"]["id"] for one in tilts}) == len(tilts) == count
    seqs = sorted(one["seq"] for topic in ("tilt", "lamella") for one in subscriber.messages(topic))
    assert seqs == list(range(1, 2 * count + 1))
    return sorted(tilts, key=lambda one: int(one["seq"]))


def test_a_swap_while_tilts_land_loses_and_doubles_nothing(
    daemon: Daemon, subscriber: Subscriber
) -> None:
    installed(daemon, made(daemon.folder))
    daemon.start().wait_for_state("ready")
    assert served(daemon) == SHIPPED
    microscope, swapped, count = Microscope(daemon.acquisition), threading.Event(), 0
    said: list[str] = []

    def swap() -> None:
        said.append(done(daemon, "activate", "tuned"))
        swapped.set()

    microscope.add("s/L1", -65.0, picture(10.0))
    subscriber.wait_for("tilt", 1)
    asking = threading.Thread(target=swap)
    asking.start()
    while not swapped.is_set() or count < 6:  # one file that grows, read on both sides of the swap
        count += 1
        microscope.add("s/L1", count / 4.0 - 60.0, picture(10.0, seed=count))
        subscriber.wait_for("tilt", count + 1)
    asking.join()
    assert "tuned@1 serves from now on" in said[0]
    microscope.add("s/L1", 70.0, picture(10.0, seed=count + 1))
    tilts = check_each_once(subscriber, count + 2)
    speakers = [spoke(one) for one in tilts]
    assert speakers == sorted(speakers) and set(speakers) == {SHIPPED, "tuned@1"}
    assert speakers[0] == SHIPPED and speakers[-1] == "tuned@1" == served(daemon)
    assert tilts[-1]["ice"]["percent"] == pytest.approx(10.0, abs=1.0)
    builds = [line for line in daemon.metrics().splitlines() if "icewatch_build_info{" in line]
    assert len(builds) == 1 and 'bundle="tuned",bundle_version="1"' in builds[0]
    heard = len(subscriber.messages("status"))
    beat = subscriber.wait_for("status", heard + 2)[-1]
    assert (beat["bundle"], beat["bundle_version"], beat["state"]) == ("tuned", "1", "ready")


@pytest.mark.slow
def test_a_backlog_of_one_file_is_read_by_both_and_each_tilt_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    slowly = "[acquisition]\nread_rate_mb_per_s = 0.6\n"  # a backlog that takes half a minute
    daemon = Daemon(tmp_path, bundle=DEFAULT)
    daemon.config.write_text(daemon.config.read_text().replace("[acquisition]\n", slowly))
    subscriber = Subscriber(daemon.endpoint)
    try:
        installed(daemon, made(tmp_path))
        microscope = Microscope(daemon.acquisition)
        for number in range(200):
            microscope.add("s/L1", number / 10.0, picture(0.0, seed=number))
        daemon.start()
        subscriber.wait_for("tilt", 1, PATIENCE_S)
        write_word(daemon.state / "bundles", Choice(number=1, active="tuned@1"))
        wait_until(lambda: served(daemon) == "tuned@1", "the swap", PATIENCE_S)
        assert len(subscriber.messages("tilt")) < 200, "it did not wait for the end of the file"
        wait_until(lambda: len(subscriber.messages("tilt")) == 200, "all tilts", 100.0)
        speakers = [spoke(one) for one in check_each_once(subscriber, 200)]
        assert speakers == sorted(speakers), "once the new one has spoken the old one is silent"
        assert set(speakers) == {SHIPPED, "tuned@1"}
    finally:
        daemon.stop()
        subscriber.close()


@pytest.mark.slow
def test_rollback_holds_over_a_restart(daemon: Daemon, subscriber: Subscriber) -> None:
    installed(daemon, made(daemon.folder), made(daemon.folder, version="2"))
    daemon.start().wait_for_state("ready")
    done(daemon, "activate", "tuned@1")
    done(daemon, "activate", "tuned@2")
    assert served(daemon) == "tuned@2"
    assert daemon.signal(signal.SIGTERM)[0] == 0
    daemon.start().wait_for_state("ready")
    assert served(daemon) == "tuned@2", "what served last serves from the first tilt on"
    assert "tuned@1 serves from now on" in done(daemon, "rollback")
    assert daemon.signal(signal.SIGKILL)[0] == -signal.SIGKILL
    Microscope(daemon.acquisition).add("s/L1", 0.0, picture(10.0))
    daemon.start()
    assert spoke(subscriber.wait_for("tilt", 1)[0]) == "tuned@1"
    assert "default serves from now on" in done(daemon, "rollback")
    assert served(daemon) == SHIPPED
    again = command(daemon, "rollback")
    assert again.returncode == 1
    assert "nothing was active before default" in again.stderr


@pytest.mark.slow
def test_what_is_asked_for_while_nothing_runs_is_taken_over_by_the_next_start(
    daemon: Daemon,
) -> None:
    installed(daemon, made(daemon.folder))
    write_word(daemon.state / "bundles", Choice(number=1, active="tuned@1", before=("default",)))
    daemon.start()
    wait_until(lambda: served(daemon) == "tuned@1", "the swap", PATIENCE_S)
    assert lines(daemon.state / "bundles" / SERVING)["settled"] == 1


def broken_by_hand(daemon: Daemon, ref: str) -> None:
    """Flip a bit of an installed bundle."""
    path = daemon.state / "bundles" / ref / GRAPH
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_a_corrupt_bundle_is_refused_and_the_old_one_goes_on(
    daemon: Daemon, subscriber: Subscriber
) -> None:
    installed(daemon, made(daemon.folder), made(daemon.folder, version="2"))
    daemon.start().wait_for_state("ready")
    done(daemon, "activate", "tuned@1")
    broken_by_hand(daemon, "tuned@2")
    refused = command(daemon, "activate", "tuned@2")
    assert refused.returncode == 1 and "SHA-256" in refused.stderr
    assert refused.stderr.count("\n") == 1
    # by hand, past the command
    write_word(daemon.state / "bundles", Choice(9, "tuned@2", ("default", "tuned@1")))
    status = wait_until(
        lambda: found if "refused" in (found := daemon.status())["reason"] else None,
        "the refusal",
        PATIENCE_S,
    )
    assert status["state"] == "ready"
    assert "tuned@1 goes on, refused was tuned@2" in status["reason"]
    assert "SHA-256" in status["reason"]
    Microscope(daemon.acquisition).add("s/L1", 0.0, picture(10.0))
    assert spoke(subscriber.wait_for("tilt", 1)[0]) == "tuned@1"
    daemon.signal(signal.SIGTERM)
    daemon.start().wait_for_state("ready")
    assert served(daemon) == "tuned@1"
    assert "tuned@2" in daemon.status()["reason"], "a refusal is remembered"
    # what served last is gone as well: what was before serves, and it says so
    daemon.signal(signal.SIGTERM)
    broken_by_hand(daemon, "tuned@1")
    daemon.start()
    degraded = daemon.wait_for_state("degraded")
    assert served(daemon) == SHIPPED
    assert "tuned@1 cannot be used any more" in degraded["reason"]
    assert "default serves from now on" in done(daemon, "activate", "default")
    assert daemon.wait_for_state("ready")["reason"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "{", "[]", '{"before": 3}', '{"before": [], "active": 1}'])
def test_a_damaged_choice_is_told_and_changes_nothing(daemon: Daemon, text: str) -> None:
    store = daemon.state / "bundles"
    store.mkdir(parents=True, mode=0o700)
    (store / CHOICE).write_text(text)
    daemon.start().wait_for_state("ready")
    reason = wait_until(lambda: daemon.status().get("reason"), "the reason")
    assert str(store / CHOICE) in reason
    assert served(daemon) == SHIPPED


@pytest.mark.slow
def test_a_bundle_that_the_configuration_names_holds(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    daemon = Daemon(tmp_path)
    try:
        installed(daemon, made(tmp_path))
        refused = command(daemon, "activate", "tuned")
        assert refused.returncode == 1 and "model.bundle in the configuration" in refused.stderr
        write_word(daemon.state / "bundles", Choice(number=1, active="tuned@1"))
        daemon.start().wait_for_state("ready")
        reason = wait_until(lambda: daemon.status().get("reason"), "the reason")
        assert "model.bundle in the configuration" in reason
        assert served(daemon) == "tiny@1"
    finally:
        daemon.stop()


@pytest.mark.slow
def test_a_bundle_that_the_daemon_dies_of_is_not_loaded_for_ever(
    daemon: Daemon,
) -> None:
    installed(daemon, made(daemon.folder))
    store = daemon.state / "bundles"
    write_word(store, Choice(number=1, active="tuned@1", before=("default",)))
    # as two deaths in a row while it was loaded leave it
    write_word(store, Serving(seen=1, loading="tuned@1", deaths={"tuned@1": 1}))
    daemon.start().wait_for_state("ready")
    reason = wait_until(lambda: daemon.status().get("reason"), "the reason")
    assert "refused was tuned@1: icewatch died 2 times while it loaded it" in reason
    assert "tuned@1 serves from now on" in done(daemon, "activate", "tuned"), "asked for again"


@pytest.mark.slow
def test_kills_in_the_middle_of_a_swap_lose_and_double_nothing(
    daemon: Daemon, subscriber: Subscriber
) -> None:
    installed(daemon, made(daemon.folder))
    store, microscope, generator = (
        daemon.state / "bundles",
        Microscope(daemon.acquisition),
        Random(1),
    )
    count = 0
    for number in range(1, 7):
        ref = "tuned@1" if number % 2 else "default"
        daemon.start().wait_for_state("ready")
        subscriber.wait_for("status", len(subscriber.messages("status")) + 1)  # it hears it again
        write_word(store, Choice(number=number, active=ref))
        until_s = time.monotonic() + generator.uniform(0.0, 4.0)  # a proof takes as long
        while time.monotonic() < until_s:
            count += 1
            microscope.add(f"s/L{number}", count % 120 - 60.0, picture(5.0, seed=count))
            subscriber.wait_for("tilt", count)
        assert daemon.signal(signal.SIGKILL)[0] == -signal.SIGKILL
    daemon.start()
    wait_until(lambda: served(daemon) == SHIPPED, "the last wish", PATIENCE_S)
    wait_until(lambda: daemon.status()["bundles"]["doing"] == "", "the last swap", PATIENCE_S)
    assert lines(store / SERVING)["refused"] == ""
    microscope.add("s/L9", 0.0, picture(5.0))
    tilts = check_each_once(subscriber, count + 1)
    assert spoke(tilts[-1]) == SHIPPED


@pytest.mark.slow
def test_on_a_graphics_card_the_old_one_serves_there_until_the_plan_of_the_new_one_is_built(
    tmp_path: Path,
) -> None:
    daemon = GpuDaemon(tmp_path)
    subscriber = Subscriber(daemon.endpoint)
    try:
        text = daemon.config.read_text()
        daemon.config.write_text(text.replace(f'"{tmp_path / "bundle"}"', '"default"'))
        manifest = json.loads((tmp_path / "bundle" / MANIFEST).read_text())
        manifest |= {"name": "tuned", "version": "1"}
        (tmp_path / "bundle" / MANIFEST).write_text(json.dumps(manifest))
        installed(daemon, tmp_path / "bundle")
        daemon.start()
        wait_until(lambda: daemon.backend() == "tensorrt", "the shipped one there", PATIENCE_S)
        microscope = Microscope(daemon.acquisition)
        asked = threading.Thread(target=done, args=(daemon, "activate", "tuned"))
        asked.start()
        count = 0
        while asked.is_alive():
            count += 1
            microscope.add("s/L1", count / 4.0 - 60.0, picture(10.0, seed=count))
            subscriber.wait_for("tilt", count)
        asked.join()
        microscope.add("s/L1", 70.0, picture(10.0))
        tilts = check_each_once(subscriber, count + 1)
        assert {one["model"]["backend"] for one in tilts} == {"tensorrt"}
        assert spoke(tilts[0]) == SHIPPED and spoke(tilts[-1]) == "tuned@1"
    finally:
        daemon.stop()
        subscriber.close()
