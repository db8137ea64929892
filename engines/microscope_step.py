"""One thing that a pretend microscope does to one file; whoever drives it can act in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEXT_PIECE_BYTES = 400
"""Shorter than any section of an mdoc, so that one is seen cut wherever a share may cut it."""


@dataclass(frozen=True, slots=True)
class Step:
    """A write, a rename or a deletion, which is done by the time that it is yielded."""

    path: Path
    """The file that was touched (the new name of one that was renamed)."""
    what: str
    """`pixels`, `header`, `extended`, `mdoc`, `text`, `create`, `rename` or `delete`."""
    size: int = 0
    """Bytes that were written."""
    settles: tuple[Path, ...] = ()
    """Files that nobody writes to from now on, until the next step with their name."""


def writing_text(
    path: Path, text: str, what: str = "text", *, append: bool = False, also: tuple[Path, ...] = ()
) -> Iterator[Step]:
    """Write or append a text in pieces, as a file with a small buffer reaches the disk.

    The last step comes after the file was closed; it settles `path` and the files in `also`.
    """
    pieces = list(_pieces(text.encode()))
    with path.open("ab" if append else "wb", buffering=0) as file:
        if not append:
            yield Step(path, what)  # there, and empty
        for piece in pieces[:-1]:
            file.write(piece)
            yield Step(path, what, len(piece))
        file.write(pieces[-1])
    yield Step(path, what, len(pieces[-1]), (path, *also))


def _pieces(raw: bytes) -> Iterator[bytes]:
    for start in range(0, max(len(raw), 1), TEXT_PIECE_BYTES):
        yield raw[start : start + TEXT_PIECE_BYTES]


def renaming(old: Path, new: Path) -> Step:
    """Rename a file, in place of any that has the new name."""
    old.replace(new)
    return Step(new, "rename", 0, (old, new))


def deleting(path: Path) -> Step:
    """Delete a file; it may be gone already."""
    path.unlink(missing_ok=True)
    return Step(path, "delete", 0, (path,))


def marking(path: Path) -> Step:
    """Make an empty file that says something by being there."""
    path.write_bytes(b"")
    return Step(path, "create", 0, (path,))
