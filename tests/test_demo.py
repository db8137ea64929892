"""The demo, start to end: the recorded session, the real daemon, and the verdicts it reaches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monitor.demo.session import ENLARGED, expose, load_session
from tests.daemon import ROOT
from tests.waiting import wait_until


def demo(folder: Path, speed: str = "5") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "monitor", "demo", "--keep", str(folder), "--speed", speed]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


def test_every_icy_lamella_is_flagged_and_no_other(tmp_path: Path) -> None:
    with demo(tmp_path / "kept") as process:
        output, _ = process.communicate(timeout=110)
    assert process.returncode == 0, output
    assert "\x1b" not in output
    assert "agree on 49 tilts and 7 verdicts" in output
    assert (tmp_path / "kept" / "state" / "verdicts" / "verdicts.json").exists()
    assert len(list((tmp_path / "kept" / "state" / "overlays").rglob("*.png"))) == 49


@pytest.mark.slow  # tests of ends in the middle are many; this one is for the eye
def test_a_killed_daemon_comes_to_the_same_end(tmp_path: Path) -> None:
    with demo(tmp_path / "kept") as process:
        journal = tmp_path / "kept" / "state" / "journal.sqlite3"
        wait_until(journal.exists, "the daemon", 30.0)
        overlays = tmp_path / "kept" / "state" / "overlays"
        wait_until(lambda: len(list(overlays.rglob("*.png"))) >= 15, "fifteen tilts", 60.0)
        os.kill(_daemon_of(process.pid), signal.SIGKILL)
        output, _ = process.communicate(timeout=110)
    assert process.returncode == 0, output
    assert "the daemon died (-9) and was started again" in output
    assert "agree on 49 tilts and 7 verdicts" in output


def _daemon_of(demo_pid: int) -> int:
    children = Path(f"/proc/{demo_pid}/task/{demo_pid}/children")
    pids = [int(pid) for task in children.parent.parent.iterdir()
            for pid in (task / "children").read_text().split()]  # fmt: skip
    (pid,) = [pid for pid in pids if b"run" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


def test_a_full_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    with demo(tmp_path) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert output.count("\n") == 1


def test_the_recorded_session_holds_what_it_promises() -> None:
    session = load_session()
    assert len(session.lamellae) >= 6
    assert all(len(lamella.tilts) >= 7 for lamella in session.lamellae)
    icy = {lamella.name for lamella in session.lamellae if lamella.icy}
    assert {name.split("_")[1] for name in icy} == {"hexagonal", "cubic", "stacking"}
    assert all(lamella.ice_percent == 0.0 for lamella in session.lamellae if not lamella.icy)


def test_electrons_are_drawn_around_what_is_expected() -> None:
    tilt = load_session().lamellae[0].tilts[0]
    counts = expose(tilt, np.random.default_rng(1)).astype(float) / 32.0
    rows, columns = tilt.expected.shape
    binned = counts.reshape(rows, ENLARGED, columns, ENLARGED).sum(axis=(1, 3))
    assert binned.mean() == pytest.approx(tilt.expected.mean(), rel=0.01)
    spread = ((binned - tilt.expected) ** 2 / tilt.expected).mean()
    assert spread == pytest.approx(1.0, abs=0.1), "Poisson: the variance is the mean"
