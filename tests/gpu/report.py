"""Try everything on the GPU that is here: python -m tests.gpu.report OUT writes a JSON report."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STEPS = ("card", "libraries", "build", "serve", "torch_on_cuda")
LIMIT_S = 240.0
GPU_TESTS = ("-m", "pytest", "-q", "-m", "gpu", "tests")


def attempt(words: tuple[str, ...]) -> dict[str, Any]:
    """Run a step in a process of its own: what it says, or how it failed."""
    try:
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"it took over {LIMIT_S:g} s"}
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()
        return {"failed": lines[-1] if lines else f"status {done.returncode}", "end": lines[-12:]}
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"says": done.stdout.strip().splitlines()[-1:]}
    return found


def main() -> None:
    """Run the command."""
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat()}
    for name in STEPS:
        print(f"{name} ...", flush=True)
        report[name] = attempt(("-m", "tests.gpu.steps", name))
        out.write_text(json.dumps(report, indent=1) + "\n")  # what is known survives a time limit
    print("tests ...", flush=True)
    report["tests"] = attempt(GPU_TESTS)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
