"""`icewatch doctor`: seeded mistakes, each found with its cause and a remedy on one line."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle import GRAPH, MANIFEST
from engines.bundle_store import BundleStore
from engines.readers.mrc import write_mrc
from monitor import watching
from monitor.bundle_choice import Serving, write_word
from monitor.doctor import folders, journals, landed, machine, models, ports
from monitor.doctor.abandon import Look, User
from monitor.doctor.examination import _places, _readable, examine
from monitor.doctor.facts import Facts, unit_of
from monitor.doctor.finding import Finding
from monitor.journal import Journal
from monitor.journal_damage import MARK
from monitor.journal_schema import SCHEMA_VERSION
from monitor.settings import parse
from tests import tiny_bundle
from tests.alerting_programs import program
from tests.bundle_store_at import made
from tests.commands import icewatch
from tests.fuse_share import Faults, Share
from tests.golden_journals import MICROSCOPE, write_journal
from tests.ports import free_port
from tests.privileges import NOBODY
from tests.test_bundle import graph_of_nan
from tests.waiting import wait_until

Check = Callable[[Facts], list[Finding]]


class Place:
    """A configuration and its folders, right in every way until a mistake is made."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, patch
        self.data, self.state = root / "data", root / "state"
        self.config = root / "krios1.toml"
        self.microscope = MICROSCOPE
        self.keys: dict[str, dict[str, Any]] = {
            "acquisition": {"directory": str(self.data)},
            "model": {"bundle": str(tiny_bundle.write(root / "bundle")), "backend": "onnxruntime"},
            "publish": {
                "zmq_endpoint": f"tcp://127.0.0.1:{free_port()}",
                "metrics_address": f"127.0.0.1:{free_port()}",
                "web_address": f"127.0.0.1:{free_port()}",
            },
            "state": {"directory": str(self.state)},
        }
        self.service: dict[str, str] = {}
        self.status: Mapping[str, Any] | None = None
        self.user: User | None = None
        self.data.mkdir()
        self.state.mkdir()
        (self.data / "s1").mkdir()
        (self.data / "s1" / "L1.mrc").write_bytes(b"")

    def set(self, section: str, key: str, value: Any) -> None:
        self.keys.setdefault(section, {})[key] = value

    def write(self, more: str = "") -> Path:
        lines = [f"microscope = {json.dumps(self.microscope)}"]
        for section, keys in self.keys.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.config.write_text("\n".join(lines) + "\n" + more, "utf-8")
        return self.config

    def facts(self) -> Facts:
        settings = parse(self.write())
        unit = unit_of(self.config) if self.service else ""
        return Facts(self.config, settings, unit, self.service, self.user, self.status)

    def runs(self, **told: Any) -> None:
        """Let a daemon answer that runs with these settings."""
        self.status = {
            "acquisition_directory": str(self.data),
            "microscope": MICROSCOPE,
            "state": "ready",
            "reason": "",
            "mode": "advise",
            "skip_above_ice_percent": 10.0,
            "settings": {"trouble": "", "needs_restart": []},
            **told,
        }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    fstab = tmp_path / "fstab"
    fstab.write_text("# nothing\nproc /proc proc defaults 0 0\n")
    monkeypatch.setattr(folders, "FSTAB", fstab)
    return Place(tmp_path, monkeypatch)


@dataclass(frozen=True)
class Mistake:
    """One way to be wrong, and what has to be said of it."""

    make: Callable[[Place], object]
    check: Check
    level: str
    cause: str
    remedy: str


def no_config(place: Place) -> None:
    place.config = place.root / "none.toml"


def readable(facts: Facts) -> list[Finding]:
    return _readable(facts.config)


def empty(place: Place) -> None:
    (place.data / "s1" / "L1.mrc").unlink()
    (place.data / "s1").rmdir()


def share_not_mounted(place: Place) -> None:
    folders.FSTAB.write_text(f"nas:/offload {place.data} nfs4 ro 0 0\n")
    empty(place)


def is_gone(place: Place) -> None:
    empty(place)
    place.data.rmdir()


def events_on_a_share(place: Place) -> None:
    place.set("acquisition", "watch", "events")
    lies_on_nfs(place, place.data)


