"""What the panels show of the recorded session, and what subscribers heard of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.dashboard_panels import CHOSEN, Panel, Times, panel
from tests.dashboard_prometheus import WHOLE, Filled, Series
from tests.dashboard_recording import Recording
from tests.dashboard_tables import table_of

EVERYONE = {**CHOSEN, "microscope": ".*"}


@dataclass(frozen=True)
class Truth:
    """What subscribers heard before the last scrape: nothing of it went through Prometheus."""

    recording: Recording
    microscope: str

    @cached_property
    def last_seq(self) -> int:
        """The newest message at the last scrape."""
        text = [one.text for one in self.recording.scrapes if one.microscope == self.microscope][-1]
        (line,) = [line for line in text.splitlines() if line.startswith("icewatch_last_seq{")]
        return int(line.rpartition(" ")[2])

    @cached_property
    def lamellae(self) -> dict[str, dict[str, Any]]:
        """The newest message on each lamella."""
        said = self.recording.lamellae[self.microscope]
        return {one["lamella"]: one for one in said if one["seq"] <= self.last_seq}

    @cached_property
    def tilts(self) -> list[dict[str, Any]]:
        """All tilts."""
        return [one for one in self.recording.tilts[self.microscope] if one["seq"] <= self.last_seq]

    def with_verdict(self, verdict: str) -> list[dict[str, Any]]:
        """Lamellae that have a verdict."""
        return [one for one in self.lamellae.values() if one["verdict"] == verdict]


def answers(
    prometheus: Filled, one: Panel, times: Times = WHOLE, chosen: dict[str, str] | None = None
) -> dict[str, list[Series]]:
    chosen = chosen or (EVERYONE if one.dashboard == "fleet" else CHOSEN)
    return {
        str(target.raw["refId"]): prometheus.ask_as_grafana(one, target, times, chosen)
        for target in one.targets
    }


def number(prometheus: Filled, dashboard: str, title: str, times: Times = WHOLE) -> float | None:
    """What a panel with one number shows; None where it shows its word for nothing."""
    ((found,),) = [
        (value,) for value in answers(prometheus, panel(dashboard, title), times).values()
    ]
    assert len(found) <= 1
    return found[0].last if found else None


def bars(prometheus: Filled, dashboard: str, title: str) -> dict[str, float]:
    one = panel(dashboard, title)
    return {
        target.legend(series.labels): series.last
        for target in one.targets
        for series in prometheus.ask_as_grafana(one, target)
    }


def rows(
    prometheus: Filled, dashboard: str, title: str, times: Times = WHOLE
) -> list[dict[str, Any]]:
    one = panel(dashboard, title)
    return table_of(one, answers(prometheus, one, times)).rows()
