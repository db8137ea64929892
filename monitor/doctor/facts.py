"""What is known before anything is looked at: the settings, the service, the user that counts."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monitor.doctor.abandon import User
from monitor.errors import MonitorError
from monitor.settings import Settings
from monitor.web.client import fetch_status

_ASK_S = 0.7
_WANTED = (
    "LoadState,UnitFileState,ActiveState,SubState,MainPID,User,MemoryMax,Result,NRestarts,"
    "ExecMainStatus,ExecStart"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the looks are given."""

    config: Path
    settings: Settings
    unit: str = ""
    """Unit of the service that runs this configuration; empty where there is no systemd."""
    service: Mapping[str, str] = field(default_factory=dict)
    """What systemd says of it."""
    user: User | None = None
    """Who runs the daemon; None: whoever asks."""
    status: Mapping[str, Any] | None = None
    """What answers at the web address, if that is an icewatch."""
    prometheus: str = "http://127.0.0.1:9090"
    """Where Prometheus answers."""

    @property
    def who(self) -> str:
        """Name the user whose rights count."""
        if self.user is not None:
            return self.user.name
        return _name_of(os.geteuid())

    @property
    def uid(self) -> int:
        """Number of that user."""
        return os.geteuid() if self.user is None else self.user.uid

    @property
    def runs(self) -> bool:
        """Whether a daemon with this state directory answers."""
        return self.status is not None and self.status.get("acquisition_directory") == str(
            self.settings.acquisition.directory
        )


def unit_of(config: Path) -> str:
    """Name the unit that runs a configuration, as `icewatch@.service` does."""
    stem = re.sub(r"[^\w.:-]", "_", config.stem)
    return f"icewatch@{stem}.service"


def ask_systemd(unit: str) -> dict[str, str]:
    """Give what systemd says of a unit; {} where it does not answer."""
    try:
        done = subprocess.run(
            ["systemctl", "show", unit, "--property", _WANTED],
            capture_output=True,
            text=True,
            timeout=_ASK_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return {}
    if done.returncode != 0:
        return {}
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def ask_daemon(settings: Settings) -> dict[str, Any] | None:
    """Give the status of what answers at the web address, if that is an icewatch."""
    try:
        return fetch_status(settings.publish.web_address, timeout_s=_ASK_S)
    except MonitorError:
        return None


def user_of(service: Mapping[str, str], state: Path) -> User | None:
    """Tell who runs the daemon: the user of its unit, else whose the state directory is.

    Only root can look with the rights of another; None for anybody else.
    """
    if os.geteuid() != 0:
        return None
    try:
        named = service.get("User") if service.get("LoadState") == "loaded" else ""
        if named:
            found = pwd.getpwnam(named)
            return User(found.pw_name, found.pw_uid, found.pw_gid)
        stat = state.stat()
    except (KeyError, OSError):
        return None
    return User(_name_of(stat.st_uid), stat.st_uid, stat.st_gid) if stat.st_uid else None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
