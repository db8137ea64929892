"""`icewatch simulate dataset`: checks what is asked for, simulates, and says what came of it."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from monitor.errors import ConfigError, MonitorError


@dataclass(frozen=True, slots=True)
class Request:
    """A simulated data set to write, or to continue."""

    out: Path
    seed: int
    series: int
    families: str
    tilts: int
    size_px: int
    workers: int


def simulate_dataset(request: Request) -> int:
    """Write the data set; returns 0.

    Raises ConfigError for wrong usage, MonitorError where nothing can be written.
    """
    if find_spec("torch") is None:
        raise ConfigError("simulating needs torch: pip install 'icewatch[train]' installs it.")
    from engines.learning.dataset import (
        DatasetSettings,
        OtherDatasetError,
        families_named,
        make_dataset,
    )

    if request.out.is_file():
        raise ConfigError(f"{request.out} is a file: name a directory.")
    try:
        families = families_named(request.families)
    except ValueError as error:
        raise ConfigError(f"--families: {error}") from error
    settings = DatasetSettings(
        request.seed, request.series, families, request.tilts, request.size_px
    )
    try:
        summary = make_dataset(request.out, settings, request.workers)
    except OtherDatasetError as error:
        raise ConfigError(str(error)) from error
    except BrokenExecutor as error:
        raise MonitorError(
            "a worker was killed, perhaps for want of memory: run it again with fewer --workers; "
            "what is written is kept."
        ) from error
    except OSError as error:
        where = error.filename or request.out
        raise MonitorError(f"{where}: cannot be written: {error.strerror}") from error
    _show(summary, request.out)
    return 0


def _show(summary: dict[str, Any], out: Path) -> None:
    table = Table(title=f"{summary['tilts']} tilts in {out}", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("family", no_wrap=True)
    for heading in ("series", "tilts", "ice %", "occupied %", "no ice %"):
        table.add_column(heading, justify="right", min_width=len(heading))
    for name, own in summary["families"].items():
        table.add_row(
            name,
            str(own["series"]),
            str(own["tilts"]),
            f"{own['mean_ice_percent']:.2f}",
            f"{own['mean_occupancy_percent']:.2f}",
            f"{100.0 * own['ice_free_tilts']:.0f}",
        )
    Console().print(table)
