"""Events from the file system: they only wake the scan earlier, so any of them may be lost."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

logger = logging.getLogger(__name__)

_MOUNTS = Path("/proc/self/mountinfo")
_REMOTE = re.compile(
    r"nfs4?|cifs|smb\w*|ncpfs?|fuse.*|9p|afs|ceph|lustre|gpfs|beegfs.*|pvfs2|orangefs|ocfs2|gfs2?"
    r"|glusterfs|virtiofs|vboxsf|prl_fs|autofs|davfs|sshfs|acfs|vmhgfs"
)
_WANTED: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]
"""Not every write: SerialEM closes the mdoc when a tilt is complete, and that says it all."""


def filesystem_type(path: Path, mounts: str) -> str:
    """Find the type of the file system that holds a path, from the text of mountinfo (proc(5)).

    Gives "" where it cannot be told.
    """
    best, best_type = "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        parts = fields.split(" ")
        if len(parts) < 5 or not rest:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), parts[4])
        # Of several mounts at one place the last covers the others.
        if len(point) >= len(best) and path.is_relative_to(point):
            best, best_type = point, rest.split(" ")[0]
    return best_type


def has_remote_writers(path: Path) -> bool:
    """Whether a directory lies on a share, where other computers write without any event here."""
    try:
        mounts = os.fsdecode(_MOUNTS.read_bytes())
    except OSError:
        return True
    return bool(_REMOTE.fullmatch(filesystem_type(Path(os.path.realpath(path)), mounts) or "fuse"))


class FolderEvents:
    """Tells of files that were created, closed after writing, or moved below a directory."""

    def __init__(self, tell: Callable[[str, bool], None]) -> None:
        """Take what is called, from a thread of its own, with a path relative to the directory.

        And with whether its writer is done with it: it was closed, or given its name.
        """
        self._tell = tell
        self._observer: BaseObserver | None = None

    def start(self, root: Path) -> bool:
        """Begin anew to watch a directory; False where the system gives no events."""
        self.stop()
        # The scan is the truth, so what watchdog complains about (lost events, folders made
        # faster than it can watch them; tens of kB of text each) needs nobody's attention.
        logging.getLogger("watchdog").setLevel(logging.CRITICAL)
        warnings.filterwarnings(
            "ignore", message="Callback with id", category=RuntimeWarning, module=r"watchdog\."
        )
        try:
            real = os.path.realpath(root, strict=True)  # Path.resolve raises RuntimeError too
            self._observer = observer = Observer()
            observer.schedule(_Teller(real, self._tell), real, recursive=True, event_filter=_WANTED)
            observer.start()
        except OSError as error:
            logger.warning("no file system events (%s); the directory is polled", error.strerror)
            self.stop()
            return False
        return True

    def stop(self) -> None:
        """Stop watching; safe to call at any time."""
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            if observer.is_alive():
                observer.join(timeout=2.0)


class _Teller(FileSystemEventHandler):
    def __init__(self, root: str, tell: Callable[[str, bool], None]) -> None:
        self._prefix = root.rstrip("/") + "/"
        self._tell = tell

    def on_any_event(self, event: FileSystemEvent) -> None:
        path = os.fsdecode(event.dest_path or event.src_path)
        if path.startswith(self._prefix):
            created = isinstance(event, FileCreatedEvent | DirCreatedEvent)
            self._tell(path[len(self._prefix) :], not created)
