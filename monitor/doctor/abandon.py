"""Looks in a process that can be left behind: a share that hangs holds nobody up.

A thread that waits for a dead file server cannot be ended, and keeps its process from ending. A
child can: nobody waits for it, and the kernel ends it once the server answers.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from monitor.doctor.finding import Finding

_PIPE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a look."""

    findings: list[Finding] | None
    """None where it was not over in time."""
    is_busy: bool = False
    """Whether it was computing then, and not waiting for an answer."""


class Look:
    """One look, under way from the moment it is made."""

    def __init__(self, work: Callable[[], list[Finding]], user: User | None = None) -> None:
        """Begin; the work runs with the rights of `user`, where we may take them."""
        self._reading, writing = os.pipe2(os.O_CLOEXEC)
        with warnings.catch_warnings():
            # Python 3.12 and later warn of forks beside threads: the child touches none of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._child = os.fork()
        if self._child == 0:
            _work(work, user, writing)
        os.close(writing)

    def result(self, until_s: float) -> Seen:
        """Give the findings that there are by `until_s` (monotonic)."""
        content = b""
        try:
            while select.select([self._reading], [], [], max(0.0, until_s - time.monotonic()))[0]:
                part = os.read(self._reading, _PIPE_BYTES)
                if not part:
                    return Seen([Finding(**one) for one in json.loads(content or b"[]")])
                content += part
            return Seen(None, self._computes())
        finally:
            os.close(self._reading)
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            # A child that waits for a dead server stays; the system takes it over when we end.
            with suppress(ChildProcessError):
                os.waitpid(self._child, os.WNOHANG)

    def _computes(self) -> bool:
        """Whether the child, or a thread of it, wants the processor right now."""
        for stat in Path(f"/proc/{self._child}/task").glob("*/stat"):
            with suppress(OSError):
                if stat.read_bytes().rpartition(b")")[2].split()[0] == b"R":
                    return True
        return False


class User:
    """Whose rights count: those of the user that the service runs as."""

    def __init__(self, name: str, uid: int, gid: int) -> None:
        self.name, self.uid, self.gid = name, uid, gid

    def take_rights(self) -> None:
        """Become this user for good, where we are root; else it stays as it is."""
        if os.geteuid() != 0 or self.uid == 0:
            return
        try:
            os.initgroups(self.name, self.gid)
        except (OSError, ValueError):
            os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)


def _work(work: Callable[[], list[Finding]], user: User | None, writing: int) -> None:
    """Run in the child; never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):  # libraries talk
            os.dup2(nothing, standard)
        if user is not None:
            user.take_rights()
        content = json.dumps([asdict(one) for one in work()]).encode()
        while content:
            content = content[os.write(writing, content) :]
        status = 0
    except BaseException as error:
        fault = _not_allowed(error, user) if isinstance(error, PermissionError) else _fault(error)
        with suppress(OSError):
            os.write(writing, json.dumps([asdict(fault)]).encode())
        raise
    finally:
        os._exit(status)


def _not_allowed(error: PermissionError, user: User | None) -> Finding:
    """Say who may not look: the service, which is a problem, or only who asks."""
    if user is not None:
        cause = f"'{error.filename}' may not be looked at by user {user.name}, who runs icewatch"
        remedy = f"let it through the folders above: sudo setfacl -m u:{user.name}:x FOLDER"
        return Finding("problem", "rights", cause, remedy)
    cause = f"'{error.filename}' may not be looked at by you"
    return Finding("warning", "rights", cause, "run it as root: sudo icewatch doctor")


def _fault(error: BaseException) -> Finding:
    return Finding(
        "warning",
        "doctor",
        f"could not look at everything ({type(error).__name__}: {error})",
        "report it, with the output of `icewatch doctor --json`",
    )
