"""The dashboards beside a real daemon, scraped by Prometheus with the shipped configuration."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alerting_programs import Alerting
from tests.daemon import ANGLES_DEG, Daemon, Microscope, picture
from tests.dashboard_panels import CHOSEN, Times, panel
from tests.dashboard_prometheus import Filled
from tests.dashboard_tables import Cell, table_of
from tests.dashboard_truth import answers
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WITHIN_S = 60.0
STATES = {"ready": 0, "silent": 4}
NASTY = 'session/grid 1/<b> $1 ${x} "quoted" (a|b)'
"""Names of files find their way into labels, and from there into the tables."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "data").mkdir()
    found = Daemon(tmp_path)
    yield found
    found.stop()


def times() -> Times:
    """The last hour, as Grafana asks for it with the scrape interval of the data source."""
    now_s = time.time()
    return Times(now_s - 3600.0, now_s, 15.0, 5.0)


def test_a_lamella_finds_its_way_into_the_dashboards(daemon: Daemon, tmp_path: Path) -> None:
    microscope = Microscope(daemon.acquisition)
    daemon.start().wait_for_state("ready")
    folder = tmp_path / "alerting"
    folder.mkdir()
    alerting = Alerting(folder, {"test": daemon.metrics_address})
    chosen = {**CHOSEN, "microscope": "test"}

    def shown(dashboard: str, title: str) -> list[dict[str, Cell]]:
        one = panel(dashboard, title)
        found = answers(Filled(alerting.prometheus), one, times(), chosen)
        return table_of(one, found).rows()

    def has_state(state: str) -> bool:
        return [row.get("State") for row in shown("fleet", "Microscopes")] == [STATES[state]]

    with alerting.running():
        wait_until(lambda: has_state("ready"), "the row of the microscope", WITHIN_S)
        assert shown("session", "Lamellae") == []
        for angle_deg in ANGLES_DEG:
            microscope.add(NASTY, angle_deg, picture(20.0))
        rows = wait_until(
            lambda: [
                row
                for row in shown("session", "Lamellae")
                if (row.get("Verdict"), row.get("Tilts read")) == (2, len(ANGLES_DEG))
            ],
            "the lamella to skip, with all of its tilts",
            WITHIN_S,
        )
        wait_until(
            lambda: (
                [row["Alert"] for row in shown("health", "Alerts that fire now")]
                == ["IcewatchLamellaPoorVitrification"]
            ),
            "the alert",
            WITHIN_S,
        )
        daemon.signal(signal.SIGKILL)
        wait_until(lambda: has_state("silent"), "the silent microscope", WITHIN_S)
        assert shown("session", "Lamellae") == rows, "what was known must stay to be seen"
    assert [row["Lamella"] for row in rows] == [NASTY]
