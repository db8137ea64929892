"""Looks at the computer and the service: memory, limits, unit, Prometheus."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.parse
from pathlib import Path
from typing import Any

from monitor.doctor.facts import Facts
from monitor.doctor.finding import Finding, ok, problem, split, warning

MEMORY, INSTANCES = Path("/proc/meminfo"), Path("/proc/sys/fs/inotify/max_user_instances")
NEEDED_BYTES = 600_000_000
"""What the daemon takes at most with the default network, and a margin."""
_ASK_S = 1.0


def memory(facts: Facts) -> list[Finding]:
    """See whether the daemon has the memory and the events that it needs."""
    found = []
    available = _available_bytes()
    if available is not None and available < NEEDED_BYTES and not facts.runs:
        cause = f"only {available / 1e6:.0f} MB of memory are free; icewatch takes up to 600 MB"
        found.append(warning("memory", cause, "end other programs, or add memory"))
    limit = facts.service.get("MemoryMax", "")
    if limit.isdecimal() and int(limit) < NEEDED_BYTES:
        cause = f"{facts.unit} may take {int(limit) / 1e6:.0f} MB; icewatch takes up to 600 MB"
        remedy = f"raise MemoryMax with `sudo systemctl edit {facts.unit}`"
        found.append(problem("memory", cause, remedy))
    instances = _number(INSTANCES)
    if instances is not None and instances < 8 and facts.settings.acquisition.watch != "poll":
        cause = f"each user may have {instances} inotify instances only"
        found.append(warning("inotify", cause, "sudo sysctl fs.inotify.max_user_instances=128"))
    return found or [ok("memory", "there is enough")]


def _available_bytes() -> int | None:
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", MEMORY.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def service(facts: Facts) -> list[Finding]:
    """See whether the service is on, and runs with this configuration."""
    unit, said = facts.unit, facts.service
    found = _reload_needed(facts)
    if not unit or not said:
        return found
    if said.get("LoadState") != "loaded":
        if facts.config.parent != Path("/etc/icewatch"):
            return found  # run by hand
        cause = f"there is no {unit}"
        return [*found, warning("service", cause, "install the units: sudo deploy/install.sh")]
    if said.get("UnitFileState") not in ("enabled", "enabled-runtime", "static", "alias", ""):
        cause = f"{unit} is not enabled: after the next start of the computer it is off"
        found.append(warning("service", cause, f"sudo systemctl enable {unit}"))
    active = said.get("ActiveState")
    if active == "failed" or said.get("Result") not in ("success", "", None):
        cause = f"{unit} failed (status {said.get('ExecMainStatus', '?')})"
        remedy = f"`journalctl -u {unit} -n 50` says why; then sudo systemctl restart {unit}"
        found.append(problem("service", cause, remedy))
    elif active not in ("active", "reloading", "activating"):
        cause = f"{unit} does not run"
        found.append(problem("service", cause, f"sudo systemctl start {unit}"))
    found += _other_file(facts)
    return found or [ok("service", f"{unit} is enabled and runs")]


def _other_file(facts: Facts) -> list[Finding]:
    """See whether the unit was told to read another file than this one."""
    words = facts.service.get("ExecStart", "")
    match = re.search(r"--config[ =](\S+)|-c (\S+)", words)
    named = (match[1] or match[2]) if match else ""
    if not named or os.path.realpath(named) == os.path.realpath(facts.config):
        return []
    cause = f"{facts.unit} runs with {named}, not with {facts.config}"
    return [warning("service", cause, f"look at that one: icewatch doctor --config {named}")]


def _reload_needed(facts: Facts) -> list[Finding]:
    """See whether what answers runs with what the file says now."""
    status, settings = facts.status, facts.settings
    if status is None:
        return []
    if not facts.runs:
        cause = (
            f"what answers at {settings.publish.web_address} watches "
            f"'{status.get('acquisition_directory')}', not '{settings.acquisition.directory}'"
        )
        remedy = f"restart the service, or give {facts.config} another publish.web_address"
        return [problem("service", cause, remedy)]
    reload = f"sudo systemctl reload {facts.unit}" if facts.unit else "send it SIGHUP"
    told: dict[str, Any] = status.get("settings") or {}
    if told.get("trouble"):
        cause = "the running daemon could not take the changed file and keeps to the one before"
        return [problem("service", cause, f"mend {facts.config}, then {reload}")]
    if told.get("needs_restart"):
        cause = f"changed since the start, and not in use: {', '.join(told['needs_restart'])}"
        remedy = f"sudo systemctl restart {facts.unit}" if facts.unit else "restart icewatch"
        return [warning("service", cause, remedy)]
    holds = (status.get("mode"), status.get("skip_above_ice_percent"))
    if holds != (settings.verdict.mode, settings.verdict.skip_above_ice_percent) and told:
        cause = f"{facts.config} changed since it was read: the daemon runs with the one before"
        return [warning("service", cause, reload)]
    state, reason = status.get("state"), status.get("reason")
    if state in ("degraded", "stalled"):
        return [split("service", f"icewatch is {state}: {reason}")]
    return []


def prometheus(facts: Facts) -> list[Finding]:
    """See whether the metrics can be had, and whether Prometheus has them."""
    found = []
    address = facts.settings.publish.metrics_address
    if facts.runs and not _answers(address):
        cause = f"nothing answers at {address}, though icewatch runs"
        remedy = "see whether a firewall is in the way, and what icewatch logged"
        found.append(problem("publish.metrics_address", cause, remedy))
    targets = _targets(facts.prometheus)
    if targets is None:
        return found
    port = address.rpartition(":")[2]
    mine = [one for one in targets if _port_of(one) == port]
    if not mine:
        cause = f"Prometheus at {facts.prometheus} does not ask for port {port}"
        remedy = f"add {address} to the job icewatch in /etc/prometheus/prometheus.yml"
        return [*found, warning("Prometheus", cause, remedy)]
    down = [one for one in mine if one.get("health") == "down"]
    if down and facts.runs:
        cause = f"Prometheus cannot reach {down[0].get('scrapeUrl')}: {down[0].get('lastError')}"
        remedy = f"compare it with publish.metrics_address = {address}, and see to the firewall"
        return [*found, problem("Prometheus", cause, remedy)]
    return found or [ok("Prometheus", "it asks for the metrics")]


def _answers(address: str) -> bool:
    host = re.sub(r"^(0\.0\.0\.0|\[::\]):", "127.0.0.1:", address)
    connection = http.client.HTTPConnection(host, timeout=_ASK_S)
    try:
        connection.request("GET", "/metrics")
        with connection.getresponse() as answer:
            return answer.status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _targets(url: str) -> list[dict[str, Any]] | None:
    """Give what Prometheus scrapes; None where none answers."""
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.netloc, timeout=_ASK_S)
    until_s = time.monotonic() + _ASK_S
    try:
        connection.request("GET", f"{where.path.rstrip('/')}/api/v1/targets?state=active")
        with connection.getresponse() as answer:
            content = answer.read(1 << 22)
        found = json.loads(content)["data"]["activeTargets"]
    except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError):
        return None
    finally:
        connection.close()
    return found if isinstance(found, list) and time.monotonic() < until_s + 1.0 else None


def _port_of(target: dict[str, Any]) -> str:
    try:
        return str(urllib.parse.urlsplit(str(target.get("scrapeUrl"))).port)
    except ValueError:
        return ""
