"""Looks at the three directories: that of the acquisition, of the state, of the verdicts."""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from pathlib import Path

from monitor.doctor.facts import Facts
from monitor.doctor.finding import Finding, ok, problem, warning
from monitor.watching import filesystem_type, has_remote_writers

FSTAB, MOUNTS = Path("/etc/fstab"), Path("/proc/self/mountinfo")
WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
NEARLY_FULL, FULL = (0.05, 1e9), (0.01, 1e8)
"""Share and bytes that are free: both limits count, as in the alert."""
_WALK_S = 1.0


def acquisition(facts: Facts) -> list[Finding]:
    """See whether tilts can arrive; runs with the rights of the service."""
    directory = facts.settings.acquisition.directory
    topic = "acquisition.directory"
    try:
        with os.scandir(directory) as entries:
            is_empty = next(entries, None) is None
    except FileNotFoundError:
        return [_absent(facts, directory)]
    except PermissionError:
        cause = f"'{directory}' may not be read by user {facts.who}"
        return [problem(topic, cause, f"let it: sudo setfacl -R -m u:{facts.who}:rX '{directory}'")]
    except OSError as error:
        cause = f"'{directory}' cannot be listed ({error.strerror})"
        return [problem(topic, cause, "see to the mount, the network and the file server")]
    found = [_empty(directory)] if is_empty else _closed_folders(facts, directory)
    found += _events(facts, directory)
    return found or [ok(topic, f"'{directory}' can be read by {facts.who}")]


def _absent(facts: Facts, directory: Path) -> Finding:
    topic = "acquisition.directory"
    share = share_of(directory)
    if share:
        cause = f"'{directory}' is not there: '{share}' stands in {FSTAB} and is not mounted"
        return problem(topic, cause, f"mount it: sudo mount '{share}'")
    cause = f"'{directory}' is not there; icewatch waits for it and reads nothing"
    return problem(topic, cause, f"mount the share, or correct {topic} in {facts.config}")


def _empty(directory: Path) -> Finding:
    topic = "acquisition.directory"
    share = share_of(directory)
    if share:
        cause = f"'{directory}' is empty: '{share}' stands in {FSTAB} and is not mounted"
        return problem(topic, cause, f"mount it: sudo mount '{share}'")
    if os.path.ismount(directory):
        return ok(topic, f"'{directory}' is mounted and empty: nothing was acquired yet")
    cause = f"'{directory}' is empty, and nothing is mounted there"
    return warning(topic, cause, "if it should be a share, mount it; else wait for the first tilt")


def share_of(directory: Path) -> str:
    """Name the mount point at or above a directory that is listed and not mounted; else ""."""
    try:
        lines = FSTAB.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#") or fields[1] in ("/", "none", "swap"):
            continue
        point = Path(re.sub(r"\\040", " ", fields[1]))
        if directory.is_relative_to(point) and not os.path.ismount(point):
            return str(point)
    return ""


def _closed_folders(facts: Facts, directory: Path) -> list[Finding]:
    """Name folders that may not be read, and count all as far as time allows."""
    until_s, count, closed = time.monotonic() + _WALK_S, 0, []
    todo = [directory]
    while todo and time.monotonic() < until_s:
        folder = todo.pop()
        count += 1
        try:
            with os.scandir(folder) as entries:
                todo += [Path(one.path) for one in entries if one.is_dir(follow_symlinks=False)]
        except OSError:
            closed.append(folder)
    found = []
    if closed:
        cause = f"{len(closed)} folders may not be read by user {facts.who}, such as '{closed[0]}'"
        remedy = f"let it: sudo setfacl -R -m u:{facts.who}:rX '{directory}'"
        found.append(problem("acquisition.directory", cause, remedy))
    limit = _number(WATCHES)
    if limit is not None and count > 0.8 * limit and facts.settings.acquisition.watch != "poll":
        cause = f"{count} folders or more, and events of only {limit} can be had on this computer"
        remedy = f"sudo sysctl fs.inotify.max_user_watches={max(524288, 4 * count)}"
        found.append(warning("inotify", cause, f"{remedy} (until then they are polled)"))
    return found