def marked_journal(place: Place) -> None:
    write_journal(place.state, SCHEMA_VERSION)
    (place.state / MARK).write_text("x")


def journal_of_another(place: Place) -> None:
    write_journal(place.state, SCHEMA_VERSION)
    place.microscope = "glacios"


def lies_on_nfs(place: Place, what: Path) -> None:
    mounts = place.root / "mountinfo"
    mounts.write_text(
        f"24 1 0:5 / / rw - ext4 /dev/sda rw\n30 24 0:6 / {what} rw - nfs4 nas:/o rw\n"
    )
    place.patch.setattr(watching, "_MOUNTS", mounts)
    place.patch.setattr(folders, "MOUNTS", mounts)


def nearly_full(place: Place, free: float) -> None:
    usage = type("Usage", (), {"total": 1e12, "used": 0, "free": free})
    place.patch.setattr(shutil, "disk_usage", lambda path: usage)


def other_schema(place: Place, version: int) -> None:
    path = write_journal(place.state, SCHEMA_VERSION)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(version),))
        db.execute(f"PRAGMA user_version={version}")


def damaged_journal(place: Place) -> None:
    path = write_journal(place.state, SCHEMA_VERSION)
    os.truncate(path, path.stat().st_size // 2)


def held_by_another(place: Place) -> None:
    journal = Journal(place.state, MICROSCOPE)
    place.patch.setattr(place, "journal", journal, raising=False)  # held until the test is over


def damaged_bundle(place: Place) -> None:
    path = place.root / "bundle" / GRAPH
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def other_bundle_version(place: Place) -> None:
    path = place.root / "bundle" / MANIFEST
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "schema": "icewatch.bundle/9"}))


def pattern(place: Place) -> None:
    place.set("acquisition", "layout", "custom")
    place.write()
    place.keys["acquisition.custom"] = {"pattern": r"(?P<series>.+)_(?P<angle>[-+]?\d+)\.tif"}


def gain_of_another_shape(place: Place) -> None:
    write_mrc(place.root / "gain.mrc", np.ones((8, 8), np.float32), 1.0)
    write_mrc(place.data / "s1" / "L1.mrc", np.ones((8, 6), np.float32), 1.0)
    place.keys["acquisition.gain"] = {"reference": str(place.root / "gain.mrc")}


def gain_is_gone(place: Place) -> None:
    place.keys["acquisition.gain"] = {"reference": str(place.root / "gain.mrc")}


def from_the_future(place: Place) -> None:
    os.utime(place.data / "s1" / "L1.mrc", (time.time() + 7200.0,) * 2)


def other_time_zone(place: Place) -> None:
    mdoc = place.data / "s1" / "L1.mrc.mdoc"
    at = time.strftime("%d-%b-%y  %H:%M:%S", time.localtime(time.time() - 7200.0))
    mdoc.write_text(f"[ZValue = 0]\nTiltAngle = 0\nDateTime = {at}\n")


def little_memory(place: Place) -> None:
    text = place.root / "meminfo"
    text.write_text("MemTotal: 1000000 kB\nMemAvailable: 90000 kB\n")
    place.patch.setattr(machine, "MEMORY", text)


def few_events(place: Place) -> None:
    (place.root / "instances").write_text("2\n")
    place.patch.setattr(machine, "INSTANCES", place.root / "instances")


def few_watches(place: Place) -> None:
    for number in range(12):
        (place.data / f"s{number + 2}").mkdir()
    (place.root / "watches").write_text("10\n")
    place.patch.setattr(folders, "WATCHES", place.root / "watches")


def unit(place: Place, **said: str) -> None:
    place.service = {
        "LoadState": "loaded",
        "UnitFileState": "enabled",
        "ActiveState": "active",
        "Result": "success",
        "ExecStart": f"{{ path=icewatch ; argv[]=icewatch run --config {place.config} ; }}",
        **said,
    }


def sets(section: str, key: str, value: Any) -> Callable[[Place], None]:
    return lambda place: place.set(section, key, value)


def same_port(place: Place) -> None:
    place.set("publish", "web_address", place.keys["publish"]["metrics_address"])


def below_the_acquisition(place: Place) -> None:
    place.set("state", "directory", str(place.data / "state"))


