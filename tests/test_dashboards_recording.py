"""The recorded session is of this icewatch, and what is made of it is what Prometheus makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.alerting_programs import DEPLOY, promtool
from tests.dashboard_prometheus import (
    BEGINS_S,
    ENDS_S,
    WHOLE,
    Filled,
    fill,
    rules_over_time,
    running,
)
from tests.dashboard_recording import EVERY_S, RECORDED, Recording, record
from tests.dashboard_rules import known_metrics


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.read()


def names_in(recording: Recording) -> set[str]:
    return {line.partition("{")[0] for one in recording.scrapes for line in one.text.splitlines()}


def test_the_recording_shows_metrics_that_there_are(recording: Recording) -> None:
    assert names_in(recording) <= known_metrics()
    assert RECORDED.stat().st_size < 200_000


@pytest.mark.slow
def test_the_recording_is_of_this_icewatch(recording: Recording, tmp_path: Path) -> None:
    """Where this fails, icewatch has a new metric: record anew (see dashboard_recording.py)."""
    new = record(tmp_path, lasts_s=300.0)
    assert names_in(new) <= names_in(recording)
    assert sum(len(tilts) for tilts in new.tilts.values()) > 10


@pytest.mark.slow
def test_what_is_filled_in_for_the_rules_is_what_prometheus_records(
    recording: Recording, tmp_path: Path
) -> None:
    """promtool evaluates rules over the past as well, a part of a step later."""
    data, own = tmp_path / "data", tmp_path / "own"
    data.mkdir()
    fill(tmp_path / "scraped.txt", recording.open_metrics(ENDS_S), data)
    with running(tmp_path, data) as scraped:
        fill(tmp_path / "made.txt", rules_over_time(scraped), own)
    for _ in range(2):  # what asks for another rule finds it the second time
        with running(tmp_path, data) as scraped:
            _record_rules(scraped, data)
    ours, theirs = _of_lamellae(tmp_path, own), _of_lamellae(tmp_path, data)
    assert len(theirs) > 50 and theirs.keys() == ours.keys()
    for labels, points in theirs.items():
        for at_s, value in list(points.items())[:-1]:
            assert value == ours[labels][at_s - EVERY_S], labels


def _record_rules(scraped: Filled, data: Path) -> None:
    span = [f"--start={BEGINS_S:.0f}", f"--end={ENDS_S:.0f}", f"--eval-interval={EVERY_S:.0f}s"]
    places = [f"--url=http://{scraped.address}", f"--output-dir={data}"]
    rules = DEPLOY / "prometheus/recording-rules.yml"
    done = promtool("tsdb", "create-blocks-from", "rules", *span, *places, rules)
    assert done.returncode == 0, done.stdout + done.stderr


def _of_lamellae(folder: Path, data: Path) -> dict[str, dict[float, float]]:
    """Recorded series that no window of time smooths, by labels and time."""
    with running(folder, data) as known:
        found = known.ask_over_time('{__name__=~"icewatch:.+:(by_session|judged)"}', WHOLE)
    return {json.dumps(one.labels, sort_keys=True): dict(one.points) for one in found}
