"""Numbers as Grafana shows them: units, words in place of numbers, colours by level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GREEN = "#73BF69"
"""Grafana's own, where nothing says otherwise."""


def shown(value: float, fields: Mapping[str, Any]) -> str:
    """Write a number with its unit, or the word that stands for it."""
    word = _mapped(value, fields)
    if word and word.get("text"):
        return str(word["text"])
    return _with_unit(value, str(fields.get("unit", "none")), fields.get("decimals"))


def colour_of(value: float, fields: Mapping[str, Any]) -> str:
    """Give the colour that a number has."""
    word = _mapped(value, fields)
    if word and word.get("color"):
        return str(word["color"])
    colour = fields.get("color") or {}
    if colour.get("mode") == "fixed":
        return str(colour["fixedColor"])
    steps = (fields.get("thresholds") or {}).get("steps") or [{"value": None, "color": GREEN}]
    reached = [step for step in steps if step.get("value") is None or value >= step["value"]]
    return str(reached[-1]["color"])


def _mapped(value: float, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for mapping in fields.get("mappings") or ():
        found: Mapping[str, Any] | None = mapping["options"].get(f"{value:g}")
        if found is not None:
            return found
    return None


def _with_unit(value: float, unit: str, decimals: int | None) -> str:
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f}%"
    if unit == "s":
        return _duration(value, decimals)
    if unit == "bytes":
        return _bytes(value)
    if unit == "celsius":
        return f"{value:.0f} °C"
    assert unit == "none", unit
    return f"{value:.{decimals}f}" if decimals is not None else f"{value:.3g}"


def _duration(value_s: float, decimals: int | None) -> str:
    for unit, size_s in (("d", 86_400), ("hours", 3600), ("mins", 60), ("s", 1)):
        if abs(value_s) >= size_s:
            return f"{value_s / size_s:.{1 if decimals is None else decimals}f} {unit}"
    return f"{value_s * 1000:.0f} ms" if value_s else "0 s"


def _bytes(value: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"
