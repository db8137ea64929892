"""A bundle on its way into the store: a folder, or a zip file whose names may not climb out."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from engines.bundle import MANIFEST
from engines.errors import BundleError

_MOST_NAMES = 1000
_ENCRYPTED = 0x1
UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
"""What damaged or foreign zip files and failing disks raise while they are read."""


class Package(Protocol):
    """Gives the files of one bundle by name."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file; raises `KeyError` where there is none, or one of `UNREADABLE`."""
        ...


class _Folder:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, name: str) -> IO[bytes]:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.fdopen(os.open(self._directory / name, flags), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(f"{name} is not a file")
        return file


class _Zip:
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive = archive
        self._folder = folder

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(self._folder + name)


@contextmanager
def opened_package(where: Path) -> Iterator[Package]:
    """Open a bundle, be it a folder or a zip file; raises `BundleError`."""
    if where.is_dir():
        yield _Folder(where)
        return
    if not where.exists():
        raise BundleError(f"'{where}' is not there; name the folder or zip file of a bundle.")
    try:
        archive = zipfile.ZipFile(where)
    except UNREADABLE as error:
        raise BundleError(
            f"'{where}' is neither a folder nor a zip file that can be read ({error}); copy it "
            "again."
        ) from error
    with archive:
        yield _Zip(archive, _folder_in(where, archive))


def _folder_in(where: Path, archive: zipfile.ZipFile) -> str:
    """Say in which folder of a zip file the bundle lies; nothing in it may be dangerous."""
    members = archive.infolist()
    if len(members) > _MOST_NAMES:
        raise BundleError(f"'{where}' holds {len(members)} files; that is no bundle.")
    for member in members:
        fault = _fault(member)
        if fault:
            raise BundleError(
                f"'{where}' holds {member.filename!r}, which {fault}; nothing was unpacked, get "
                "the bundle from who made it."
            )
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise BundleError(f"'{where}' holds two files of one name; zip the bundle again.")
    folders = {name.removesuffix(MANIFEST) for name in names if _is_manifest(name)}
    if len(folders) != 1:
        which = "no" if not folders else "more than one"
        raise BundleError(f"'{where}' holds {which} {MANIFEST}; zip the folder of one bundle.")
    return folders.pop()


def _is_manifest(name: str) -> bool:
    """Whether it is the manifest at the top, or in a folder at the top."""
    *folders, last = name.split("/")
    return last == MANIFEST and len(folders) <= 1


def _fault(member: zipfile.ZipInfo) -> str:
    name = member.filename
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        return "climbs out of its folder"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    return ""
