"""Every query of every panel, on a real Prometheus that is filled from a recorded session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import isfinite
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from deploy.grafana.expressions import counted
from tests.alerting_programs import promtool
from tests.dashboard_panels import CHOSEN, NAMES, Dashboard, Panel, Times, all_panels, panel
from tests.dashboard_prometheus import BEGINS_S, WHOLE, Filled, filled_from
from tests.dashboard_recording import BEFORE_THE_FIRST_TILT_S, LASTS_S, Recording
from tests.dashboard_tables import table_of
from tests.dashboard_truth import Truth, answers, bars, number, rows

WITHOUT_GPU = {
    "Does the GPU answer?",
    "Times that it was lost",
    "Use of the GPU",
    "Temperature of the GPU",
    "Time of one call of the GPU engine",
}
NOTHING_REMOVED = "What icewatch removed there"
EMPTY = Times(BEGINS_S, BEGINS_S + BEFORE_THE_FIRST_TILT_S)
"""icewatch is ready, and nothing has landed yet."""


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.read()


@pytest.fixture(scope="module")
def prometheus(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with filled_from(tmp_path_factory.mktemp("filled"), recording) as found:
        yield found


@pytest.fixture(scope="module")
def truth(recording: Recording) -> Truth:
    return Truth(recording, "krios1")


@pytest.mark.parametrize("one", list(all_panels()), ids=str)
def test_every_panel_shows_something_that_a_person_can_read(prometheus: Filled, one: Panel) -> None:
    for letter, found in answers(prometheus, one).items():
        assert (found == []) == (one.title in WITHOUT_GPU | {NOTHING_REMOVED}), letter
        assert all(isfinite(value) for series in found for _, value in series.points)
    if one.kind == "stat":
        assert sum(len(found) for found in answers(prometheus, one).values()) <= 1


def test_verdicts_are_those_that_subscribers_heard(prometheus: Filled, truth: Truth) -> None:
    shown = {
        word: number(prometheus, "session", word.capitalize())
        for word in ("keep", "undecided", "skip")
    }
    assert shown == {word: len(truth.with_verdict(word)) for word in shown}
    assert shown["skip"] == 3 and shown["keep"] == 5


def test_the_table_shows_each_lamella_as_it_was_told(prometheus: Filled, truth: Truth) -> None:
    shown = rows(prometheus, "session", "Lamellae")
    assert [row["Lamella"] for row in shown] == sorted(truth.lamellae)
    for row in shown:
        said = truth.lamellae[row["Lamella"]]
        assert row["Verdict"] == {"keep": 0, "undecided": 1, "skip": 2}[said["verdict"]]
        percent = said["ice_percent"]
        assert row["Mean ice"] == (None if percent is None else pytest.approx(percent / 100))
        measured = [
            one["percent"]
            for one in truth.tilts
            if one["lamella"] == row["Lamella"] and one["percent"] is not None
        ]
        newest = pytest.approx(measured[-1] / 100) if measured else None
        assert row["Ice of newest tilt"] == newest
        assert row["Tilts read"] == said["tilts_seen"]
        assert row["Tilts to come"] == said["tilts_expected"] - said["tilts_seen"]
        assert row["Progress"] == said["tilts_seen"] / said["tilts_expected"]


def test_what_skipping_saves(prometheus: Filled, truth: Truth) -> None:
    saved = sum(one["tilts_expected"] - one["tilts_seen"] for one in truth.with_verdict("skip"))
    assert saved > 10
    assert number(prometheus, "session", "Tilts that skipping saves") == saved
    assert number(prometheus, "session", "Time that skipping saves") == 30 * saved


def test_what_was_not_measured_is_counted_with_its_reason(prometheus: Filled, truth: Truth) -> None:
    blank = [one for one in truth.tilts if one["percent"] is None]
    assert len(blank) == 3
    assert bars(prometheus, "session", "Tilts, measured or not") == {
        "measured": len(truth.tilts) - 3,
        "not measurable": 3,
        "no opinion": sum(not one["in_domain"] for one in truth.tilts),
    }
    flags = Counter(flag for one in truth.tilts for flag in one["flags"])
    assert bars(prometheus, "session", "What was remarkable about tilts") == flags
    assert bars(prometheus, "session", "Files that gave no tilt, and why") == {"truncated": 1}


def test_the_trend_is_the_mean_of_the_tilts(prometheus: Filled, truth: Truth) -> None:
    known = [
        one["percent"] for one in truth.tilts if one["in_domain"] and one["percent"] is not None
    ]
    two_hours = bars(prometheus, "session", "Trend of the session")["last 2 hours"]
    assert two_hours == pytest.approx(sum(known) / len(known) / 100, rel=1e-3)
    shares = bars(prometheus, "session", "Share of lamellae to skip, by grid")
    judged = len(truth.with_verdict("skip")) + len(truth.with_verdict("keep"))
    assert shares == {"2026-01-01_simulated grid_1": len(truth.with_verdict("skip")) / judged}


def test_tilts_are_shown_while_they_come(prometheus: Filled, truth: Truth) -> None:
    """The first lamella was acquired in the beginning, the last one at the end."""
    (found,) = answers(
        prometheus, panel("session", "Ice of the tilts as they came, by lamella")
    ).values()
    times = {series.labels["lamella"]: [at_s for at_s, _ in series.points] for series in found}
    measured = {one["lamella"] for one in truth.tilts if one["percent"] is not None}
    assert times.keys() == measured
    ordered = sorted(measured)
    assert max(times[ordered[0]]) < BEGINS_S + LASTS_S / 2 < min(times[ordered[-1]])


def test_an_ended_session_can_still_be_looked_at(prometheus: Filled) -> None:
    later = replace(WHOLE, begin_s=WHOLE.begin_s - 3600, end_s=WHOLE.end_s + 6 * 3600)
    assert rows(prometheus, "session", "Lamellae", later) == rows(prometheus, "session", "Lamellae")
    assert number(prometheus, "session", "Skip", later) == 3
    lamellae = panel("session", "Lamellae")
    other = answers(prometheus, lamellae, WHOLE, {**CHOSEN, "session": "another"})
    same = answers(prometheus, lamellae, WHOLE, {**CHOSEN, "session": "2026-01-01_simulated"})
    assert set(map(len, other.values())) == {0}
    assert same == answers(prometheus, lamellae)


def test_health_tells_how_icewatch_is(prometheus: Filled, truth: Truth) -> None:
    assert number(prometheus, "health", "State") == 0
    assert number(prometheus, "health", "Alerts firing") == 3
    (alert,) = rows(prometheus, "health", "Alerts that fire now")
    assert (alert["Alert"], alert["Number"]) == ("IcewatchLamellaPoorVitrification", 3)
    assert bars(prometheus, "health", "What reads the tilts") == {"onnxruntime": 1}
    assert bars(prometheus, "health", "Configuration") == {"configuration": 1}
    age_s = number(prometheus, "health", "Since the newest tilt")
    assert age_s is not None and 0 <= age_s < 120
    running_s = number(prometheus, "health", "Running for")
    assert running_s is not None and LASTS_S < running_s < 1.5 * LASTS_S
    errors = bars(prometheus, "health", "Errors by stage")
    assert errors == {"receiving": 0, "processing": 0, "sending": 0}


def test_latency_lies_between_what_was_observed(prometheus: Filled) -> None:
    found = answers(prometheus, panel("health", "From landing to message"))
    half, most = (dict(one[0].points) for one in found.values())
    assert all(0 < half[at_s] <= most[at_s] <= 300 for at_s in half.keys() & most.keys())
    stages = bars(prometheus, "health", "Where the time goes")
    assert stages.keys() == {"read", "infer", "decide"}
    assert stages["infer"] == max(stages.values())


def test_fleet_tells_the_microscopes_apart(prometheus: Filled, recording: Recording) -> None:
    shown = {row["Microscope"]: row for row in rows(prometheus, "fleet", "Microscopes")}
    assert list(shown) == ["krios1", "krios2", "krios3"]
    assert [row["State"] for row in shown.values()] == [0, 3, 4]
    assert [row["Alerts firing"] for row in shown.values()] == [3, 1, 1]
    for name in ("krios1", "krios2"):
        truth, row = Truth(recording, name), shown[name]
        verdicts = [len(truth.with_verdict(word)) for word in ("keep", "undecided", "skip")]
        assert [row["Keep"], row["Undecided"], row["Skip"]] == verdicts
        assert row["Session"] == "2026-01-01_simulated"
    assert shown["krios1"]["Since the newest tilt"] < 120 < shown["krios2"]["Since the newest tilt"]
    assert shown["krios1"]["Ice, last 2 hours"] != shown["krios2"]["Ice, last 2 hours"]
    assert shown["krios3"]["Session"] is None and shown["krios3"]["Skip"] is None


def test_fleet_counts_all_microscopes(prometheus: Filled) -> None:
    titles = ("Microscopes watched", "Acquiring now", "Not as they should be", "Alerts firing")
    assert [number(prometheus, "fleet", title) for title in titles] == [3, 2, 2, 5]
    alerts = {
        (row["Microscope"], row["Alert"])
        for row in rows(prometheus, "fleet", "Alerts that fire now")
    }
    assert alerts == {
        ("krios1", "IcewatchLamellaPoorVitrification"),
        ("krios2", "IcewatchStalled"),
        ("krios3", "IcewatchSilent"),
    }


def test_one_microscope_of_the_fleet_can_be_chosen(prometheus: Filled) -> None:
    chosen = {**CHOSEN, "microscope": "(krios2|krios3)"}
    table = panel("fleet", "Microscopes")
    shown = table_of(table, answers(prometheus, table, WHOLE, chosen)).rows()
    assert [row["Microscope"] for row in shown] == ["krios2", "krios3"]


SHOWN_WITHOUT_TILTS = {
    ("session", "icewatch is"): 0,
    ("session", "Running session"): None,
    ("session", "Keep"): None,
    ("session", "Skip"): None,
    ("session", "Tilts that skipping saves"): None,
    ("session", "Time that skipping saves"): None,
    ("health", "State"): 0,
    ("health", "Alerts firing"): 0,
    ("health", "Since the newest tilt"): None,
    ("health", "Tilts set aside"): 0,
    ("fleet", "Acquiring now"): 0,
    ("fleet", "Microscopes watched"): 3,
}


@pytest.mark.parametrize("place", SHOWN_WITHOUT_TILTS, ids=": ".join)
def test_before_the_first_tilt(prometheus: Filled, place: tuple[str, str]) -> None:
    assert number(prometheus, *place, EMPTY) == SHOWN_WITHOUT_TILTS[place]


def test_before_the_first_tilt_no_panel_shows_nonsense(prometheus: Filled) -> None:
    for one in all_panels():
        for found in answers(prometheus, one, EMPTY).values():
            assert all(isfinite(value) for series in found for _, value in series.points), one
    assert rows(prometheus, "session", "Lamellae", EMPTY) == []
    (first, *_) = rows(prometheus, "fleet", "Microscopes", EMPTY)
    assert (first["Microscope"], first["State"], first.get("Session")) == ("krios1", 0, None)
    assert first.get("Ice, last 2 hours") is None


def test_where_nothing_was_ever_scraped_all_panels_are_empty(prometheus: Filled) -> None:
    long_ago = Times(BEGINS_S - 90_000, BEGINS_S - 86_400)
    for one in all_panels():
        assert set(map(len, answers(prometheus, one, long_ago).values())) == {0}, one


@pytest.mark.parametrize("name", NAMES)
def test_what_can_be_chosen(prometheus: Filled, name: str) -> None:
    expected = {
        "microscope": ["krios1", "krios2", "krios3"],
        "session": ["2026-01-01_simulated"],
        "instance": ["127.0.0.1:9108"],
    }
    for variable in Dashboard(name).variables.values():
        if variable["type"] == "query":
            asked = variable["query"]["query"].replace("$microscope", "krios1")
            selector, _, label = (
                asked.removeprefix("label_values(").removesuffix(")").rpartition(", ")
            )
            found = prometheus.label_values(selector, label, WHOLE)
            assert found == expected[variable["name"]]


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ("_x150 1x90", 1),
        ("_x150 1x30 2x59", 2),
        ("5x150 7x90", 2),
        ("5x150 stale _x9 1x80", 1),
        ("0x240", 0),
        ("_x240", None),
    ],
    ids=["first", "two", "from before", "restart", "none", "no series"],
)
def test_counters_are_counted_from_their_first_event(
    values: str, count: int | None, tmp_path: Path
) -> None:
    expr = counted("x_total").replace("$__range", "10m")
    expected = [] if count is None else [{"labels": "{}", "value": count}]
    check = {"expr": expr, "eval_time": "1199s", "exp_samples": expected}
    series = {"series": "x_total", "values": values}
    test = {"interval": "5s", "input_series": [series], "promql_expr_test": [check]}
    (tmp_path / "t.yml").write_text(yaml.safe_dump({"tests": [test]}))
    done = promtool("test", "rules", tmp_path / "t.yml")
    assert done.returncode == 0, done.stdout + done.stderr
