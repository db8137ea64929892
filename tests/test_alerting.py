"""An icy lamella lands, and somebody is told: the daemon, Prometheus and Alertmanager are real."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alerting_programs import Alerting
from tests.daemon import ANGLES_DEG, Daemon, Microscope, picture
from tests.waiting import wait_until

WITHIN_S = 30.0
NASTY = "session/grid1/<!channel> icy"
"""In a chat this would call everybody."""
ICY = "IcewatchLamellaPoorVitrification"
RESOLVED_WOULD_COME_S = 25.0
"""Scrape, evaluation and group interval of the shipped files, and as much again to spare."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "data").mkdir()
    found = Daemon(tmp_path)
    yield found
    found.stop()


@pytest.fixture
def alerting(tmp_path: Path, daemon: Daemon) -> Alerting:
    folder = tmp_path / "alerting"
    folder.mkdir()
    return Alerting(folder, {"test": daemon.metrics_address})


def acquire(microscope: Microscope, series: str, percent: float) -> None:
    for index, angle_deg in enumerate(ANGLES_DEG):
        microscope.add(series, angle_deg, picture(percent, seed=index))


def scraped_again(alerting: Alerting) -> bool:
    since = time.time()

    def is_newer() -> bool:
        found = alerting.query(
            'timestamp(icewatch_lamella_verdict{verdict="skip"}) and on () up == 1'
        )
        return any(float(one["value"][1]) > since for one in found)

    return wait_until(is_newer, "a scrape after the restart", WITHIN_S)


def watch_firing(alerting: Alerting, seconds: float) -> set[int]:
    """How many alerts of the icy lamella fire, again and again."""
    until, found = time.monotonic() + seconds, set()
    while time.monotonic() < until:
        found.add(len(alerting.query(f'ALERTS{{alertname="{ICY}", alertstate="firing"}}')))
        time.sleep(0.5)
    return found


@pytest.mark.slow  # half a minute; `.ci/run` runs this one
@pytest.mark.timeout(300)
def test_an_icy_lamella_is_told_in_time_and_a_restart_is_no_good_news(
    daemon: Daemon, alerting: Alerting
) -> None:
    microscope = Microscope(daemon.acquisition)
    daemon.start().wait_for_state("ready")
    with alerting.running() as heard:
        acquire(microscope, "session/grid1/clean", 0.0)
        landed_s = time.monotonic()
        acquire(microscope, NASTY, 20.0)
        wait_until(lambda: heard.alerts(ICY, "firing"), "the alert", WITHIN_S)
        assert heard.webhook[0][0] - landed_s <= WITHIN_S
        daemon.signal(signal.SIGKILL)
        daemon.start()
        assert watch_firing(alerting, 6.0) == {1}
        assert scraped_again(alerting)
        assert watch_firing(alerting, 1.0) == {1}
        assert not heard.alerts(ICY, "resolved")
        (alert,) = heard.alerts(ICY, "firing")
        (chat,) = wait_until(lambda: heard.chat, "the message in the chat")
    assert alert["labels"]["lamella"] == NASTY
    assert alert["labels"]["microscope"] == "test"
    assert f"of lamella {NASTY} on test is" in alert["annotations"]["description"]
    assert chat["channel"] == "#krios1"
    (attachment,) = chat["attachments"]
    for text in (attachment["title"], attachment["fallback"], attachment["text"]):
        assert "lamella session/grid1/‹!channel› icy" in text
        assert "<" not in text
    assert alert["annotations"]["runbook_url"] in attachment["text"]


RESTARTS = 20
LAMELLAE = 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_lamella_is_told_once_over_many_restarts(daemon: Daemon, alerting: Alerting) -> None:
    microscope = Microscope(daemon.acquisition)
    icy = {f"session/grid1/icy{index}" for index in range(LAMELLAE)}
    for series in sorted(icy):
        acquire(microscope, series, 20.0)
    daemon.start().wait_for_state("ready")
    with alerting.running() as heard:
        wait_until(lambda: len(heard.alerts(ICY, "firing")) == LAMELLAE, "all alerts", WITHIN_S)
        for _ in range(RESTARTS):
            daemon.signal(signal.SIGKILL)
            daemon.start()
            assert scraped_again(alerting)
            assert watch_firing(alerting, 1.0) == {LAMELLAE}
        time.sleep(RESOLVED_WOULD_COME_S)
        told = [one["labels"]["lamella"] for one in heard.alerts(ICY, "firing")]
        assert sorted(told) == sorted(icy)
        assert len(heard.chat) == LAMELLAE + bool(
            heard.alerts("IcewatchGridPoorVitrification", "firing")
        )
        assert not heard.alerts(ICY, "resolved")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_memory_in_the_rules_a_restart_would_be_told_as_good_news(
    daemon: Daemon, tmp_path: Path
) -> None:
    """What the test above relies on: a false end is told, and seen, within its patience."""
    folder = tmp_path / "forgetful"
    folder.mkdir()
    forgetful = Alerting(folder, {"test": daemon.metrics_address}, instant_rules=True)
    acquire(Microscope(daemon.acquisition), "session/grid1/icy", 20.0)
    daemon.start().wait_for_state("ready")
    with forgetful.running() as heard:
        wait_until(lambda: heard.alerts(ICY, "firing"), "the alert", WITHIN_S)
        daemon.signal(signal.SIGKILL)
        wait_until(lambda: heard.alerts(ICY, "resolved"), "a false end", RESOLVED_WOULD_COME_S)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_dead_daemon_is_told_within_two_minutes(daemon: Daemon, alerting: Alerting) -> None:
    daemon.start().wait_for_state("ready")
    with alerting.running() as heard:
        wait_until(lambda: alerting.query("up == 1"), "a first scrape", WITHIN_S)
        daemon.signal(signal.SIGKILL)
        wait_until(lambda: heard.alerts("IcewatchSilent", "firing"), "the alert", 120.0)
        (letter,) = wait_until(lambda: heard.mail, "the letter", WITHIN_S)
        assert "Subject: test: icewatch is silent" in letter
        assert "To: cryo-em-on-call@example.org" in letter
        daemon.start().wait_for_state("ready")
        wait_until(lambda: heard.alerts("IcewatchSilent", "resolved"), "its end", 90.0)
