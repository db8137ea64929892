"""Looks at addresses and ports, without binding one: a daemon that starts must find them free."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from monitor.doctor.facts import Facts
from monitor.doctor.finding import Finding, ok, problem, warning

_LISTENING = "0A"
_UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True, slots=True)
class Address:
    """One address of the configuration."""

    key: str
    host: str
    port: int


def addresses(facts: Facts) -> list[Address]:
    """List what the daemon binds."""
    publish = facts.settings.publish
    named = {
        "publish.zmq_endpoint": publish.zmq_endpoint,
        "publish.metrics_address": publish.metrics_address,
        "publish.web_address": publish.web_address,
    }
    found = []
    for key, text in named.items():
        if text.startswith("ipc://"):
            continue
        host, _, port = text.removeprefix("tcp://").rpartition(":")
        found.append(Address(key, host.strip("[]"), int(port)))
    return found


def ports(facts: Facts) -> list[Finding]:
    """See whether every address is this computer's, free, and not open to all."""
    listed = addresses(facts)
    found = _twice(listed)
    for one in listed:
        found += _wrong(one) or _taken(facts, one) or _open_to_all(one)
    if not found:
        state = "in use by icewatch" if facts.runs else "free"
        found = [ok("ports", f"{', '.join(str(one.port) for one in listed)} are {state}")]
    return found


def _twice(listed: list[Address]) -> list[Finding]:
    seen: dict[int, str] = {}
    found = []
    for one in listed:
        if one.port in seen:
            cause = f"port {one.port} is also that of {seen[one.port]}"
            found.append(problem(one.key, cause, "give each a port of its own"))
        seen[one.port] = one.key
    return found


def _wrong(one: Address) -> list[Finding]:
    if one.host == "*":
        return []
    try:
        family, kind, _, _, where = socket.getaddrinfo(
            one.host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.bind(where)  # any free port: nobody waits for that one
    except socket.gaierror:
        cause = f"'{one.host}' is the name of no computer"
        return [
            problem(one.key, cause, "name an address of this computer: see `ip -brief address`")
        ]
    except OSError as error:
        cause = f"{one.host} is no address of this computer ({error.strerror})"
        return [problem(one.key, cause, "name one that `ip -brief address` lists, or 127.0.0.1")]
    start = _unprivileged()
    if one.port < start and os.geteuid() != 0:
        cause = f"ports below {start} are for root alone"
        return [problem(one.key, cause, "choose a port from 1024 on")]
    return []


def _taken(facts: Facts, one: Address) -> list[Finding]:
    inode = listener_of(one)
    if not inode or facts.runs:
        return []
    by = _program_of(inode)
    if one.key == "publish.web_address" and facts.status is not None:
        by = f"another icewatch ({facts.status.get('microscope', '?')})"
    cause = f"port {one.port} is taken by {by or 'another program'}"
    return [problem(one.key, cause, "choose another port, or stop that program")]


def _open_to_all(one: Address) -> list[Finding]:
    if one.key == "publish.zmq_endpoint" or one.host not in ("0.0.0.0", "::", "*", ""):
        return []
    cause = f"{one.host}:{one.port} lets every computer of every network in; there is no password"
    remedy = "name this computer's address on the microscope network, or 127.0.0.1"
    return [warning(one.key, cause, remedy)]


def listener_of(one: Address) -> int:
    """Give the inode of the socket that listens where this address would; 0 where none does."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                host, _, port = fields[1].partition(":")
                if fields[3] != _LISTENING or int(port, 16) != one.port:
                    continue
                if _meets(host, one.host):
                    return int(fields[9])
    return 0


def _meets(listening: str, wanted: str) -> bool:
    """Whether two sockets at one port are in each other's way (the kernel's hexadecimal first)."""
    if set(listening) == {"0"} or wanted in ("0.0.0.0", "::", "*", ""):
        return True
    with suppress(OSError):
        for family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):
                words = socket.inet_pton(family, wanted)
                swapped = b"".join(words[k : k + 4][::-1] for k in range(0, len(words), 4))
                return swapped.hex().upper() == listening
        found = socket.getaddrinfo(wanted, 0, type=socket.SOCK_STREAM)
        return any(_meets(listening, str(where[0])) for *_, where in found)
    return False


def _program_of(inode: int) -> str:
    """Name the program that has a socket; "" where we may not know."""
    wanted = f"socket:[{inode}]"
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    if os.readlink(descriptor) == wanted:  # noqa: PTH115  no Path is meant
                        name = (process / "comm").read_text("utf-8", "replace").strip()
                        return f"{re.sub(r'[^ -~]', '?', name)} (process {process.name})"
    return ""


def _unprivileged() -> int:
    try:
        return int(_UNPRIVILEGED.read_text())
    except (OSError, ValueError):
        return 1024
