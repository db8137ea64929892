"""Every metric is listed, documented and bounded: golden file, guide and a real daemon agree."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from monitor.gpu_facts import EngineMetrics
from monitor.messages import (
    IcePart,
    LamellaMessage,
    ModelPart,
    QualityPart,
    TiltMessage,
    TiltPart,
)
from monitor.model import Decision, Reason
from monitor.sinks.metrics import Metrics
from monitor.sinks.protocol import Outgoing
from tests.alerting_programs import promtool
from tests.daemon import ANGLES_DEG, Daemon, Microscope, picture
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests/golden/metrics.txt"
MAX_SERIES = 2000
SCOPE = "microscope"
_ROW = re.compile(
    r"^\| `(\w+)` \| (\w+) \| *([^|]*?) *\| ([^|]*?) \| ([^|]*?) \| ([^|]*?) \|$", re.MULTILINE
)


def golden() -> list[str]:
    return GOLDEN.read_text("utf-8").splitlines()


def documented() -> dict[str, tuple[str, str]]:
    """Line of the golden file and when it is shown, by name, from the guide."""
    found = {}
    for name, kind, labels, unit, shown, meaning in _ROW.findall(
        (ROOT / "deploy/metrics.md").read_text("utf-8")
    ):
        assert unit and meaning
        own = [SCOPE] if name.startswith("icewatch_") else []
        names = sorted([*own, *re.findall(r"`(\w+)`", labels)])
        found[name] = (" ".join([name, kind, ",".join(names)]).strip(), shown)
    return found


def shown_name(family: Metric) -> str:
    return family.name + ("_total" if family.type == "counter" else "")


def line_of(family: Metric) -> str:
    labels = {name for one in family.samples for name in one.labels} - {"le"}
    return " ".join([shown_name(family), family.type, ",".join(sorted(labels))]).strip()


def families(text: str) -> dict[str, Metric]:
    return {shown_name(one): one for one in text_string_to_metric_families(text)}


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a daemon that read a series with ice, another tilt that shows nothing, and a cut file."""
    folder = tmp_path_factory.mktemp("listed")
    (folder / "data").mkdir()
    daemon = Daemon(folder)
    microscope = Microscope(daemon.acquisition)
    for angle_deg in ANGLES_DEG:
        microscope.add("s/g/icy", angle_deg, picture(20.0))
    microscope.add("s/g/blank", 0.0, picture(0.0) * 0)
    (daemon.acquisition / "s/g/cut.mrc").write_bytes(b"no picture")
    (daemon.acquisition / "s/g/cut.mrc.mdoc").write_text("[ZValue = 0]\nTiltAngle = 0\n")
    daemon.start()

    def text() -> str | None:
        found = daemon.metrics() if daemon.status().get("last_seq") == 12 else ""
        return found if 'result="not_measurable"} 1' in found else None

    try:
        yield wait_until(text, "six tilts", 50.0)
    finally:
        daemon.stop()


def test_the_guide_and_the_golden_file_name_the_same_metrics() -> None:
    assert golden() == sorted(line for line, _ in documented().values())


def test_a_real_daemon_shows_what_is_listed_and_nothing_else(scrape: str) -> None:
    found, listed = families(scrape), documented()
    assert found.keys() <= listed.keys()
    always = {name for name, (_, shown) in listed.items() if shown == "always"}
    assert always <= found.keys()
    for name in always:
        if found[name].samples:
            assert line_of(found[name]) == listed[name][0]
    without = {name for name in always if not found[name].samples}
    assert without <= {
        "icewatch_files_refused_total",
        "icewatch_lamella_tilts_expected",
        "icewatch_newest_lamella_tilts_missing",
    }


def test_promtool_finds_nothing_to_say(scrape: str) -> None:
    done = promtool("check", "metrics", given=scrape)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_disk_is_watched(tmp_path: Path) -> None:
    known = Metrics("m", "0", state_directory=tmp_path).registry
    labels = {"microscope": "m"}
    size = known.get_sample_value("icewatch_state_disk_size_bytes", labels)
    free = known.get_sample_value("icewatch_state_disk_free_bytes", labels)
    assert size is not None and free is not None
    assert 0 <= free < size
    gone = Metrics("m", "0", state_directory=tmp_path / "gone").registry
    assert gone.get_sample_value("icewatch_state_disk_free_bytes", labels) is None


def test_the_daemon_watches_its_disk(scrape: str) -> None:
    assert families(scrape)["icewatch_state_disk_free_bytes"].samples


