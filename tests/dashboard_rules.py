"""What every dashboard must keep: the rules of grafana/dashboard-linter, and some of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.alerting_programs import DEPLOY

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"none", "percentunit", "s", "bytes", "celsius"}
COLOURS = {"#0072B2", "#56B4E9", "#F0E442", "#E69F00", "#D55E00", "#CC79A7", "#8E8E8E"}
"""Okabe and Ito's, and a grey: people who are colour-blind tell them apart."""
OF_PROMETHEUS = {"up", "ALERTS"}
_WORDS = {"by", "on", "and", "or", "unless", "offset", "bool", "group_left", "without", "ignoring"}
_BUILT_IN = {"__range", "__rate_interval", "datasource"}
Document = Mapping[str, Any]


@cache
def known_metrics() -> set[str]:
    """Names that deploy/metrics.md lists, histograms in their parts, and recorded ones."""
    text = (DEPLOY / "metrics.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE))
    parts = {
        f"{name}_{part}"
        for name, kind in listed.items()
        if kind == "histogram"
        for part in ("sum", "count", "bucket")
    }
    rules = yaml.safe_load((DEPLOY / "prometheus/recording-rules.yml").read_text("utf-8"))
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"]}
    return listed.keys() | parts | recorded | OF_PROMETHEUS


def selectors(expr: str) -> list[tuple[str, str]]:
    """Every metric that an expression names, with its matchers."""
    bare = re.sub(r"\b(?:by|on|without|ignoring|group_left) ?\([^)]*\)|\[[^\]]*\]", " ", expr)
    name, matchers = r"(?<![\w:$])([A-Za-z_:][\w:]*)", r"\{((?:[^{}\"]|\"[^\"]*\")*)\}"
    found = re.findall(rf"{name}(?:{matchers}|(?![\w:]|\s*[({{]))", bare)
    return [(metric, asked) for metric, asked in found if metric not in _WORDS]


def faults(document: Document) -> list[str]:
    """Say in one line each what is wrong with a dashboard."""
    found = [*_of_page(document), *_of_variables(document), *_of_grid(document)]
    names = {one["name"] for one in document["templating"]["list"]}
    for panel in document["panels"]:
        if panel["type"] == "row":
            continue
        found += [f"{panel.get('title')}: {fault}" for fault in _of_panel(panel, names)]
    return found


def _of_page(document: Document) -> Iterator[str]:
    if document["editable"]:
        yield "can be edited in Grafana, where the change is lost"
    if not re.fullmatch(r"icewatch-[a-z]+", document["uid"]):
        yield "has no uid of its own"
    if not document.get("description"):
        yield "has no description"
    if not document["time"]["from"].startswith("now-"):
        yield "does not begin with a time until now"
    identifiers = [panel["id"] for panel in document["panels"]]
    if len(set(identifiers)) < len(identifiers):
        yield "uses an id of a panel twice"
    titles = [panel["title"] for panel in document["panels"]]
    if len(set(titles)) < len(titles):
        yield "uses a title twice"
    for colour in sorted(set(re.findall(r"#[0-9A-Fa-f]{6}\b", str(document))) - COLOURS):
        yield f"uses {colour}, which not everybody tells from others"


def _of_variables(document: Document) -> Iterator[str]:
    variables = {one["name"]: one for one in document["templating"]["list"]}
    source = variables.get("datasource", {})
    if (source.get("type"), source.get("query")) != ("datasource", "prometheus"):
        yield "has no variable for the data source"
    if "microscope" not in variables:
        yield "has no variable for the microscope"
    for name, one in variables.items():
        if not one.get("label"):
            yield f"variable {name} has no label"
        if one["type"] != "query":
            continue
        if one.get("refresh") != 2:
            yield f"variable {name} is not read again when the time changes"
        if one.get("datasource") != SOURCE:
            yield f"variable {name} has a fixed data source"
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"]["query"])
        if asked is None or 'job="icewatch"' not in asked[1]:
            yield f"variable {name} asks for more than icewatch"


def _of_grid(document: Document) -> Iterator[str]:
    boxes = [(panel["title"], panel["gridPos"]) for panel in document["panels"]]
    for title, box in boxes:
        if box["x"] + box["w"] > 24:
            yield f"{title}: is wider than the page"
    for (one, a), (other, b) in combinations(boxes, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        if not (beside or above):
            yield f"{one}: lies upon {other}"


def _of_panel(panel: Document, variables: set[str]) -> Iterator[str]:
    fields = panel["fieldConfig"]["defaults"]
    if not panel.get("title"):
        yield "has no title"
    if not re.fullmatch(r"[A-Z].{20,}\.", panel.get("description") or ""):
        yield "has no sentence that says what it means"
    if panel.get("datasource") != SOURCE:
        yield "has a fixed data source"
    if fields.get("unit") not in UNITS:
        yield "has no unit"
    if not fields.get("noValue"):
        yield "says nothing where there is nothing"
    if not panel.get("targets"):
        yield "asks nothing"
    for target in panel.get("targets", ()):
        if target.get("datasource") != SOURCE:
            yield "asks a fixed data source"
        yield from _of_expression(target["expr"], variables)


def _of_expression(expr: str, variables: set[str]) -> Iterator[str]:
    if not expr.strip():
        yield "has an empty query"
    for name in sorted(set(re.findall(r"\$(\w+)", expr)) - variables - _BUILT_IN):
        yield f"asks for ${name}, which cannot be chosen"
    if re.search(r"\bi?rate\([^[]+\[(?!\$__rate_interval\])", expr):
        yield "takes a rate over another time than $__rate_interval"
    known = known_metrics()
    for name, matchers in selectors(expr):
        if name not in known:
            yield f"asks for {name}, which is no metric of icewatch"
        if 'job="icewatch"' not in matchers:
            yield f"asks for {name} of any job"
        if "$microscope" not in matchers:
            yield f"asks for {name} of any microscope"
        of_counter = rf"\b(?:rate|increase|min_over_time|last_over_time)\({name}\{{"
        if name.endswith("_total") and not re.search(of_counter, expr):
            yield f"shows the bare counter {name}"
