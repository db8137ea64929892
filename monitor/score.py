"""`icewatch score`: the ice in tilts that are already on disk, with the daemon's own sources."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from engines.errors import BundleError, EngineError
from engines.icemap import IceMap
from engines.overlay import mask_at_tilt_size, overlay_png
from engines.readers.mrc import write_mrc
from engines.segmenter import Segmenter
from monitor.errors import ConfigError, MonitorError, SourceError
from monitor.messages import encodable, reading_parts
from monitor.model import Decision, FileStat, IceReading, LamellaHistory, Landed, Tilt
from monitor.network import load_segmenter
from monitor.pipeline import reading_of
from monitor.policies import MeanOverTiltsSettings
from monitor.screen import bar, console, interval_text, percent_text, plain
from monitor.sources import tilts_on_disk
from monitor.sources.naming import is_ignored

EXTENSIONS = (".mrc", ".mrcs", ".st", ".map")
LIMIT_PERCENT = 10.0
_MASK_SUFFIX = ".mask.mrc"
Scored = tuple[Tilt, IceReading]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    paths: tuple[Path, ...]
    as_json: bool = False
    masks: Path | None = None
    bundle: str = "default"
    pixel_size_angstrom: float | None = None


def score_paths(request: Request) -> int:
    """Score every tilt below the paths; returns 0 if anything was scored, else 1.

    Raises `ConfigError` for a path or a bundle that is not there.
    """
    for path in request.paths:
        if not path.exists():
            raise ConfigError(f"{path}: there is no such file or folder")
    try:
        segmenter = load_segmenter(request.bundle, "auto")
    except BundleError as error:
        raise ConfigError(f"--model {request.bundle}: {error}") from error
    files = [found for path in request.paths for found in _files(path)]
    scored: list[Scored] = []
    with _progress() as progress:
        for root, path in progress.track(files, description="files"):
            for tilt, reading in _score_file(root, path, segmenter, request):
                scored.append((tilt, reading))
                if request.as_json:
                    _print_json(tilt, reading)
    if not request.as_json and scored:
        show_scores(console(), scored)
    if not scored:
        raise MonitorError(f"nothing could be scored in {len(files)} files; see the lines above")
    return 0


def _files(path: Path) -> list[tuple[Path, Path]]:
    """List the files to score with the folder that their names count from."""
    if path.is_file():
        return [(path.parent, path)]
    found = []
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            wanted = name.lower().endswith(EXTENSIONS) and not name.endswith(_MASK_SUFFIX)
            if wanted and not is_ignored(name):
                found.append((path, Path(folder) / name))
    return found


def _score_file(root: Path, path: Path, segmenter: Segmenter, request: Request) -> Iterator[Scored]:
    model = (segmenter.bundle_name, segmenter.bundle_version, segmenter.backend_name)
    try:
        for tilt, source in tilts_on_disk(root, _landed(root, path)):
            if tilt.pixel_size_angstrom is None:
                tilt = replace(tilt, pixel_size_angstrom=request.pixel_size_angstrom)
            image = source.pixels(tilt)
            icemap = segmenter.read(image, tilt.pixel_size_angstrom)
            if request.masks:
                _write_mask(request.masks, tilt, (image.shape[0], image.shape[1]), icemap)
            yield tilt, reading_of(icemap, model, tilt.flags)
    except (SourceError, EngineError, OSError) as error:
        sys.stderr.write(f"icewatch: {plain(str(path))}: {error}\n")


def _landed(root: Path, path: Path) -> Landed:
    """A file as the intake would offer it that lay there for long."""
    stat = path.stat()
    relative = path.relative_to(root).as_posix()
    return Landed(path, relative, FileStat(stat.st_size, stat.st_mtime_ns, stat.st_ino), 10**6, 1e6)


def _write_mask(directory: Path, tilt: Tilt, shape: tuple[int, int], icemap: IceMap) -> None:
    stem = directory / Path(tilt.path).with_suffix("")
    stem = stem.with_name(f"{stem.name}_{tilt.section:04d}")
    stem.parent.mkdir(parents=True, exist_ok=True)
    mask = mask_at_tilt_size(icemap, shape)
    write_mrc(Path(f"{stem}{_MASK_SUFFIX}"), mask, tilt.pixel_size_angstrom or 1.0)
    Path(f"{stem}.overlay.png").write_bytes(overlay_png(icemap))


def _print_json(tilt: Tilt, reading: IceReading) -> None:
    sys.stdout.write(reading_parts(tilt, reading).model_dump_json() + "\n")
    sys.stdout.flush()


def show_scores(screen: Console, scored: Sequence[Scored]) -> None:
    """Print a line for each tilt and a summary for each lamella."""
    table = Table(box=None, pad_edge=False)
    for heading in ("tilt", "angle", "ice", "", "90 % interval", "valid", "flags"):
        table.add_column(
            heading, justify="right" if heading in ("angle", "ice", "valid") else "left"
        )
    for tilt, reading in scored:
        angle = "-" if tilt.angle_deg is None else f"{tilt.angle_deg:+.1f}°"
        table.add_row(
            plain(encodable(f"{tilt.path} [{tilt.section}]")),
            angle,
            percent_text(reading.percent),
            bar(reading.percent),
            interval_text(reading.percent_low, reading.percent_high),
            f"{reading.valid_area_percent:.0f} %",
            ", ".join(reading.flags),
        )
    screen.print(table)
    screen.print()
    screen.print(_lamella_summary(scored))


def _lamella_summary(scored: Sequence[Scored]) -> Table:
    policy = MeanOverTiltsSettings().build(LIMIT_PERCENT)
    by_lamella: dict[str, list[Scored]] = {}
    for tilt, reading in scored:
        by_lamella.setdefault(tilt.lamella, []).append((tilt, reading))
    table = Table(box=None, pad_edge=False)
    for heading in ("lamella", "tilts", "mean ice", "", "90 % interval", "verdict"):
        table.add_column(heading, justify="right" if heading in ("tilts", "mean ice") else "left")
    for lamella, readings in by_lamella.items():
        history = LamellaHistory(lamella, tuple(readings), Decision.UNDECIDED)
        verdict = policy.decide(history)
        table.add_row(
            plain(encodable(lamella)),
            str(verdict.tilts_seen),
            percent_text(verdict.ice_percent),
            bar(verdict.ice_percent),
            interval_text(verdict.ice_percent_low, verdict.ice_percent_high),
            f"{verdict.decision} ({verdict.reason})",
        )
    return table


def _progress() -> Progress:
    screen = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