MISTAKES = {
    "no configuration": Mistake(
        no_config, readable, "problem", "no such file", "give --config a TOML file"
    ),
    "unknown key": Mistake(
        sets("verdict", "mod", "act"),
        readable,
        "problem",
        "verdict.mod: unknown key",
        "did you mean 'mode'",
    ),
    "state below the acquisition": Mistake(
        below_the_acquisition, _places, "problem", "where icewatch never writes", "elsewhere"
    ),
    "public without keys": Mistake(
        sets("publish", "zmq_endpoint", "tcp://0.0.0.0:5556"),
        _places,
        "problem",
        "nothing says who may subscribe",
        "add [publish.curve]",
    ),
    "gain reference gone": Mistake(
        gain_is_gone, _places, "problem", "acquisition.gain.reference", "name an MRC or TIFF file"
    ),
    "acquisition directory gone": Mistake(
        is_gone, folders.acquisition, "problem", "is not there; icewatch waits", "mount the share"
    ),
    "share not mounted": Mistake(
        share_not_mounted, folders.acquisition, "problem", "is not mounted", "sudo mount"
    ),
    "empty": Mistake(
        empty,
        folders.acquisition,
        "warning",
        "is empty, and nothing is mounted there",
        "if it should be a share",
    ),
    "events on a share": Mistake(
        events_on_a_share,
        folders.acquisition,
        "problem",
        "lies on nfs4, where no events",
        'watch = "auto"',
    ),
    "few watches": Mistake(
        few_watches, folders.acquisition, "warning", "events of only 10", "max_user_watches"
    ),
    "state on a share": Mistake(
        lambda place: lies_on_nfs(place, place.state),
        folders.state,
        "problem",
        "lies on nfs4, where a journal can be damaged",
        "local disk",
    ),
    "disk nearly full": Mistake(
        lambda place: nearly_full(place, 2e10), folders.state, "warning", "20.00 GB", "free space"
    ),
    "disk full": Mistake(
        lambda place: nearly_full(place, 1e7), folders.state, "problem", "0.01 GB", "free space"
    ),
    "state open to all": Mistake(
        lambda place: place.state.chmod(0o777),
        folders.state,
        "warning",
        "may be written by everybody",
        "chmod o-w",
    ),
    "newer journal": Mistake(
        lambda place: other_schema(place, 99),
        journals.journal,
        "problem",
        "written by a newer icewatch",
        "update icewatch",
    ),
    "damaged journal": Mistake(
        damaged_journal, journals.journal, "warning", "is damaged", "puts it aside"
    ),
    "journal marked as damaged": Mistake(
        marked_journal,
        journals.journal,
        "warning",
        "was found damaged by the last daemon",
        "puts it aside",
    ),
    "journal of another": Mistake(
        journal_of_another,
        journals.journal,
        "problem",
        "belongs to microscope 'krios1', not 'glacios'",
        "name another state.directory",
    ),
    "state in use": Mistake(
        held_by_another, journals.journal, "problem", "in use by another daemon", "stop that one"
    ),
    "bundle gone": Mistake(
        sets("model", "bundle", "/nowhere"), models.model, "problem", "is not a folder", "name one"
    ),
    "bundle damaged": Mistake(
        damaged_bundle, models.model, "problem", "SHA-256 differ", "copy the whole bundle again"
    ),
    "bundle of another version": Mistake(
        other_bundle_version, models.model, "problem", "icewatch.bundle/", "bundle"
    ),
    "weights that are no numbers": Mistake(
        lambda place: tiny_bundle.write(place.root / "bundle", graph_of_nan()),
        models.model,
        "problem",
        "not numbers (NaN)",
        "bundle",
    ),
    "GPU asked for": Mistake(
        sets("model", "backend", "tensorrt"), models.gpu, "problem", "", "until then the CPU serves"
    ),
    "same port twice": Mistake(
        same_port, ports.ports, "problem", "is also that of", "a port of its own"
    ),
    "name of no computer": Mistake(
        sets("publish", "web_address", "no.such.computer.invalid:8080"),
        ports.ports,
        "problem",
        "is the name of no computer",
        "ip -brief address",
    ),
    "address of another computer": Mistake(
        sets("publish", "metrics_address", "192.0.2.1:9108"),
        ports.ports,
        "problem",
        "192.0.2.1 is no address of this computer",
        "ip -brief address",
    ),
    "open to all": Mistake(
        lambda place: place.set("publish", "web_address", f"0.0.0.0:{free_port()}"),
        ports.ports,
        "warning",
        "there is no password",
        "127.0.0.1",
    ),
    "clock ahead": Mistake(
        from_the_future, landed.landed, "warning", "120 minutes in the future", "timedatectl"
    ),
    "time zone": Mistake(
        other_time_zone, landed.landed, "warning", "time zone or clock differ", "set-timezone"
    ),
    "pattern that fits nothing": Mistake(
        pattern,
        landed.landed,
        "problem",
        "fits none of 1 files, for example 's1/L1.mrc'",
        "correct",
    ),
    "gain of another shape": Mistake(
        gain_of_another_shape,
        landed.landed,
        "problem",
        "the reference has 8 x 8 pixels, 'L1.mrc' has 6 x 8",
        "this camera",
    ),
    "little memory": Mistake(
        little_memory, machine.memory, "warning", "only 92 MB of memory", "add memory"
    ),
    "memory limit of the unit": Mistake(
        lambda place: unit(place, MemoryMax="200000000"),
        machine.memory,
        "problem",
        "may take 200 MB",
        "raise MemoryMax",
    ),
    "few inotify instances": Mistake(
        few_events, machine.memory, "warning", "2 inotify instances", "max_user_instances"
    ),
    "not enabled": Mistake(
        lambda place: unit(place, UnitFileState="disabled"),
        machine.service,
        "warning",
        "icewatch@krios1.service is not enabled",
        "systemctl enable",
    ),
    "not running": Mistake(
        lambda place: unit(place, ActiveState="inactive"),
        machine.service,
        "problem",
        "does not run",
        "systemctl start",
    ),
    "failed": Mistake(
        lambda place: unit(place, ActiveState="failed", Result="exit-code", ExecMainStatus="2"),
        machine.service,
        "problem",
        "failed (status 2)",
        "journalctl -u icewatch@krios1.service",
    ),
    "runs with another file": Mistake(
        lambda place: unit(place, ExecStart="icewatch run --config /etc/icewatch/old.toml ;"),
        machine.service,
        "warning",
        "runs with /etc/icewatch/old.toml",
        "doctor --config /etc/icewatch/old.toml",
    ),
    "another daemon answers": Mistake(
        lambda place: place.runs(acquisition_directory="/elsewhere"),
        machine.service,
        "problem",
        "watches '/elsewhere'",
        "publish.web_address",
    ),
    "changed and not reloaded": Mistake(
        lambda place: place.runs(mode="act"),
        machine.service,
        "warning",
        "changed since it was read",
        "SIGHUP",
    ),
    "needs a restart": Mistake(
        lambda place: place.runs(settings={"needs_restart": ["model.bundle"]}),
        machine.service,
        "warning",
        "not in use: model.bundle",
        "restart",
    ),
    "wrong since it started": Mistake(
        lambda place: place.runs(settings={"trouble": "x", "needs_restart": []}),
        machine.service,
        "problem",
        "could not take the changed file",
        "mend",
    ),
    "degraded": Mistake(
        lambda place: place.runs(state="degraded", reason="the disk is full; free space there"),
        machine.service,
        "problem",
        "icewatch is degraded: the disk is full",
        "free space there",
    ),
    "metrics out of reach": Mistake(
        Place.runs, machine.prometheus, "problem", "nothing answers at", "firewall"
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_seeded_mistake_is_found_with_cause_and_remedy(place: Place, name: str) -> None:
    mistake = MISTAKES[name]
    mistake.make(place)
    if mistake.check is readable:
        config = place.config if name == "no configuration" else place.write()
        found = _readable(config)
    else:
        found = mistake.check(place.facts())
    said = [one for one in found if one.level == mistake.level and mistake.cause in one.cause]
    assert said, found
    assert mistake.remedy in said[0].remedy
    assert "\n" not in said[0].cause + said[0].remedy


def test_where_nothing_is_wrong_nothing_is_said(place: Place) -> None:
    facts = place.facts()
    checks = (*CHECKS, _places)
    wrong = [one for check in checks for one in check(facts) if one.level != "ok"]
    assert not wrong


CHECKS: tuple[Check, ...] = (
    folders.acquisition,
    folders.state,
    folders.verdicts,
    journals.journal,
    landed.landed,
    models.model,
    models.gpu,
    ports.ports,
    machine.memory,
    machine.service,
    machine.prometheus,
)


def listed(root: Path) -> list[tuple[str, int, int, int]]:
    found = []
    for path in sorted(root.rglob("*")):
        stat = path.stat()
        found.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_mode))
    return found


