"""What is shown of a GPU, whatever becomes of it; a pretend driver stands in for NVIDIA's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from engines.plans.errors import PlanError
from monitor.gpu_facts import (
    ANSWER_WITHIN_S,
    NOT_INSTALLED,
    READ_AT_MOST_EVERY_S,
    TRY_AGAIN_AFTER_S,
    EngineMetrics,
    GpuCollector,
    GpuWatch,
)

ROOT_ON_PATH = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
BUS_ID = "00000000:41:00.0"


def where() -> str:
    return BUS_ID


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818  as in pynvml
    pass


class NVMLError_GpuIsLost(NVMLError):  # noqa: N801, N818
    pass


class Nvml:
    """A driver with one GPU; `faults` are raised by the calls that they are named after."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        self.faults: dict[str, Exception] = {}
        self.calls: list[str] = []
        self.busy_percent, self.used_bytes, self.celsius = 37, 3 << 30, 61

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*given: Any) -> Any:
            self.calls.append(name)
            if name == "nvmlDeviceGetHandleByPciBusId":
                assert given == (BUS_ID.encode(),)
            if name in self.faults:
                raise self.faults[name]
            return self.answers()[name]

        return call

    def answers(self) -> dict[str, Any]:
        return {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlDeviceGetHandleByPciBusId": object(),
            "nvmlDeviceGetName": b"NVIDIA Pretend 5000",
            "nvmlSystemGetDriverVersion": "580.65.06",
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=self.busy_percent, memory=2),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=self.used_bytes, total=16 << 30),
            "nvmlDeviceGetTemperature": self.celsius,
        }


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


CALLS = sorted(Nvml().answers())
FAULTS = (
    NVMLError("unknown"),
    NVMLError_GpuIsLost("GPU is lost"),
    NVMLError_NotSupported("not supported"),
    OSError("libnvidia-ml.so.1: cannot open shared object file"),
    AttributeError("no such function"),
    ValueError("undefined symbol"),
)


def exposed(watch: GpuWatch) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(GpuCollector("krios1", watch))
    lines = generate_latest(registry).decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def test_facts_are_shown_in_base_units() -> None:
    scope = '{microscope="krios1"}'
    assert exposed(GpuWatch(Nvml(), where)) == {
        f"icewatch_gpu_up{scope}": 1.0,
        f"icewatch_gpu_lost_total{scope}": 0.0,
        f"icewatch_gpu_utilisation_ratio{scope}": 0.37,
        f"icewatch_gpu_memory_used_bytes{scope}": float(3 << 30),
        f"icewatch_gpu_memory_total_bytes{scope}": float(16 << 30),
        f"icewatch_gpu_temperature_celsius{scope}": 61.0,
        'icewatch_gpu_info{driver="580.65.06",microscope="krios1",name="NVIDIA Pretend 5000"}': 1.0,
    }


def test_without_the_library_a_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    watch = GpuWatch()
    assert (watch.read().facts, watch.read().reason) == (None, NOT_INSTALLED)
    assert set(exposed(watch).values()) == {0.0}
    assert not watch.lost


def test_the_card_that_cuda_chose_is_watched() -> None:
    def nowhere() -> str:
        raise PlanError("The NVIDIA driver knows of no card here.", "no_gpu")

    reading = GpuWatch(Nvml(), nowhere).read()
    assert reading.facts is None and "no card here" in reading.reason
    pretend = "import tests.fake_gpu.sitecustomize; from engines.plans.card import find_bus_id"
    asked = [sys.executable, "-c", f"{pretend}; print(find_bus_id())"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, env=ROOT_ON_PATH)
    assert said.stdout == "0000:41:00.0\n"


def test_the_real_library_never_raises() -> None:
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    watch = GpuWatch()
    reading = watch.read()
    assert (reading.facts is None) == bool(reading.reason)
    assert "\n" not in reading.reason
    watch.close()
    watch.close()


