"""Comparing backends: real contenders on a tiny bundle, and contenders that go wrong."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.benchmarking import contenders
from engines.benchmarking.child import Task
from engines.benchmarking.contenders import REFERENCE, names, why_absent
from engines.benchmarking.figures import Row, rows_of
from engines.benchmarking.memory import peak_bytes, reset_peak
from engines.benchmarking.race import BATCH_ROUNDS, Course, FallenError, Lap, Racer, race
from engines.benchmarking.report import FIGURES, MARKDOWN, PICTURE, Report
from engines.benchmarking.tilts import COUNTS_PER_ELECTRON, expose
from engines.benchmarking.torch_model import WEIGHTS, TorchBackend, network_of
from engines.bundle import GRAPH, Bundle, manifest_entry
from engines.errors import BackendError, BundleError
from monitor.engine_benchmark_command import benchmark
from monitor.errors import ConfigError
from tests import tiny_bundle
from tests.pretend_gpu import FOLDER

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(benchmark)


def run(*words: str) -> int:
    status = app(list(words), standalone_mode=False)
    return int(status or 0)


def course(folder: Path, **changes: Any) -> Course:
    given = {"tilts": 1, "rounds": 3, "batches": (2,), "size_px": 64, "pixel_size_angstrom": 13.5}
    return Course("default", folder, **{**given, **changes})


ANSWERS = """
import json, os, signal, sys, time
task = json.loads(sys.argv[1])
def say(**answer):
    print(json.dumps(answer), flush=True)
say(device="CPU", version="1", threads=1, start_s=0.1, memory_bytes=1 << 20)
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "tilt":
        {fault}
        open(f"{{task['folder']}}/{{task['name']}}-{{order['number']}}.mask", "wb").write(b"\\xf0")
        taken = dict(bare=0.001, network=0.002, whole=0.004)
        say(wall_s=taken, cpu_s=taken, percent={percent})
    elif order["do"] == "batch":
        say(batch_s=0.5)
    else:
        say(device_memory_bytes=None)
