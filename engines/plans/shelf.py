"""Plans with their records in an open folder: put, take after every check, look at all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from engines.plans.errors import PlanError
from engines.plans.folder import RECORD, Folder
from engines.plans.key import PlanKey
from engines.plans.record import KINDS, MOST_BYTES, Kind, Record, make_record, read_record, stem

MOST_PLAN_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a plan folder, and whether it may be used."""

    name: str
    record: Record | None
    """None where it cannot be read or was changed."""
    fault: str
    """What is wrong with it; empty: nothing."""
    size_bytes: int
    changed_s: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder whose records are sealed with a secret (empty: none)."""

    folder: Folder
    secret: bytes

    def put(self, key: PlanKey, kind: Kind, content: bytes, bundle: str) -> str:
        """Write a file, and its record last: without one it is nothing; raises `PlanError`."""
        name = stem(key, kind)
        record = make_record(key, kind, content, bundle, self.secret)
        self.folder.remove(name + RECORD)
        self.folder.write(name, content)
        self.folder.write(name + RECORD, record.rendered())
        return name

    def take(self, name: str) -> tuple[Record, bytes]:
        """Read a file after all checks; raises `FileNotFoundError` and `PlanError`.

        Owner, mode and links of both files; the record's form and seal; that the file is named
        for the record's key; size and SHA-256.
        """
        record = self.record(name)
        try:
            content = self.folder.read(name, min(MOST_PLAN_BYTES, record.size_bytes))
        except FileNotFoundError:
            raise PlanError("its record is there and the file is not.", "damaged") from None
        if len(content) != record.size_bytes:
            raise PlanError(
                f"it is cut off ({len(content)} of {record.size_bytes} bytes).", "damaged"
            )
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise PlanError("its bytes changed (SHA-256 differs).", "damaged")
        return record, content

    def record(self, name: str) -> Record:
        """Read and check the record of a file; raises `FileNotFoundError` and `PlanError`."""
        try:
            content = self.folder.read(name + RECORD, MOST_BYTES)
        except FileNotFoundError:
            if self.folder.has(name):
                raise PlanError("its record is missing.", "damaged") from None
            raise
        record = read_record(content)
        if not record.is_sealed_with(self.secret):
            raise PlanError("its record was not sealed here.", "foreign")
        if stem(record.key, record.kind) != name:
            raise PlanError("it lies under the name of another plan.", "foreign")
        return record

    def remove(self, name: str) -> None:
        """Delete a file and its record, the record first."""
        self.folder.remove(name + RECORD)
        self.folder.remove(name)

    def names(self) -> list[str]:
        """Name all files with or without records, and records without files."""
        known = {one.removesuffix(RECORD) for one in self.folder.names()}
        return sorted(one for one in known if one.rpartition(".")[2] in KINDS)

    def survey(self) -> list[Found]:
        """Check every file."""
        return [self._look(name) for name in self.names()]

    def _look(self, name: str) -> Found:
        record, fault = None, ""
        try:
            record = self.record(name)
            self.take(name)
        except FileNotFoundError:
            fault = "it went away meanwhile"
        except PlanError as error:
            fault = str(error).rstrip(".")
        size, changed = self.folder.size_bytes(name), self.folder.changed_s(name)
        return Found(name, record, fault, size, changed)
