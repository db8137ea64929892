"""Tables as Grafana makes them of several queries: `merge`, then `organize`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.dashboard_panels import Panel
from tests.dashboard_prometheus import Series

Cell = float | str | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column: title, settings, and a cell for each row (None where nothing is known)."""

    title: str
    fields: Mapping[str, Any]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """What a person sees."""

    columns: tuple[Column, ...]

    def rows(self) -> list[dict[str, Cell]]:
        """Rows by the titles of the columns."""
        titles = [column.title for column in self.columns]
        cells = zip(*(column.cells for column in self.columns), strict=True)
        return [dict(zip(titles, row, strict=True)) for row in cells]


def table_of(panel: Panel, by_query: Mapping[str, list[Series]]) -> Table:
    """Put the answers to the queries of a panel together."""
    merge, organize = panel.raw["transformations"]
    assert (merge["id"], organize["id"]) == ("merge", "organize")
    merged = _merged(by_query)
    (sorted_by,) = panel.raw["options"]["sortBy"]
    hidden = organize["options"]["excludeByName"]
    order, titles = organize["options"]["indexByName"], organize["options"]["renameByName"]
    names = dict.fromkeys(name for row in merged for name in row if not hidden.get(name))
    (first,) = [name for name, title in titles.items() if title == sorted_by["displayName"]]
    merged.sort(key=lambda row: str(row.get(first)), reverse=sorted_by["desc"])
    ordered = sorted(names, key=lambda name: order.get(name, len(order)))
    return Table(
        tuple(
            Column(
                titles.get(name, name),
                _fields(panel, titles.get(name, name)),
                tuple(row.get(name) for row in merged),
            )
            for name in ordered
        )
    )


def _merged(by_query: Mapping[str, list[Series]]) -> list[dict[str, Cell]]:
    """Rows of several queries that agree in all they share become one, as `merge` does."""
    rows: list[dict[str, Cell]] = []
    for letter, found in by_query.items():
        name = "Value" if len(by_query) == 1 else f"Value #{letter}"
        for one in found:
            new: dict[str, Cell] = {**one.labels, name: one.last}
            fitting = [row for row in rows if _agree(row, new)]
            for row in fitting:
                row |= new
            if not fitting:
                rows.append(new)
    return rows


def _agree(row: Mapping[str, Cell], new: Mapping[str, Cell]) -> bool:
    common = row.keys() & new.keys()
    return bool(common) and all(row[key] == new[key] for key in common)


def _fields(panel: Panel, title: str) -> dict[str, Any]:
    fields = dict(panel.defaults)
    for override in panel.raw["fieldConfig"]["overrides"]:
        if override["matcher"] == {"id": "byName", "options": title}:
            fields |= {one["id"]: one["value"] for one in override["properties"]}
    return fields
