"""Tables of an evaluation: made once, written as Markdown, shown on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

NOTHING = "-"
"""Stands where there is no figure."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title; the first column names the row, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def as_markdown(table: Table) -> str:
    """Write a table with its title and its note."""
    lines = [f"## {table.title}", ""]
    if table.note:
        lines += [table.note, ""]
    lines += [_line(table.columns), _line(["---", *["---:"] * (len(table.columns) - 1)])]
    lines += [_line(row) for row in table.rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_rich(table: Table) -> Group:
    """Lay out a table for the terminal, its note below."""
    shown = RichTable(
        title=Text(table.title, "bold"), title_justify="left", box=None, pad_edge=False
    )
    for index, heading in enumerate(table.columns):
        shown.add_column(Text(heading), justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    note = [Text(table.note, "dim")] if table.note else []
    return Group(shown, *note, Text())


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """Write a number, or a dash for none."""
    return NOTHING if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def share(value: float | None, digits: int = 0) -> str:
    """Write a share of 0 to 1 in percent."""
    return NOTHING if value is None else f"{100.0 * value:.{digits}f} %"


def with_interval(
    value: float | None, interval: tuple[float, float] | None, digits: int = 2, sign: bool = False
) -> str:
    """Write a number and, where there is one, its interval."""
    if value is None or interval is None:
        return number(value, digits, sign)
    ends = " to ".join(number(end, digits, sign) for end in interval)
    return f"{number(value, digits, sign)} ({ends})"


def progress() -> Progress:
    """Show how far an evaluation is, on standard error where that is a terminal."""
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns,
        TimeRemainingColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
