"""A bar on a terminal while tilts are read; nothing in a pipe."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


def progress() -> Progress:
    """Make the bar; it vanishes when it is left."""
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
