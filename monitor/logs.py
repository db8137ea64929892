"""What the daemon logs: fields for journald where it runs under systemd, else one plain line each.

A name that a microscope gave, whatever it holds, never makes a second line. What is said over and
over is said a few times a minute, and how often it was left out. Nobody who does not read holds
the daemon up: a line that does not fit into the pipe is dropped, and counted.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

JOURNAL = Path("/run/systemd/journal/socket")
IDENTIFIER = "icewatch"
LINE_MAX_BYTES = 4000
"""A pipe takes this much at once, or nothing (PIPE_BUF is 4096)."""
FIELD_MAX_BYTES = 16_000
FLOOD_WINDOW_S = 60.0
FLOOD_LINES = 30
"""Of one kind in a window; tilts and verdicts come as fast as the microscope works."""
TILT_LINES = 2000
_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (0, 7),
)
Fields = Mapping[str, str | float | int | None]


def one_line(text: str) -> str:
    r"""Show as `\xNN` what would begin a new line, steer a terminal or turn text round."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def entry(fields: Fields) -> bytes:
    """Write one entry in journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    parts = []
    for name, value in fields.items():
        if value is None:
            continue
        content = str(value).encode("utf-8", "backslashreplace")[:FIELD_MAX_BYTES]
        if b"\n" in content:  # a traceback: its length comes first
            size = len(content).to_bytes(8, "little")
            parts.append(b"%s\n%s%s\n" % (name.encode(), size, content))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), content))
    return b"".join(parts)


class Plain:
    """Writes lines to a file descriptor, and never waits for who reads them."""

    def __init__(self, file: int = 2) -> None:
        self._file = file
        self._lock = threading.Lock()
        self.dropped = 0

    def __call__(self, record: logging.LogRecord, lines: list[str]) -> None:
        """Write the lines of one record; more than one only for a traceback."""
        head = f"{record.levelname} {record.name} "
        with self._lock:
            for line in lines:
                content = (head + line).encode("utf-8", "backslashreplace")[:LINE_MAX_BYTES]
                self._write(content + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            if not select.select([], [self._file], [], 0)[1]:
                self.dropped += 1
                return
            if self.dropped:
                line = b"(%d lines were dropped: nobody read them)\n" % self.dropped + line
                self.dropped = 0
            os.write(self._file, line)
        except (OSError, ValueError):
            return  # nobody reads any more: there is nowhere to say so


class Journald:
    """Sends entries with fields to journald; lines where that does not take them."""

    def __init__(self, path: Path = JOURNAL, otherwise: Plain | None = None) -> None:
        """Take the socket of journald; nothing is opened before the first entry."""
        self._path = str(path)
        self._otherwise = otherwise or Plain()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def __call__(self, record: logging.LogRecord, lines: list[str]) -> None:
        """Send one record."""
        fields: dict[str, str | float | int | None] = {
            "MESSAGE": "\n".join(lines),
            "PRIORITY": next(two for one, two in _PRIORITIES if record.levelno >= one),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "LOGGER": record.name,
            "THREAD_NAME": record.threadName,
        }
        for name, value in getattr(record, "fields", {}).items():
            fields[name] = one_line(value) if isinstance(value, str) else value
        try:
            self._socket.sendto(entry(fields), self._path)
        except OSError:  # journald restarts, or its queue is full
            self._otherwise(record, lines)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@dataclass(slots=True)
class _Kind:
    began_s: float
    said: int = 0
    left_out: int = 0


class Handler(logging.Handler):
    """Passes records on, but no flood of them."""

    def __init__(
        self,
        write: Callable[[logging.LogRecord, list[str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what writes one record, and a monotonic clock (s)."""
        super().__init__()
        self._write = write
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless too many of its kind came in the last minute."""
        key = (record.name, record.levelno, str(record.msg)[:100])
        now_s = self._clock()
        kind = self._kinds.get(key)
        if kind is None or now_s - kind.began_s >= FLOOD_WINDOW_S:
            left_out = kind.left_out if kind else 0
            if len(self._kinds) >= 1000:  # kinds are few unless somebody makes up messages
                self._kinds.clear()
            kind = self._kinds[key] = _Kind(now_s)
            if left_out:
                self._say_left_out(record, left_out)
        kind.said += 1
        if kind.said > (TILT_LINES if hasattr(record, "fields") else FLOOD_LINES):
            kind.left_out += 1
            return
        try:
            self._write(record, _lines(record))
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            self.handleError(record)

    def _say_left_out(self, like: logging.LogRecord, count: int) -> None:
        text = f"{count} more lines like the next were left out in a minute"
        said = logging.makeLogRecord(
            {"name": like.name, "levelno": like.levelno, "levelname": like.levelname, "msg": text}
        )
        self._write(said, [text])


def _lines(record: logging.LogRecord) -> list[str]:
    """Give the message as one line, and below it those of a traceback."""
    lines = [one_line(record.getMessage())]
    if record.exc_info:
        traceback = logging.Formatter().formatException(record.exc_info)
        lines += [one_line(line) for line in traceback.split("\n")]
    return lines


def runs_under_journald(stream: str | None = None, file: int = 2) -> bool:
    """Whether systemd connected standard error to journald (JOURNAL_STREAM in systemd.exec(5))."""
    given = os.environ.get("JOURNAL_STREAM", "") if stream is None else stream
    try:
        device, _, inode = given.partition(":")
        stat = os.fstat(file)
        return (int(device), int(inode)) == (stat.st_dev, stat.st_ino)
    except (OSError, ValueError):
        return False


def set_up() -> None:
    """Have everything that is logged go to journald or to standard error."""
    sys.stderr.flush()
    write = Journald() if runs_under_journald() else Plain()
    logging.basicConfig(level=logging.INFO, handlers=[Handler(write)], force=True)
