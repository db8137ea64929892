"""A real systemd as process 1 of namespaces of its own, on a copy-on-write view of this computer.

All that happens in there (users, units, folders, mounts) is gone with it: the root is an overlay,
`/run`, `/tmp` and `/etc/systemd/system` begin empty, and no unit of this computer is known.
Only the network is shared, so that tests can listen to what runs inside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from tests.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[1]
SYSTEMD = Path("/lib/systemd/systemd")
UNITS = "etc/systemd/system"
_TARGETS = ("sysinit", "basic", "multi-user", "network-online", "remote-fs", "shutdown", "local-fs")
_SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
_LAUNCHER = """#!/opt/icewatch/bin/python
import sys
sys.path[:0] = ["/opt/code", "/srv/test/faults"]
try:
    import service_faults
except ModuleNotFoundError:
    pass
from monitor.cli import main
main()
"""
_BOOT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$WORK"
mkdir "$WORK/upper" "$WORK/work" "$WORK/root"
mount -t overlay -o "lowerdir=/,upperdir=$WORK/upper,workdir=$WORK/work" overlay "$WORK/root"
cd "$WORK/root"
mount --bind "$WORK/root" .; cd "$WORK/root"
mount -t proc proc proc
mount --rbind /sys sys && umount -R sys/fs/cgroup
mount --rbind /dev dev
for empty in run tmp etc/systemd/system; do mount -t tmpfs -o mode=755 tmpfs $empty; done
chmod 1777 tmp
mkdir -p run/systemd/system srv/test
eval "$CGROUPS"
for target in $TARGETS; do
    printf '[Unit]\nDefaultDependencies=no\n' >run/systemd/system/$target.target
done
eval "$INSTALL"
mount --bind "$SHARED" srv/test
eval "$SHOWS"
mkdir -p old && pivot_root . old && umount -l /old && rmdir /old
mount --make-rshared /
exec env -i container=test PATH="$PATH" SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system \
    SYSTEMD_GENERATOR_PATH=/nowhere SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nowhere \
    "$SYSTEMD" --system --unit=basic.target --log-target=null --show-status=0
"""
_WITH_THIS_PYTHON = r"""
shown() { mount --bind "$1" "$2" && mount -o remount,bind,ro "$2"; }
mkdir -p opt/icewatch/bin "opt/icewatch/$SITE" opt/python opt/code/monitor opt/code/engines
shown "$BASE_PREFIX" opt/python
shown "$PREFIX/$SITE" "opt/icewatch/$SITE"
for package in monitor engines; do shown "$REPOSITORY/$package" opt/code/$package; done
printf 'home = /opt/python/bin\ninclude-system-site-packages = false\n' >opt/icewatch/pyvenv.cfg
ln -s "/opt/python/bin/$PYTHON" opt/icewatch/bin/python
printf '%s' "$LAUNCHER" >opt/icewatch/bin/icewatch
chmod 755 opt/icewatch/bin/icewatch
"""


@cache
def why_not() -> str:
    """Say why no systemd can be booted here; "" where one can."""
    if os.geteuid() != 0:
        return "needs root, to boot a systemd in namespaces"
    if not SYSTEMD.exists() or shutil.which("unshare") is None:
        return "needs Debian package systemd"
    trial = "mount --make-rprivate / && mount -t tmpfs t /mnt && mkdir /mnt/a /mnt/b /mnt/c && "
    trial += "mount -t overlay -o lowerdir=/,upperdir=/mnt/a,workdir=/mnt/b o /mnt/c"
    command = ["unshare", "--mount", "--pid", "--fork", "--ipc", "--uts", "sh", "-c", trial]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        return f"needs the right to make namespaces and mounts ({done.stderr.strip()})"
    return "" if _hierarchies() else "needs a mounted cgroup2"


