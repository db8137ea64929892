"""A folder of plans on disk: who may write there, and files that are never half written.

Everything is opened relative to the folder's descriptor and without following links, so that
nothing can be exchanged between the check and the use.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engines.plans.errors import PlanError

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_WAIT_S = 5.0
TEMPORARY = ".writing-"
RECORD = ".json"
"""End of the name of a record: the name of what it describes, and this."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may own a folder and its files, and who else may do what."""

    owners: frozenset[int]
    forbidden: int
    """Bits of the mode of which none may be set."""
    folder_mode: int
    file_mode: int
    remedy: str
    """Shell command that puts a folder right."""
    is_locked: bool
    """Whether one process at a time works in it; where others may open it they could hold us up."""


def private(owner: int | None = None) -> Rules:
    """Give the rules for a cache: its owner's (ours) alone, and nobody else can even look."""
    owners = frozenset({os.geteuid() if owner is None else owner})
    return Rules(owners, 0o077, 0o700, 0o600, "chmod -R go=", True)


def shared() -> Rules:
    """Give the rules for what was built ahead: root's or ours, and nobody else can write."""
    return Rules(frozenset({0, os.geteuid()}), 0o022, 0o755, 0o644, "chmod -R go-w", False)


class Folder:
    """A folder that was opened and found to be as the rules ask; use it in a `with`."""

    def __init__(self, path: Path, rules: Rules, descriptor: int) -> None:
        self.path = path
        self.rules = rules
        self._descriptor = descriptor

    def names(self) -> list[str]:
        """List what lies in it, in order; raises `PlanError`."""
        try:
            with os.scandir(self._descriptor) as entries:
                return sorted(entry.name for entry in entries)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def read(self, name: str, most_bytes: int) -> bytes:
        """Read a whole file that obeys the rules; raises `FileNotFoundError` and `PlanError`."""
        what = "its record" if name.endswith(RECORD) else "it"
        try:
            descriptor = os.open(name, _READ, dir_fd=self._descriptor)
            with os.fdopen(descriptor, "rb") as file:
                self._check_file(what, os.fstat(descriptor), most_bytes)
                content: bytes = file.read(most_bytes + 1)
        except FileNotFoundError:
            raise
        except OSError as error:
            is_link = error.errno == errno.ELOOP
            fault = "is a symbolic link" if is_link else f"cannot be read ({error.strerror})"
            raise PlanError(f"{what} {fault}.", "foreign") from error
        if len(content) > most_bytes:
            raise PlanError(f"{what} is longer than {most_bytes} bytes.", "damaged")
        return content

    def _check_file(self, what: str, found: os.stat_result, most_bytes: int) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise PlanError(f"{what} is not a file.", "foreign")
        fault = _fault(found, self.rules) or ("has a second name" if found.st_nlink != 1 else "")
        if fault:
            raise PlanError(f"{what} {fault}.", "foreign")
        if found.st_size > most_bytes:
            raise PlanError(f"{what} is longer than {most_bytes} bytes.", "damaged")

    def write(self, name: str, content: bytes) -> None:
        """Write a file in one step, onto the disk; raises `PlanError`."""
        temporary = TEMPORARY + secrets.token_hex(8)
        try:
            descriptor = os.open(temporary, _WRITE, 0o600, dir_fd=self._descriptor)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, self.rules.file_mode)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            os.fsync(self._descriptor)
        except OSError as error:
            self.remove(temporary)
            raise _unusable(self.path, error) from error

    def remove(self, name: str) -> None:
        """Delete a file, or a link itself; what cannot be deleted stays."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._descriptor)

    def changed_s(self, name: str) -> float:
        """When a file was changed last, in seconds since 1970; 0 where it is gone."""
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mtime
        except OSError:
            return 0.0

    def has(self, name: str) -> bool:
        """Whether anything has that name, be it a link that leads nowhere."""
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError:
            return False
        return True

    def size_bytes(self, name: str) -> int:
        """Give the size of a file; 0 where it is gone."""
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_size
        except OSError:
            return 0


@contextlib.contextmanager
def opened(
    path: Path, rules: Rules, *, create: bool = False, files_only: bool = False
) -> Iterator[Folder]:
    """Open a folder and check it; raises `FileNotFoundError` and `PlanError` with the remedy.

    With `files_only` the rules hold for the files in it, and the folder may be anyone's.
    """
    try:
        if create:
            _make(path, rules)
        descriptor = os.open(path, _READ | os.O_DIRECTORY)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fault = "" if files_only else _fault(os.fstat(descriptor), rules)
        if fault:
            raise PlanError(
                f"'{path}' {fault}, and plans are machine code: remove it, or make "
                f"it yours, if all in it is, with chown -R {os.geteuid()} and {rules.remedy}.",
                "directory",
            )
        if rules.is_locked and not files_only:
            _lock(descriptor, path)
        yield Folder(path, rules, descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    """Wait for other processes to let go of the folder, but not for one that hangs."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    own = os.dup(descriptor)  # the thread may have to wait on after we have given up
    has_it = threading.Event()

    def wait() -> None:
        try:
            fcntl.flock(own, fcntl.LOCK_EX)
            has_it.set()
        finally:
            os.close(own)

    threading.Thread(target=wait, name="plans", daemon=True).start()
    if not has_it.wait(_LOCK_WAIT_S):
        raise PlanError(
            f"'{path}' has been held by another process for {_LOCK_WAIT_S:g} s: see which "
            "icewatch engine command still runs.",
            "directory",
        )


def _make(path: Path, rules: Rules) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(rules.folder_mode)
    except FileExistsError:
        return
    path.chmod(rules.folder_mode)  # whatever the umask is


def _fault(found: os.stat_result, rules: Rules) -> str:
    """Say what of owner and mode is against the rules; empty: nothing."""
    if found.st_uid not in rules.owners:
        return f"belongs to user {found.st_uid}"
    if found.st_mode & rules.forbidden:
        who = "be read or written" if rules.forbidden & 0o044 else "be written"
        return f"can {who} by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _unusable(path: Path, error: OSError) -> PlanError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return PlanError(
            f"'{path}' is a symbolic link or no folder: name the folder of plans itself.",
            "directory",
        )
    return PlanError(
        f"'{path}' cannot be used for plans ({error.strerror}): make room, or let icewatch's user "
        "read and write there.",
        "storage",
    )