"""
FAULTS = {
    "os.kill(os.getpid(), signal.SIGSEGV)": "SIGSEGV",
    "sys.exit('out of luck')": "out of luck",
    "raise RuntimeError('CUDA error 700')": "CUDA error 700",
    "say(error='The backend answered NaN'); continue": "answered NaN",
}


def pretend(fault: str = "pass", percent: float = 3.0) -> tuple[str, str]:
    return "-c", ANSWERS.format(fault=fault, percent=percent)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_falls_is_a_row_and_the_others_go_on(tmp_path: Path, fault: str) -> None:
    scripts = {
        "onnxruntime": pretend(),
        "openvino": pretend(f"if order['turn'] == 1: {fault}", 3.25),
    }
    told: list[str] = []
    laps = race(
        course(tmp_path),
        [name for name in scripts if why_absent(name) is None],
        told.append,
        lambda task: Racer(task, scripts[task.name]),
    )
    rows = {row.name: row for row in rows_of(laps)}
    good = rows["onnxruntime"]
    assert good.why_not is None and good.network_p50_ms == pytest.approx(2.0)
    assert (good.tilts_per_s or {})[2] == pytest.approx(4.0)
    assert good.network_to_bare == pytest.approx(2.0)
    assert good.whole_to_bare_cpu == pytest.approx(4.0)
    assert good.whole_to_bare == pytest.approx(4.0)
    assert len(laps[0].batch_s[2]) == BATCH_ROUNDS
    if "openvino" in rows:
        assert FAULTS[fault] in str(rows["openvino"].why_not)
        assert rows["openvino"].network_p50_ms is None
    assert any("tilt 3" in what for what in told)


def test_one_that_hangs_is_given_up(tmp_path: Path) -> None:
    task = course(tmp_path).task("onnxruntime")
    with Racer(task, ("-c", "import time; time.sleep(60)")) as racer:
        with pytest.raises(FallenError, match="no answer"):
            racer.hear(0.2)


def lap(name: str, percents: dict[int, float | None], masks: dict[int, list[int]]) -> Lap:
    hello = {"device": "CPU", "version": "1", "threads": 1, "start_s": 1.0, "memory_bytes": 1}
    found = Lap(name, hello=hello, percents=percents)
    found.masks = {number: np.array(mask, bool) for number, mask in masks.items()}
    found.wall_s = {"network": [1.0, 2.0, 3.0], "whole": [2.0, 4.0, 6.0]}
    return found


def test_differences_are_the_worst_of_all_tilts() -> None:
    reference = lap(
        REFERENCE, {0: 1.0, 1: None, 2: 5.0}, {0: [1, 1, 0], 1: [0, 0, 0], 2: [1, 1, 1]}
    )
    same = lap("openvino", {0: 1.05, 1: None, 2: 4.9}, {0: [1, 1, 0], 1: [0, 0, 0], 2: [0, 1, 1]})
    blind = lap("tensorrt", {0: 1.0, 1: None, 2: None}, {0: [0, 0, 1], 1: [0] * 3, 2: [0] * 3})
    first, second, third = rows_of([reference, same, blind])
    assert (first.largest_difference_percent, first.smallest_iou) == (0.0, 1.0)
    assert second.largest_difference_percent == pytest.approx(0.1)
    assert second.smallest_iou == pytest.approx(2 / 3)
    assert (third.largest_difference_percent, third.smallest_iou) == (100.0, 0.0)


def test_ratios_to_eager_are_taken_round_by_round() -> None:
    eager, fast = lap("torch", {}, {}), lap(REFERENCE, {}, {})
    fast.wall_s["network"] = [0.25, 0.5, 0.75]
    _, row = rows_of([eager, fast])
    assert row.times_eager == pytest.approx(4.0)
    assert row.times_eager_whole == pytest.approx(1.0)
    assert row.network_to_bare is None


def test_the_report_is_whole_on_paper_and_without_any_contender(tmp_path: Path) -> None:
    about: dict[str, Any] = {"rounds": 3, "size_px": 64, "pixel_size_angstrom": 2.0}
    about |= {"network_px": 9, "batches": (1, 8), "processor": "made up", "load": 0.5}
    there = Row(
        "openvino", "OpenVINO", None, "CPU", "1", 2, network_p50_ms=46.04, tilts_per_s={8: 31.0}
    )
    report = Report(about, (there, Row("tensorrt", "TensorRT", "no NVIDIA driver")))
    report.write(tmp_path)
    text = (tmp_path / MARKDOWN).read_text()
    assert "| OpenVINO | 46 | - |" in text and "| TensorRT | no NVIDIA driver |" in text
    figures = json.loads((tmp_path / FIGURES).read_text())
    assert figures["backends"][0]["tilts_per_s"] == {"8": 31.0}
    alone = Report(about, report.rows[1:])
    assert [table.title for table in alone.tables()] == ["Not measured"]


@settings(max_examples=20, deadline=None)
@given(
    size_px=st.integers(16, 96),
    pixel_size_angstrom=st.floats(0.5, 40.0),
    rows=st.integers(2, 20),
    columns=st.integers(2, 20),
)
def test_exposures_hold_as_many_electrons_as_expected(
    size_px: int, pixel_size_angstrom: float, rows: int, columns: int
) -> None:
    electrons = 500.0
    expected = np.full((rows, columns), electrons, np.float32)
    image = expose(expected, 13.5, size_px, pixel_size_angstrom, 0)
    assert image.shape == (size_px, size_px) and image.dtype == np.int16
    side = max(1, round(size_px * pixel_size_angstrom / 13.5))
    mean = electrons * (side / size_px) ** 2 * COUNTS_PER_ELECTRON
    if 10 * COUNTS_PER_ELECTRON < mean < 20_000:
        noise = np.sqrt(mean * COUNTS_PER_ELECTRON) / size_px
        assert abs(image.mean() - mean) < 6.0 * noise + 1.0


def test_memory_at_its_peak_is_seen_after_it_was_given_back() -> None:
    before = reset_peak()
    block = np.ones(64 << 20, np.uint8)
    assert block.sum() == block.size
    del block
    assert peak_bytes() - before > 48 << 20


def test_whoever_cannot_take_part_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_absent(REFERENCE) is None
    for module in ("torch", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)
    assert why_absent("torch-compile") == "torch is not installed"
    assert why_absent("openvino") == "openvino is not installed"
    assert set(names()) >= {"torch", "torch-compile", REFERENCE, "openvino", "tensorrt"}


def test_the_command_compares_runs_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle.write(tmp_path / "bundle")
    size = ("--size-px", "512", "--pixel-size", "13.5", "--tilts", "2", "--batch", "2")
    asked = ("--backend", "onnxruntime", "--backend", "torch-cuda", "--threads", "1")
    out = tmp_path / "report"
    assert run("--bundle", str(bundle), *size, *asked, "--out", str(out), "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in figures["backends"]}
    found = rows["onnxruntime"]
    assert found["network_p50_ms"] <= found["network_p99_ms"]
    assert (
        found["whole_p50_ms"] > 0.0
        and found["whole_cpu_ms"] > 0.0
        and found["tilts_per_s"]["2"] > 0.0
    )
    assert (found["largest_difference_percent"], found["smallest_iou"]) == (0.0, 1.0)
    assert found["memory_mib"] > 0.0 and found["threads"] == 1
    assert figures["about"]["network_px"] == 512
    # Where there is a GPU and PyTorch, the tiny bundle has no weights for it.
    assert rows["torch-cuda"]["why_not"]
    assert json.loads((out / FIGURES).read_text()) == figures
    assert "ONNX Runtime" in (out / MARKDOWN).read_text()
    assert (out / PICTURE).exists() == (find_spec("matplotlib") is not None)


@pytest.mark.slow
def test_a_pretend_gpu_takes_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{FOLDER}{os.pathsep}{FOLDER.parents[1]}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(contenders, "has_nvidia_driver", lambda: True)
    if why_absent("tensorrt") is not None:
        pytest.skip("needs tensorrt or tensorrt_rtx")
    size = ("--size-px", "512", "--pixel-size", "13.5", "--tilts", "1", "--batch", "2")
    assert run(*size, "--backend", "tensorrt", "--threads", "1", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["backends"]}
    found = rows["tensorrt"]
    assert found["why_not"] is None, found["why_not"]
    assert found["device"] == "Pretend Card"
    assert found["largest_difference_percent"] <= 0.1 and found["smallest_iou"] >= 0.99


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--backend", "onnx"), "--backend onnx is not known; name one of"),
        (("--bundle", "/nowhere"), "--bundle /nowhere"),
        (("--size-px", "64"), "--size-px 64"),
    ],
)
def test_what_cannot_be_run_is_refused(words: tuple[str, ...], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        run(*words)


@pytest.mark.slow
def test_pytorch_says_the_same_as_the_graph() -> None:
    if why_absent("torch") is not None:
        pytest.skip("needs torch")
    bundle = Bundle.load("default")
    eager = TorchBackend(bundle, "cpu", 1, compiled=False)
    reference = OnnxRuntimeSettings(threads=1).build(bundle)
    picture = np.random.default_rng(3).gamma(20.0, 1.0, (2, 1, 96, 160)).astype(np.float32)
    picture[:, :, 20:60, 30:90] *= 0.7
    expected, found = (one.infer(picture, np.ones_like(picture)) for one in (reference, eager))
    # Weights are kept as half in both; sums are taken in another order.
    np.testing.assert_allclose(found.probability, expected.probability, atol=0.02)
    reference.close()


def test_a_bundle_without_weights_or_without_their_network_is_refused(tmp_path: Path) -> None:
    bare = tiny_bundle.write(tmp_path / "bare")
    with pytest.raises(BundleError, match=WEIGHTS):
        network_of(Bundle.load(bare))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / WEIGHTS).write_bytes(b"")
    files = {name: manifest_entry((bare / name).read_bytes()) for name in (GRAPH,)}
    files[WEIGHTS] = manifest_entry(b"")
    with pytest.raises(BackendError, match="which network"):
        network_of(Bundle.load(tiny_bundle.write(tmp_path / "weights", files=files)))


def test_a_task_survives_the_command_line(tmp_path: Path) -> None:
    task = course(tmp_path).task("openvino")
    assert Task(**json.loads(json.dumps({k: getattr(task, k) for k in task.__slots__}))) == task
