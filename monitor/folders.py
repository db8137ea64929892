"""The scan: a walk over the acquisition directory that opens nothing and follows no link."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from monitor.model import FileStat

logger = logging.getLogger(__name__)

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
_LIST_AGAIN = 2
"""A folder that changed is listed this often more: its time stamp may be coarse."""
_BELIEVE_EMPTY_AFTER_S = 30.0


class Stalled(Exception):  # noqa: N818  a state to wait out, not a fault
    """Raised when the directory cannot be scanned now; the text is one clear sentence."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One file as a scan found it."""

    image: str
    """The file to hand on, relative to the acquisition directory."""
    member: str
    """The file that was seen: that image, or one that announces it."""
    stat: FileStat


@dataclass(slots=True)
class Walk:
    """What one scan found."""

    seen: list[Seen] = field(default_factory=list)
    """Files that are new, and with `every_file` all that some source claims."""
    gone: list[tuple[str, str]] = field(default_factory=list)
    """(image, member) of files that were there before."""


@dataclass(slots=True)
class _Folder:
    modified_ns: int = -1
    list_again: int = 0
    folders: tuple[str, ...] = ()
    images: dict[str, str] = field(default_factory=dict)
    """Name of each file that a source claims, and the image it belongs to."""
    others: int = 0

    @property
    def is_filled(self) -> bool:
        return bool(self.folders or self.images or self.others)


