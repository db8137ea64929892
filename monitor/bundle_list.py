"""What `icewatch bundle list` shows: what is installed, where it comes from, and its part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from engines.bundle import DEFAULT_DIRECTORY, MANIFEST, Manifest, read_manifest
from engines.bundle_lineage import Lineage, lineage_of
from engines.bundle_store import DEFAULT, Kept
from engines.errors import BundleError
from monitor.bundle_actions import Place
from monitor.bundle_choice import Choice, Serving, read_choice, read_serving
from monitor.errors import MonitorError
from monitor.screen import console


@dataclass(frozen=True, slots=True)
class _Row:
    kept: Kept
    part: str
    lineage: Lineage


def show_bundles(place: Place, *, as_json: bool) -> None:
    """Print a line for each bundle; raises `MonitorError`."""
    choice, serving = read_choice(place.store.directory), read_serving(place.store.directory)
    try:
        kept = [_shipped(), *place.store.listed()]
    except BundleError as error:
        raise MonitorError(str(error).rstrip(".")) from error
    rows = [_Row(one, _part(one.ref, choice, serving, place), _lineage(one)) for one in kept]
    if as_json:
        typer.echo(json.dumps({"bundles": [_told(row) for row in rows]}, indent=1))
        return
    console().print(_table(rows))
    for sentence in _remarks(rows, serving, place):
        typer.echo(sentence)


def _shipped() -> Kept:
    size = sum(path.stat().st_size for path in DEFAULT_DIRECTORY.iterdir())
    manifest = read_manifest(DEFAULT_DIRECTORY / MANIFEST)
    return Kept(DEFAULT, DEFAULT_DIRECTORY, size, manifest)


def _part(ref: str, choice: Choice, serving: Serving, place: Place) -> str:
    if place.configured != DEFAULT:
        return ""
    parts = []
    if ref == serving.serves:
        parts.append("active")
    elif ref == choice.active:
        parts.append(_why_not(choice, serving))
    if ref == choice.shadow:
        parts.append("shadow off" if serving.shadow_off else "shadow")
    return ", ".join(parts)


def _why_not(choice: Choice, serving: Serving) -> str:
    if serving.settled < choice.number:
        return "asked for"
    return "refused" if serving.refused else "unusable"


def _lineage(kept: Kept) -> Lineage:
    try:
        return lineage_of(kept.manifest) if kept.manifest else Lineage()
    except BundleError:
        return Lineage()


def _table(rows: list[_Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("bundle", "version", "part", "made from", "error before", "now", "tilts", "MB"):
        right = heading in ("error before", "now", "tilts", "MB")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for row in rows:
        parent, figures = row.lineage.parent, row.lineage.held_out
        name, version = _name(row.kept.ref, row.kept.manifest)
        table.add_row(
            escape(name),
            escape(version),
            row.part or ("damaged" if row.kept.fault else ""),
            escape(f"{parent.name}@{parent.version}") if parent else "-",
            f"{figures.before.mean_absolute_error:.2f}" if figures else "-",
            f"{figures.after.mean_absolute_error:.2f}" if figures else "-",
            str(figures.after.tilts) if figures else "-",
            f"{row.kept.size_bytes / 1e6:.1f}",
        )
    return table


def _name(ref: str, manifest: Manifest | None) -> tuple[str, str]:
    name, _, version = ref.partition("@")
    return name, version or (manifest.version if manifest else "")


def _remarks(rows: list[_Row], serving: Serving, place: Place) -> list[str]:
    said = []
    if any(row.lineage.held_out for row in rows):
        said.append("error: mean absolute error on held-out tilts, percentage points of ice")
    said += [f"{row.kept.ref}: {row.kept.fault}" for row in rows if row.kept.fault]
    if place.configured != DEFAULT:
        said.append(f"the configuration names '{place.configured}' as model.bundle, which holds")
    for sentence in (serving.lost, serving.refused and f"refused was {serving.refused}"):
        if sentence:
            said.append(sentence)
    if serving.shadow_off:
        said.append(f"the shadow is off: {serving.shadow_off}")
    return said


def _told(row: _Row) -> dict[str, Any]:
    name, version = _name(row.kept.ref, row.kept.manifest)
    return {
        "name": name,
        "version": version,
        "part": row.part,
        "directory": str(row.kept.directory),
        "size_bytes": row.kept.size_bytes,
        "fault": row.kept.fault,
        **row.lineage.model_dump(mode="json"),
    }


def bundle_line(status: Mapping[str, Any]) -> str:
    """Say on one line which bundle reads, and which one beside it; empty where nobody knows."""
    found = status.get("bundles")
    if not found:
        return ""
    line = f"the bundle {found['name']} {found['version']} reads"
    if found["doing"]:
        line += f"; {found['asked_for']} is asked for ({found['doing']})"
    shadow = found["shadow"]
    if shadow["bundle"]:
        state = f"has read {shadow['tilts']} tilts and missed {shadow['missed']}"
        line += f"; its shadow {shadow['bundle']} {'is off' if shadow['off'] else state}"
    return line
