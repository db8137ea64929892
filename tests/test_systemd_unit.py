"""The shipped unit: sound, hardened, and a sandbox that holds under a real systemd."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real_service import Service, install_units
from tests.real_systemd import RealSystemd

SYSTEMD = Path(__file__).resolve().parents[1] / "systemd"
UNIT = SYSTEMD / "icewatch@.service"
CPU_EXPOSURE, GPU_EXPOSURE = 13, 15
"""Tenths of what `systemd-analyze security` gives: 0 is safe, 100 is not."""


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs Debian package systemd")
    command = [program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def gpu_unit(tmp_path: Path) -> Path:
    """The unit with its drop-in, as systemd puts the two together."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text("utf-8") + (SYSTEMD / "gpu.conf").read_text("utf-8"))
    return path


def test_the_exposure_is_low(gpu_unit: Path) -> None:
    for unit, most in ((UNIT, CPU_EXPOSURE), (gpu_unit, GPU_EXPOSURE)):
        done = analyze("security", "--offline=true", f"--threshold={most}", "--no-pager", unit)
        assert done.returncode == 0, done.stdout


def test_the_unit_with_the_drop_in_is_sound(gpu_unit: Path) -> None:
    text = gpu_unit.read_text("utf-8")
    gpu_unit.write_text(
        re.sub(r"/opt/icewatch/bin/icewatch|/usr/bin/nvidia-mod\w+", "/bin/true", text)
    )
    done = analyze("verify", "--man=no", gpu_unit)
    assert done.returncode == 0, done.stderr
    assert UNIT.stem not in done.stderr


@pytest.fixture(scope="module")
def systemd() -> Iterator[RealSystemd]:
    with RealSystemd() as found:
        yield found


PROBE = r"""
import ctypes, errno, json, mmap, os, socket, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def call(name, *values):
    if getattr(libc, name)(*values) < 0:
        raise OSError(ctypes.get_errno(), name)
def probe(name, work):
    try:
        work()
        found[name] = "allowed"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
def write(path):
    return lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
data = "/srv/test/probed"
for name, path in {"data": data + "/new", "data file": data + "/tilt.mrc", "etc": "/etc/x",
        "opt": "/opt/icewatch/x", "usr": "/usr/x", "home": "/home/x", "root": "/root/x",
        "state": os.environ["STATE_DIRECTORY"] + "/x", "neighbour": "/var/lib/icewatch/other/x",
        "own tmp": "/tmp/x", "kernel": "/proc/sys/kernel/hostname"}.items():
    probe("write " + name, write(path))
probe("rename data", lambda: os.rename(data + "/tilt.mrc", data + "/x"))
probe("remove data", lambda: os.remove(data + "/tilt.mrc"))
probe("touch data", lambda: os.utime(data + "/tilt.mrc"))
probe("chmod data", lambda: os.chmod(data + "/tilt.mrc", 0o600))
probe("read data", lambda: open(data + "/tilt.mrc", "rb").read())
rwx = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
probe("map rwx", lambda: mmap.mmap(-1, 4096, prot=rwx))
def make_executable():
    area = mmap.mmap(-1, 4096)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    call("mprotect", ctypes.c_void_p(at), 4096, rwx)
probe("make executable", make_executable)
probe("make device", lambda: os.mknod("/tmp/device", 0o600 | stat.S_IFCHR, os.makedev(1, 3)))
probe("disk", lambda: os.listdir("/dev/disk"))
probe("kernel log", lambda: open("/dev/kmsg"))
probe("mount", lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
probe("trace", lambda: call("ptrace", 16, os.getppid(), 0, 0))
probe("namespace", lambda: call("unshare", 0x10000000))
probe("become root", lambda: os.setuid(0))
probe("packets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
probe("see others", lambda: os.stat("/proc/1"))
def send(host):
    return lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (host, 9))
probe("internet", send("203.0.113.1"))
probe("loopback", send("127.0.0.1"))
print(json.dumps({"found": found, "uid": os.getuid(), "groups": os.getgroups()}))
"""
_DENIED = {
    "EROFS": "write data/write data file/rename data/remove data/touch data/chmod data/write etc/"
    "write opt/write usr/write neighbour",
    "EROFS EACCES": "write home/write root/write kernel",
    "EPERM EACCES": "map rwx/make executable",
    "EPERM": "make device/mount/trace/namespace/become root",
    "ENOENT EACCES EPERM": "disk/kernel log/see others",
    "EAFNOSUPPORT": "packets",
    "EPERM ENETUNREACH": "internet",
}
DENIED = {name: errors.split() for errors, names in _DENIED.items() for name in names.split("/")}
ALLOWED = {"write state", "write own tmp", "read data", "loopback"}


