"""Bundles that were installed beside a daemon: `NAME@VERSION/` each, whole or not there at all.

What is copied lies in a folder of another name until every check has passed and all of it is on
the disk; one rename then makes it a bundle. What a death or a full disk leaves behind is swept away
by the next command.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engines.bundle import DEFAULT_DIRECTORY, MANIFEST, Bundle, Manifest, read_manifest
from engines.bundle_lineage import lineage_of, refuse_worse
from engines.bundle_package import UNREADABLE, Package, opened_package
from engines.bundle_proof import Proof
from engines.bundle_weights import check_weights
from engines.errors import BundleError

FOLDER = "bundles"
"""Name of the store below a state directory."""
DEFAULT = "default"
"""Stands for the bundle that is shipped; no other may have its name."""
_UNFINISHED = ".unfinished-"
_LOCK = ".lock"
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_MOST_BYTES = 2 << 30
_MOST_MANIFEST_BYTES = 4 << 20
_CHUNK = 1 << 20

Prove = Callable[[Path], str | None]
"""Says in one sentence why the bundle in a folder may not serve; None if it may."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An installed bundle; without a manifest where it is damaged."""

    ref: str
    """NAME@VERSION."""
    directory: Path
    size_bytes: int
    manifest: Manifest | None
    fault: str = ""
    """What is wrong with it, in one sentence."""


def prove_apart(directory: Path) -> str | None:
    """Prove a bundle in a process of its own."""
    return Proof(directory).wait()


