"""Key files: who may subscribe over the network, and how a subscriber knows the daemon.

A pair is two text files as ZeroMQ's own tools write them: `NAME.key` holds the public key, which
may be given away, and `NAME.key_secret` both keys, for nobody but its owner to read.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import time
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import zmq

from monitor.errors import ConfigError, MonitorError

_FILE_MAX_BYTES = 4096
_LINE = re.compile(r"^\s*(?P<kind>public|secret)-key\s*=\s*\"(?P<key>[^\s\"]{40})\"\s*$", re.M)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_LOOK_AGAIN_S = 1.0
_LOOK_AGAIN_FOR_STRANGER_S = 0.1
MAKE = "icewatch keys make"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A secret key and the public key that belongs to it, as 40 characters of Z85."""

    public: bytes
    secret: bytes


def make_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a new pair of key files and give their paths, the public one first.

    Nothing is replaced: raises `ConfigError` where one of the files is there already.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"'{name}' is no name for a key; use letters, digits, '-', '_' and '.'")
    public_path, secret_path = folder / f"{name}.key", folder / f"{name}.key_secret"
    public, secret = (key.decode() for key in zmq.curve_keypair())
    about = "#   ZeroMQ CURVE certificate, made by icewatch\n"
    said = f'metadata\ncurve\n    public-key = "{public}"\n'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Both tools that are in use otherwise leave secrets readable to everybody.
        _write_new(secret_path, f'{about}{said}    secret-key = "{secret}"\n', 0o600)
        _write_new(public_path, f"{about}{said}", 0o644)
    except FileExistsError as error:
        raise ConfigError(
            f"'{error.filename}' is there already; choose another name, or move it away"
        ) from error
    except OSError as error:
        raise MonitorError(f"'{error.filename}' cannot be written ({error.strerror})") from error
    return public_path, secret_path


def _write_new(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, mode)  # whatever the umask
        file.write(text)


def load_pair(path: Path, key: str) -> KeyPair:
    """Read a secret key file; raises `ConfigError` that begins with `key`, the setting.

    A file that others than its owner may read or write is refused.
    """
    with _opened(path, key) as descriptor:
        mode = stat.S_IMODE(os.fstat(descriptor.fileno()).st_mode)
        found = _keys_in(descriptor.read(_FILE_MAX_BYTES))
        if "secret" not in found:
            raise ConfigError(f"{key}: '{path}' holds no secret key; name a NAME.key_secret file")
        if mode & 0o077:
            raise ConfigError(
                f"{key}: '{path}' is open to others than its owner (mode {mode:04o}); run "
                f"`chmod 600 {shlex.quote(str(path))}`, and if others could read it, make a new "
                f"one with `{MAKE}`"
            )
    try:
        public = zmq.curve_public(found["secret"])
    except (ValueError, zmq.ZMQError) as error:
        raise ConfigError(
            f"{key}: '{path}' holds no valid secret key; make one with `{MAKE}`"
        ) from error
    return KeyPair(public, found["secret"])


def load_public(path: Path, key: str) -> bytes:
    """Read a public key file; raises `ConfigError` that begins with `key`, the setting."""
    with _opened(path, key) as descriptor:
        found = _keys_in(descriptor.read(_FILE_MAX_BYTES))
    if "public" not in found:
        raise ConfigError(f"{key}: '{path}' holds no public key; name a NAME.key file")
    return found["public"]


def _opened(path: Path, key: str) -> BufferedReader:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{key}: '{path}' is no file; name a key file of `{MAKE}`")
        return path.open("rb")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{key}: there is no file '{path}'; make one with `{MAKE}`, or name another"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{key}: '{path}' cannot be read ({error.strerror}); give it to the user that "
            "icewatch runs as"
        ) from error


def _keys_in(content: bytes) -> dict[str, bytes]:
    text = content.decode("ascii", "replace")
    return {match["kind"]: match["key"].encode() for match in _LINE.finditer(text)}


class AllowedKeys:
    """The public keys in a folder; looked at again as it changes, so that nothing need restart.

    Used by one thread alone.
    """

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is read when it is first asked for."""
        self._folder = folder
        self._names: dict[bytes, str] = {}
        self._read_s = float("-inf")

    def name_of(self, public: bytes) -> str | None:
        """Give the name of the file that holds a key, None for a stranger."""
        known = public in self._names
        if time.monotonic() - self._read_s > (
            _LOOK_AGAIN_S if known else _LOOK_AGAIN_FOR_STRANGER_S
        ):
            self.read()
        return self._names.get(public)

    def read(self) -> list[str]:
        """Read the folder again; gives a sentence on each file that is of no use."""
        names: dict[bytes, str] = {}
        useless = []
        for path in _key_files(self._folder):
            try:
                names[load_public(path, path.name)] = path.stem
            except ConfigError as error:
                useless.append(str(error))
        self._names = names
        self._read_s = time.monotonic()
        return useless


def _key_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".key")
    except OSError:
        return []  # nobody is let in until it is there again


def check_allowed(folder: Path, key: str) -> None:
    """Raise `ConfigError` unless a folder can say who may subscribe."""
    try:
        mode = folder.stat().st_mode
        next(folder.iterdir(), None)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{key}: there is no folder '{folder}'; make it, and put the NAME.key file of each "
            "program that may subscribe into it"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{key}: '{folder}' cannot be read as a folder ({error.strerror}); name one with the "
            "NAME.key file of each program that may subscribe"
        ) from error
    if mode & stat.S_IWOTH:
        raise ConfigError(
            f"{key}: anybody on this computer may write to '{folder}' and let himself in; run "
            f"`chmod o-w {shlex.quote(str(folder))}`"
        )