def probe(systemd: RealSystemd, lines: str = "") -> dict[str, str]:
    """Run the probe in the sandbox of the unit; gives what came of each attempt."""
    install_units(systemd)
    data = systemd.shared / "probed"
    data.mkdir(exist_ok=True)
    (data / "tilt.mrc").write_bytes(b"x")
    neighbour = systemd.root / "var/lib/icewatch/other"
    neighbour.mkdir(parents=True, exist_ok=True)
    chown = ["chown", "-R", "icewatch", "/srv/test/probed", "/var/lib/icewatch/other"]
    assert systemd.run(*chown).returncode == 0, "or it would be the rights of files that are tried"
    (systemd.shared / "probe.py").write_text(PROBE)
    systemd.put(
        "icewatch@probe.service.d/probe.conf",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStartPre=\nExecStart=\n"
        "ExecStart=/opt/icewatch/bin/python /srv/test/probe.py\n"
        "StandardOutput=truncate:/run/probe.json\nStandardError=truncate:/run/probe.err\n"
        f"Environment=LD_LIBRARY_PATH=/opt/python/lib\n{lines}",
    )
    systemd.reload()
    done = systemd.systemctl("start", "icewatch@probe")
    assert done.returncode == 0, (systemd.root / "run/probe.err").read_text()
    answer = json.loads((systemd.root / "run/probe.json").read_text())
    assert answer["uid"] != 0
    found: dict[str, str] = answer["found"]
    return found


def test_the_sandbox_holds(systemd: RealSystemd) -> None:
    found = probe(systemd)
    assert {name for name, outcome in found.items() if outcome == "allowed"} == ALLOWED
    for name, outcomes in DENIED.items():
        assert found[name] in outcomes, name
    assert found.keys() == DENIED.keys() | ALLOWED


@pytest.mark.slow
def test_the_sandbox_holds_with_the_gpu_drop_in(systemd: RealSystemd) -> None:
    text = (SYSTEMD / "gpu.conf").read_text("utf-8")
    systemd.put("icewatch@.service.d/gpu.conf", re.sub(r"^ExecStartPre=.*\n", "", text, flags=re.M))
    found = probe(systemd)
    (systemd.root / "etc/systemd/system/icewatch@.service.d/gpu.conf").unlink()
    allowed = {name for name, outcome in found.items() if outcome == "allowed"}
    # The device nodes can be seen, and nothing but NVIDIA's opened.
    assert allowed <= ALLOWED | {"map rwx", "make executable", "disk"}
    assert found["kernel log"] in {"EPERM", "EACCES"}


def facts(folder: Path) -> dict[str, tuple[int, ...]]:
    """All that reading, or worse, could change."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        one = path.lstat()
        found[str(path)] = (
            one.st_ino, one.st_mode, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_atime_ns
        )  # fmt: skip
    return found


@pytest.mark.slow
def test_the_shipped_network_works_in_the_sandbox_and_leaves_no_trace() -> None:
    with RealSystemd() as systemd, Service(systemd, bundle="default", watchdog_s=30) as service:
        service.land(3)
        before = facts(systemd.shared / "data")
        service.start()
        service.wait_for_all()
        assert facts(systemd.shared / "data") == before
        tilts = service.subscriber.messages("tilt")
        assert {one["model"]["backend"] for one in tilts} == {"onnxruntime"}
        assert "Failed to initialize" not in service.log, "ONNX Runtime knows the CPU"


@pytest.mark.slow
def test_instances_side_by_side_share_nothing(systemd: RealSystemd) -> None:
    with Service(systemd, "krios1") as one, Service(systemd, "glacios2") as other:
        for service in (one, other):
            service.start()
        one.land(2)
        for service in (one, other):
            tilts = service.subscriber.wait_for("tilt", 2)
            assert {tilt["microscope"] for tilt in tilts} == {service.name}
            assert (service.state / "journal.sqlite3").exists()
        assert systemd.systemctl("stop", one.unit).returncode == 0
        assert other.facts()["ActiveState"] == "active"
        assert systemd.systemctl("stop", other.unit).returncode == 0


@pytest.mark.slow
def test_a_share_that_is_mounted_later_is_seen(systemd: RealSystemd) -> None:
    (systemd.root / "srv/later").mkdir()
    with Service(systemd, "later", data="/srv/later/offload") as service:
        service.start()
        service.wait_for_state("stalled")
        assert systemd.run("mount", "-t", "tmpfs", "tmpfs", "/srv/later").returncode == 0
        service.microscope.directory = systemd.root / "srv/later/offload"
        service.land(2)
        service.wait_for_all()
        service.wait_for_state("ready")
        assert systemd.systemctl("stop", service.unit).returncode == 0