class BundleStore:
    """The bundles below one state directory; safe to use from several processes."""

    def __init__(self, state: Path) -> None:
        """Take the state directory; nothing is looked at yet."""
        self._state = state
        self.directory = state / FOLDER

    def refs(self) -> list[str]:
        """Name what is installed, in order; raises `BundleError`."""
        try:
            names = [entry.name for entry in os.scandir(self.directory) if entry.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BundleError(
                f"'{self.directory}' cannot be read ({error.strerror}); run this as the user that "
                "icewatch runs as."
            ) from error
        return sorted(name for name in names if _is_ref(name))

    def listed(self) -> list[Kept]:
        """Tell of every installed bundle, sound or not; weights are not read."""
        return [self._kept(ref) for ref in self.refs()]

    def _kept(self, ref: str) -> Kept:
        path = self.directory / ref
        try:
            size = sum(entry.stat().st_size for entry in os.scandir(path))
            manifest = self.manifest(ref)
        except (BundleError, OSError) as error:
            return Kept(ref, path, 0, None, str(error))
        return Kept(ref, path, size, manifest)

    def manifest(self, ref: str) -> Manifest:
        """Read the manifest of an installed bundle, in a folder that is ours; no other file.

        Raises `BundleError`.
        """
        if ref not in self.refs():
            raise BundleError(f"{ref} is not installed; install it with icewatch bundle install.")
        path = self.directory / ref
        self._check_private(path)
        manifest = read_manifest(path / MANIFEST)
        if ref_of(manifest) != ref:
            raise BundleError(
                f"'{path}' holds {ref_of(manifest)}; remove it and install the bundle again."
            )
        return manifest

    def load(self, ref: str) -> Bundle:
        """Give an installed bundle, or the shipped one, with every file checked.

        Raises `BundleError`.
        """
        if ref == DEFAULT:
            return Bundle.load(DEFAULT)
        self.manifest(ref)
        return Bundle.load(self.directory / ref)

    def place(self, ref: str) -> Path:
        """Say in which folder a bundle lies."""
        return DEFAULT_DIRECTORY if ref == DEFAULT else self.directory / ref

    def find(self, words: str) -> str:
        """Complete NAME or NAME@VERSION; raises `BundleError` where that names none, or several."""
        refs = self.refs()
        if words == DEFAULT or words in refs:
            return words
        found = [ref for ref in refs if ref.partition("@")[0] == words]
        if len(found) == 1:
            return found[0]
        if found:
            raise BundleError(f"'{words}' has several versions; name one of {', '.join(found)}.")
        known = ", ".join((DEFAULT, *refs))
        raise BundleError(f"'{words}' is not installed; installed are {known}.")

    def install(
        self, source: Path, *, even_if_worse: bool = False, prove: Prove = prove_apart
    ) -> tuple[str, bool]:
        """Take a bundle in; gives its name and whether it is new here.

        Raises `BundleError` with one sentence; then all is as it was before.
        """
        with opened_package(source) as package, self.locked():
            temporary = self.directory / f"{_UNFINISHED}{secrets.token_hex(8)}"
            try:
                temporary.mkdir(0o700)
                return self._take_in(source, package, temporary, even_if_worse, prove)
            except BundleError as error:
                raise BundleError(_shown(str(error), temporary, source) + ".") from error
            except OSError as error:
                raise self._unusable(error) from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _take_in(
        self, source: Path, package: Package, temporary: Path, even_if_worse: bool, prove: Prove
    ) -> tuple[str, bool]:
        manifest = self._copy_manifest(source, package, temporary)
        ref = ref_of(manifest)
        if ref in self.refs():
            self._refuse_other(ref, temporary)
            return ref, False
        lineage_of(manifest)
        if not even_if_worse:
            refuse_worse(manifest)
        for name, expected in manifest.files.items():
            _copy(source, package, name, temporary / name, expected.bytes, expected.sha256)
        check_weights(Bundle.load(temporary))
        why_not = prove(temporary)
        if why_not:
            raise BundleError(f"{ref} is not installed: {why_not}.")
        self._own(temporary)
        sync_directory(temporary)
        temporary.rename(self.directory / ref)
        sync_directory(self.directory)
        return ref, True

    def _copy_manifest(self, source: Path, package: Package, temporary: Path) -> Manifest:
        path = temporary / MANIFEST
        _copy(source, package, MANIFEST, path, None, None)
        manifest = read_manifest(path)
        for key in ("name", "version"):
            word = getattr(manifest, key)
            if not _WORD.fullmatch(word):
                raise BundleError(
                    f"'{source}': {key}: {word!r} is no name to install under; export it again "
                    "with letters, digits, '.', '_', '+' and '-' alone, 64 at most."
                )
        if manifest.name == DEFAULT:
            raise BundleError(
                f"'{source}': name: '{DEFAULT}' belongs to the bundle that comes with icewatch; "
                "export it under another name."
            )
        if sum(one.bytes for one in manifest.files.values()) > _MOST_BYTES:
            raise BundleError(f"'{source}' wants more than {_MOST_BYTES >> 30} GB; shrink it.")
        return manifest

    def _refuse_other(self, ref: str, temporary: Path) -> None:
        """Let a bundle be installed twice only where it is the same."""
        same = (temporary / MANIFEST).read_bytes() == (self.directory / ref / MANIFEST).read_bytes()
        if not same:
            raise BundleError(
                f"{ref} is installed already and is another one; raise the version, or remove it "
                f"with icewatch bundle remove {ref}."
            )
        self.load(ref)

    def remove(self, ref: str) -> None:
        """Remove an installed bundle, at once and whole; to be called under `locked`."""
        gone = self.directory / f"{_UNFINISHED}{secrets.token_hex(8)}"
        try:
            (self.directory / ref).rename(gone)
            sync_directory(self.directory)
        except OSError as error:
            raise self._unusable(error) from error
        shutil.rmtree(gone, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands out; sweeps away what one that died left. Raises `BundleError`."""
        lock = self._open_lock()
        try:
            _hold(lock, self.directory)
            for path in self.directory.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(path, ignore_errors=True)
            yield
        finally:
            os.close(lock)

    def _open_lock(self) -> int:
        if not self._state.is_dir():
            raise BundleError(
                f"The state directory '{self._state}' is not there; start icewatch once, which "
                "makes it."
            )
        try:
            with suppress(FileExistsError):
                self.directory.mkdir(0o700)
                self._own(self.directory)
            self._check_private(self.directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(self.directory / _LOCK, flags, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        self.own_file(lock)
        return lock

    def own_file(self, descriptor: int) -> None:
        """Give a file that root made to whoever owns the state directory."""
        if os.geteuid() == 0:
            owner = self._state.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)

    def _own(self, directory: Path) -> None:
        if os.geteuid() == 0:
            owner = self._state.stat()
            for path in (directory, *directory.iterdir()):
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def _check_private(self, path: Path) -> None:
        """Refuse a folder that somebody else may write to: a network decides on acquisition."""
        found = path.stat(follow_symlinks=False)
        allowed = {0, os.geteuid(), self._state.stat().st_uid}
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in allowed or found.st_mode & 0o022:
            raise BundleError(
                f"'{path}' may be written to by others than icewatch; see who changed it, then "
                f"chown and chmod -R go= it."
            )

    def _unusable(self, error: OSError) -> BundleError:
        why = error.strerror or str(error)
        return BundleError(
            f"'{self.directory}' cannot be written to ({why}), and nothing was changed; make room, "
            "or run this as the user that icewatch runs as."
        )


def _hold(lock: int, directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BundleError(
            f"Another icewatch bundle command works in '{directory}'; wait for its end."
        ) from error


def ref_of(manifest: Manifest) -> str:
    """Name a bundle as the store does."""
    return f"{manifest.name}@{manifest.version}"


def _is_ref(name: str) -> bool:
    words = name.split("@")
    return len(words) == 2 and all(_WORD.fullmatch(word) for word in words)


def _shown(sentence: str, temporary: Path, source: Path) -> str:
    """Speak of what a person gave, not of where it was copied to."""
    return sentence.replace(str(temporary), str(source)).rstrip(".")


def _copy(
    source: Path,
    package: Package,
    name: str,
    to: Path,
    size: int | None,
    sha256: str | None,
) -> None:
    """Copy one file of a package onto the disk, and see that it is what was promised."""
    try:
        file = package.open(name)
    except (KeyError, *UNREADABLE) as error:
        why = getattr(error, "strerror", "") or "it is not there"
        raise BundleError(
            f"'{source}': {name} cannot be read ({why}); copy the whole bundle again."
        ) from error
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with file, os.fdopen(descriptor, "wb") as copy:
        most = _MOST_MANIFEST_BYTES if size is None else size
        digest, copied = _pour(source, name, file, copy, most)
        copy.flush()
        os.fsync(copy.fileno())
    if size is not None and (copied, digest) != (size, sha256):
        raise BundleError(
            f"'{source}': {name} is not what {MANIFEST} says (size or SHA-256 differ); copy the "
            "whole bundle again."
        )


def _pour(source: Path, name: str, file: IO[bytes], copy: IO[bytes], limit: int) -> tuple[str, int]:
    digest, copied = hashlib.sha256(), 0
    while copied <= limit:
        try:
            chunk = file.read(_CHUNK)
        except UNREADABLE as error:
            raise BundleError(
                f"'{source}': {name} cannot be read ({error}); copy the whole bundle again."
            ) from error
        if not chunk:
            break
        digest.update(chunk)
        copied += len(chunk)
        copy.write(chunk)
    return digest.hexdigest(), copied


def sync_directory(directory: Path) -> None:
    """Have the disk keep what was made, renamed or removed in a folder; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
