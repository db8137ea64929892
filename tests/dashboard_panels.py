"""The committed dashboards as Grafana would show them: panels, their queries, chosen variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.alerting_programs import DEPLOY

FOLDER = DEPLOY / "grafana" / "dashboards"
NAMES = ("session", "health", "fleet")
CHOSEN = {"microscope": "krios1", "session": ".*", "instance": ".*", "tilt_seconds": "30"}


@dataclass(frozen=True)
class Target:
    """One query of a panel."""

    raw: Mapping[str, Any]

    @property
    def expr(self) -> str:
        """The query, with the variables of Grafana in it."""
        return str(self.raw["expr"])

    @property
    def is_instant(self) -> bool:
        """Whether only the end of the chosen time is asked for."""
        return bool(self.raw.get("instant"))

    def asked(self, times: Times, chosen: Mapping[str, str]) -> str:
        """Put in what was chosen, as Grafana does."""
        values = {
            **chosen,
            "__range": f"{times.range_s:.0f}s",
            "__rate_interval": f"{times.rate_interval_s:.0f}s",
        }
        return re.sub(r"\$(\w+)", lambda found: values[found[1]], self.expr)

    def legend(self, labels: Mapping[str, str]) -> str:
        """What the legend says of one series."""
        form = str(self.raw.get("legendFormat") or "")
        return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form)


@dataclass(frozen=True)
class Times:
    """The chosen time, and what Grafana makes of it (`rate_interval_s`: its documented rule)."""

    begin_s: float
    end_s: float
    step_s: float = 15.0
    scrape_interval_s: float = 15.0

    @property
    def range_s(self) -> float:
        """How long the chosen time is."""
        return self.end_s - self.begin_s

    @property
    def rate_interval_s(self) -> float:
        """`$__rate_interval`."""
        return max(self.step_s + self.scrape_interval_s, 4 * self.scrape_interval_s)


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard."""

    dashboard: str
    raw: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.title}"

    @property
    def title(self) -> str:
        """What stands above it."""
        return str(self.raw["title"])

    @property
    def kind(self) -> str:
        """Which of Grafana's panels it is."""
        return str(self.raw["type"])

    @property
    def targets(self) -> list[Target]:
        """Its queries."""
        return [Target(raw) for raw in self.raw["targets"]]

    @property
    def defaults(self) -> Mapping[str, Any]:
        """What holds for all of its fields."""
        found: Mapping[str, Any] = self.raw["fieldConfig"]["defaults"]
        return found

    @property
    def unit(self) -> str:
        """The unit of its numbers."""
        return str(self.defaults.get("unit", ""))

    @property
    def step_s(self) -> float:
        """The shortest step that it asks for."""
        interval = re.fullmatch(r"(\d+)m", str(self.raw.get("interval") or ""))
        return 60.0 * int(interval[1]) if interval else 15.0


@dataclass(frozen=True)
class Dashboard:
    """One JSON file."""

    name: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return FOLDER / f"{self.name}.json"

    @cached_property
    def raw(self) -> Mapping[str, Any]:
        """What Grafana reads."""
        found: Mapping[str, Any] = json.loads(self.path.read_text("utf-8"))
        return found

    @property
    def panels(self) -> list[Panel]:
        """All panels that show something."""
        return [Panel(self.name, raw) for raw in self.raw["panels"] if raw["type"] != "row"]

    @property
    def variables(self) -> dict[str, Mapping[str, Any]]:
        """What a person may choose, by name."""
        return {one["name"]: one for one in self.raw["templating"]["list"]}


def all_panels() -> Iterator[Panel]:
    """Every panel of every dashboard."""
    for name in NAMES:
        yield from Dashboard(name).panels


def panel(dashboard: str, title: str) -> Panel:
    """Find a panel by its title."""
    (found,) = [one for one in Dashboard(dashboard).panels if one.title == title]
    return found