def test_nothing_is_changed(place: Place) -> None:
    write_journal(place.state, SCHEMA_VERSION)
    facts = place.facts()
    before = listed(place.root)
    for check in CHECKS:
        check(facts)
    assert listed(place.root) == before


@contextmanager
def listening() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("key", ["metrics_address", "web_address", "zmq_endpoint"])
def test_a_port_that_is_taken_is_named_with_who_has_it(place: Place, key: str) -> None:
    with listening() as port:
        address = f"127.0.0.1:{port}"
        place.set("publish", key, f"tcp://{address}" if key == "zmq_endpoint" else address)
        found = [one for one in ports.ports(place.facts()) if one.level == "problem"]
    assert [one.topic for one in found] == [f"publish.{key}"]
    assert f"port {port} is taken by " in found[0].cause
    assert f"(process {os.getpid()})" in found[0].cause
    assert "choose another port" in found[0].remedy


def as_nobody(check: Check, facts: Facts) -> list[Finding]:
    user = User("nobody", NOBODY, NOBODY)
    said = Look(partial(check, replace(facts, user=user)), user).result(time.monotonic() + 60.0)
    assert said.findings is not None
    return said.findings


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with the rights of another")
@pytest.mark.parametrize(
    ("folder", "mode", "check", "cause", "remedy"),
    [
        ("data", 0o700, folders.acquisition, "may not be read by user nobody", "setfacl"),
        ("data/s1", 0o700, folders.acquisition, "1 folders may not be read", "setfacl"),
        ("state", 0o700, folders.state, "belongs to another user than nobody", "chown -R nobody"),
        ("verdicts", 0o755, folders.verdicts, "may not be written by user nobody", "setfacl"),
        ("none", 0o755, folders.verdicts, "nobody may not make it", "install -d -o nobody"),
    ],
)
def test_rights_are_those_of_the_user_of_the_service(
    nobodys_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    mode: int,
    check: Check,
    cause: str,
    remedy: str,
) -> None:
    os.chown(nobodys_path, 0, 0)
    nobodys_path.chmod(0o755)
    place = Place(nobodys_path, monkeypatch)
    place.set("verdict", "directory", str(nobodys_path / folder))
    if folder != "none":
        (nobodys_path / folder).mkdir(exist_ok=True)
        (nobodys_path / folder).chmod(mode)
    found = as_nobody(check, place.facts())
    said = [one for one in found if cause in one.cause]
    assert said and said[0].level == "problem", found
    assert remedy in said[0].remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with the rights of another")
