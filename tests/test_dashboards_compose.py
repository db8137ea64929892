"""deploy/compose.yml, as far as it can be tried without a container registry.

No image can be fetched where the tests run: what is tried is that the file holds together, that
all it mounts is there, and that the real programs take the configurations and options in it.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.alerting_programs import ALERTMANAGER, DEPLOY, program, promtool

FILE = DEPLOY / "compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def mounts(service: str) -> dict[str, str]:
    """What lies where in the container."""
    return {
        inside: outside
        for outside, inside, *_ in (one.split(":") for one in SERVICES[service]["volumes"])
    }


def outside(service: str, path: str) -> Path:
    """The file of this repository that a container sees under a path."""
    inside = next(one for one in mounts(service) if path.startswith(f"{one}/"))
    return DEPLOY / mounts(service)[inside] / path.removeprefix(f"{inside}/")


def option(service: str, name: str) -> str:
    (found,) = [one for one in SERVICES[service]["command"] if one.startswith(f"--{name}=")]
    return str(found.partition("=")[2])


def test_there_are_the_three_programs_at_fixed_versions() -> None:
    assert SERVICES.keys() == {"prometheus", "alertmanager", "grafana"}
    for service in SERVICES.values():
        assert re.fullmatch(r"docker\.io/\w+/\w+:v?\d+\.\d+\.\d+", service["image"])
    # The dashboards are written for this schema of Grafana.
    assert SERVICES["grafana"]["image"].endswith(":11.6.0")


@pytest.mark.parametrize("name", SERVICES)
def test_everything_mounted_is_there_and_read_only(name: str) -> None:
    for one in SERVICES[name]["volumes"]:
        source, _, *mode = one.split(":")
        if source.startswith("."):
            assert (DEPLOY / source).is_dir()
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]
    assert SERVICES[name]["read_only"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_nobody_else_reaches_the_programs(name: str) -> None:
    """They use the network of the computer, so each must be told to listen on the loopback."""
    service = SERVICES[name]
    assert service["network_mode"] == "host" and "ports" not in service
    assert service["cap_drop"] == ["ALL"]
    if name == "grafana":
        assert service["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    else:
        assert option(name, "web.listen-address").startswith("127.0.0.1:")


def test_the_addresses_agree() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (manager,) = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert manager == option("alertmanager", "web.listen-address")
    address = f"http://{option('prometheus', 'web.listen-address')}"
    assert SERVICES["grafana"]["environment"]["PROMETHEUS_URL"] == address
    for service in SERVICES.values():
        assert "127.0.0.1:" in service["healthcheck"]["test"][-1]


def test_the_password_of_grafana_is_in_a_file_of_the_user() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
    assert SERVICES["grafana"]["secrets"] == ["grafana_password"]
    # `:?` stops compose with the sentence behind it where nothing is named.
    assert re.fullmatch(
        r"\$\{GRAFANA_PASSWORD_FILE:\?.+\}", COMPOSE["secrets"]["grafana_password"]["file"]
    )
    assert not [key for key in environment if key.endswith("PASSWORD")]


def test_grafana_finds_its_provisioning() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert outside("grafana", environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).is_file()
    folder = DEPLOY / mounts("grafana")["/etc/grafana/provisioning"]
    asked = set()
    for path in sorted(folder.rglob("*.yml")):
        asked |= set(re.findall(r"\$(\w+)", re.sub(r"#.*", "", path.read_text("utf-8"))))
    assert asked and asked <= environment.keys()
    provider = yaml.safe_load((folder / "dashboards/icewatch.yml").read_text())["providers"][0]
    found = outside("grafana", provider["options"]["path"] + "/fleet.json")
    assert found.is_file()


def test_the_programs_take_their_configurations() -> None:
    done = promtool("check", "config", outside("prometheus", option("prometheus", "config.file")))
    assert done.returncode == 0, done.stdout + done.stderr
    file = outside("alertmanager", option("alertmanager", "config.file"))
    command = [program("amtool", ALERTMANAGER), "check-config", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_the_programs_know_their_options(name: str) -> None:
    command = [program({"alertmanager": ALERTMANAGER}.get(name, name)), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    known = set(re.findall(r"--([a-z.-]+)", done.stdout + done.stderr))
    assert {one[2:].partition("=")[0] for one in SERVICES[name]["command"]} <= known
