"""The shipped unit with a daemon of this source tree, under a real systemd."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests import tiny_bundle
from tests.daemon import Microscope, Subscriber, picture
from tests.ports import free_port
from tests.real_systemd import REPOSITORY, RealSystemd
from tests.waiting import wait_until

PATIENCE_S = 60.0
STOP_S = 5.0
TILTS_OF_A_SERIES = 20
WATCHDOG_S = 3
TEST_LINES = """[Service]
WatchdogSec={watchdog_s}
StandardOutput=append:/run/icewatch-%i.log
StandardError=append:/run/icewatch-%i.log
Environment=LD_LIBRARY_PATH=/opt/python/lib ICEWATCH_INSTANCE=%i OMP_NUM_THREADS=1
"""


def install_units(systemd: RealSystemd) -> None:
    """Put user, folders and units where `deploy/install.sh` puts them."""
    for kind, program in (
        ("sysusers.d", ["systemd-sysusers"]),
        ("tmpfiles.d", ["systemd-tmpfiles", "--create"]),
    ):
        (systemd.root / "etc" / kind).mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "systemd" / kind / "icewatch.conf", systemd.root / "etc" / kind)
        done = systemd.run(*program, f"/etc/{kind}/icewatch.conf")
        assert done.returncode == 0, done.stderr
    unit = "icewatch@.service"
    systemd.put(unit, (REPOSITORY / "systemd" / unit).read_text("utf-8"))


class Service:
    """One instance, the microscope that it watches, and somebody who listens."""

    def __init__(
        self,
        systemd: RealSystemd,
        name: str = "krios1",
        *,
        watchdog_s: int = WATCHDOG_S,
        data: str = "/srv/test/data",
        bundle: str = "/srv/test/bundle",
        more: str = "",
        unit_lines: str = "",
    ) -> None:
        self.systemd = systemd
        self.name = name
        self.unit = f"icewatch@{name}.service"
        self.watchdog_s = watchdog_s
        if not (systemd.shared / "bundle").exists():
            install_units(systemd)
            tiny_bundle.write(systemd.shared / "bundle")
            faults = systemd.shared / "faults"
            faults.mkdir()
            shutil.copy(REPOSITORY / "tests/service_faults.py", faults)
        (systemd.shared / "data").mkdir(exist_ok=True)
        self.endpoint, self.metrics_address, self.web_address = (
            f"127.0.0.1:{free_port()}" for _ in range(3)
        )
        self.config = systemd.root / "etc/icewatch" / f"{name}.toml"
        self.config.write_text(
            f'microscope = "{name}"\n[acquisition]\ndirectory = "{data}"\npoll_interval_s = 0.2\n'
            f'[model]\nbundle = "{bundle}"\n[publish]\nzmq_endpoint = "tcp://{self.endpoint}"\n'
            f'metrics_address = "{self.metrics_address}"\nweb_address = "{self.web_address}"\n'
            f'[state]\ndirectory = "/var/lib/icewatch/{name}"\n{more}'
        )
        lines = TEST_LINES.format(watchdog_s=watchdog_s) + unit_lines
        systemd.put(f"icewatch@{name}.service.d/test.conf", lines)
        systemd.reload()
        self.microscope = Microscope(systemd.shared / "data")
        self.subscriber = Subscriber(f"tcp://{self.endpoint}")
        self._landed = 0
        self.start_took_s = 0.0
        """How long the last start took until READY=1."""

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.subscriber.close()

    @property
    def state(self) -> Path:
        return self.systemd.root / "var/lib/icewatch" / self.name

    @property
    def log(self) -> str:
        return (self.systemd.root / f"run/icewatch-{self.name}.log").read_text("utf-8", "replace")

    def start(self) -> Service:
        began_s = time.monotonic()
        done = self.systemd.systemctl("start", self.unit)
        assert done.returncode == 0, done.stderr + self.log
        self.start_took_s = time.monotonic() - began_s
        return self

    def stop(self) -> float:
        """Stop in order; gives how long it took, s."""
        began_s = time.monotonic()
        assert self.systemd.systemctl("stop", self.unit).returncode == 0
        facts = self.facts()
        assert (facts["Result"], facts["ExecMainStatus"]) == ("success", "0")
        return time.monotonic() - began_s

    def facts(self) -> dict[str, str]:
        names = "ActiveState SubState Result NRestarts MainPID ExecMainStatus StatusText"
        return self.systemd.shows(self.unit, *names.split())

    def restarts(self) -> int:
        return int(self.facts()["NRestarts"])

    def wait_for_restart(self, before: int, limit_s: float = PATIENCE_S) -> float:
        """Wait until systemd counts another start and heard READY=1; gives how long it took, s."""
        began_s = time.monotonic()

        def is_back() -> bool:
            facts = self.facts()
            return int(facts["NRestarts"]) > before and facts["ActiveState"] == "active"

        wait_until(is_back, f"{self.unit} to be back; it said: {self.log}", limit_s)
        return time.monotonic() - began_s

    def status(self) -> dict[str, Any]:
        """What `/status` says; {} while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://{self.web_address}/status", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (OSError, HTTPException):
            return {}

    def wait_for_state(self, state: str, limit_s: float = PATIENCE_S) -> dict[str, Any]:
        return wait_until(
            lambda: found if (found := self.status()).get("state") == state else None,
            f"state {state}, not {self.status()}",
            limit_s,
        )

    def let_happen(self, fault: str) -> None:
        """Let a fault of `tests.service_faults` happen at its next occasion."""
        (self.state / f"fault-{fault}").touch()

    def land(self, count: int = 1) -> int:
        """Let tilts land; gives how many landed so far."""
        for _ in range(count):
            series, tilt = divmod(self._landed, TILTS_OF_A_SERIES)
            image = picture(10.0, seed=self._landed)
            self.microscope.add(f"s/L{series + 1}", 3.0 * tilt, image)
            self._landed += 1
        return self._landed

    def wait_for_all(self, limit_s: float = PATIENCE_S) -> None:
        """Wait until every tilt that landed was heard, and see that none was lost or doubled."""
        tilts = self.subscriber.wait_for("tilt", self._landed, limit_s)
        wait_until(
            lambda: len(self.subscriber.messages("lamella")) == self._landed,
            "as many verdicts as tilts",
            limit_s,
        )
        assert len({one["tilt"]["id"] for one in tilts}) == len(tilts) == self._landed
        by_seq: dict[int, set[bytes]] = {}
        for topic in ("tilt", "lamella"):
            for body in self.subscriber.bodies(topic):
                by_seq.setdefault(json.loads(body)["seq"], set()).add(body)
        assert sorted(by_seq) == list(range(1, 2 * self._landed + 1))
        assert all(len(bodies) == 1 for bodies in by_seq.values()), "resent with other bytes"
