"""The whole daemon on a pretend GPU: plans in the background, faults, and never a wrong number."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.bundle import GRAPH, manifest_entry
from engines.plans.key import HALF_GRAPH
from monitor.engine_record import DEATHS_MAX
from monitor.engine_record import FILE as RECORD
from tests import tiny_bundle
from tests.daemon import Daemon, Microscope, Subscriber, picture
from tests.pretend_gpu import FOLDER
from tests.waiting import wait_until

SERVING_AGAIN_S = 15.0


def bundle_with_half_graph(where: Path) -> Path:
    """A bundle whose graph for the GPU is the one for the CPU."""
    path = tiny_bundle.write_with_memory(where)
    content = (path / GRAPH).read_bytes()
    (path / HALF_GRAPH).write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][HALF_GRAPH] = manifest_entry(content)
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


class GpuDaemon(Daemon):
    """A daemon that finds the pretend GPU; the environment of each start can be set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, bundle=bundle_with_half_graph(folder / "bundle"))
        self.fault = folder / "fault"
        self.environment = {
            "PYTHONPATH": str(FOLDER),
            "ICEWATCH_FAKE_FAULT": str(self.fault),
        }
        self.acquisition.mkdir()

    def start(self, *under: str) -> Daemon:
        words = [f"{name}={value}" for name, value in self.environment.items()]
        return super().start("env", *words, *under)

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def backend(self) -> str:
        return str(self.status().get("backend", ""))

    def wait_for_backend(self, name: str) -> dict[str, Any]:
        wait_until(lambda: self.backend() == name, f"backend {name}", SERVING_AGAIN_S)
        return self.status()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[GpuDaemon]:
    found = GpuDaemon(tmp_path)
    yield found
    found.stop()


@pytest.fixture
def subscriber(daemon: GpuDaemon) -> Iterator[Subscriber]:
    found = Subscriber(daemon.endpoint)
    yield found
    found.close()


def test_the_cpu_serves_until_the_plan_is_built_and_proved(
    daemon: GpuDaemon, subscriber: Subscriber, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    daemon.environment["ICEWATCH_FAKE_BUILD_WAITS_FOR"] = str(done)
    daemon.start().wait_for_state("ready")
    assert daemon.backend() == "onnxruntime"
    microscope = Microscope(daemon.acquisition)
    microscope.add("s/L1", 0.0, picture(10.0))
    first = subscriber.wait_for("tilt", 1)[0]
    done.touch()
    daemon.wait_for_backend("tensorrt")
    microscope.add("s/L1", 3.0, picture(10.0, seed=1))
    second = subscriber.wait_for("tilt", 2)[1]
    assert [one["model"]["backend"] for one in (first, second)] == ["onnxruntime", "tensorrt"]
    assert second["ice"]["percent"] == pytest.approx(first["ice"]["percent"], abs=1.0)
    builds = [line for line in daemon.metrics().splitlines() if "icewatch_build_info{" in line]
    assert len(builds) == 1
    assert 'backend="tensorrt"' in builds[0]
    assert daemon.signal(15)[0] == 0
    engines = daemon.state / "engines"
    assert engines.stat().st_mode & 0o777 == 0o700
    daemon.start().wait_for_state("ready")
    assert daemon.backend() == "tensorrt"  # from its first second: the plan was kept


def test_another_driver_gets_a_plan_of_its_own(daemon: GpuDaemon) -> None:
    daemon.start()
    daemon.wait_for_backend("tensorrt")
    daemon.signal(15)
    daemon.environment["ICEWATCH_FAKE_DRIVER"] = "601.00"
    daemon.environment["ICEWATCH_FAKE_BUILD_FAILS"] = "1"
    daemon.start()
    degraded = daemon.wait_for_state("degraded")
    assert degraded["backend"] == "onnxruntime"
    assert re.search("the CPU serves, not the GPU: no plan could be built", degraded["reason"])


def test_without_a_gpu_the_cpu_serves_and_nothing_is_amiss(daemon: GpuDaemon) -> None:
    daemon.environment["ICEWATCH_FAKE_GPUS"] = "0"
    assert daemon.start().wait_for_state("ready")["backend"] == "onnxruntime"


def test_a_gpu_that_is_wanted_and_not_there_is_told(daemon: GpuDaemon) -> None:
    daemon.environment["ICEWATCH_FAKE_GPUS"] = "0"
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace("[model]\n", '[model]\nbackend = "tensorrt"\n'))
    found = daemon.start().wait_for_state("degraded")
    assert found["backend"] == "onnxruntime"
    assert "the CPU serves" in found["reason"]


def test_a_plan_that_was_damaged_is_built_anew(daemon: GpuDaemon) -> None:
    daemon.start()
    daemon.wait_for_backend("tensorrt")
    daemon.signal(15)
    plan = next((daemon.state / "engines").glob("*.plan"))
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    daemon.start()
    daemon.wait_for_backend("tensorrt")
    assert "was thrown away" in daemon.signal(15)[1]


def test_a_bundle_without_a_graph_for_the_gpu_is_served_by_the_cpu(daemon: GpuDaemon) -> None:
    tiny_bundle.write_with_memory(daemon.folder / "bundle")
    found = daemon.start().wait_for_state("degraded")
    assert found["backend"] == "onnxruntime"
    assert HALF_GRAPH in found["reason"]


def test_a_plan_that_is_refused_again_and_again_is_built_once(daemon: GpuDaemon) -> None:
    daemon.environment["ICEWATCH_FAKE_REFUSES"] = "1"
    found = daemon.start().wait_for_state("degraded")
    assert "does not serve" in found["reason"]
    assert daemon.signal(15)[1].count("building the TensorRT plan") == 1


