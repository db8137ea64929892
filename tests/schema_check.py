"""Checks a message against a JSON Schema file, as far as the shipped ones go (draft 2020-12)."""

from __future__ import annotations

import math
from typing import Any

_KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
_KNOWN = set(
    "$schema $defs $ref title description default type properties required anyOf enum const "
    "minimum maximum items additionalProperties".split()
)


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None) -> list[str]:
    """What is wrong with a value; empty if nothing is. A keyword that is not known fails."""
    root = root or schema
    assert schema.keys() <= _KNOWN, schema.keys() - _KNOWN
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema:
        tried = [faults(value, one, root) for one in schema["anyOf"]]
        return [] if [] in tried else [f"{value!r}: {tried}"]
    found: list[str] = []
    if "const" in schema and value != schema["const"]:
        found.append(f"{value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{value!r} is none of {schema['enum']}")
    return found + _of_kind(value, schema, root)


def _of_kind(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    kind = schema.get("type")
    if kind is None:
        return []
    if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{value!r} is no {kind}"]
    if kind == "object":
        return _of_object(value, schema, root)
    if kind == "array" and isinstance(value, list):
        return [fault for one in value for fault in faults(one, schema["items"], root)]
    if isinstance(value, int | float):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        return [] if low <= value <= high else [f"{value} is outside {low} to {high}"]
    return []


def _of_object(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    found = [f"{name} is missing" for name in schema.get("required", ()) if name not in value]
    fields = schema.get("properties", {})
    others = schema.get("additionalProperties")
    for name, one in value.items():
        if name in fields:
            found += [f"{name}: {fault}" for fault in faults(one, fields[name], root)]
        elif isinstance(others, dict):
            found += [f"{name}: {fault}" for fault in faults(one, others, root)]
    return found