def _events(facts: Facts, directory: Path) -> list[Finding]:
    if facts.settings.acquisition.watch != "events" or not has_remote_writers(directory):
        return []
    kind = kind_of(directory) or "a share"
    cause = f"'{directory}' lies on {kind}, where no events of other computers arrive"
    return [problem("acquisition.watch", cause, 'set acquisition.watch = "auto"')]


def state(facts: Facts) -> list[Finding]:
    """See whether the journal can be kept; runs with the rights of the service."""
    directory = facts.settings.state.directory
    found = _writable(facts, "state.directory", directory)
    existing = _nearest(directory)
    if has_remote_writers(existing):
        kind = kind_of(existing) or "a share"
        cause = f"'{directory}' lies on {kind}, where a journal can be damaged"
        found.append(problem("state.directory", cause, "name a directory on a local disk"))
    found += _room(existing)
    return found or [ok("state.directory", f"'{directory}' can be written by {facts.who}")]


def verdicts(facts: Facts) -> list[Finding]:
    """See whether verdicts can be left; runs with the rights of the service."""
    directory = facts.settings.verdict_directory
    if directory.parent == facts.settings.state.directory and not directory.exists():
        return []
    found = _writable(facts, "verdict.directory", directory)
    return found or [ok("verdict.directory", f"'{directory}' can be written by {facts.who}")]


def _writable(facts: Facts, key: str, directory: Path) -> list[Finding]:
    who = facts.who
    try:
        info = directory.stat()
    except FileNotFoundError:
        if os.access(_nearest(directory), os.W_OK | os.X_OK):
            return []
        cause = f"'{directory}' is not there, and user {who} may not make it"
        return [problem(key, cause, f"sudo install -d -o {who} -m 0755 '{directory}'")]
    except OSError as error:
        cause = f"'{directory}' cannot be looked at ({error.strerror})"
        return [problem(key, cause, f"let user {who} into the folders above it")]
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        cause = f"'{directory}' lies on a file system that is mounted read-only"
        return [problem(key, cause, "mount it for writing, or name another directory")]
    if key == "state.directory" and info.st_uid != facts.uid:
        cause = f"'{directory}' belongs to another user than {who}, who runs icewatch"
        return [problem(key, cause, f"sudo chown -R {who} '{directory}'")]
    if not os.access(directory, os.W_OK | os.X_OK):
        cause = f"'{directory}' may not be written by user {who}"
        return [problem(key, cause, f"sudo setfacl -m u:{who}:rwx '{directory}'")]
    if key == "state.directory" and info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX:
        cause = f"'{directory}' may be written by everybody, who could change what was measured"
        return [warning(key, cause, f"sudo chmod o-w '{directory}'")]
    return []


def _room(directory: Path) -> list[Finding]:
    usage = shutil.disk_usage(directory)
    cause = f"{usage.free / 1e9:.2f} GB of {usage.total / 1e9:.0f} GB are free on the disk"
    remedy = f"free space there: see `du -sh {directory}/*`, or lower state.max_size_gb"
    if usage.free < min(FULL[0] * usage.total, FULL[1]):
        return [problem("state.directory", cause, remedy)]
    if usage.free < NEARLY_FULL[0] * usage.total or usage.free < NEARLY_FULL[1]:
        return [warning("state.directory", cause, remedy)]
    return []


def kind_of(path: Path) -> str:
    """Name the type of the file system that holds a path; "" where it cannot be told."""
    try:
        mounts = os.fsdecode(MOUNTS.read_bytes())
    except OSError:
        return ""
    return filesystem_type(Path(os.path.realpath(path)), mounts)


def _nearest(directory: Path) -> Path:
    """Give the directory, or what is there of the way to it."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return directory


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