def test_a_gpu_that_falls_off_the_bus_is_noticed_once_and_welcomed_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nvml, clock = Nvml(), Clock()
    watch = GpuWatch(nvml, where, clock)
    assert watch.read().facts is not None and not watch.lost
    nvml.faults["nvmlDeviceGetMemoryInfo"] = NVMLError_GpuIsLost("GPU is lost")
    for _ in range(3):
        clock.now_s += TRY_AGAIN_AFTER_S
        reading = watch.read()
        assert reading.facts is None and "GPU is lost" in reading.reason
    assert watch.lost and watch.losses == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    nvml.faults.clear()
    clock.now_s += TRY_AGAIN_AFTER_S
    assert watch.read().facts is not None and not watch.lost
    assert nvml.calls.count("nvmlInit") == 4
    assert exposed(watch)['icewatch_gpu_lost_total{microscope="krios1"}'] == 1.0


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    nvml = Nvml()
    nvml.faults["nvmlDeviceGetUtilizationRates"] = NVMLError_NotSupported("not supported")
    nvml.faults["nvmlDeviceGetTemperature"] = NVMLError_NotSupported("not supported")
    watch = GpuWatch(nvml, where)
    names = {name.partition("{")[0] for name in exposed(watch)}
    assert "icewatch_gpu_memory_used_bytes" in names
    assert not {"icewatch_gpu_utilisation_ratio", "icewatch_gpu_temperature_celsius"} & names


@given(
    st.lists(
        st.dictionaries(st.sampled_from(CALLS), st.sampled_from(FAULTS), max_size=4), max_size=6
    )
)
def test_nothing_is_ever_raised(history: list[dict[str, Exception]]) -> None:
    nvml, clock = Nvml(), Clock()
    watch = GpuWatch(nvml, where, clock)
    for faults in history:
        nvml.faults = faults
        clock.now_s += TRY_AGAIN_AFTER_S
        reading = watch.read()
        assert (reading.facts is None) == bool(reading.reason)
        shown = exposed(watch)
        assert shown['icewatch_gpu_up{microscope="krios1"}'] == float(reading.facts is not None)
        assert (
            not faults
            or reading.reason
            or set(faults)
            <= {
                "nvmlShutdown",
                "nvmlInit",
                "nvmlDeviceGetHandleByPciBusId",
                "nvmlDeviceGetUtilizationRates",
                "nvmlDeviceGetTemperature",
            }
        )
    watch.close()


def test_scrapes_that_come_close_together_ask_once() -> None:
    nvml, clock = Nvml(), Clock()
    watch = GpuWatch(nvml, where, clock)
    first = watch.read()
    nvml.busy_percent = 99
    clock.now_s += READ_AT_MOST_EVERY_S / 2
    assert watch.read() is first
    clock.now_s += READ_AT_MOST_EVERY_S
    found = watch.read().facts
    assert found is not None and found.utilisation_ratio == 0.99


def test_a_driver_that_hangs_holds_up_nobody_and_counts_as_lost() -> None:
    nvml, clock = Nvml(), Clock()
    watch = GpuWatch(nvml, where, clock)
    first = watch.read()
    asked, answer = threading.Event(), threading.Event()

    def hang(gpu: object) -> Any:
        asked.set()
        answer.wait(30.0)
        return SimpleNamespace(used=1, total=2)

    nvml.nvmlDeviceGetMemoryInfo = hang  # type: ignore[attr-defined]
    clock.now_s += READ_AT_MOST_EVERY_S
    thread = threading.Thread(target=watch.read)
    thread.start()
    assert asked.wait(10.0)
    assert watch.read() is first
    clock.now_s += ANSWER_WITHIN_S + 1.0
    assert "has not answered" in watch.read().reason and watch.lost
    answer.set()
    thread.join(10.0)
    assert not watch.lost and watch.losses == 1


def test_the_engine_shows_its_age_batches_and_stages() -> None:
    registry, clock = CollectorRegistry(), Clock()
    metrics = EngineMetrics("krios1", registry, now=clock)
    scope = {"microscope": "krios1"}
    assert registry.get_sample_value("icewatch_engine_age_seconds", scope) is None
    metrics.serves(clock.now_s - 40.0)
    clock.now_s += 2.0
    metrics.ran("upload", 0.002, 0)
    metrics.ran("network", 0.0009, 4)
    assert registry.get_sample_value("icewatch_engine_age_seconds", scope) == 42.0
    assert registry.get_sample_value("icewatch_engine_batch_tilts_sum", scope) == 4.0
    network = {**scope, "stage": "network", "le": "0.001"}
    assert registry.get_sample_value("icewatch_engine_stage_seconds_bucket", network) == 1.0
    clock.now_s -= 1000.0  # somebody set the clock
    assert registry.get_sample_value("icewatch_engine_age_seconds", scope) == 0.0
    metrics.gone()
    assert registry.get_sample_value("icewatch_engine_age_seconds", scope) is None
