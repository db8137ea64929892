"""What will be run on a real GPU runs on a pretend one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pretend_gpu import FOLDER
from tests.test_engine_daemon import bundle_with_half_graph

ROOT = Path(__file__).resolve().parents[1]


def test_plans_are_built_loaded_compared_and_timed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{FOLDER}:{ROOT}",
        "ICEWATCH_GPU_CACHE": str(state / "engines"),
        "ICEWATCH_GPU_BUNDLE": str(bundle_with_half_graph(tmp_path / "bundle")),
        "ICEWATCH_GPU_TIMES": "2",
    }

    def step(name: str) -> dict[str, Any]:
        words = [sys.executable, "-m", "tests.gpu.steps", name]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert step("card")["name"] == "Pretend Card"
    assert step("libraries")["tensorrt_rtx"]["version"] == "1.7.1.999"
    assert step("build")["megabytes"] > 0
    served = step("serve")
    assert served["difference_from_onnx_runtime"]["is_small"]
    assert served["network_ms"]["p50"] <= served["network_ms"]["p99"]
    assert served["reserved_megabytes"] > 0
