"""The record beside a plan: its key, its hash, and a seal over both.

In a cache the seal is a keyed hash (HMAC-SHA-256, RFC 2104) with a secret of this daemon: a plan
and its record that come from elsewhere, both whole, are refused. In a folder that was built ahead
there is no common secret, and the seal has an empty key: it shows damage and careless changes, not
forgery. What protects such a folder is who can write there (`engines.plans.folder.shared`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import Field, ValidationError

from engines.plans.errors import PlanError
from engines.plans.key import Count, Frozen, Hash, PlanKey, Text, canonical

SCHEMA: Final = "icewatch.plan/1"
MOST_BYTES = 64 << 10
NO_SECRET = b""

Kind = Literal["plan", "timings", "runtime"]
"""A plan; what measurements of builds taught; what a runtime compiled of a plan on its card."""
KINDS: tuple[Kind, ...] = ("plan", "timings", "runtime")


class Record(Frozen):
    """What a file of a plan folder is."""

    record_schema: Literal["icewatch.plan/1"] = Field(default=SCHEMA, alias="schema")
    kind: Kind
    bundle: Text
    """Name and version of the bundle, for people."""
    created: Text
    """UTC, ISO 8601."""
    key: PlanKey
    sha256: Hash
    size_bytes: Count
    seal: Hash

    def rendered(self) -> bytes:
        """Write it in the only form that is read again."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1).encode() + b"\n"

    def is_sealed_with(self, secret: bytes) -> bool:
        """Whether the seal was made with this secret over just this record."""
        return hmac.compare_digest(self.seal, _seal(self, secret))


def stem(key: PlanKey, kind: Kind) -> str:
    """Name the file that holds what belongs to a key; its record is called the same and .json."""
    return f"{key.digest[:32]}.{kind}"


def make_record(key: PlanKey, kind: Kind, content: bytes, bundle: str, secret: bytes) -> Record:
    """Describe and seal a file."""
    unsealed = Record(
        kind=kind,
        bundle=bundle,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        key=key,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        seal="0" * 64,
    )
    return unsealed.model_copy(update={"seal": _seal(unsealed, secret)})


def read_record(content: bytes) -> Record:
    """Read a record; raises `PlanError` for anything but what `rendered` wrote."""
    try:
        record = Record.model_validate_json(content)
        if record.rendered() == content:
            return record
    except ValidationError:
        pass
    raise PlanError("its record was changed, or is of another version of icewatch.", "damaged")


def _seal(record: Record, secret: bytes) -> str:
    content = canonical(record.model_dump(mode="json", by_alias=True, exclude={"seal"}))
    return hmac.new(secret, content, hashlib.sha256).hexdigest()
