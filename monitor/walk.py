"""What a scan of the acquisition directory finds, file by file, or why it cannot be done."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from monitor.model import FileStat


class Stalled(Exception):  # noqa: N818  a state to wait out, not a fault
    """Raised when the directory cannot be scanned now; the text is one clear sentence."""

    def __init__(self, sentence: str, walk: Walk | None = None) -> None:
        super().__init__(sentence)
        self.walk = walk or Walk()
        """What could be seen all the same."""


class Seen(NamedTuple):
    """One file as a look found it; a tuple, for a scan makes a hundred thousand of them."""

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
    is_first: bool = False
    """Whether no scan of this mount was complete before: nobody knows when its files landed."""


def stat_now(root: Path, relative: str) -> FileStat | None:
    """Look at one file without following links; None where no file can be seen there now."""
    try:
        found = os.lstat(root / relative)
    except OSError:
        return None
    return file_stat(found) if stat.S_ISREG(found.st_mode) else None


def file_stat(found: os.stat_result) -> FileStat:
    """Keep of a stat what tells whether a file changed."""
    return FileStat(size=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


def why_stalled(folder: Path, error: OSError) -> str:
    """Say in one sentence why a folder cannot be scanned, and what to do."""
    if error.errno == errno.ENOENT:
        return f"'{folder}' is not there; mount the share or correct acquisition.directory"
    if error.errno == errno.ENOTDIR:
        return f"'{folder}' is not a directory; correct acquisition.directory"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"'{folder}' may not be read; give the user that icewatch runs as the right to"
    return f"'{folder}' cannot be listed ({error.strerror}); see whether its share still works"
