"""Which files `icewatch score` reads, and the names that tell those of several paths apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monitor.errors import ConfigError
from monitor.model import FileStat, Landed, Tilt
from monitor.screen import plain
from monitor.sources.naming import is_ignored

EXTENSIONS = (".mrc", ".mrcs", ".st", ".map", ".tif", ".tiff", ".eer")
MASK_SUFFIX = ".mask.mrc"


@dataclass(frozen=True, slots=True)
class FileToScore:
    """A file below one of the paths of the command line."""

    root: Path
    """Folder that names count from."""
    path: Path
    prefix: str
    """Folder name that tells this root from others ("" where there is one root only)."""

    @property
    def relative(self) -> str:
        """Path below the root, with forward slashes."""
        return self.path.relative_to(self.root).as_posix()


def files_to_score(paths: Sequence[Path]) -> list[FileToScore]:
    """List the files to score, each once however often it is named."""
    roots = [path if path.is_dir() else path.parent for path in paths]
    prefixes = _prefixes([_whole(root) for root in roots])
    found: dict[Path, FileToScore] = {}
    for path, root, prefix in zip(paths, roots, prefixes, strict=True):
        listed = [path] if root != path else _below(path)
        if not listed:
            complain(path, f"no file to score was found in it ({', '.join(EXTENSIONS)})")
        for one in listed:
            file = FileToScore(root, one, prefix)
            found.setdefault(root.resolve() / file.relative, file)
    return list(found.values())


def _prefixes(roots: Sequence[Path]) -> list[str]:
    """Name each of several folders by its own name, with folders above it where those repeat."""
    unlike = list(dict.fromkeys(roots))
    if len(unlike) < 2:
        return [""] * len(roots)
    names: list[str] = []
    for depth in range(1, max(len(root.parts) for root in unlike) + 1):
        names = ["_".join(root.parts[1:][-depth:]) or "root" for root in unlike]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{number}_{name}" for number, name in enumerate(names, 1)]
    by_root = dict(zip(unlike, names, strict=True))
    return [by_root[root] for root in roots]


def _whole(folder: Path) -> Path:
    """Spell out a folder; links keep their own names where there is no `..` to follow."""
    return folder.resolve() if ".." in folder.parts else folder.absolute()


def _below(root: Path) -> list[Path]:
    """List the files below a folder that look like tilts."""
    found = []
    for folder, folders, names in os.walk(root, onerror=_complain_of_folder):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            wanted = name.lower().endswith(EXTENSIONS) and not name.endswith(MASK_SUFFIX)
            if wanted and not is_ignored(path.relative_to(root).as_posix()):
                found.append(path)
    return found


def refuse_missing(path: Path) -> None:
    """Raise `ConfigError` for a path that is not there or not reachable."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{path}: there is no such file or folder") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def landed(file: FileToScore) -> Landed:
    """Give a file as the intake would offer it that lay there for long; raises `OSError`."""
    stat = file.path.stat()
    seen = FileStat(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    return Landed(file.path, file.relative, seen, 10**6, 1e6)


def prefixed(tilt: Tilt, prefix: str) -> Tilt:
    """Name a tilt as from the folder above its root, as if only `prefix` lay in there."""
    if not prefix:
        return tilt
    return replace(
        tilt,
        id=replace(tilt.id, series_key=f"{prefix}/{tilt.id.series_key}"),
        session=prefix,
        grid="/".join(part for part in (tilt.session, tilt.grid) if part),
        lamella=f"{prefix}/{tilt.lamella}",
        path=f"{prefix}/{tilt.path}",
    )


def complain(path: Path, sentence: str) -> None:
    """Say on standard error, in one line, what is wrong with a file or folder."""
    sys.stderr.write(f"icewatch: {plain(str(path))}: {plain(sentence)}\n")


def _complain_of_folder(error: OSError) -> None:
    complain(Path(error.filename), f"cannot be read: {error.strerror}")
