"""A candidate beside the active bundle: it reads the same tilts, and nothing of it is published."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.bundle_store import BundleStore
from monitor.bundle_compare import compare
from monitor.model import IceReading
from monitor.policies import MeanOverTiltsSettings
from monitor.shadow_journal import Pair, candidates, forget, keep, pairs
from tests import tiny_bundle
from tests.bundle_store_at import DEFAULT, command, done, installed, made, served
from tests.daemon import ANGLES_DEG, PATIENCE_S, Daemon, Microscope, Subscriber, picture
from tests.waiting import wait_until

ICY = 20.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "data").mkdir()
    found = Daemon(tmp_path)  # the tiny bundle reads: what it says can be foretold
    yield found
    found.stop()


@pytest.fixture
def subscriber(daemon: Daemon) -> Iterator[Subscriber]:
    found = Subscriber(daemon.endpoint)
    yield found
    found.close()


def half(folder: Path) -> Path:
    """A bundle whose calibration makes half of everything."""
    calibration = {**tiny_bundle.manifest_of(b"")["calibration"], "percent": [0.0, 50.0]}
    calibration |= {"low": [0.0, 45.0], "high": [2.5, 55.0]}
    return made(folder, "half", calibration=calibration)


def shadow_of(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status().get("bundles", {}).get("shadow", {})
    return found


def reader_of(daemon: Daemon) -> int:
    """Find the process of the shadow; 0 where there is none."""
    assert daemon.process is not None
    tasks = Path(f"/proc/{daemon.process.pid}/task")
    for children in tasks.glob("*/children"):
        for child in children.read_text().split():
            if b"monitor.shadow_reader" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return 0


def read_by_shadow(daemon: Daemon, microscope: Microscope, series: str, count: int) -> None:
    """Let tilts land until the shadow has read some of them."""
    already = shadow_of(daemon)["tilts"]
    for number in range(count):
        microscope.add(series, ANGLES_DEG[number], picture(ICY, seed=number))
        wait_until(
            lambda wanted=already + number + 1: shadow_of(daemon).get("tilts") == wanted,  # type: ignore[misc]
            "the shadow to read",
            PATIENCE_S,
        )


@pytest.mark.slow
def test_a_shadow_reads_and_is_compared_and_never_published(
    daemon: Daemon, subscriber: Subscriber
) -> None:
    installed(daemon, half(daemon.folder))
    daemon.start().wait_for_state("ready")
    microscope = Microscope(daemon.acquisition)
    assert "half@1 reads beside" in done(daemon, "shadow", "half")
    wait_until(lambda: shadow_of(daemon).get("loaded"), "the shadow", PATIENCE_S)
    read_by_shadow(daemon, microscope, "s/L1", len(ANGLES_DEG))
    tilts = subscriber.wait_for("tilt", len(ANGLES_DEG))
    assert {one["model"]["name"] for one in tilts} == {"tiny"}
    told = [one["ice"]["percent"] for one in tilts]
    assert told == pytest.approx([ICY] * len(ANGLES_DEG), abs=1.5)
    kept = pairs(daemon.state / "bundles", "half@1")
    assert [one.published.percent for one in kept] == told
    assert [one.shadow.percent for one in kept] == pytest.approx([p / 2 for p in told], abs=0.1)
    said = done(daemon, "compare")
    assert "half@1 beside" in said and "tiny@1" in said
    largest = re.search(r"largest difference +(-[0-9.]+) percentage points", said)
    assert largest and float(largest[1]) == pytest.approx(-ICY / 2, abs=1.0)
    assert re.search(r"other verdicts +1 of 1 lamellae", said)
    process = reader_of(daemon)
    assert "none reads beside" in done(daemon, "shadow", "--off")
    wait_until(lambda: not Path(f"/proc/{process}").exists(), "the shadow to end")
    assert daemon.signal(signal.SIGTERM)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSEGV])
def test_a_shadow_that_dies_is_switched_off_and_nothing_else_happens(
    daemon: Daemon, subscriber: Subscriber, fault: signal.Signals
) -> None:
    installed(daemon, half(daemon.folder))
    daemon.start().wait_for_state("ready")
    done(daemon, "shadow", "half")
    process = wait_until(lambda: reader_of(daemon), "the shadow", PATIENCE_S)
    os.kill(process, fault)
    microscope = Microscope(daemon.acquisition)
    microscope.add("s/L1", 0.0, picture(ICY))
    subscriber.wait_for("tilt", 1)
    off = wait_until(lambda: shadow_of(daemon).get("off"), "the shadow to be off", PATIENCE_S)
    assert off == f"half@1: it died (status -{fault.value})"
    assert daemon.wait_for_state("ready")["reason"].startswith("the shadow is off, half@1")
    # it stays off over a restart, until it is asked for again
    daemon.signal(signal.SIGTERM)
    daemon.start().wait_for_state("ready")
    assert shadow_of(daemon)["off"] == off
    assert "half@1 reads beside" in done(daemon, "shadow", "half")
    assert wait_until(lambda: reader_of(daemon), "the shadow", PATIENCE_S)


@pytest.mark.slow
def test_a_shadow_that_hangs_delays_nobody(daemon: Daemon, subscriber: Subscriber) -> None:
    installed(daemon, half(daemon.folder))
    daemon.start().wait_for_state("ready")
    done(daemon, "shadow", "half")
    process = wait_until(lambda: reader_of(daemon), "the shadow", PATIENCE_S)
    wait_until(lambda: shadow_of(daemon).get("loaded"), "the shadow to have loaded", PATIENCE_S)
    os.kill(process, signal.SIGSTOP)
    microscope = Microscope(daemon.acquisition)
    for number, angle_deg in enumerate(ANGLES_DEG):
        microscope.add("s/L1", angle_deg, picture(ICY, seed=number))
        tilt = subscriber.wait_for("tilt", number + 1)[-1]
        assert tilt["latency_s"] < 5.0
    assert shadow_of(daemon)["missed"] == len(ANGLES_DEG) - 1
    assert daemon.signal(signal.SIGTERM)[0] == 0
    wait_until(lambda: not Path(f"/proc/{process}").exists(), "the shadow to end with the daemon")


@pytest.mark.slow
def test_a_shadow_that_serves_is_a_shadow_no_more(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    daemon = Daemon(tmp_path, bundle=DEFAULT)
    try:
        installed(daemon, half(tmp_path))
        daemon.start().wait_for_state("ready")
        done(daemon, "shadow", "half")
        refused = command(daemon, "remove", "half")
        assert refused.returncode == 1 and "is the shadow" in refused.stderr
        done(daemon, "activate", "half")
        assert served(daemon) == "half@1"
        assert shadow_of(daemon)["bundle"] == ""
        refused = command(daemon, "shadow", "half")
        assert refused.returncode == 1 and "serves itself" in refused.stderr
    finally:
        daemon.stop()


def reading(percent: float | None) -> IceReading:
    spread = 0.0 if percent is None else 1.0
    low = None if percent is None else max(0.0, percent - spread)
    high = None if percent is None else min(100.0, percent + spread)
    return IceReading(percent, low, high, {}, 90.0, (), percent is not None, "b", "1", "cpu")


def pair(number: int, published: float | None, shadow: float | None) -> Pair:
    return Pair(f"t{number}", "s", f"s/L{number % 3}", reading(published), reading(shadow))


PERCENT = st.none() | st.floats(0.0, 100.0)


@given(st.lists(st.tuples(PERCENT, PERCENT), max_size=30))
def test_a_comparison_adds_up(percents: list[tuple[float | None, float | None]]) -> None:
    found = [pair(number, *both) for number, both in enumerate(percents)]
    policy = MeanOverTiltsSettings().build(10.0)
    outcome = compare("c", found, policy)
    both = [(a, b) for a, b in percents if a is not None and b is not None]
    assert outcome.tilts == len(percents) and outcome.both_measured == len(both)
    if both:
        assert outcome.mean_difference == pytest.approx(sum(b - a for a, b in both) / len(both))
        assert outcome.largest_difference is not None
        assert abs(outcome.largest_difference) == max(abs(b - a) for a, b in both)
    else:
        assert outcome.largest_difference is outcome.mean_difference is None
    swapped = [Pair(p.tilt, p.session, p.lamella, p.shadow, p.published) for p in found]
    turned = compare("c", swapped, policy)
    assert turned.only_shadow_measured == outcome.only_published_measured
    assert [(o.published, o.shadow) for o in turned.other_verdicts] == [
        (o.shadow, o.published) for o in outcome.other_verdicts
    ]
    same = compare("c", [Pair(p.tilt, "s", "l", p.shadow, p.shadow) for p in found], policy)
    assert same.other_verdicts == ()


def test_verdicts_that_would_differ_are_named() -> None:
    found = [pair(3 * number, 2.0, 30.0) for number in range(6)]
    found += [pair(3 * number + 1, 2.0, 3.0) for number in range(6)]
    outcome = compare("c", found, MeanOverTiltsSettings().build(10.0))
    (other,) = outcome.other_verdicts
    assert (other.lamella, other.published, other.shadow) == ("s/L0", "keep", "skip")


def test_what_was_kept_comes_back_and_a_tilt_counts_once(tmp_path: Path) -> None:
    store = BundleStore(tmp_path).directory
    store.mkdir()
    assert candidates(store) == []
    assert pairs(store, "c") == []
    for number in (0, 1, 0):
        keep(store, "c", pair(number, 1.0, None))
    keep(store, "d", pair(0, 1.0, 2.0))
    assert candidates(store) == ["d", "c"]
    assert pairs(store, "c") == [pair(1, 1.0, None), pair(0, 1.0, None)]
    forget(store, "c")
    assert candidates(store) == ["d"]
