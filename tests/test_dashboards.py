"""The committed dashboards are what the script writes, complete, and made for people to read."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from deploy.grafana import make
from tests.alerting_programs import DEPLOY, promtool
from tests.dashboard_panels import FOLDER, NAMES, Dashboard, all_panels
from tests.dashboard_rules import faults, known_metrics, selectors

PROVISIONING = DEPLOY / "grafana/provisioning"


def test_the_committed_files_are_what_the_script_writes(tmp_path: Path) -> None:
    make.write(tmp_path)
    written = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text("utf-8") for path in FOLDER.iterdir()}
    assert written.keys() == {f"{name}.json" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_dashboards_keep_the_rules(name: str) -> None:
    assert faults(Dashboard(name).raw) == []


Spoil = Callable[[dict[str, Any]], object]
SPOILT: dict[str, tuple[str, Spoil]] = {
    "editable": ("can be edited", lambda page: page.update(editable=True)),
    "uid": ("no uid", lambda page: page.update(uid="x")),
    "description of page": ("no description", lambda page: page.update(description="")),
    "fixed time": ("until now", lambda page: page["time"].update({"from": "2026-01-01"})),
    "id twice": ("an id of a panel", lambda page: page["panels"][0].update(id=2)),
    "title twice": (
        "a title twice",
        lambda page: page["panels"][0].update(title=page["panels"][1]["title"]),
    ),
    "red and green": ("#FF0000", lambda page: page["panels"][0].update(color="#FF0000")),
    "no source variable": ("for the data source", lambda page: page["templating"]["list"].pop(0)),
    "no microscope": ("for the microscope", lambda page: page["templating"]["list"].pop(1)),
    "no label": ("no label", lambda page: page["templating"]["list"][1].update(label="")),
    "not reloaded": (
        "not read again",
        lambda page: page["templating"]["list"][1].update(refresh=1),
    ),
    "variable source": (
        "fixed data source",
        lambda page: page["templating"]["list"][1].update(datasource={"uid": "abc"}),
    ),
    "variable of all jobs": (
        "more than icewatch",
        lambda page: page["templating"]["list"][1].update(query={"query": "label_values(up, a)"}),
    ),
    "wide": ("wider than", lambda page: page["panels"][0]["gridPos"].update(w=25)),
    "overlap": ("lies upon", lambda page: page["panels"][1]["gridPos"].update(x=1, y=1)),
    "no title": ("no title", lambda page: page["panels"][0].update(title="")),
    "no sentence": ("no sentence", lambda page: page["panels"][0].update(description="Ice")),
    "panel source": ("fixed data source", lambda page: page["panels"][0].update(datasource="abc")),
    "no unit": ("no unit", lambda page: page["panels"][0]["fieldConfig"]["defaults"].pop("unit")),
    "no word": (
        "nothing where",
        lambda page: page["panels"][0]["fieldConfig"]["defaults"].pop("noValue"),
    ),
    "no target": ("asks nothing", lambda page: page["panels"][0].update(targets=[])),
    "target source": (
        "asks a fixed data source",
        lambda page: page["panels"][0]["targets"][0].pop("datasource"),
    ),
}
EXPRESSIONS = {
    "": "an empty query",
    'up{job="icewatch", microscope="$scope"}': "$scope, which cannot be chosen",
    'rate(process_cpu_seconds_total{job="icewatch", microscope="$microscope"}[5m])': "a rate over",
    'icewatch_ice{job="icewatch", microscope="$microscope"}': "no metric of icewatch",
    'up{microscope="$microscope"}': "of any job",
    'up{job="icewatch"}': "of any microscope",
    "up": "of any job",
    'icewatch_errors_total{job="icewatch", microscope="$microscope"}': "the bare counter",
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_the_rules_notice(spoilt: str) -> None:
    fault, spoil = SPOILT[spoilt]
    page = copy.deepcopy(dict(Dashboard("session").raw))
    spoil(page)
    assert [one for one in faults(page) if fault in one], faults(page)


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_the_rules_notice_in_a_query(expr: str) -> None:
    page = copy.deepcopy(dict(Dashboard("session").raw))
    page["panels"][0]["targets"][0]["expr"] = expr
    assert [one for one in faults(page) if EXPRESSIONS[expr] in one], faults(page)


def test_every_selector_of_a_query_is_seen() -> None:
    expr = 'sum by (a) (x{b="c"}[5m]) / on (d) y > 0 or z{} and rate(u:v{w="{}"}[$__rate_interval])'
    assert selectors(expr) == [("x", 'b="c"'), ("y", ""), ("z", ""), ("u:v", 'w="{}"')]


def test_what_matters_of_the_metrics_is_shown() -> None:
    """A metric that nobody sees may as well not be there; the listed ones say why."""
    asked = {
        name
        for panel in all_panels()
        for target in panel.targets
        for name, _ in selectors(target.expr)
    }
    rules = (DEPLOY / "prometheus/recording-rules.yml").read_text("utf-8")
    own = {name for name in known_metrics() if name.startswith("icewatch_")}
    unseen = {name for name in own - asked if name not in rules and not name.endswith("_bucket")}
    unseen -= {f"{name}" for name in own if f"{name}_sum" in asked or f"{name}_sum" in rules}
    assert unseen <= {
        "icewatch_heartbeat_timestamp_seconds",  # IcewatchSilent looks at it
        "icewatch_newest_lamella_tilts_missing",  # IcewatchSeriesStopped looks at it
        "icewatch_last_seq",  # for programs that subscribe
        "icewatch_landed_to_published_seconds",
        "icewatch_landed_to_published_seconds_sum",
        "icewatch_landed_to_published_seconds_count",
        "icewatch_engine_age_seconds",  # `icewatch engine list` shows them
        "icewatch_engine_batch_tilts",
        "icewatch_engine_batch_tilts_sum",
        "icewatch_engine_batch_tilts_count",
        "icewatch_gpu_info",  # so does `nvidia-smi`
        "icewatch_config_last_reload_success_timestamp_seconds",
        "icewatch_state_removed_bytes_total",
    }


def test_links_lead_to_dashboards_that_there_are() -> None:
    identifiers = {Dashboard(name).raw["uid"] for name in NAMES}
    assert identifiers == {"icewatch-session", "icewatch-health", "icewatch-fleet"}
    for name in NAMES:
        text = Dashboard(name).path.read_text("utf-8")
        linked = set(re.findall(r"/d/(icewatch-\w+)", text))
        assert linked == identifiers - {f"icewatch-{name}"}
        # "All" of Fleet is nothing that a dashboard of one microscope can show.
        for url in re.findall(r"/d/icewatch-[^\"]+", text):
            if "${microscope}" in url:
                assert name != "fleet" and "icewatch-fleet" not in url


def test_provisioning_names_what_the_dashboards_need() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    assert (source["uid"], source["url"]) == ("$PROMETHEUS_UID", "$PROMETHEUS_URL")
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/icewatch.yml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file" and provider["allowUiUpdates"] is False


def test_the_rules_that_dashboards_ask_for_hold() -> None:
    done = promtool("test", "rules", DEPLOY / "prometheus/tests/dashboards/sessions.yml")
    assert done.returncode == 0, done.stdout + done.stderr
