"""`deploy/install.sh`: installs, upgrades, takes away, and says in one sentence what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.alerting_programs import listener
from tests.daemon import Microscope, Subscriber, picture
from tests.real_systemd import RealSystemd
from tests.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "deploy/install.sh"
WEBHOOK_PORT = 9095
"""Of the example configuration of Alertmanager."""
STUB = """
import os, signal, socket, sys

def main():
    if sys.argv[1] == "run":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
            while not signal.sigtimedwait([signal.SIGTERM], 5.0):
                notify.sendto(b"WATCHDOG=1", os.environ["NOTIFY_SOCKET"])
    print(sys.argv[1:], "ok")
"""


def stub_wheel(folder: Path, version: str) -> Path:
    """A wheel named icewatch that only starts and stops, so that it is installed in seconds."""
    folder.mkdir(exist_ok=True)
    info = f"icewatch-{version}.dist-info"
    files = {
        "icewatch_stub.py": STUB,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: icewatch\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nicewatch = icewatch_stub:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = folder / f"icewatch-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path


def install(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SCRIPT), *map(str, words)]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)


def test_the_script_is_plain_and_sound() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("needs Debian package shellcheck")
    done = subprocess.run([shellcheck, str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "sentence", "status"),
    [
        (["--wheel", "x"], "there is no option '--wheel'", 2),
        (["--name"], "--name needs a value", 2),
        (["--name", "a/b"], "letters, digits", 2),
        (["--name", "-b"], "letters, digits", 2),
        (["--data", "relative"], "begins with /", 2),
        (["--data", '/a"b'], "cannot write", 2),
        (["--purge"], "--purge goes with --uninstall", 2),
        (["--wheels", "nowhere"], "'nowhere' is no folder", 1),
        (["--wheels", "."], "holds no icewatch-*.whl", 1),
        (["--python", "false"], "not Python 3.11", 1),
        (["--python", "/no/such"], "not Python 3.11", 1),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    words: list[str], sentence: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = install(*words, "--root", tmp_path / "root") if words != ["--name"] else install(*words)
    assert (done.returncode, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("install.sh: ")
    assert sentence in line
    assert not list(tmp_path.glob("root/*/*")), "nothing was done"


def fake_programs(folder: Path, **scripts: str) -> str:
    """A PATH on which these programs come first."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_a_full_disk_is_noticed_before_anything_is_done(tmp_path: Path) -> None:
    stub_wheel(tmp_path / "wheels", "1")
    table = 'echo head; echo "disk 900 890 10 99% /"'
    path = fake_programs(tmp_path / "bin", df=table)
    root = tmp_path / "root"
    done = install("--wheels", tmp_path / "wheels", "--root", root, PATH=path)
    assert done.returncode == 1
    assert "10 MB left and 900 MB are needed" in done.stderr
    assert not list(root.glob("opt/*/*"))


def test_an_old_python_is_refused_with_its_version(tmp_path: Path) -> None:
    old = 'case "$*" in *exit*) exit 1;; *) echo 3.9.2;; esac'
    names = ("python3", *(f"python3.{minor}" for minor in range(11, 15)))
    path = fake_programs(tmp_path / "bin", **dict.fromkeys(names, old))
    done = install("--root", tmp_path / "root", PATH=path)
    assert done.returncode == 1
    assert "3.11 or newer and found 3.9.2" in done.stderr


def test_a_python_without_venv_is_told_how_to_get_it(tmp_path: Path) -> None:
    bare = f"""case "$*" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac"""
    path = fake_programs(tmp_path / "bin", barepython=bare)
    done = install("--root", tmp_path / "root", "--python", "barepython", PATH=path)
    assert done.returncode == 1
    version = f"python3.{sys.version_info.minor}"
    assert done.stderr == (
        f"install.sh: barepython lacks its venv module: apt-get install {version}-venv\n"
    )


