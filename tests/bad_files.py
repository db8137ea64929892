"""A catalogue of hostile and broken files, made by hand; see `CATALOGUE`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bad_eer import BAD_EER
from tests.bad_mdoc import BAD_MDOCS
from tests.bad_mrc import BAD_MRC, sound
from tests.bad_tiff import BAD_TIFF
from tests.test_mrc import header_bytes

Maker = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class BadFile:
    """One case: how to make it, and what a reader may say of it."""

    name: str
    """What is wrong with it, for the list of tests."""
    file_name: str
    make: Maker
    """Makes the file of the given path, and whatever it needs beside it."""
    reasons: frozenset[str] = field(default_factory=frozenset)
    """Reasons that a reader may give; `sound` where it may give an image."""

    def put_in(self, folder: Path) -> Path:
        """Make it in a folder of its own and give its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file_name
        self.make(path)
        return path

    @property
    def is_image(self) -> bool:
        """Whether it goes to the readers of images, not to that of mdocs."""
        return not self.file_name.endswith(".mdoc")


def _socket(path: Path) -> None:
    # A socket's own path may not be longer than 108 bytes, so it is bound from its folder.
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.fchdir(before)
        os.close(before)


def _sparse_terabyte(path: Path) -> None:
    path.write_bytes(bytes(header_bytes()))
    os.truncate(path, 1 << 40)


def _link_to(target: str) -> Maker:
    return lambda path: path.symlink_to(target)


def _chain_of_links(path: Path) -> None:
    for link in range(60):
        path.with_name(f"link-{link}").symlink_to(f"link-{link + 1}")
    path.symlink_to("link-0")


_NOT_FILES: list[tuple[str, str, Maker, set[str]]] = [
    ("a FIFO", "fifo_001_3.0.mrc", os.mkfifo, {"unreadable"}),
    ("a socket", "socket_001_3.0.mrc", _socket, {"unreadable"}),
    ("a directory", "folder_001_3.0.mrc", Path.mkdir, {"unreadable"}),
    ("a directory named as a movie", "folder_001_3.0.tif", Path.mkdir, {"unreadable"}),
    ("a link to a device", "zero_001_3.0.mrc", _link_to("/dev/zero"), {"unreadable"}),
    ("a link to a full device", "full_001_3.0.eer", _link_to("/dev/full"), {"unreadable"}),
    (
        "a link to a process's memory",
        "memory_001_3.0.mrc",
        _link_to("/proc/self/mem"),
        {"unreadable"},
    ),
    ("a dangling link", "dangling_001_3.0.mrc", _link_to("nowhere"), {"missing"}),
    (
        "a link to itself",
        "loop_001_3.0.mrc",
        lambda path: path.symlink_to(path.name),
        {"unreadable"},
    ),
    ("a chain of too many links", "chain_001_3.0.mrc", _chain_of_links, {"unreadable"}),
    ("a link to its folder", "up_001_3.0.mrc", _link_to("."), {"unreadable"}),
    ("a sparse terabyte", "sparse_001_3.0.mrc", _sparse_terabyte, {"truncated"}),
]

_NAMES = [
    ("a line break in its name", "line\nbreak\r\n_001_3.0.mrc"),
    ("escape codes in its name", "\x1b[31mred\x1b[0m\x07_001_3.0.mrc"),
    ("HTML in its name", "<img src=x onerror=alert(1)>&amp;_001_3.0.mrc"),
    ("bytes that are no text in its name", os.fsdecode(b"\xff\xfe\x80_001_3.0.mrc")),
    ("text that runs backwards in its name", "\u202egnp.\u2066crm_001_3.0.mrc"),
    ("a name of 255 bytes", "n" * 243 + "_001_3.0.mrc"),
    ("a name of 255 bytes in wide letters", "\u6f22" * 80 + "abc_001_3.0.mrc"),
    ("quotes and signs in its name", "a'b\"c\\d{e}f$g`h`%i;j|k&l*m?n_001_3.0.mrc"),
    ("a name of blanks", "   _001_3.0.mrc"),
    ("a name like an option", "-rf --help_001_3.0.mrc"),
    ("a name with a NUL's picture and a tab", "\u2400\t\v_001_3.0.mrc"),
    ("a name with label syntax of Prometheus", 'x"} 1\ny{z="\\"_001_3.0.mrc'),
]


def _catalogue() -> Iterator[BadFile]:
    for name, raw, reasons in BAD_MRC:
        yield BadFile(f"MRC: {name}", "TS_01_001_3.0.mrc", _writer(raw), frozenset(reasons.split()))
    for name, raw, reasons in BAD_TIFF:
        yield BadFile(
            f"TIFF: {name}", "TS_01_001_3.0.tif", _writer(raw), frozenset(reasons.split())
        )
    for name, raw, reasons in BAD_EER:
        yield BadFile(f"EER: {name}", "TS_01_001_3.0.eer", _writer(raw), frozenset(reasons.split()))
    for name, raw in BAD_MDOCS:
        yield BadFile(f"mdoc: {name}", "TS_01.mrc.mdoc", _mdoc_special(_writer(raw)))
    yield BadFile("mdoc: a FIFO", "fifo.mrc.mdoc", _mdoc_special(os.mkfifo))
    yield BadFile("mdoc: a directory", "folder.mrc.mdoc", _mdoc_special(Path.mkdir))
    loop = _mdoc_special(lambda path: path.symlink_to(path.name))
    yield BadFile("mdoc: a link to itself", "loop.mrc.mdoc", loop)
    yield BadFile("mdoc: an endless device", "zero.mrc.mdoc", _mdoc_special(_link_to("/dev/zero")))
    for name, file_name, make, reasons_ in _NOT_FILES:
        yield BadFile(name, file_name, make, frozenset(reasons_))
    for name, file_name in _NAMES:
        # Each is bad inside as well, so that a sentence is made of the name.
        yield BadFile(name, file_name, _writer(lambda: b"\xff" * 2000), frozenset({"header"}))


def _writer(raw: Callable[[], bytes]) -> Maker:
    def write(path: Path) -> None:
        path.write_bytes(raw())

    return write


def _mdoc_special(make: Maker) -> Maker:
    """Put a sound image beside an mdoc that is not."""

    def both(path: Path) -> None:
        path.with_name(path.name.removesuffix(".mdoc")).write_bytes(sound())
        make(path)

    return both


CATALOGUE = tuple(_catalogue())
