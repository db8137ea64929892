"""Which bundle is to serve and which one does: two small files in the store, each with one writer.

The commands write `choice.json`, the daemon `serving.json`, so that neither can undo the other's
word. Both are replaced at once and whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from engines.bundle_store import DEFAULT, BundleStore, sync_directory
from monitor.errors import MonitorError

CHOICE, SERVING = "choice.json", "serving.json"
_MOST_BEFORE = 20
_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Choice:
    """What somebody asked for last."""

    number: int = 0
    """Raised by each request, so that the daemon's answer can be told from an older one."""
    active: str = DEFAULT
    before: tuple[str, ...] = ()
    """What was active before, the latest last."""
    shadow: str = ""
    """Which bundle reads beside the active one; empty: none."""
    shadow_number: int = 0
    """Raised each time a shadow is asked for, or sent away."""

    def activated(self, ref: str, *, was_refused: bool) -> Choice:
        """Ask for a bundle; one that was refused never was active, and is not gone back to."""
        before = self.before if was_refused or ref == self.active else (*self.before, self.active)
        return replace(self, number=self.number + 1, active=ref, before=before[-_MOST_BEFORE:])

    def rolled_back(self) -> Choice:
        """Ask for what was active before; raises `MonitorError` where nothing was."""
        if not self.before:
            raise MonitorError(
                f"nothing was active before {self.active}; name a bundle to icewatch bundle "
                "activate"
            )
        *before, ref = self.before
        return replace(self, number=self.number + 1, active=ref, before=tuple(before))

    def without(self, ref: str) -> Choice:
        """Forget a bundle that is removed."""
        return replace(self, before=tuple(one for one in self.before if one != ref))

    def shadowed(self, ref: str) -> Choice:
        """Ask for a shadow; empty: for none."""
        return replace(self, shadow=ref, shadow_number=self.shadow_number + 1)


@dataclass(frozen=True, slots=True)
class Serving:
    """What the daemon did about it."""

    serves: str = DEFAULT
    """The bundle that read the last tilts; the next start begins with it."""
    seen: int = 0
    """The newest `Choice.number` that was noticed."""
    settled: int = 0
    """The newest that was dealt with: taken over, or refused."""
    refused: str = ""
    """Why the choice that was settled last does not serve; empty where it does."""
    lost: str = ""
    """Why another bundle serves than the one that served last; empty where all is well."""
    loading: str = ""
    """What is being loaded right now: found at a start, the daemon died of it, or was stopped."""
    deaths: dict[str, int] = field(default_factory=dict)
    """How often that happened in a row, by bundle."""
    shadow_settled: int = 0
    shadow_off: str = ""
    """Why the shadow that was asked for does not read; empty where it does."""


Word = TypeVar("Word", Choice, Serving)


def read_choice(store: Path) -> Choice:
    """Read what was asked for; raises `MonitorError` for a file that is damaged."""
    path = store / CHOICE
    try:
        return _read(path, _choice)
    except PermissionError as error:
        raise MonitorError(
            f"'{path}' cannot be read ({error.strerror}); run this as icewatch's user"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise MonitorError(
            f"'{path}' cannot be read ({error}); remove it, and activate a bundle again"
        ) from error


def read_serving(store: Path) -> Serving:
    """Read what the daemon left; one that is damaged says nothing."""
    try:
        return _read(store / SERVING, _serving)
    except (ValueError, TypeError, KeyError, AttributeError, OSError):
        return Serving()


def serving_bundle(state: Path, configured: str = DEFAULT) -> str:
    """Name the bundle that a daemon reads with: that of its settings, else the one it serves."""
    if configured != DEFAULT:
        return configured
    store = BundleStore(state)
    ref = read_serving(store.directory).serves
    return DEFAULT if ref == DEFAULT else str(store.place(ref))


def _choice(raw: dict[str, Any]) -> Choice:
    found = Choice(**{**raw, "before": tuple(raw["before"])})
    _check_kinds(found, Choice())
    return found


def _serving(raw: dict[str, Any]) -> Serving:
    found = Serving(**raw)
    _check_kinds(found, Serving())
    return found


def _check_kinds(found: Choice | Serving, usual: Choice | Serving) -> None:
    for one in fields(found):
        if type(getattr(found, one.name)) is not type(getattr(usual, one.name)):
            raise ValueError(f"{one.name} in it is of the wrong kind")


def _read(path: Path, parse: Callable[[dict[str, Any]], Word]) -> Word:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return parse({"before": ()}) if path.name == CHOICE else parse({})
    with os.fdopen(file, "rb") as stream:
        return parse(json.loads(stream.read(_MAX_BYTES)))


def write_word(store: Path, word: Choice | Serving) -> None:
    """Write one of the two files at once and whole; raises OSError."""
    path = store / (CHOICE if isinstance(word, Choice) else SERVING)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(word), indent=1) + "\n")
            stream.flush()
            if os.geteuid() == 0:
                owner = store.stat()
                os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(stream.fileno())
        os.replace(new, path)  # noqa: PTH105  atomic, and says so
        sync_directory(store)
    finally:
        with suppress(OSError):
            new.unlink()