class FolderTree:
    """Remembers which files were where, so that a scan costs little where nothing changed."""

    def __init__(
        self,
        root: Path,
        claims: Callable[[str], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the directory, what tells which files matter, and a monotonic clock (s)."""
        self._root = root
        self._claims = claims
        self._clock = clock
        self._folders: dict[str, _Folder] = {}
        self._unreadable: set[str] = set()
        self._empty_since_s: float | None = None
        self._device: int | None = None
        self.identity: tuple[int, int] | None = None
        """Device and inode of the directory: another one means another mount."""
        self.asked_s: float | None = None
        """Since when the file system owes an answer (monotonic, s); None while it owes none."""
        self.files_seen = 0
        """How many files the last scan counted, whether any source claims them or not."""
        self.files_ignored = 0
        """How many of them no source claims; links and special files count here."""
        self.unreadable_folders: tuple[str, ...] = ()
        """Folders that we may not look into."""

    def walk(self, *, every_file: bool) -> Walk:
        """Scan the directory; raises `Stalled` where that cannot be done now.

        Folders whose time did not change are not listed again and their files not looked at,
        unless `every_file`.
        """
        walk = Walk()
        try:
            self._check_root(walk)
            visited = set()
            waiting = [""]
            while waiting:
                relative = waiting.pop()
                visited.add(relative)
                folder = self._visit(relative, walk, every_file=every_file)
                waiting.extend(relative + name + "/" for name in folder.folders)
        finally:
            self.asked_s = None
        for relative in self._folders.keys() - visited:
            self._drop(relative, walk)
        folders = self._folders.values()
        self.files_ignored = sum(folder.others for folder in folders)
        self.files_seen = self.files_ignored + sum(len(folder.images) for folder in folders)
        self.unreadable_folders = tuple(sorted(self._unreadable))
        return walk

    def look(self, relative: str) -> list[Seen]:
        """Look at one path, a file or a folder with all below it, at once.

        Raises nothing: what cannot be seen now is left to the next scan.
        """
        walk = Walk()
        if any(part.startswith(".") for part in relative.split("/")):
            return walk.seen
        try:
            self.asked_s = self._clock()
            found = os.lstat(self._root / relative)
            if stat.S_ISDIR(found.st_mode):
                waiting = [relative + "/"]
                while waiting:
                    folder = waiting.pop()
                    visited = self._visit(folder, walk, every_file=True)
                    waiting.extend(folder + name + "/" for name in visited.folders)
            elif stat.S_ISREG(found.st_mode):
                image = self._claims(relative)
                if image is not None:
                    walk.seen.append(Seen(image, relative, _file_stat(found)))
                    self._remember(relative, image)
        except (OSError, Stalled):
            return walk.seen
        finally:
            self.asked_s = None
        return walk.seen

    def _remember(self, relative: str, image: str) -> None:
        """Have the next scan miss a file that goes away before it."""
        parent, slash, name = relative.rpartition("/")
        folder = self._folders.get(parent + slash)
        if folder is not None:
            folder.images[name] = image

    def _check_root(self, walk: Walk) -> None:
        root = self._root
        self.asked_s = self._clock()
        try:
            found = root.stat()
            with os.scandir(root) as entries:
                empty = next(entries, None) is None
        except OSError as error:
            raise Stalled(_why(root, error)) from error
        if empty and (self.files_seen or len(self._folders) > 1):
            self._doubt_emptiness(found.st_dev)
        if (found.st_dev, found.st_ino) != self.identity:
            for relative in list(self._folders):
                self._drop(relative, walk)
        self._empty_since_s = self._empty_since_s if empty else None
        self._device, self.identity = found.st_dev, (found.st_dev, found.st_ino)

    def _doubt_emptiness(self, device: int) -> None:
        """A share that blinks lists nothing; that is no reason to believe that all was deleted."""
        if device != self._device:
            raise Stalled(f"'{self._root}' is empty since its share went; mount the share again")
        if self._empty_since_s is None:
            self._empty_since_s = self._clock()
        if self._clock() - self._empty_since_s < _BELIEVE_EMPTY_AFTER_S:
            raise Stalled(f"'{self._root}' is suddenly empty; see whether its share still works")

    def _visit(self, relative: str, walk: Walk, *, every_file: bool) -> _Folder:
        """Bring what is known of one folder up to date; `relative` is "" or ends in a slash."""
        folder = self._folders.get(relative) or _Folder()
        self.asked_s = self._clock()
        try:
            modified_ns = (self._root / relative).stat().st_mtime_ns
            if modified_ns != folder.modified_ns:
                folder.modified_ns, folder.list_again = modified_ns, _LIST_AGAIN + 1
            if every_file or folder.list_again > 0:
                folder.list_again = max(0, folder.list_again - 1)
                self._list(relative, folder, walk, every_file=every_file)
        except PermissionError:
            if relative not in self._unreadable:
                logger.warning("%s: no permission to look into this folder", ascii(relative))
            self._unreadable.add(relative)
        except OSError as error:
            if error.errno in _GONE and relative:
                return _Folder()
            raise Stalled(_why(self._root / relative, error)) from error
        else:
            self._unreadable.discard(relative)
        self._folders[relative] = folder
        return folder

    def _list(self, relative: str, folder: _Folder, walk: Walk, *, every_file: bool) -> None:
        folders: list[str] = []
        images: dict[str, str] = {}
        others = 0
        with os.scandir(self._root / relative) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith("."):
                        folders.append(entry.name)
                    continue
                image = folder.images.get(entry.name)
                is_new = image is None
                if image is None and entry.is_file(follow_symlinks=False):
                    image = self._claims(relative + entry.name)
                if image is None:
                    others += 1
                    continue
                images[entry.name] = image
                if is_new or every_file:
                    self.asked_s = self._clock()
                    self._see(entry, image, relative, walk)
        for name in folder.images.keys() - images.keys():
            walk.gone.append((folder.images[name], relative + name))
        folder.folders, folder.images, folder.others = tuple(folders), images, others

    def _see(self, entry: os.DirEntry[str], image: str, relative: str, walk: Walk) -> None:
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        if stat.S_ISREG(found.st_mode):
            walk.seen.append(Seen(image, relative + entry.name, _file_stat(found)))

    def _drop(self, relative: str, walk: Walk) -> None:
        folder = self._folders.pop(relative)
        walk.gone += [(image, relative + name) for name, image in folder.images.items()]
        self._unreadable.discard(relative)


def _file_stat(found: os.stat_result) -> FileStat:
    return FileStat(size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


def _why(folder: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"'{folder}' is not there; mount the share or correct acquisition.directory"
    if error.errno == errno.ENOTDIR:
        return f"'{folder}' is not a directory; correct acquisition.directory"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"'{folder}' may not be read; give the user that icewatch runs as the right to"
    return f"'{folder}' cannot be listed ({error.strerror}); see whether its share still works"
