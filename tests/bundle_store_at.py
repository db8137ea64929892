"""A daemon with bundles of its own: made, installed and asked for as an administrator would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from engines.bundle_store import BundleStore
from tests import tiny_bundle
from tests.daemon import ROOT, Daemon

DEFAULT = Path("default")


def made(folder: Path, name: str = "tuned", version: str = "1", **changes: Any) -> Path:
    """Write a bundle of a few hundred bytes; `changes` replace keys of its manifest."""
    return tiny_bundle.write(folder / f"{name}-{version}", name=name, version=version, **changes)


def held_out(before: float, after: float, *, iou: float = 0.7) -> dict[str, Any]:
    """Give the training record of a bundle whose mean error went from one to another."""
    figures = [{"mean_absolute_error": one, "iou": iou, "tilts": 5} for one in (before, after)]
    parent = {"name": "default", "version": "0.3.0", "graph_sha256": "0" * 64}
    return {"parent": parent, "held_out": dict(zip(("before", "after"), figures, strict=True))}


def command(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `icewatch bundle` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "monitor", "bundle", *words, "--config", str(daemon.config)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
    )


def done(daemon: Daemon, *words: str) -> str:
    """Run `icewatch bundle` and see that it succeeds; returns what it says."""
    found = command(daemon, *words)
    assert found.returncode == 0, found.stderr
    return found.stdout


def installed(daemon: Daemon, *bundles: Path) -> None:
    """Install bundles without the proof, which tests of the daemon need not wait for twice."""
    daemon.state.mkdir(parents=True, exist_ok=True)
    for path in bundles:
        BundleStore(daemon.state).install(path, prove=lambda path: None)


def served(daemon: Daemon) -> str:
    """Say which bundle the daemon says that it reads with."""
    found = daemon.status().get("bundles", {})
    return f"{found.get('name')}@{found.get('version')}"


def lines(path: Path) -> dict[str, Any]:
    """Read one of the two small files of the store."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found
