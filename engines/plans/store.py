"""The daemon's cache of plans: private, sealed with its own secret, small.

A plan that fails any check is deleted and reported, and the caller builds another. The secret lies
beside the folder, not in it: a folder that is copied to another machine is worth nothing there.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from engines.plans.errors import PlanError
from engines.plans.folder import TEMPORARY, Folder, Rules, opened, private
from engines.plans.key import PlanKey
from engines.plans.record import KINDS, Kind, stem
from engines.plans.shelf import Found, Shelf

MOST_PLANS = 4
MOST_BYTES = 1 << 30
"""Of all files of a kind together; the newest is kept whatever its size."""

_SECRET_BYTES = 32
_TRIAL = ".trial"
_STALE_S = 3600.0

Report = Callable[[str], None]
"""Takes one sentence that says what was thrown away and why."""


class PlanStore:
    """Keeps plans from one start to the next; safe to use from several processes.

    Nothing is opened before the first call. A folder with another owner or wider mode is refused
    by every method with a `PlanError` of reason `directory` that says the remedy.
    """

    def __init__(
        self, directory: Path, report: Report = lambda _: None, *, most_plans: int = MOST_PLANS
    ) -> None:
        self.directory = directory
        self._report = report
        self._most_plans = most_plans

    @property
    def secret_file(self) -> Path:
        """The file with the secret: readable by us alone."""
        return self.directory.with_name(self.directory.name + ".secret")

    def load(self, key: PlanKey, kind: Kind = "plan") -> bytes | None:
        """Give the bytes that were kept for exactly this key, or None: then build them.

        What is damaged, foreign, or was on trial when the process died is deleted and reported.
        Raises `PlanError` for the folder alone.
        """
        name = stem(key, kind)
        try:
            with opened(self.directory, private()) as folder:
                return self._take(Shelf(folder, self._secret()), name, key)
        except FileNotFoundError:
            return None

    def _take(self, shelf: Shelf, name: str, key: PlanKey) -> bytes | None:
        try:
            record, content = shelf.take(name)
            if record.key != key:
                raise PlanError("it was made for another card, library or bundle.", "foreign")
            if shelf.folder.has(name + _TRIAL):
                raise PlanError("icewatch died while it tried it.", "damaged")
        except PlanError as error:
            self._remove(shelf, name, str(error))
            return None
        return content

    def put(self, key: PlanKey, content: bytes, bundle: str = "", kind: Kind = "plan") -> None:
        """Keep bytes for a key and drop what is old; `bundle` is for people to read.

        Raises `PlanError` where they cannot be kept; they can be used all the same.
        """
        with opened(self.directory, private(), create=True) as folder:
            shelf = Shelf(folder, self._secret())
            folder.remove(stem(key, kind) + _TRIAL)
            newest = shelf.put(key, kind, content, bundle)
            for one in KINDS:
                self._prune(shelf, one, newest)
            _sweep(folder)

    def discard(self, key: PlanKey, why: str, kind: Kind = "plan") -> None:
        """Throw away what failed in use (not deserialised, wrong numbers): it is built anew."""
        try:
            with opened(self.directory, private()) as folder:
                self._remove(Shelf(folder, b""), stem(key, kind), why)
        except FileNotFoundError:
            return

    def kept_since_s(self, key: PlanKey) -> float:
        """When the plan of a key was put here, in seconds since 1970; 0 where there is none."""
        try:
            with opened(self.directory, private()) as folder:
                return folder.changed_s(stem(key, "plan"))
        except FileNotFoundError:
            return 0.0

    def begin_trial(self, key: PlanKey) -> None:
        """Note that a plan is about to be loaded: should the process die of it, it is dropped."""
        with opened(self.directory, private(), create=True) as folder:
            folder.write(stem(key, "plan") + _TRIAL, b"")

    def died_of(self, key: PlanKey) -> bool:
        """Whether a trial of this plan, wherever it came from, never came to its end."""
        try:
            with opened(self.directory, private()) as folder:
                return folder.has(stem(key, "plan") + _TRIAL)
        except FileNotFoundError:
            return False

    def end_trial(self, key: PlanKey) -> None:
        """Note that a plan was loaded and gave right answers."""
        with opened(self.directory, private(), create=True) as folder:
            folder.remove(stem(key, "plan") + _TRIAL)

    def survey(self) -> list[Found]:
        """Check everything in it and change nothing; root sees it as the owner would.

        Raises `FileNotFoundError` and `PlanError` for the folder.
        """
        owner = self.directory.stat().st_uid if os.geteuid() == 0 else None
        with opened(self.directory, private(owner)) as folder:
            return Shelf(folder, self._read_secret(private(owner))[0]).survey()

    def _secret(self) -> bytes:
        """Read the secret; one that is missing, cut or open to others is replaced.

        With a new secret all that was kept is foreign, and is built anew.
        """
        found, fault = self._read_secret(private())
        if fault:
            self._report(f"The secret of the plans in '{self.directory}' is new: {fault}")
        if fault is not None:
            with opened(self.directory.parent, private(), files_only=True) as folder:
                folder.write(self.secret_file.name, found)
        return found

    def _read_secret(self, rules: Rules) -> tuple[bytes, str | None]:
        """Give the secret and None, or a new one and what is wrong with the old ("": no old)."""
        fault = ""
        with opened(self.directory.parent, rules, files_only=True) as folder:
            try:
                found = folder.read(self.secret_file.name, _SECRET_BYTES)
                if len(found) == _SECRET_BYTES:
                    return found, None
                fault = "it is cut off."
            except FileNotFoundError:
                pass
            except PlanError as error:
                fault = str(error)
        return secrets.token_bytes(_SECRET_BYTES), fault

    def _remove(self, shelf: Shelf, name: str, why: str) -> None:
        shelf.remove(name)
        shelf.folder.remove(name + _TRIAL)
        self._report(f"The plan {name} in '{self.directory}' was thrown away: {why}")

    def _prune(self, shelf: Shelf, kind: Kind, newest: str) -> None:
        folder = shelf.folder
        names = [one for one in shelf.names() if one.endswith(f".{kind}") and one != newest]
        names.sort(key=folder.changed_s, reverse=True)
        kept, total = (1, folder.size_bytes(newest)) if newest.endswith(f".{kind}") else (0, 0)
        for name in names:
            kept, total = kept + 1, total + folder.size_bytes(name)
            if kept > self._most_plans or total > MOST_BYTES:
                shelf.remove(name)
                folder.remove(name + _TRIAL)


def _sweep(folder: Folder) -> None:
    """Remove what a process left that died while it wrote."""
    for name in folder.names():
        if name.startswith(TEMPORARY) and time.time() - folder.changed_s(name) > _STALE_S:
            folder.remove(name)
