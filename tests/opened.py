"""Which files this process opens, as the interpreter itself reports them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_listening: list[list[str]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _listening and event == "open" and isinstance(arguments[0], str | bytes):
        for heard in _listening:
            heard.append(os.fsdecode(arguments[0]))


@contextmanager
def opened_below(folder: Path) -> Iterator[list[str]]:
    """Collect the names of files below a folder that are opened meanwhile, oldest first."""
    if _hear not in _hooked:
        sys.addaudithook(_hear)  # cannot be taken away again
        _hooked.append(_hear)
    heard: list[str] = []
    names: list[str] = []
    _listening.append(heard)
    try:
        yield names
    finally:
        _listening.remove(heard)
        prefix = f"{folder}/"
        names += [path.removeprefix(prefix) for path in heard if path.startswith(prefix)]


_hooked: list[object] = []