def test_it_installs_without_network_and_goes_away_again(tmp_path: Path) -> None:
    stub_wheel(tmp_path / "wheels", "1.5")
    root = tmp_path / "root"
    words = ["--name", "glacios2", "--data", "/data/offload 2"]
    done = install("--wheels", tmp_path / "wheels", "--root", root, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "icewatch is installed: 1.5" in done.stdout
    told = subprocess.run([root / "usr/local/bin/icewatch", "x"], capture_output=True, text=True)
    assert told.stdout == "['x'] ok\n"
    config = tomllib.loads((root / "etc/icewatch/glacios2.toml").read_text())
    assert config["microscope"] == "glacios2"
    assert config["acquisition"]["directory"] == "/data/offload 2"
    assert config["state"]["directory"] == "/var/lib/icewatch/glacios2"
    assert (root / "etc/systemd/system/icewatch@.service").exists()
    done = install("--uninstall", "--root", root)
    assert done.returncode == 0, done.stderr
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert left == {"etc/icewatch/glacios2.toml"}
    assert install("--uninstall", "--purge", "--root", root).returncode == 0
    assert not [path for path in root.rglob("*") if not path.is_dir()]


def test_the_container_is_made_of_what_is_there() -> None:
    """It cannot be built without a registry of images; what it names can be looked for."""
    text = (REPOSITORY / "deploy/Containerfile").read_text("utf-8").replace("\\\n", "")
    lines = [line.split() for line in text.splitlines() if line and line[0].isupper()]
    copied = [word for kind, *words in lines if kind == "COPY" for word in words[:-1]]
    missing = [
        word for word in copied if word[:2] not in ("--", "/o") and not (REPOSITORY / word).exists()
    ]
    assert not missing
    users = [words[0] for kind, *words in lines if kind == "USER"]
    assert users[-1] == "icewatch"
    example = tomllib.loads((REPOSITORY / "deploy/icewatch.example.toml").read_text("utf-8"))
    addresses = [value for value in example["publish"].values() if isinstance(value, str)]
    exposed = next(words for kind, *words in lines if kind == "EXPOSE")
    assert exposed == [address.rpartition(":")[2] for address in addresses]
    volume = next(words[0] for kind, *words in lines if kind == "VOLUME")
    assert example["state"]["directory"].startswith(volume)
    assert f"{example['acquisition']['directory']}:ro" in text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_instances_get_ports_of_their_own(tmp_path: Path) -> None:
    stub_wheel(tmp_path / "wheels", "1")
    root = tmp_path / "root"
    addresses: set[str] = set()
    for name in ("krios1", "krios2", "krios1", "talos"):
        done = install("--wheels", tmp_path / "wheels", "--root", root, "--name", name)
        assert done.returncode == 0, done.stderr
        publish = tomllib.loads((root / f"etc/icewatch/{name}.toml").read_text())["publish"]
        addresses |= {value for value in publish.values() if isinstance(value, str)}
    assert len(addresses) == 9


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    root, wheels = tmp_path / "root", tmp_path / "wheels"
    stub_wheel(wheels, "1")
    assert install("--wheels", wheels, "--root", root).returncode == 0
    before = (root / "opt/icewatch").resolve()
    stub_wheel(wheels, "2").write_bytes(b"no wheel")
    done = install("--wheels", wheels, "--root", root)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "pip could not install icewatch" in line
    assert (root / "opt/icewatch").resolve() == before
    assert os.listdir(root / "opt/icewatch-releases") == [before.name]  # noqa: PTH208
    stub_wheel(wheels, "2")
    assert "installed: 2" in install("--wheels", wheels, "--root", root).stdout
    assert not before.exists()


@pytest.fixture
def systemd() -> Iterator[RealSystemd]:
    with RealSystemd(has_icewatch=False) as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_life_of_an_installation(systemd: RealSystemd) -> None:
    wheels = systemd.shared / "wheels"
    stub_wheel(wheels, "1")
    script = ["sh", str(SCRIPT), "--wheels", "/srv/test/wheels"]
    done = systemd.run(*script, "--data", "/srv/test/data", timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert systemd.systemctl("start", "icewatch@krios1").returncode == 0
    assert systemd.run("stat", "-c", "%a %U %G", "/etc/icewatch/krios1.toml").stdout == (
        "640 root icewatch\n"
    )
    stub_wheel(wheels, "2")
    done = systemd.run(*script, "--gpu", "--data-group", "video", timeout_s=300)
    assert done.returncode == 0, done.stderr
    assert "Restarted: icewatch@krios1.service" in done.stdout
    assert "is left as it is" in done.stdout
    facts = systemd.shows("icewatch@krios1", "ActiveState", "SupplementaryGroups", "DevicePolicy")
    assert facts == {
        "ActiveState": "active", "SupplementaryGroups": "video", "DevicePolicy": "closed"
    }  # fmt: skip
    allowed = systemd.systemctl("show", "icewatch@krios1", "-pDeviceAllow").stdout
    assert {f"char-nvidia{kind} rw" for kind in ("", "-uvm", "ctl", "-frontend", "-caps")} <= {
        line.partition("=")[2] for line in allowed.splitlines()
    }
    assert systemd.systemctl("enable", "icewatch@krios1").returncode == 0
    drop_in = systemd.root / "etc/systemd/system/icewatch@.service.d/gpu.conf"
    for more, has_gpu in (([], True), (["--no-gpu"], False)):
        assert systemd.run(*script, *more, timeout_s=300).returncode == 0
        assert drop_in.exists() == has_gpu
    done = systemd.run("sh", SCRIPT, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert systemd.shows("icewatch@krios1", "ActiveState", "LoadState") == {
        "ActiveState": "inactive", "LoadState": "not-found"
    }  # fmt: skip
    assert systemd.run("id", "icewatch").returncode == 0
    assert (systemd.root / "etc/icewatch/krios1.toml").exists()
    assert systemd.run("sh", SCRIPT, "--uninstall", "--purge").returncode == 0
    assert systemd.run("id", "icewatch").returncode != 0
    assert not (systemd.root / "var/lib/icewatch").exists()
    assert not (systemd.root / "etc/icewatch").exists()
    assert not list((systemd.root / "etc/systemd/system").rglob("*icewatch*"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_newcomer_gets_from_wheels_to_a_firing_test_alert(systemd: RealSystemd) -> None:
    """What deploy/README.md says, on a computer without network."""
    wheels = systemd.shared / "wheels"
    constraints = REPOSITORY / "constraints.txt"
    source = systemd.shared / "source"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "tests", "__pycache__")
    shutil.copytree(REPOSITORY, source, ignore=ignored)
    pip = ["-m", "pip", "wheel", "-q", "-c", constraints, "-w", wheels, source]
    command = [sys.executable, *map(str, pip)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if "No matching distribution" in done.stderr or "connection" in done.stderr:
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
    (systemd.shared / "data").mkdir()
    script = "/srv/test/source/deploy/install.sh"
    words = ["sh", script, "--wheels", "/srv/test/wheels", "--data", "/srv/test/data"]
    done = systemd.run("unshare", "--net", *words, timeout_s=900)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    checked = systemd.run("icewatch", "check", "/etc/icewatch/krios1.toml")
    assert checked.returncode == 0, checked.stderr
    assert systemd.systemctl("enable", "--now", "icewatch@krios1").returncode == 0
    subscriber = Subscriber("tcp://127.0.0.1:5556")
    try:
        Microscope(systemd.shared / "data").add("s/L1", 0.0, picture(10.0))
        (tilt,) = subscriber.wait_for("tilt", 1, 60.0)
    finally:
        subscriber.close()
    assert tilt["microscope"] == "krios1"
    wait_until(
        lambda: systemd.shows("icewatch@krios1", "StatusText") == {"StatusText": "ready"}, "ready"
    )
    tell_of_a_test_alert(systemd)


def commands_of(section: str) -> list[str]:
    """What deploy/README.md has a newcomer type in a section, but for editors and installers."""
    text = (REPOSITORY / "deploy/README.md").read_text("utf-8")
    (found,) = re.findall(rf"^## {section}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```sh\n(.*?)^```", found, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("sudo ") for block in blocks for line in block.splitlines()]
    return [line for line in lines if not line.startswith(("nano ", "apt-get "))]


def tell_of_a_test_alert(systemd: RealSystemd) -> None:
    """What deploy/README.md says of alerts, with the programs and units of Debian."""
    units = sorted(Path("/usr/lib/systemd/system").glob("prometheus*.service"))
    if "prometheus-alertmanager.service" not in [unit.name for unit in units]:
        pytest.skip("needs the Debian packages prometheus and prometheus-alertmanager")
    for unit in units:  # as if the packages had just been installed
        systemd.put(unit.name, unit.read_text("utf-8"))
    systemd.reload()
    with listener(WEBHOOK_PORT) as (heard, _, _):
        *before, alert = commands_of("Alerts")
        for command in before:
            done = systemd.run("sh", "-c", f"cd /srv/test/source && {command}")
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        wait_until(lambda: is_scraped(systemd), "the first scrape", 60.0)
        wait_until(
            lambda: systemd.run("sh", "-c", alert).returncode == 0, "Alertmanager to listen", 30.0
        )
        (test_alert,) = wait_until(
            lambda: heard.alerts("IcewatchLamellaPoorVitrification", "firing"), "the alert", 60.0
        )
        assert test_alert["labels"]["microscope"] == "krios1"


def is_scraped(systemd: RealSystemd) -> bool:
    """Does Prometheus say that icewatch answers it?"""
    server = "http://127.0.0.1:9090"
    query = systemd.run("promtool", "query", "instant", server, 'up{job="icewatch"} == 1')
    return 'microscope="krios1"' in query.stdout
