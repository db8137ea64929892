"""A tilt lands, and its percentage, metric, message and verdict come out: all parts real."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engines.bundle import GRAPH
from tests import tiny_bundle
from tests.daemon import ANGLES_DEG, ROOT, SHAPE, Daemon, Microscope, Subscriber, picture
from tests.waiting import wait_until

CLEAN, ICY = "session/grid1/L1", "session/grid1/L2"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "data").mkdir()
    found = Daemon(tmp_path, more='[verdict]\nmode = "act"\n')
    yield found
    found.stop()


@pytest.fixture
def subscriber(daemon: Daemon) -> Iterator[Subscriber]:
    found = Subscriber(daemon.endpoint)
    yield found
    found.close()


def acquire_two_lamellae(microscope: Microscope) -> Iterator[None]:
    for index, angle_deg in enumerate(ANGLES_DEG):
        for series, percent in ((CLEAN, 0.0), (ICY, 20.0)):
            microscope.add(series, angle_deg, picture(percent, seed=index))
            yield


def samples(daemon: Daemon, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(
            value for label, value in sample.labels.items() if label != "microscope"
        ): sample.value
        for family in text_string_to_metric_families(daemon.metrics())
        for sample in family.samples
        if sample.name == name
    }


def verdicts(daemon: Daemon) -> dict[str, str]:
    found = json.loads((daemon.state / "verdicts" / "verdicts.json").read_text())
    return {one["lamella"]: one["verdict"] for one in found["lamellae"]}


def test_every_way_out_agrees(daemon: Daemon, subscriber: Subscriber) -> None:
    microscope = Microscope(daemon.acquisition)
    daemon.start().wait_for_state("ready")
    for count, _ in enumerate(acquire_two_lamellae(microscope), start=1):
        subscriber.wait_for("tilt", count)
    tree = microscope.digest()
    tilts = subscriber.messages("tilt")
    assert [t["tilt"]["angle_deg"] for t in tilts] == [a for a in ANGLES_DEG for _ in range(2)]
    for message in tilts:
        truth = 20.0 if message["tilt"]["lamella"] == ICY else 0.0
        assert message["ice"]["percent"] == pytest.approx(truth, abs=1.5)
        assert message["tilt"]["session"] == "session"
        assert message["tilt"]["grid"] == "grid1"
        assert message["microscope"] == "test"
    last = wait_until(lambda: subscriber.messages("lamella")[-1]["seq"] == 20, "the last verdict")
    assert last
    settled = len(subscriber.messages("status"))
    subscriber.wait_for("status", settled + 1)
    expected = {CLEAN: "keep", ICY: "skip"}
    newest = {one["lamella"]: one["verdict"] for one in subscriber.messages("lamella")}
    assert newest == expected == verdicts(daemon)
    held = {key for key, value in samples(daemon, "icewatch_lamella_verdict").items() if value}
    assert held == set(expected.items())
    assert samples(daemon, "icewatch_landed_to_published_seconds_count") == {(): 10.0}
    assert samples(daemon, "icewatch_tilt_ice_ratio")[(ICY,)] == pytest.approx(0.2, abs=0.015)
    assert (daemon.state / "verdicts" / "ice_skip.txt").read_text().splitlines()[1:] == [ICY]
    seqs = sorted(m["seq"] for t in ("tilt", "lamella") for m in subscriber.messages(t))
    assert seqs == list(range(1, 21))
    assert len(list((daemon.state / "overlays").rglob("*.png"))) == 10
    assert daemon.signal(signal.SIGTERM)[0] == 0
    assert microscope.digest() == tree


def journalled(daemon: Daemon) -> list[tuple[str, str]]:
    with sqlite3.connect(daemon.state / "journal.sqlite3") as db:
        rows = db.execute("SELECT lamella, decision FROM verdicts ORDER BY lamella").fetchall()
        rows += [(row[0], "") for row in db.execute("SELECT id FROM tilts ORDER BY id")]
    db.close()
    return rows


@pytest.mark.parametrize("kill_after", [1, 4, 7])
def test_a_kill_in_the_middle_changes_nothing(
    daemon: Daemon, subscriber: Subscriber, tmp_path: Path, kill_after: int
) -> None:
    microscope = Microscope(daemon.acquisition)
    daemon.start().wait_for_state("ready")
    for count, _ in enumerate(acquire_two_lamellae(microscope), start=1):
        if count == kill_after:
            assert daemon.signal(signal.SIGKILL)[0] == -signal.SIGKILL
            daemon.start()
    tilts = subscriber.wait_for("tilt", len(ANGLES_DEG) * 2)
    boots = {one["boot_id"] for one in tilts}
    assert len(boots) <= 2
    assert len({one["tilt"]["id"] for one in tilts}) == len(tilts) == 10
    wait_until(lambda: len(subscriber.messages("lamella")) == 10, "all verdicts")
    for topic in ("tilt", "lamella"):
        by_seq: dict[int, set[bytes]] = {}
        for body in subscriber.bodies(topic):
            by_seq.setdefault(json.loads(body)["seq"], set()).add(body)
        assert all(len(bodies) == 1 for bodies in by_seq.values()), "resent with other bytes"
    assert daemon.signal(signal.SIGTERM)[0] == 0
    assert verdicts(daemon) == {CLEAN: "keep", ICY: "skip"}
    rows = journalled(daemon)
    assert rows[:2] == [(CLEAN, "keep"), (ICY, "skip")]
    assert len(rows) == 12


def test_a_backlog_is_read_once_and_not_again(daemon: Daemon, subscriber: Subscriber) -> None:
    for _ in acquire_two_lamellae(Microscope(daemon.acquisition)):
        pass
    daemon.start()
    subscriber.wait_for("tilt", 10)
    wait_until(lambda: len(subscriber.messages("lamella")) == 10, "all verdicts")
    assert daemon.signal(signal.SIGTERM)[0] == 0
    before = len(subscriber.bodies("tilt"))
    daemon.start()
    beats = len(subscriber.messages("status"))
    subscriber.wait_for("status", beats + 3)
    assert daemon.status()["last_seq"] == 20
    assert samples(daemon, "icewatch_tilt_ice_ratio")[(ICY,)] == pytest.approx(0.2, abs=0.015)
    assert len(subscriber.bodies("tilt")) == before


def test_a_stop_in_the_middle_of_a_long_stack_is_quick_and_clean(
    daemon: Daemon, subscriber: Subscriber
) -> None:
    microscope = Microscope(daemon.acquisition)
    for index in range(60):
        microscope.add(CLEAN, float(index), picture(0.0, seed=index))
    daemon.start()
    subscriber.wait_for("tilt", 1)
    began_s = time.monotonic()
    assert daemon.signal(signal.SIGTERM)[0] == 0
    assert time.monotonic() - began_s < 5.0
    before = {body for topic in ("tilt", "lamella") for body in subscriber.bodies(topic)}
    daemon.start()
    subscriber.wait_for("tilt", 60)
    wait_until(lambda: len(subscriber.messages("lamella")) == 60, "all verdicts")
    bodies = {topic: subscriber.bodies(topic) for topic in ("tilt", "lamella")}
    assert len(bodies["tilt"]) == 60, "a clean stop leaves nothing to send again"
    assert len(set(bodies["lamella"])) == 60  # who subscribes again is told the last values again
    assert before <= {*bodies["tilt"], *bodies["lamella"]}


def test_bad_files_are_named_and_good_ones_go_on(daemon: Daemon, subscriber: Subscriber) -> None:
    microscope = Microscope(daemon.acquisition)
    bad = daemon.acquisition / "session"
    microscope.add("session/zeros", 0.0, np.zeros(SHAPE, np.int16))
    microscope.add("session/nan", 0.0, np.full(SHAPE, np.nan, np.float32), dtype="float32")
    microscope.add("session/cut", 0.0, picture(0.0))
    os.truncate(bad / "cut.mrc", 3000)
    (bad / "nonsense.mrc").write_bytes(b"nonsense" * 500)
    microscope.add("session/foreign", 0.0, picture(0.0))
    with (bad / "foreign.mrc").open("r+b") as stack:
        stack.seek(12)
        stack.write((7).to_bytes(4, "little"))  # a mode that nobody knows: not decoded
    microscope.add("session/cutmdoc", 0.0, picture(0.0))
    mdoc = bad / "cutmdoc.mrc.mdoc"
    text = mdoc.read_text()
    mdoc.write_text(text[: text.index("DateTime") + 12])
    daemon.start().wait_for_state("ready")
    microscope.add("session/good", 0.0, picture(10.0))
    subscriber.wait_for("tilt", 4)
    by_series = {one["tilt"]["series"]: one for one in subscriber.messages("tilt")}
    assert set(by_series) == {"zeros", "nan", "foreign", "good"}
    assert by_series["foreign"]["quality"]["flags"] == ["decoding_failed"]
    for name in ("zeros", "nan", "foreign"):
        ice, quality = by_series[name]["ice"], by_series[name]["quality"]
        assert (ice["percent"], ice["percent_low"], ice["percent_high"]) == (None, None, None)
        assert quality["flags"]
        assert isinstance(ice["valid_area_percent"], float)
    assert by_series["good"]["ice"]["percent"] == pytest.approx(10.0, abs=1.0)
    ratios = samples(daemon, "icewatch_tilt_ice_ratio")
    assert set(ratios) == {("session/good",)}
    problems = wait_until(
        lambda: found if len(found := daemon.status()["problems"]) == 4 else None,
        "the bad files to be named",
        25.0,
    )
    named = {Path(one["path"]).name for one in problems}
    assert named == {"cut.mrc", "nonsense.mrc", "cutmdoc.mrc", "foreign.mrc"}
    refused = samples(daemon, "icewatch_files_refused_total")
    assert sum(refused.values()) == 4.0
    (bad / "nonsense.mrc").unlink()
    wait_until(lambda: len(daemon.status()["problems"]) == 3, "a file that went to be forgotten")
    status, log = daemon.signal(signal.SIGTERM)
    assert status == 0
    for name in ("cut.mrc", "nonsense.mrc", "cutmdoc.mrc"):
        assert len([line for line in log.splitlines() if f"/{name}'" in line]) == 1, log


def test_a_directory_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    try:
        stalled = daemon.start().wait_for_state("stalled")
        assert str(daemon.acquisition) in stalled["reason"]
        Microscope(daemon.acquisition).add("s/L1", 0.0, picture(0.0))
        daemon.wait_for_state("ready")
        wait_until(lambda: daemon.status()["last_seq"] == 2, "the first tilt")
    finally:
        daemon.stop()


def one_line(complaint: str) -> str:
    assert complaint.count("\n") == 1, complaint
    return complaint


def test_a_taken_port_ends_the_start(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start().wait_for_state("ready")
    for key, taken in (
        ("publish.zmq_endpoint", daemon.endpoint),
        ("publish.metrics_address", daemon.metrics_address),
        ("publish.web_address", daemon.web_address),
    ):
        folder = tmp_path / key
        (folder / "data").mkdir(parents=True)
        other = Daemon(folder, bundle=tmp_path / "bundle")
        mine = {
            "publish.zmq_endpoint": other.endpoint,
            "publish.metrics_address": other.metrics_address,
            "publish.web_address": other.web_address,
        }[key]
        other.config.write_text(other.config.read_text().replace(mine, taken))
        status, complaint = other.start().wait()
        assert status == 1
        assert key in one_line(complaint)


def test_a_corrupt_bundle_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle.write(tmp_path / "bundle")
    graph = bytearray((bundle / GRAPH).read_bytes())
    graph[len(graph) // 2] ^= 1
    (bundle / GRAPH).write_bytes(graph)
    daemon = Daemon(tmp_path, bundle=bundle)
    status, complaint = daemon.start().wait()
    assert status == 2
    assert "model.bundle" in one_line(complaint)
    check = subprocess.run(
        [sys.executable, "-m", "monitor", "check", str(daemon.config)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert check.returncode == 2
    assert one_line(check.stderr) == complaint
