"""A share that can be made to fail: a FUSE file system that passes a folder through, read-only.

What is written to the folder behind it raises no event on the mount, as on NFS and SMB. As a
program, `python -m tests.fuse_share FOLDER MOUNT CONTROL LOG` serves it until it is unmounted.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[1]
OPERATIONS = ("readdir", "getattr", "open", "read")
_STAT = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino")
_TIMES = ("st_atime", "st_mtime", "st_ctime")


@dataclass(frozen=True)
class Faults:
    """What is wrong with the share."""

    fails: dict[str, int] = field(default_factory=dict)
    """Error number of each operation that fails."""
    hangs: tuple[str, ...] = ()
    """Operations that do not answer before this ends."""
    is_empty: bool = False
    """Whether every folder lists nothing."""
    stale_s: float = 0.0
    """For how long old attributes and listings are given."""


@dataclass(frozen=True)
class Opened:
    """A file that was opened through the mount."""

    at_s: float
    """On the monotonic clock, which all processes share."""
    path: str
    """Relative to the mount."""


def why_not() -> str:
    """Say why no FUSE file system can be mounted here; "" where it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs /dev/fuse, which this user may not use here"
    if shutil.which("fusermount3") is None:
        return "needs Debian package fuse3"
    return ""


class Share:
    """A folder and its mount; a context manager that leaves nothing mounted behind."""

    def __init__(self, folder: Path) -> None:
        """Make the folder behind the share, and mount it."""
        if why_not():
            pytest.skip(why_not())
        self.behind = folder / "behind"
        self.mount_point = folder / "share"
        self._control = folder / "faults.json"
        self._log = folder / "opened.log"
        self.behind.mkdir(parents=True)
        self.mount_point.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._hangs = False
        self.answers: list[float] = []
        """When it answered again after it hung."""
        self.faults(Faults())
        self.mount()

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.faults(Faults())
        self.unmount()

    def mount(self) -> None:
        """Mount it, as another file system than last time."""
        words = [self.behind, self.mount_point, self._control, self._log]
        complaints = self._control.with_suffix(".err")
        with complaints.open("ab") as stream:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuse_share", *map(str, words)],
                cwd=REPOSITORY,
                stderr=stream,
            )
        wait_until(
            lambda: os.path.ismount(self.mount_point) or process.poll() is not None,
            "the share to be mounted",
        )
        if process.poll() is not None:
            why = complaints.read_text("utf-8", "replace")
            if "not permitted" in why:  # as in a container without the right to mount
                pytest.skip("FUSE file systems may not be mounted here")
            pytest.fail(f"the share could not be mounted: {why}")

    def unmount(self) -> None:
        """Take it away, in use or not."""
        process, self._process = self._process, None
        if process is None:
            return
        subprocess.run(["fusermount3", "-u", "-z", str(self.mount_point)], check=False)
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def faults(self, faults: Faults) -> None:
        """Let the share fail from now on as told."""
        if self._hangs:
            self.answers.append(time.monotonic())
        self._hangs = bool(faults.hangs)
        new = self._control.with_suffix(".new")
        new.write_text(json.dumps(asdict(faults)))
        new.replace(self._control)

    @contextmanager
    def failing(self, faults: Faults) -> Iterator[None]:
        """Let it fail for a while."""
        self.faults(faults)
        try:
            yield
        finally:
            self.faults(Faults())

    def opened(self) -> list[Opened]:
        """List what was opened through the mount so far."""
        if not self._log.exists():
            return []
        rows = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [Opened(at_s, path) for at_s, path in rows]


class _Control:
    """The faults of now, read again whenever the file that tells them was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] = (0, 0)
        self._faults = Faults()

    def now(self) -> Faults:
        found = self._path.stat()
        seen = (found.st_ino, found.st_mtime_ns)
        if seen != self._seen:
            self._faults = Faults(**json.loads(self._path.read_text()))
            self._seen = seen
        return self._faults


def _serve(behind: str, mount_point: str, control: str, log: str) -> None:
    import mfusepy  # type: ignore[import-untyped]

    class Through(mfusepy.Operations):  # type: ignore[misc]
        """Passes everything through, unless the faults say otherwise."""

        use_ns = True

        def __init__(self) -> None:
            self._control = _Control(Path(control))
            self._old: dict[tuple[str, str], tuple[float, Any]] = {}
            self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

        def _faults(self, operation: str) -> Faults:
            while operation in (faults := self._control.now()).hangs:
                time.sleep(0.01)
            if operation in faults.fails:
                raise mfusepy.FuseOSError(faults.fails[operation])
            return faults

        def _maybe_old(self, kind: str, path: str, stale_s: float, new: Any) -> Any:
            until_s, old = self._old.get((kind, path), (0.0, None))
            if stale_s and time.monotonic() < until_s:
                return old
            found = new()
            self._old[kind, path] = (time.monotonic() + stale_s, found)
            return found

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            stale_s = self._faults("getattr").stale_s
            found: dict[str, Any] = self._maybe_old("stat", path, stale_s, lambda: _stat(path))
            return found

        def readdir(self, path: str, fh: int) -> Sequence[str]:
            faults = self._faults("readdir")
            if faults.is_empty:
                return [".", ".."]
            names: Sequence[str] = self._maybe_old(
                "names",
                path,
                faults.stale_s,
                lambda: [".", "..", *os.listdir(behind + path)],  # noqa: PTH208
            )
            return names

        def open(self, path: str, flags: int) -> int:
            self._faults("open")
            os.write(self._log, (json.dumps([time.monotonic(), path[1:]]) + "\n").encode())
            return os.open(behind + path, flags)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            self._faults("read")
            return os.pread(fh, size, offset)

        def release(self, path: str, fh: int) -> int:
            os.close(fh)
            return 0

    def _stat(path: str) -> dict[str, Any]:
        try:
            found = os.lstat(behind + path)
        except FileNotFoundError as error:
            raise mfusepy.FuseOSError(errno.ENOENT) from error
        times = {name: getattr(found, f"{name}_ns") for name in _TIMES}
        return {**{name: getattr(found, name) for name in _STAT}, **times}

    # As if the client cached nothing: what it may keep, and for how long, the faults say.
    timeouts = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    with suppress(RuntimeError):
        mfusepy.FUSE(Through(), mount_point, foreground=True, ro=True, **timeouts)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