@pytest.mark.parametrize("check", [folders.acquisition, folders.state, journals.journal])
def test_folders_that_the_service_cannot_get_through(
    nobodys_path: Path, monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    os.chown(nobodys_path, 0, 0)
    place = Place(nobodys_path, monkeypatch)
    facts = place.facts()
    nobodys_path.chmod(0o700)
    found = as_nobody(check, facts)
    assert {one.level for one in found} == {"problem"}, found
    assert all("nobody" in one.cause and one.remedy for one in found)


def test_a_look_that_dies_is_said(place: Place) -> None:
    def fail() -> list[Finding]:
        raise ZeroDivisionError("oh\nno")

    (only,) = Look(fail).result(time.monotonic() + 10.0).findings or []
    assert "ZeroDivisionError" in only.cause


def test_a_share_that_hangs_holds_nobody_up(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Share(tmp_path_factory.mktemp("share")) as share:
        (share.behind / "s1").mkdir()
        place.set("acquisition", "directory", str(share.mount_point))
        config = place.write()
        with share.failing(Faults(hangs=("readdir", "getattr", "open", "read"))):
            start_s = time.monotonic()
            found = examine(config)
            took_s = time.monotonic() - start_s
    assert took_s < 5.0
    hanging = {one.topic for one in found if one.level == "problem"}
    assert "acquisition.directory" in hanging, found
    assert any("does not answer" in one.cause and "hangs" in one.remedy for one in found)
    assert any(one.topic == "ports" and one.level == "ok" for one in found)


def test_all_is_over_in_time(place: Place) -> None:
    config = place.write()
    start_s = time.monotonic()
    found = examine(config)
    assert time.monotonic() - start_s < 5.0
    assert {one.level for one in found} <= {"ok", "warning"}, found


def doctor(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    return icewatch(f"doctor {words}", monkeypatch, capsys)


def test_the_command_says_it_as_table_and_as_json(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.set("publish", "metrics_address", "192.0.2.1:9108")
    place.set("model", "bundle", "default")
    config = place.write()
    status, shown, complaint = doctor(f"--config {config}", monkeypatch, capsys)
    assert (status, complaint) == (1, "")
    assert "192.0.2.1 is no address of this computer" in shown
    assert "1 problem" in shown
    assert "\x1b" not in shown
    status, shown, _ = doctor(f"--config {config} --json", monkeypatch, capsys)
    document = json.loads(shown)
    assert (status, document["schema"]) == (1, "icewatch.doctor/1")
    (only,) = document["configurations"]
    assert only["file"] == str(config)
    wrong = [one for one in only["findings"] if one["level"] == "problem"]
    assert [one["topic"] for one in wrong] == ["publish.metrics_address"]
    assert all(set(one) == {"level", "topic", "cause", "remedy"} for one in only["findings"])


def test_wrong_usage_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ("--confg x", "--prometheus nowhere"):
        status, shown, complaint = doctor(words, monkeypatch, capsys)
        assert (status, shown, complaint.count("\n")) == (2, "", 1)


@contextmanager
def real_prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run Prometheus with one target; gives its URL."""
    folder.mkdir()
    address = f"127.0.0.1:{free_port()}"
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: icewatch\n"
        f"  static_configs: [{{targets: ['{target}']}}]\n"
    )
    words = (f"--config.file={config}", f"--storage.tsdb.path={folder}/data")
    process = subprocess.Popen(
        [program("prometheus"), *words, f"--web.listen-address={address}"],
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30.0)


def test_a_target_that_the_real_prometheus_cannot_reach(place: Place, tmp_path: Path) -> None:
    place.runs()
    metrics = place.keys["publish"]["metrics_address"]
    with real_prometheus(tmp_path / "prometheus", metrics) as url:
        facts = replace(place.facts(), prometheus=url)

        def said() -> Finding | None:
            found = [one for one in machine.prometheus(facts) if one.topic == "Prometheus"]
            return found[0] if found and found[0].level == "problem" else None

        unreachable = wait_until(said, "the first scrape", 60.0)
        assert f"cannot reach http://{metrics}/metrics" in unreachable.cause
        assert "connection refused" in unreachable.cause
        assert f"publish.metrics_address = {metrics}" in unreachable.remedy
        place.set("publish", "metrics_address", f"127.0.0.1:{free_port()}")
        other = replace(place.facts(), prometheus=url, status=None)
        (missing,) = machine.prometheus(other)
        assert (missing.level, "does not ask for port" in missing.cause) == ("warning", True)
        assert "prometheus.yml" in missing.remedy


def test_it_looks_at_the_bundle_that_serves(place: Place) -> None:
    place.set("model", "bundle", "default")
    store = BundleStore(place.state)
    store.install(made(place.root), prove=lambda path: None)
    write_word(store.directory, Serving(serves="tuned@1"))
    (right,) = models.model(place.facts())
    assert (right.level, right.cause) == ("ok", "tuned 1 can be used")
    (store.place("tuned@1") / GRAPH).write_bytes(b"cut")
    (wrong,) = models.model(place.facts())
    assert (wrong.level, "tuned@1" in wrong.cause) == ("problem", True)
