"""Opens an export wherever it lies: a folder, its annotation file, or the ZIP file of CVAT."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engines.annotation.model import AnnotationError

MAX_FILES = 20_000
MAX_BYTES = 4 << 30
"""Of an export unpacked: hundreds of whole tilts as PNG."""
_WANTED = (".json", ".xml", ".png", ".jpg", ".jpeg")
_DEPTH = 2
"""Folders that may lie around the annotation file where somebody packed a folder, not its files."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An export whose files can be read."""

    path: Path
    """Its folder, or its annotation file alone."""
    named: Path
    """What the user calls it."""

    def shown(self, file: Path) -> Path:
        """Name a file of it so that the user knows where it lies."""
        return self.named / file.relative_to(self.path) if file != self.path else self.named


@contextmanager
def opened_export(path: Path) -> Iterator[Opened]:
    """Open an export; what is in a ZIP file lies unpacked elsewhere until it is left.

    Raises AnnotationError for a ZIP file that is damaged, or that could do harm.
    """
    if path.suffix.lower() != ".zip" or path.is_dir():
        yield Opened(path, path)
        return
    with tempfile.TemporaryDirectory(prefix="icewatch-export-") as name:
        folder = Path(name)
        try:
            _unpack(path, folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise AnnotationError(
                f"'{path}' is cut or no ZIP file ({str(error) or 'it ends too early'}); export it "
                "again."
            ) from error
        except RuntimeError as error:  # what zipfile raises for a password
            raise AnnotationError(f"'{path}' is locked by a password; export it again.") from error
        except OSError as error:
            raise AnnotationError(
                f"'{path}' cannot be unpacked into '{folder.parent}': {error.strerror or error}; "
                "free space there, or unpack it yourself."
            ) from error
        yield Opened(_top(folder), path)


def _unpack(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as packed:
        members = packed.infolist()
        _refuse_harm(path, members)
        for member in members:
            name = PurePosixPath(member.filename)
            if member.is_dir() or name.suffix.lower() not in _WANTED:
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            # zipfile reads no more than the size that was checked, whatever the data go on to say
            with packed.open(member) as source, target.open("xb") as sink:
                shutil.copyfileobj(source, sink)


def _refuse_harm(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if not members:
        raise AnnotationError(f"'{path}' is an empty ZIP file; export it again.")
    for member in members:
        name = member.filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if name.startswith(("/", "\\")) or ".." in parts or ":" in name.split("/")[0]:
            raise AnnotationError(
                f"'{path}' holds '{name}', which would lie outside of it; no export of CVAT does, "
                "export it again."
            )
    total_bytes = sum(member.file_size for member in members)
    if len(members) > MAX_FILES or total_bytes > MAX_BYTES:
        raise AnnotationError(
            f"'{path}' would unpack to {len(members)} files of {total_bytes / 1e9:.1f} GB, more "
            "than an export of annotated tilts has; export it again, without the pictures."
        )
    name, times = Counter(member.filename for member in members).most_common(1)[0]
    if times > 1:
        raise AnnotationError(f"'{path}' holds '{name}' twice; export it again.")


def _top(folder: Path) -> Path:
    """Go down to the files, where one folder was packed as a whole."""
    for _ in range(_DEPTH):
        inside = list(folder.iterdir())
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].name == "annotations":
            break
        folder = inside[0]
    return folder