class Session:
    """Publishes a session as the pipeline does, into metrics alone."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.seq = 0

    def _stamp(self) -> dict[str, Any]:
        self.seq += 1
        time_utc = "2026-01-01T00:00:00.000Z"
        return {"seq": self.seq, "boot_id": "b", "time": time_utc, "microscope": "krios1"}

    def add(self, session: str, grid: str, name: str, tilt: int, percent: float | None) -> None:
        lamella = f"{session}/{grid}/{name}"
        part: dict[str, Any] = {
            "session": session,
            "grid": grid,
            "series": name,
            "lamella": lamella,
        }
        unknown: dict[str, Any] = {"order": None, "acquired_at": None, "pixel_size_angstrom": None}
        self._send(
            TiltMessage.model_construct(
                **self._stamp(),
                tilt=TiltPart.model_construct(
                    **part, **unknown, id=f"{lamella}@{tilt}", path=name, section=tilt, angle_deg=0
                ),
                ice=IcePart.model_construct(percent=percent),
                quality=QualityPart.model_construct(
                    flags=(f"flag_{tilt}",), in_domain=percent is not None
                ),
                model=ModelPart.model_construct(name="n", version="v", backend="b"),
                latency_s=0.1,
            )
        )
        self._send(
            LamellaMessage.model_construct(
                **self._stamp(),
                **part,
                verdict=list(Decision)[tilt % 3],
                reason=Reason.NOT_SURE_YET,
                explanation="",
                ice_percent=percent,
                tilts_seen=tilt + 1,
                tilts_expected=61,
            )
        )

    def _send(self, message: TiltMessage | LamellaMessage) -> None:
        topic = "tilt" if isinstance(message, TiltMessage) else "lamella"
        landed_s = time.monotonic()
        self.metrics.publish(Outgoing(message.seq, topic, b"", message, landed_s=landed_s))


def series_of(metrics: Metrics) -> list[str]:
    text = generate_latest(metrics.registry).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


def filled(tmp_path: Path, sessions: int, grids: int, lamellae: int, tilts: int) -> Metrics:
    metrics = Metrics("krios1", "0", state_directory=tmp_path)
    engine = EngineMetrics("krios1", metrics.registry)
    engine.serves(0.0)
    for stage in ("prepare", "upload", "network", "download", "finish"):
        engine.ran(stage, 0.001, 1)
    session = Session(metrics)
    for k in range(sessions):
        for j in range(lamellae):
            for i in range(tilts):
                session.add(f"s{k}", f"g{j % grids}", f"L{j}", i, None if i % 7 == 0 else 5.0)
    for index in range(300):
        metrics.count_refused(f"reason {index}")
        metrics.time_stage(("read", "infer", "decide")[index % 3], 0.01)
    return metrics


def test_series_stay_bounded_over_sessions(tmp_path: Path) -> None:
    metrics = filled(tmp_path, sessions=3, grids=60, lamellae=250, tilts=2)
    series = series_of(metrics)
    assert len(series) <= MAX_SERIES
    assert not [line for line in series if '"s0' in line or '"s1' in line]
    shown = [line for line in series if line.startswith("icewatch_lamella_ice_ratio{")]
    assert len(shown) == 200
    assert any("L249" in line for line in shown), "the lamella that runs must have series"
    assert not any('L0"' in line for line in shown)


def test_grids_are_counted_without_those_that_left(tmp_path: Path) -> None:
    metrics = filled(tmp_path, sessions=2, grids=2, lamellae=250, tilts=2)
    counted = {
        tuple(one.labels[key] for key in ("session", "grid", "verdict")): one.value
        for family in metrics.registry.collect()
        for one in family.samples
        if one.name == "icewatch_grid_lamellae"
    }
    held = list(Decision)[1].value
    assert counted[("s1", "g0", held)] == counted[("s1", "g1", held)] == 125
    assert sum(counted.values()) == 250


@pytest.mark.slow
def test_series_stay_bounded_over_the_largest_sessions(tmp_path: Path) -> None:
    metrics = filled(tmp_path, sessions=5, grids=12, lamellae=200, tilts=61)
    assert len(series_of(metrics)) <= MAX_SERIES
    took_s = []
    for _ in range(200):
        start_s = time.thread_time()  # on a busy computer the wall clock tells of the others
        generate_latest(metrics.registry)
        took_s.append(time.thread_time() - start_s)
    assert sorted(took_s)[197] < 0.025
