"""`icewatch retry`: asks for tilts that were set aside, through small files in the state directory.

The daemon lists there what it set aside; a request lies there until a daemon takes it, the one
that runs now or the next.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from monitor.errors import MonitorError
from monitor.messages import encodable
from monitor.settings import Settings

logger = logging.getLogger(__name__)

_LIST = "set_aside.json"
_REQUEST = "retry-"
_SUFFIX = ".json"
_MAX_BYTES = 1 << 20

Listed = list[dict[str, Any]]


def write_listed(directory: Path, listed: Listed) -> None:
    """List in the state directory what is set aside, for `icewatch retry` (the daemon's part)."""
    try:
        if listed or (directory / _LIST).exists():
            _replace(directory / _LIST, json.dumps({"tilts": listed}, indent=1))
    except OSError as error:
        logger.warning("'%s' cannot be written (%s)", directory / _LIST, error.strerror)


def take_requests(directory: Path) -> set[str]:
    """Give the tilts that somebody asked for, and remove the requests (the daemon's part)."""
    asked: set[str] = set()
    try:
        with os.scandir(directory) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.startswith(_REQUEST) and entry.name.endswith(_SUFFIX)
            ]
        for name in names:
            found = _request(directory / name)
            (directory / name).unlink()  # first of all: what stays would be granted for ever
            asked |= found
    except OSError:
        return asked  # a directory that cannot be written to shows at the next commit
    return asked


def _request(path: Path) -> set[str]:
    """Read one request; whoever may write here could as well stop the daemon, others count not."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as stream:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            return set()
        try:
            ids = json.loads(stream.read(_MAX_BYTES))["ids"]
        except (ValueError, KeyError, TypeError):
            return set()
    return {one for one in ids if isinstance(one, str)} if isinstance(ids, list) else set()


def ask_again(settings: Settings, names: Sequence[str]) -> Listed:
    """Ask for the tilts that are set aside, of some series or files or (no names) all.

    Raises `MonitorError` where nothing of the kind is set aside, or nothing can be asked for.
    """
    directory = settings.state.directory
    listed = _listed(directory)
    if not listed:
        raise MonitorError("no tilt is set aside: there is nothing to try again")
    wanted = [one for one in listed if not names or any(_is_meant(one, n, settings) for n in names)]
    for name in names:
        if not any(_is_meant(one, name, settings) for one in listed):
            series = ", ".join(dict.fromkeys(one["series"] for one in listed))
            raise MonitorError(f"'{name}': no tilt of it is set aside; there are some of {series}")
    path = directory / f"{_REQUEST}{time.time_ns()}-{os.getpid()}{_SUFFIX}"
    try:
        _replace(path, json.dumps({"ids": [one["id"] for one in wanted]}))
    except OSError as error:
        raise MonitorError(
            f"state.directory '{directory}' cannot be written to ({error.strerror}); run this as "
            "the user that icewatch runs as"
        ) from error
    return wanted


def _listed(directory: Path) -> Listed:
    try:
        tilts: Listed = json.loads((directory / _LIST).read_text("utf-8"))["tilts"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MonitorError(
            f"'{directory / _LIST}' cannot be read ({error}); run this as the user that icewatch "
            "runs as, or start the daemon again, which writes it anew"
        ) from error
    return tilts


def _is_meant(one: dict[str, Any], name: str, settings: Settings) -> bool:
    name = encodable(name)
    path = PurePosixPath(settings.acquisition.directory) / one["path"]
    given = PurePosixPath(Path.cwd()) / name
    return name in (one["series"], one["lamella"], one["path"], one["id"]) or given in (
        path,
        *path.parents[: len(PurePosixPath(one["path"]).parents) - 1],
    )


def _replace(path: Path, text: str) -> None:
    """Write a file at once and whole, as the owner of its directory if we may."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with new.open("w", encoding="utf-8") as stream:
            stream.write(text + "\n")
            stream.flush()
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(stream.fileno())
        os.replace(new, path)  # noqa: PTH105  atomic, and says so
    finally:
        with suppress(OSError):
            new.unlink()
