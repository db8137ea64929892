"""The command line: what goes wrong is one line on standard error and the right exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engines.bundle import MANIFEST, manifest_entry
from engines.domain_file import DOMAIN
from monitor.health import judge
from monitor.intake import Intake, IntakeStatus
from monitor.problems import Problems
from monitor.sources import all_sources
from tests import tiny_bundle
from tests.daemon import ROOT, Daemon, Microscope, picture
from tests.ports import free_port
from tests.privileges import as_nobody
from tests.test_bundle import graph_of_nan
from tests.waiting import wait_until

COMMANDS = (
    "demo",
    "run",
    "check",
    "doctor",
    "score",
    "listen",
    "status",
    "retry",
    "engine benchmark",
)


def icewatch(
    *arguments: str, timeout_s: float = 60.0, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitor", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout_s,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str) -> None:
    found = icewatch(*command.split(), "--help")
    assert found.returncode == 0
    assert f"Example: icewatch {command}" in found.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("rn",),
        ("--nope",),
        ("run",),
        ("check",),
        ("score",),
        ("check", "/nowhere/icewatch.toml"),
        ("run", "--config", "/nowhere/icewatch.toml"),
        ("score", "/nowhere"),
        ("score", "--model", "/nowhere", "."),
        ("score", "--pixel-size", "-1", "."),
        ("listen", "--from-seq", "x"),
        ("retry", "L1"),
        ("retry", "--config", "/nowhere/icewatch.toml"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...]) -> None:
    found = icewatch(*arguments)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("icewatch: ")
    assert found.stderr.count("\n") == 1


def test_check_says_ok_and_what_is_still_missing(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    found = icewatch("check", str(daemon.config))
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith(f"{daemon.config}: ok\n")
    assert "is not there yet" in found.stdout


def test_check_and_run_refuse_alike(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, more="[verdct]\nmode = 'act'\n")
    check = icewatch("check", str(daemon.config))
    run = icewatch("run", "--config", str(daemon.config))
    assert check.returncode == run.returncode == 2
    assert check.stderr == run.stderr
    assert "did you mean 'verdict'?" in check.stderr


def test_a_backend_that_is_not_there_is_refused(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    text = daemon.config.read_text().replace("[publish]", 'backend = "tensorrt"\n[publish]')
    daemon.config.write_text(text)
    found = icewatch("check", str(daemon.config), CUDA_VISIBLE_DEVICES="")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "model.backend" in found.stderr


def test_a_bundle_whose_weights_are_no_numbers_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle.write(tmp_path / "nan", graph_of_nan())
    found = icewatch("check", str(Daemon(tmp_path, bundle=bundle).config))
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert "model.bundle: " in found.stderr
    assert "not numbers (NaN)" in found.stderr


def test_run_refuses_a_bundle_of_no_numbers_as_check_does(tmp_path: Path) -> None:
    bundle = tiny_bundle.write(tmp_path / "nan", graph_of_nan())
    daemon = Daemon(tmp_path, bundle=bundle)
    daemon.acquisition.mkdir()
    check = icewatch("check", str(daemon.config))
    run = icewatch("run", "--config", str(daemon.config), CUDA_VISIBLE_DEVICES="")
    assert (run.returncode, run.stdout) == (2, "")
    said = [line for line in run.stderr.splitlines() if not line.startswith("INFO ")]
    assert said == check.stderr.splitlines()
    assert len(said) == 1


def test_check_and_run_refuse_a_damaged_monitor(tmp_path: Path) -> None:
    content = b"no archive"
    bundle = tiny_bundle.write(tmp_path / "damaged")
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][DOMAIN] = manifest_entry(content)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    (bundle / DOMAIN).write_bytes(content)
    daemon = Daemon(tmp_path, bundle=bundle)
    check = icewatch("check", str(daemon.config))
    run = icewatch("run", "--config", str(daemon.config))
    assert check.returncode == run.returncode == 2
    assert check.stderr == run.stderr
    assert "domain.npz' is no monitor of this bundle" in check.stderr
    assert check.stderr.count("\n") == 1


def test_check_needs_no_torch(tmp_path: Path) -> None:
    words = ["check", str(Daemon(tmp_path).config)]
    program = (
        f"import sys; from monitor.cli import app; app({words!r}, standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_nobody_answers() -> None:
    found = icewatch("status", "--address", f"127.0.0.1:{free_port()}")
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1


def test_status_and_listen_of_a_running_daemon(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    Microscope(daemon.acquisition).add("s/L1", 0.0, picture(12.0))
    daemon.start()
    try:
        wait_until(lambda: daemon.status().get("last_seq") == 2, "the first tilt", 20.0)
        status = icewatch("status", "--config", str(daemon.config))
        assert status.returncode == 0
        assert status.stdout.startswith("test: ready, onnxruntime, mode advise; nothing waits; ")
        assert "last tilt s/L1 +0.0\N{DEGREE SIGN} (11.7 % ice)" in status.stdout.splitlines()[0]
        command = [sys.executable, "-m", "monitor", "listen", "--json", "--from-seq", "0"]
        with subprocess.Popen(
            [*command, "--endpoint", daemon.endpoint], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as listener:
            assert listener.stdout is not None
            heard = [json.loads(listener.stdout.readline()) for _ in range(4)]
            listener.send_signal(signal.SIGTERM)
        committed = [one["schema"] for one in heard if one["schema"] != "icewatch.status/1"]
        assert committed == ["icewatch.tilt/1", "icewatch.lamella/1"]
        daemon.signal(signal.SIGTERM)
        dead = icewatch("status", "--config", str(daemon.config))
        assert (dead.returncode, dead.stderr.count("\n")) == (1, 1)
        left = r"test: not running \(.*\); it gave its last sign of life \d+ s ago; last tilt s/L1"
        assert re.match(left, dead.stdout)
        told = json.loads(icewatch("status", "--json", "--config", str(daemon.config)).stdout)
        assert (told["state"], told["last_seq"]) == ("not_running", 2)
        assert told["last_tilt"]["lamella"] == "s/L1"
    finally:
        daemon.stop()


def test_status_of_a_daemon_that_never_ran(tmp_path: Path) -> None:
    found = icewatch("status", "--config", str(Daemon(tmp_path).config))
    assert found.returncode == 1
    assert "test: not running" in found.stdout
    assert "it never ran here; no tilt yet." in found.stdout
    assert not (tmp_path / "state").exists()


def test_plain_text_where_no_terminal_is_attached(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    Microscope(tmp_path / "tilts").add("L1", 0.0, picture(12.0))
    found = icewatch("score", "--model", str(tmp_path / "bundle"), str(tmp_path / "tilts"))
    assert found.returncode == 0
    assert "\x1b" not in found.stdout
    assert daemon.process is None


def test_a_directory_that_may_not_be_read_is_waited_for(nobodys_path: Path) -> None:
    directory = nobodys_path / "data"
    directory.mkdir()
    directory.chmod(0)

    def first_scan() -> IntakeStatus:
        intake = Intake(directory, all_sources(directory), watch="poll")
        intake.step()
        return intake.status()

    status = as_nobody(first_scan)
    assert status.stalled
    assert str(directory) in status.reason
    health = judge(warm=True, intake=status, problems=Problems(), failing_sinks={})
    assert health.state == "stalled"


@pytest.mark.parametrize("value", ["inf", "nan", "1e300", "10001", "0"])
def test_a_pixel_size_that_none_can_be_is_refused(value: str) -> None:
    found = icewatch("score", "--pixel-size", value, ".")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.count("\n") == 1
    assert "--pixel-size" in found.stderr


@pytest.mark.parametrize(
    "address", ["127.0.0.1:abc", "127.0.0.1:99999", "127.0.0.1:0", "8080", "http://127.0.0.1:8080"]
)
def test_what_is_no_address_is_wrong_usage(address: str) -> None:
    found = icewatch("status", "--address", address)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.count("\n") == 1
    assert address in found.stderr
