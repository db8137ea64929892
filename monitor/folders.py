"""The scan: a walk over the acquisition directory that opens nothing and follows no link."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from monitor.walk import Seen, Stalled, Walk, file_stat, stat_now, why_stalled

logger = logging.getLogger(__name__)

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
_LIST_AGAIN = 2
"""A folder that changed is listed this often more: its time stamp may be coarse."""
_BELIEVE_EMPTY_AFTER_S = 30.0


@dataclass(slots=True)
class _Folder:
    modified_ns: int = -1
    list_again: int = 0
    folders: tuple[str, ...] = ()
    names: dict[str, str | None] = field(default_factory=dict)
    """Each file, and the image that it belongs to; None where no source claims it."""
    images: int = 0
    """How many of them some source claims."""
    special: int = 0
    """How many links, sockets and the like lie there besides."""
    empty_since_s: float | None = None
    """Since when nothing is listed although something was there."""


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
        self._was_completed = False
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
        unless `every_file`, or on another mount than last time. A folder that fails does not keep
        the others from being scanned: what was seen is in the `Stalled` that is raised at the end.
        """
        walk = Walk()
        failed: Stalled | None = None
        try:
            self._check_root()
            walk.is_first = not self._was_completed
            every_file |= walk.is_first
            visited = set()
            waiting = [""]
            while waiting:
                relative = waiting.pop()
                visited.add(relative)
                try:
                    folder = self._visit(relative, walk, every_file=every_file)
                except OSError as error:
                    failed = failed or Stalled(why_stalled(self._root / relative, error), walk)
                    folder = self._folders.get(relative) or _Folder()
                waiting.extend(relative + name + "/" for name in folder.folders)
        finally:
            self.asked_s = None
        for relative in self._folders.keys() - visited:
            self._drop(relative, walk)
        self._sum_up()
        if failed is not None:
            raise failed
        self._was_completed = True
        return walk

    def _sum_up(self) -> None:
        folders = self._folders.values()
        self.files_seen = sum(len(folder.names) + folder.special for folder in folders)
        self.files_ignored = self.files_seen - sum(folder.images for folder in folders)
        self.unreadable_folders = tuple(sorted(self._unreadable))

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
                    walk.seen.append(Seen(image, relative, file_stat(found)))
                    self._remember(relative, image)
        except OSError:
            return walk.seen
        finally:
            self.asked_s = None
        return walk.seen

    def stat_all(self, files: Iterable[tuple[str, str]]) -> Iterator[Seen]:
        """Look at files that are known, as (image, member); gives those that can be seen."""
        try:
            for image, member in files:
                self.asked_s = self._clock()
                found = stat_now(self._root, member)
                if found is not None:
                    yield Seen(image, member, found)
        finally:
            self.asked_s = None

    def _remember(self, relative: str, image: str) -> None:
        """Have the next scan miss a file that goes away before it."""
        parent, slash, name = relative.rpartition("/")
        folder = self._folders.get(parent + slash)
        if folder is not None:
            folder.images += folder.names.get(name) is None
            folder.names[name] = image

    def _check_root(self) -> None:
        """See that the directory is there and not suddenly empty, and whether it is another."""
        root = self._root
        self.asked_s = self._clock()
        try:
            found = root.stat()
            with os.scandir(root) as entries:
                empty = next(entries, None) is None
        except OSError as error:
            raise Stalled(why_stalled(root, error)) from error
        identity = (found.st_dev, found.st_ino)
        if empty and (self.files_seen or len(self._folders) > 1):
            self._doubt_emptiness(found.st_dev)
        self._empty_since_s = self._empty_since_s if empty else None
        self._was_completed &= identity == self.identity
        self.identity = identity

    def _doubt_emptiness(self, device: int) -> None:
        """A share that blinks lists nothing; that is no reason to believe that all was deleted."""
        if self.identity is not None and device != self.identity[0]:
            raise Stalled(f"'{self._root}' is empty since its share went; mount the share again")
        if self._empty_since_s is None:
            self._empty_since_s = self._clock()
        if self._clock() - self._empty_since_s < _BELIEVE_EMPTY_AFTER_S:
            raise Stalled(f"'{self._root}' is suddenly empty; see whether its share still works")

    def _visit(self, relative: str, walk: Walk, *, every_file: bool) -> _Folder:
        """Bring what is known of one folder up to date; `relative` is "" or ends in a slash.

        Raises `OSError` where it cannot be listed though it is there.
        """
        folder = self._folders.get(relative) or _Folder()
        self.asked_s = self._clock()
        try:
            modified_ns = (self._root / relative).stat().st_mtime_ns
            if modified_ns != folder.modified_ns:
                folder.modified_ns, folder.list_again = modified_ns, _LIST_AGAIN + 1
            if every_file or folder.list_again > 0:
                self._list(relative, folder, walk, every_file=every_file)
                folder.list_again = max(0, folder.list_again - 1)
        except PermissionError:
            if relative not in self._unreadable:
                logger.warning("%s: no permission to look into this folder", ascii(relative))
            self._unreadable.add(relative)
        except OSError as error:
            if error.errno in _GONE and relative:
                return _Folder()
            raise
        else:
            self._unreadable.discard(relative)
        self._folders[relative] = folder
        return folder

    def _list(self, relative: str, folder: _Folder, walk: Walk, *, every_file: bool) -> None:
        folders: list[str] = []
        names: dict[str, str | None] = {}
        special = 0
        known = folder.names
        with os.scandir(self._root / relative) as entries:
            for entry in entries:
                name = entry.name
                if not entry.is_file(follow_symlinks=False):
                    is_folder = entry.is_dir(follow_symlinks=False)
                    if is_folder and not name.startswith("."):
                        folders.append(name)
                    special += not is_folder
                    continue
                is_new = name not in known
                image = names[name] = self._claims(relative + name) if is_new else known[name]
                if image is not None and (is_new or every_file):
                    self._see(entry, image, relative, walk)
        if not (names or folders or special) and self._doubts(folder):
            return
        folder.empty_since_s = None
        for name in known.keys() - names.keys():
            image = known[name]
            if image is not None:
                walk.gone.append((image, relative + name))
        folder.folders, folder.names, folder.special = tuple(folders), names, special
        folder.images = sum(image is not None for image in names.values())

    def _doubts(self, folder: _Folder) -> bool:
        """Whether a folder that is suddenly empty is to be listed again before it is believed."""
        if len(folder.names) + len(folder.folders) < 2:
            return False
        now_s = self._clock()
        if folder.empty_since_s is None:
            folder.empty_since_s = now_s
        folder.list_again = _LIST_AGAIN
        return now_s - folder.empty_since_s < _BELIEVE_EMPTY_AFTER_S

    def _see(self, entry: os.DirEntry[str], image: str, relative: str, walk: Walk) -> None:
        self.asked_s = self._clock()
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        if stat.S_ISREG(found.st_mode):
            walk.seen.append(Seen(image, relative + entry.name, file_stat(found)))

    def _drop(self, relative: str, walk: Walk) -> None:
        folder = self._folders.pop(relative)
        for name, image in folder.names.items():
            if image is not None:
                walk.gone.append((image, relative + name))
        self._unreadable.discard(relative)
