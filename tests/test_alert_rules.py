"""Every alert is complete, explained and tested, asks for metrics that exist, and can fail."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.alerting_programs import DEPLOY, program, promtool, shipped

RULES = DEPLOY / "prometheus"
CASES = sorted((RULES / "tests").glob("*.yml"))
GOLDEN = Path(__file__).parent / "golden" / "metrics.txt"
SEVERITIES, TOPICS = {"critical", "warning", "info"}, {"ice", "monitor", "acquisition"}


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in shipped(f"prometheus/{name}")["groups"] for rule in group["rules"]]


ALERTS = rules("alert-rules.yml")
RECORDED = rules("recording-rules.yml")
NAMES = [rule["alert"] for rule in ALERTS]


def cases() -> dict[str, list[dict[str, Any]]]:
    """The promtool cases by alert, which each of them names before a colon."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in CASES:
        for one in yaml.safe_load(path.read_text("utf-8"))["tests"]:
            found.setdefault(one["name"].partition(":")[0], []).append(one)
    return found


def anchors(markdown: str) -> set[str]:
    return {
        line[3:].strip().lower().replace(" ", "-")
        for line in markdown.splitlines()
        if line.startswith("## ")
    }


def test_alert_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_every_alert_is_complete(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Icewatch")
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["labels"]["topic"] in TOPICS
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert "$labels.microscope" in rule["annotations"]["summary"]
    assert "$value" not in rule["annotations"]["summary"], "a title must not change"
    file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    assert anchor in anchors((DEPLOY.parent / file).read_text("utf-8"))


def test_the_runbook_has_no_section_too_many() -> None:
    text = (DEPLOY / "runbook.md").read_text("utf-8")
    assert anchors(text) == {name.lower() for name in NAMES}
    for rule in ALERTS:
        section = text.split(f"## {rule['alert']}\n")[1].partition("\n## ")[0]
        assert section.strip().startswith(f"*{rule['labels']['severity']}.*")


@pytest.mark.parametrize(
    "rule", [*ALERTS, *RECORDED], ids=lambda r: r.get("alert", r.get("record"))
)
def test_every_rule_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    listed = {line.split()[0]: line.split()[1:] for line in GOLDEN.read_text().splitlines()}
    recorded = {one["record"] for one in RECORDED}
    names = re.findall(
        r"\b(?:icewatch|process)[\w:]*|\bup\b", re.sub(r'"[^"]*"', '""', rule["expr"])
    )
    assert names
    for name in set(names) - recorded - {"up"}:
        metric = re.sub(r"_(sum|count|bucket)$", "", name) if name not in listed else name
        assert metric in listed, f"{name} is no metric of icewatch"
    # A selector without the job would mix in what others call alike.
    for name, after in re.findall(r"\b((?:icewatch|process)_\w+|up)\b([\[{]?)", rule["expr"]):
        assert after == "{", f"{name} is asked for without job"


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_every_alert_has_its_cases(rule: dict[str, Any]) -> None:
    own = cases()[rule["alert"]]
    assert len(own) >= 3
    titles = " ".join(one["name"].partition(": ")[2] for one in own)
    assert re.search(r"\bfires\b", titles)
    assert re.search(r"stays quiet", titles)
    assert re.search(r"restart|outage|missing data|nothing", titles)
    expected = [
        alert
        for one in own
        for check in one.get("alert_rule_test", ())
        if check["alertname"] == rule["alert"]
        for alert in check["exp_alerts"]
    ]
    assert expected and all(alert["exp_annotations"] for alert in expected), "no text is tested"


def test_no_case_is_for_an_alert_that_is_gone() -> None:
    assert set(cases()) == set(NAMES)


def test_ice_is_told_from_readings_alone() -> None:
    ice = [rule for rule in ALERTS if rule["labels"]["topic"] == "ice"]
    assert len(ice) == 5
    for rule in ice:
        assert "absent" not in rule["expr"] and "up{" not in rule["expr"]


def test_prometheus_takes_the_shipped_files() -> None:
    done = promtool("check", "config", "--lint-fatal", RULES / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_shipped_times_allow_the_promise() -> None:
    """30 s from landing to webhook: two scrapes, two evaluations, `for` and the group's wait."""
    config = shipped("prometheus/prometheus.yml")["global"]
    webhook = next(
        one
        for one in shipped("alertmanager/alertmanager.yml")["route"]["routes"]
        if one["receiver"] == "webhook"
    )
    icy = next(rule for rule in ALERTS if rule["alert"] == "IcewatchLamellaPoorVitrification")
    intervals = (config["scrape_interval"], config["evaluation_interval"])
    times = [*intervals, *intervals, icy["for"], webhook["group_wait"]]
    assert all(one.endswith("s") for one in times)
    assert sum(int(one[:-1]) for one in times) <= 27


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_promtool_cases_pass(path: Path, request: pytest.FixtureRequest) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_cases_of_an_alert_notice_when_it_is_broken(name: str, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    for path in RULES.glob("*-rules.yml"):
        text = path.read_text("utf-8")
        (tmp_path / path.name).write_text(text.replace(f"alert: {name}\n", f"alert: {name}Not\n"))
    file = next(path for path in CASES if f"{name}:" in path.read_text("utf-8"))
    document = yaml.safe_load(file.read_text("utf-8"))
    document["tests"] = [one for one in document["tests"] if one["name"].startswith(f"{name}:")]
    (tmp_path / "tests" / "one.yml").write_text(yaml.safe_dump(document))
    assert promtool("test", "rules", tmp_path / "tests" / "one.yml").returncode != 0


def amtool(*words: str) -> subprocess.CompletedProcess[str]:
    command = [program("amtool", "prometheus-alertmanager"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_alertmanager_takes_the_shipped_file() -> None:
    done = amtool("check-config", str(DEPLOY / "alertmanager/alertmanager.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ("alertname=IcewatchLamellaPoorVitrification topic=ice severity=warning", "webhook,chat"),
        ("alertname=IcewatchVerdictWithdrawn topic=ice severity=info", "webhook,chat"),
        (
            "alertname=IcewatchSilent topic=monitor severity=critical",
            "webhook,chat,mail-at-any-hour",
        ),
        ("alertname=IcewatchDegraded topic=monitor severity=warning", "webhook,mail"),
        ("alertname=OfSomebodyElse", "mail"),
    ],
)
def test_alerts_find_their_way(labels: str, receivers: str) -> None:
    file = f"--config.file={DEPLOY / 'alertmanager/alertmanager.yml'}"
    done = amtool("config", "routes", "test", file, *labels.split())
    assert done.stdout.strip() == receivers, done.stderr


def test_inhibitions_name_alerts_that_there_are() -> None:
    text = (DEPLOY / "alertmanager/alertmanager.yml").read_text("utf-8")
    inhibit = text[text.index("inhibit_rules:") :]
    assert set(re.findall(r"Icewatch\w+", inhibit)) <= set(NAMES)