def test_a_card_that_was_there_and_is_gone_is_told(daemon: GpuDaemon) -> None:
    daemon.start()
    daemon.wait_for_backend("tensorrt")
    daemon.signal(15)
    daemon.environment["ICEWATCH_FAKE_GPUS"] = "0"
    found = daemon.start().wait_for_state("degraded")
    assert "knows of no card here" in found["reason"]


def test_a_stop_while_a_plan_is_loaded_is_no_death(daemon: GpuDaemon, tmp_path: Path) -> None:
    daemon.start()
    daemon.wait_for_backend("tensorrt")
    daemon.signal(15)
    gate = tmp_path / "gate"
    daemon.environment["ICEWATCH_FAKE_LOAD_WAITS_FOR"] = str(gate)
    daemon.start()
    wait_until(
        lambda: (daemon.state / RECORD).read_bytes()[:1] == b"1", "the load", SERVING_AGAIN_S
    )
    assert daemon.signal(15)[0] == 0
    assert (daemon.state / RECORD).read_bytes()[:1] == b"0"
    gate.touch()
    daemon.start().wait_for_state("ready")
    assert daemon.backend() == "tensorrt", "the plan was kept"


def serve_tilts(
    daemon: GpuDaemon, subscriber: Subscriber, microscope: Microscope, number: int
) -> list[dict[str, Any]]:
    microscope.add("s/L1", 3.0 * number, picture(10.0, seed=number))
    return subscriber.wait_for("tilt", number + 1, SERVING_AGAIN_S)


KINDS = ("nan", "drift", "half", "cuda", "refuses", "raise", "segfault")


@pytest.mark.parametrize(
    "kind",
    [k if k in ("drift", "segfault") else pytest.param(k, marks=pytest.mark.slow) for k in KINDS],
)
def test_no_fault_of_the_gpu_gets_out_and_the_tilt_is_read_after_all(
    daemon: GpuDaemon, subscriber: Subscriber, kind: str
) -> None:
    daemon.start()
    daemon.wait_for_backend("tensorrt")
    microscope = Microscope(daemon.acquisition)
    serve_tilts(daemon, subscriber, microscope, 0)
    daemon.fault.write_text(f"{kind} 0")
    microscope.add("s/L1", 3.0, picture(10.0, seed=1))
    status, complaint = daemon.wait()
    assert status != 0, complaint
    daemon.fault.unlink(missing_ok=True)
    died_s = time.monotonic()
    daemon.start()
    tilts = subscriber.wait_for("tilt", 2, SERVING_AGAIN_S)
    assert time.monotonic() - died_s < SERVING_AGAIN_S
    assert all(one["ice"]["percent"] == pytest.approx(10.0, abs=2.0) for one in tilts)
    assert daemon.wait_for_state("ready")["set_aside"] == []


def test_after_two_deaths_in_a_row_the_cpu_serves_and_says_so(
    daemon: GpuDaemon, subscriber: Subscriber
) -> None:
    daemon.start()
    daemon.wait_for_backend("tensorrt")
    microscope = Microscope(daemon.acquisition)
    serve_tilts(daemon, subscriber, microscope, 0)
    daemon.fault.write_text("segfault! 6")
    microscope.add("s/L1", 3.0, picture(10.0, seed=1))
    deaths = 0
    while (found := daemon.status()).get("state") != "degraded":
        if daemon.ended():
            deaths += 1
            daemon.wait()
            daemon.start()
        assert deaths <= DEATHS_MAX
        wait_until(
            lambda: daemon.ended() or daemon.status(), "an end or an answer", SERVING_AGAIN_S
        )
    assert deaths == DEATHS_MAX
    assert "times in a row" in found["reason"]
    tilts = subscriber.wait_for("tilt", 2, SERVING_AGAIN_S)
    assert tilts[1]["model"]["backend"] == "onnxruntime"
    assert daemon.status()["set_aside"] == []
    assert daemon.fault.exists()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_200_faults_let_no_wrong_number_out_and_are_over_within_15_s(
    daemon: GpuDaemon, subscriber: Subscriber
) -> None:
    generator = random.Random(12)
    daemon.start()
    daemon.wait_for_backend("tensorrt")
    microscope = Microscope(daemon.acquisition)
    percents, waits = [10.0], dict[str, list[float]]()
    microscope.add("s/L0", 0.0, picture(10.0))
    subscriber.wait_for("tilt", 1, SERVING_AGAIN_S)
    for number in range(1, 201):
        kind = generator.choice((*KINDS, "hang"))
        percents.append(generator.choice((0.0, 5.0, 10.0, 20.0)))
        daemon.fault.write_text(f"{kind} 0")
        microscope.add(f"s/L{number}", 0.0, picture(percents[-1], seed=number))
        landed_s = time.monotonic()
        assert daemon.wait()[0] != 0
        daemon.fault.unlink(missing_ok=True)
        (daemon.state / RECORD).unlink()  # or the CPU would serve from now on
        daemon.start()
        subscriber.wait_for("tilt", number + 1, SERVING_AGAIN_S)
        waits.setdefault(kind, []).append(time.monotonic() - landed_s)
        daemon.wait_for_backend("tensorrt")
    found = {one["tilt"]["series"]: one for one in subscriber.messages("tilt")}
    for number, percent in enumerate(percents):
        assert found[f"L{number}"]["ice"]["percent"] == pytest.approx(percent, abs=2.0), number
    print({kind: f"{len(s)} times, {max(s):.1f} s at most" for kind, s in waits.items()})
    assert max(map(max, waits.values())) < SERVING_AGAIN_S