def _hierarchies() -> dict[str, Path]:
    """Where each hierarchy of control groups is mounted: cgroup2 as "", others by controller."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found[""] = Path(where)
        elif kind == "cgroup":
            names = set(options.split(",")) & {"memory", "devices", "pids", "name=systemd"}
            found |= {name.removeprefix("name="): Path(where) for name in names}
    return found if "" in found else {}


_Done = subprocess.CompletedProcess[str]


class RealSystemd:
    """Boots when entered, and ends with all that runs in it when left."""

    def __init__(
        self,
        *,
        limits_memory: bool = False,
        has_icewatch: bool = True,
        shows: Mapping[str, Path] | None = None,
    ) -> None:
        """Say whether MemoryMax= has to work, and whether /opt/icewatch is to be there.

        `shows` are other folders of this computer, by where they are to be found inside.

        Where the kernel serves the memory controller in the old hierarchy, systemd has to use
        that too, and then filters no addresses.
        """
        if why_not():
            pytest.skip(why_not())
        self._work = Path(tempfile.mkdtemp(prefix="icewatch-systemd-"))
        self.shared = self._work.with_name(self._work.name + "-shared")
        """The folder that is `/srv/test` inside; what is written here is on this computer."""
        self.shared.mkdir(mode=0o755)
        self._has_icewatch = has_icewatch
        self._shows = dict(shows or {})
        hierarchies = _hierarchies()
        self._groups: list[Path] = []
        self._mounts = ["mount -t cgroup2 cgroup2 sys/fs/cgroup"]
        old = {name: path for name, path in hierarchies.items() if name}
        if limits_memory and "memory" in old:
            self._mounts = [
                "mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup",
                "mkdir sys/fs/cgroup/unified",
                "mount -t cgroup2 cgroup2 sys/fs/cgroup/unified",
            ]
            for name in old:
                option = "none,name=systemd" if name == "systemd" else name
                self._mounts.append(f"mkdir sys/fs/cgroup/{name}")
                self._mounts.append(f"mount -t cgroup -o {option} {name} sys/fs/cgroup/{name}")
        for path in hierarchies.values():
            self._groups.append(path / self._work.name)
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        """Process 1 of the namespaces, as this computer counts."""

    def __enter__(self) -> RealSystemd:
        for group in self._groups:
            group.mkdir(exist_ok=True)
        shows = (f"mkdir -p {at}; mount --bind '{path}' {at}\n" for at, path in self._shows.items())
        environment = {
            "SHOWS": "".join(shows),
            "PATH": os.environ["PATH"],
            "WORK": str(self._work),
            "SHARED": str(self.shared),
            "SYSTEMD": str(SYSTEMD),
            "TARGETS": " ".join(_TARGETS),
            "CGROUPS": "\n".join(self._mounts),
            "INSTALL": _WITH_THIS_PYTHON if self._has_icewatch else "",
            "BASE_PREFIX": sys.base_prefix,
            "PREFIX": sys.prefix,
            "SITE": _SITE,
            "PYTHON": f"python{sys.version_info.major}.{sys.version_info.minor}",
            "LAUNCHER": _LAUNCHER,
            "REPOSITORY": str(REPOSITORY),
            "BOOT": _BOOT,
        }
        joins = "".join(f"echo $$ >'{group}/cgroup.procs'; " for group in self._groups)
        namespaces = "--mount --pid --fork --kill-child --uts --ipc --cgroup"
        command = ["sh", "-c", f'{joins} exec unshare {namespaces} sh -c "$BOOT"']
        log = (self._work.with_name(self._work.name + ".log")).open("wb")
        with log:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._log = Path(log.name)
        try:
            self.pid = wait_until(self._child, "a process in the namespaces")
            wait_until(self._is_up, "systemd to boot", 20.0)
        except AssertionError:
            said = self._log.read_text("utf-8", "replace")
            self.__exit__()
            raise AssertionError(f"systemd did not boot: {said}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            if self.pid:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, 9)  # and with it everything inside
            self._process.kill()
            self._process.wait()
        for group in self._groups:
            wait_until(lambda group=group: _removed(group), f"the end of all in {group}")  # type: ignore[misc]
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.rmtree(self.shared, ignore_errors=True)
        self._log.unlink(missing_ok=True)

    def _child(self) -> int:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError("it ended")
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError("it ended")
        if not (self.root / "run/systemd/private").exists():
            return False
        return self.systemctl("is-active", "basic.target").stdout.strip() == "active"

    @property
    def root(self) -> Path:
        """The root inside, as a path of this computer."""
        return Path(f"/proc/{self.pid}/root")

    def run(self, *command: str | Path, timeout_s: float = 60.0, **env: str) -> _Done:
        """Run a command inside, as root."""
        return subprocess.run(
            self._inside(command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd="/",
            env=_environment(env),
        )

    def started(self, *command: str | Path, **env: str) -> subprocess.Popen[str]:
        """Start a command inside, as root, to talk to it."""
        pipe = subprocess.PIPE
        words = self._inside(command)
        return subprocess.Popen(
            words, stdin=pipe, stdout=pipe, text=True, cwd="/", env=_environment(env)
        )

    def _inside(self, command: Sequence[str | Path]) -> list[str]:
        return ["nsenter", "-t", str(self.pid), *"-m -p -u -i -C".split(), *map(str, command)]

    def systemctl(self, *words: str) -> _Done:
        return self.run("systemctl", *words)

    def shows(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        done = self.systemctl("show", unit, *(f"-p{name}" for name in names))
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def main_pid(self, unit: str) -> int:
        """The unit's main process as this computer counts; 0 where there is none."""
        inside = self.shows(unit, "MainPID").get("MainPID", "0")
        return next((pid for pid in self._processes() if _pid_inside(pid) == inside), 0)

    def _processes(self) -> Iterator[int]:
        own = os.stat(f"/proc/{self.pid}/ns/pid").st_ino  # noqa: PTH116
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if os.stat(entry / "ns/pid").st_ino == own:  # noqa: PTH116
                        yield int(entry.name)

    def put(self, name: str, text: str) -> None:
        """Write a unit or a drop-in; `reload` makes it known."""
        path = self.root / UNITS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def reload(self) -> None:
        done = self.systemctl("daemon-reload")
        assert done.returncode == 0, done.stderr


def _environment(more: dict[str, str]) -> dict[str, str]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LC_ALL": "C", "LD_LIBRARY_PATH": "/opt/python/lib", **more}


def _pid_inside(pid: int) -> str:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return line.split()[-1]
    return ""


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
    return not group.exists()
