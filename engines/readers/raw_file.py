"""Bytes of files that others may still write to: read only, never held open, always doubted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.errors import PixelsError

Pace = Callable[[int], None]
"""Called with the number of bytes before each piece of a file is read; it may wait."""
_PIECE_BYTES = 8 << 20


def unpaced(_piece_bytes: int) -> None:
    """Let every piece be read at once."""


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a regular file to read it; raises `PixelsError` (`missing` or `unreadable`)."""
    try:
        # Looked at before it is opened: opening a FIFO or a device can block or do something.
        if not stat.S_ISREG(path.stat().st_mode):
            raise PixelsError(f"{path.name!r} is not a regular file", "unreadable")
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise PixelsError(f"{path.name!r} is not there", "missing") from error
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    try:
        yield file
    finally:
        os.close(file)


def facts(file: int, path: Path) -> os.stat_result:
    """Size, times and inode of an open file; refuses what is not a regular file."""
    try:
        now = os.fstat(file)
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(now.st_mode):
        raise PixelsError(f"{path.name!r} is not a regular file", "unreadable")
    return now


def fill(file: int, target: memoryview, start: int, path: Path, pace: Pace = unpaced) -> int:
    """Read into `target` from byte `start` on; gives how many bytes there were."""
    done = 0
    try:
        while done < len(target):
            piece = target[done : done + _PIECE_BYTES]
            pace(len(piece))
            got = os.preadv(file, [piece], start + done)
            if got == 0:
                break
            done += got
    except OSError as error:
        raise unreadable(path, error) from error
    return done


def read_at(file: int, start: int, count: int, path: Path) -> bytes:
    """Read up to `count` bytes from byte `start` on."""
    try:
        return os.pread(file, count, start)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError | ValueError) -> PixelsError:
    """Say why the system would not let a file be read."""
    why = getattr(error, "strerror", None) or error
    return PixelsError(f"{path.name!r} cannot be read: {why}", "unreadable")


def refuse_replaced(file: int, path: Path) -> None:
    """Raise `PixelsError` where the open file is not the one of that name any more."""
    try:
        same = os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError as error:
        raise PixelsError(f"{path.name!r} went away while it was read", "missing") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not same:
        raise PixelsError(f"{path.name!r} was replaced while it was read", "changed")


def refuse_rewritten(before: os.stat_result, file: int, path: Path) -> None:
    """Raise `PixelsError` where a file that was complete was written to while it was read."""
    now = facts(file, path)
    if (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns):
        raise PixelsError(f"{path.name!r} was rewritten while it was read", "changed")
    refuse_replaced(file, path)
