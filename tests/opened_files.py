"""Which files this process opens: told by the interpreter itself, for every `open` there is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_recording: list[tuple[Path, list[str]]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _recording:
        name = arguments[0]
        for root, opened in _recording:
            if isinstance(name, str | bytes | os.PathLike):
                path = Path(os.fsdecode(name))
                if path.is_relative_to(root):
                    opened.append(path.relative_to(root).as_posix())


sys.addaudithook(_note)


@contextmanager
def opened_below(root: Path) -> Iterator[list[str]]:
    """List the files below a folder that are opened from now on, in order."""
    opened: list[str] = []
    _recording.append((root, opened))
    try:
        yield opened
    finally:
        _recording.remove((root, opened))
