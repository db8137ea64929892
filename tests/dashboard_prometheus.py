"""A real Prometheus that is filled from the recorded session, with what the shipped rules make."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.alerting_programs import PATIENCE_S, program, promtool, shipped
from tests.dashboard_panels import CHOSEN, Panel, Target, Times
from tests.dashboard_recording import EVERY_S, LASTS_S, Recording
from tests.ports import free_port
from tests.waiting import wait_until

ENDS_S = 1_767_262_800.0 + 2880.0
"""2026-01-01, so that all fits into one block of two hours."""
BEGINS_S = ENDS_S - LASTS_S
WHOLE = Times(BEGINS_S - 60.0, ENDS_S, EVERY_S, EVERY_S)
"""A little more than was recorded, so that no step of a panel ends right with it."""


@dataclass(frozen=True)
class Series:
    """What a query found: labels, and points of (time in s, value)."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def last(self) -> float:
        """The last value."""
        return self.points[-1][1]


@dataclass(frozen=True)
class Filled:
    """A Prometheus that answers."""

    address: str

    def ask(self, expr: str, at_s: float) -> list[Series]:
        """Ask for one time."""
        found = self._get("query", query=expr, time=at_s)
        return [Series(one["metric"], (_point(one["value"]),)) for one in found]

    def ask_over_time(self, expr: str, times: Times) -> list[Series]:
        """Ask for every step of a time."""
        asked = {"query": expr, "start": times.begin_s, "end": times.end_s, "step": times.step_s}
        found = self._get("query_range", **asked)
        return [Series(one["metric"], tuple(map(_point, one["values"]))) for one in found]

    def ask_as_grafana(
        self,
        panel: Panel,
        target: Target,
        times: Times = WHOLE,
        chosen: Mapping[str, str] = CHOSEN,
    ) -> list[Series]:
        """Ask what a panel asks."""
        times = replace(times, step_s=max(panel.step_s, times.step_s))
        expr = target.asked(times, chosen)
        if target.is_instant:
            return self.ask(expr, times.end_s)
        return self.ask_over_time(expr, times)

    def label_values(self, selector: str, label: str, times: Times) -> list[str]:
        """Ask for the values of a label, as `label_values` of Grafana does."""
        asked = {"match[]": selector, "start": times.begin_s, "end": times.end_s}
        words = urllib.parse.urlencode(asked)
        address = f"http://{self.address}/api/v1/label/{label}/values?{words}"
        with urllib.request.urlopen(address, timeout=20) as answer:
            found: list[str] = json.load(answer)["data"]
            return found

    def _get(self, what: str, **asked: object) -> list[dict[str, Any]]:
        words = urllib.parse.urlencode(asked).encode()
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{what}", words, 20) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found


def _point(raw: list[Any]) -> tuple[float, float]:
    return float(raw[0]), float(raw[1])


@contextmanager
def filled(folder: Path, lines: Iterable[str]) -> Iterator[Filled]:
    """Fill a Prometheus with lines of OpenMetrics and what the shipped rules make of them."""
    data = folder / "data"
    data.mkdir()
    fill(folder / "scraped.txt", lines, data)
    with running(folder, data) as scraped:
        made = list(rules_over_time(scraped))
    fill(folder / "made.txt", made, data)
    with running(folder, data) as complete:
        yield complete


def filled_from(folder: Path, recording: Recording) -> AbstractContextManager[Filled]:
    """Fill a Prometheus from a recording."""
    return filled(folder, recording.open_metrics(ENDS_S))


def fill(file: Path, lines: Iterable[str], data: Path) -> None:
    """Make blocks of lines of OpenMetrics, which are kept in a file."""
    with file.open("w") as opened:
        opened.writelines(lines)
    done = promtool("tsdb", "create-blocks-from", "openmetrics", "--quiet", file, data)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running(folder: Path, data: Path) -> Iterator[Filled]:
    """Run a Prometheus that scrapes nothing."""
    config = folder / "prometheus.yml"
    config.write_text("global: {scrape_interval: 5s}\n")
    address = f"127.0.0.1:{free_port()}"
    command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}"]
    # What is filled in has no marks where a series ends: let no sample count for longer than it is.
    lookback = f"--query.lookback-delta={EVERY_S + 5:.0f}s"
    options = [f"--web.listen-address={address}", "--storage.tsdb.retention.time=100y", lookback]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log, cwd=folder)
    try:
        wait_until(partial(_is_ready, address), "Prometheus", PATIENCE_S)
        yield Filled(address)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def rules_over_time(scraped: Filled) -> Iterator[str]:
    """Lines of what the rules would have recorded, and of the alerts that would have fired."""
    known: dict[str, str] = {}
    for rule in _rules("recording-rules.yml"):
        known[rule["record"]] = expr = _inlined(rule["expr"], known)
        for one in scraped.ask_over_time(expr, WHOLE):
            yield from _lines(rule["record"], one.labels, one.points)
    for rule in _rules("alert-rules.yml"):
        own = {"alertname": rule["alert"], "alertstate": "firing", **rule["labels"]}
        for one in scraped.ask_over_time(_held(_inlined(rule["expr"], known), rule["for"]), WHOLE):
            points = [(at_s, 1.0) for at_s, _ in one.points]
            yield from _lines("ALERTS", {**one.labels, **own}, points)
    yield "# EOF\n"


def _rules(name: str) -> list[dict[str, Any]]:
    groups = shipped(f"prometheus/{name}")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _inlined(expr: str, known: Mapping[str, str]) -> str:
    """Put the expressions of recorded series in place of their names."""

    def put(found: re.Match[str]) -> str:
        inner = f"({known[found[1]]})"
        return f"{inner}[{found[2]}:{EVERY_S:.0f}s]" if found[2] else inner

    return re.sub(r"\b(icewatch:[\w:]+)(?:\[(\w+)\])?", put, expr)


def _held(expr: str, hold: str) -> str:
    """Give what an expression gave all through the time of `for`."""
    unit_s = {"s": 1, "m": 60, "h": 3600}[hold[-1]]
    steps = int(int(hold[:-1]) * unit_s / EVERY_S) + 1
    return f"count_over_time(({expr})[{steps * EVERY_S:.0f}s:{EVERY_S:.0f}s]) >= {steps}"


def _lines(
    name: str, labels: Mapping[str, str], points: Iterable[tuple[float, float]]
) -> Iterator[str]:
    own = ((key, word) for key, word in sorted(labels.items()) if key != "__name__")
    inner = ",".join(f"{key}={json.dumps(word)}" for key, word in own)
    for at_s, value in points:
        yield f"{name}{{{inner}}} {value!r} {at_s:.3f}\n"
