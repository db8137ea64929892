"""`icewatch score`: the ice in tilts that are already on disk, with the daemon's own sources."""

from __future__ import annotations

import errno
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from engines.errors import BackendError, BundleError, EngineError
from engines.icemap import IceMap
from engines.overlay import mask_at_tilt_size, overlay_png
from engines.readers.mrc import write_mrc
from engines.segmenter import Segmenter
from monitor.errors import ConfigError, MonitorError, SourceError
from monitor.messages import encodable, reading_parts
from monitor.model import Decision, IceReading, LamellaHistory, Tilt
from monitor.network import load_segmenter
from monitor.policies import MeanOverTiltsSettings
from monitor.readings import missing_of, occupancy_of, reading_of
from monitor.recent_series import RecentSeries
from monitor.score_files import (
    EXTENSIONS,
    MASK_SUFFIX,
    FileToScore,
    complain,
    files_to_score,
    landed,
    prefixed,
    refuse_missing,
)
from monitor.screen import bar, console, interval_text, percent_text, plain
from monitor.sources import tilts_on_disk
from monitor.twins import is_twin
from monitor.writable import refuse_unwritable

LIMIT_PERCENT = 10.0
_LARGEST_PIXEL_ANGSTROM = 1e4
"""A header that claims more does not say how large a pixel is."""
Scored = tuple[Tilt, IceReading]


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    paths: tuple[Path, ...]
    as_json: bool = False
    masks: Path | None = None
    bundle: str = "default"
    pixel_size_angstrom: float | None = None


@dataclass(frozen=True, slots=True)
class _Measured:
    tilt: Tilt
    reading: IceReading
    icemap: IceMap
    shape: tuple[int, int]
    """Of the tilt: rows, columns."""


class _Masks:
    """Writes mask and overlay of each tilt below a directory."""

    def __init__(self, directory: Path, files: Sequence[FileToScore]) -> None:
        stems = Counter(PurePosixPath(file.relative).with_suffix("") for file in files)
        self._prefixed = len({file.prefix for file in files}) > 1 and max(stems.values()) > 1
        self._directory = directory
        self._written: set[Path] = set()

    def write(self, file: FileToScore, measured: _Measured) -> None:
        """Write two files; raises `OSError` or `EngineError`."""
        tilt = measured.tilt
        name = tilt.path if self._prefixed else tilt.path.removeprefix(f"{file.prefix}/")
        stem = self._directory / Path(name).with_suffix("")
        stem = stem.with_name(f"{stem.name}_{tilt.section:04d}")
        if stem in self._written:
            raise FileExistsError(errno.EEXIST, "another file of this name has its mask there")
        stem.parent.mkdir(parents=True, exist_ok=True)
        mask = mask_at_tilt_size(measured.icemap, measured.shape)
        known = (tilt.pixel_size_angstrom or 0.0) <= _LARGEST_PIXEL_ANGSTROM
        write_mrc(Path(f"{stem}{MASK_SUFFIX}"), mask, tilt.pixel_size_angstrom if known else None)
        Path(f"{stem}.overlay.png").write_bytes(overlay_png(measured.icemap))
        self._written.add(stem)


def score_paths(request: Request) -> int:
    """Score every tilt below the paths; returns 0, or 1 if a mask could not be written.

    Several paths count as folders side by side: each name then starts with that of its path.
    Raises `ConfigError` for a path, a bundle or a directory for masks that cannot be used, and
    `MonitorError` if nothing was scored or the backend fails.
    """
    for path in request.paths:
        refuse_missing(path)
    if request.masks:
        refuse_unwritable("--masks", request.masks)
    try:
        segmenter = load_segmenter(request.bundle, "auto")
    except BundleError as error:
        raise ConfigError(f"--model {request.bundle}: {error}") from error
    except BackendError as error:
        raise MonitorError(str(error)) from error
    files = files_to_score(request.paths)
    scored: list[Scored] = []
    try:
        masks_done = _score_files(files, segmenter, request, scored)
    finally:
        # Also after a failure or Ctrl-C: what was measured until then is not lost.
        if scored and not request.as_json:
            show_scores(console(), scored)
    if not scored:
        raise MonitorError(f"nothing could be scored in {len(files)} files; see the lines above")
    return 0 if masks_done else 1


def _score_files(
    files: Sequence[FileToScore], segmenter: Segmenter, request: Request, scored: list[Scored]
) -> bool:
    """Score the files one by one into `scored`; False if a mask could not be written."""
    masks = _Masks(request.masks, files) if request.masks else None
    masks_done = True
    before = _Before(_Twins(), RecentSeries())
    with _progress() as progress:
        for file in progress.track(files, description="files"):
            for measured in _score_file(file, segmenter, request.pixel_size_angstrom, before):
                scored.append((measured.tilt, measured.reading))
                if request.as_json:
                    _print_json(measured.tilt, measured.reading)
                try:
                    if masks:
                        masks.write(file, measured)
                except (OSError, EngineError) as error:
                    masks_done = False
                    complain(file.path, f"its mask is not written: {_why(error)}")
    return masks_done


class _Twins:
    """Knows which exposures were scored in their other form: as section of a stack, or movie."""

    def __init__(self) -> None:
        self._scored: dict[str, list[Tilt]] = {}

    def came_before(self, tilt: Tilt) -> bool:
        """Whether an exposure came before in its other form; else it is noted."""
        earlier = self._scored.setdefault(tilt.movie, [])
        if any(is_twin(tilt, one) for one in earlier):
            return True
        if tilt.movie:
            earlier.append(tilt)
        return False


@dataclass(frozen=True, slots=True)
class _Before:
    """What was scored before."""

    twins: _Twins
    series: RecentSeries


def _score_file(
    file: FileToScore, segmenter: Segmenter, pixel_size_angstrom: float | None, before: _Before
) -> Iterator[_Measured]:
    model = (segmenter.bundle_name, segmenter.bundle_version, segmenter.backend_name)
    count = 0
    try:
        for tilt, source in tilts_on_disk(file.root, landed(file)):
            # Wherever the paths of the command line begin, the folders are those of the disk.
            whole = file.path.resolve().as_posix()
            if before.twins.came_before(replace(tilt, session="", path=whole)):
                count += 1
                continue
            if tilt.pixel_size_angstrom is None:
                tilt = replace(tilt, pixel_size_angstrom=pixel_size_angstrom)
            image = source.pixels(tilt)
            tilt = prefixed(tilt, file.prefix)
            series = before.series.at(tilt)
            icemap = segmenter.read(image, tilt.pixel_size_angstrom, series, missing_of(tilt))
            count += 1
            reading = reading_of(icemap, model, tilt.flags, series.occupancy_percent)
            shape = (image.shape[0], image.shape[1])
            yield _Measured(tilt, reading, icemap, shape)
    except BackendError as error:
        raise MonitorError(f"{file.path}: {error}") from error
    except (SourceError, EngineError, OSError) as error:
        complain(file.path, _why(error))
    else:
        if count == 0:
            wanted = f"it must end in {', '.join(EXTENSIONS)} and name no reference or leftover"
            complain(
                file.path,
                f"is no tilt by its name ({wanted}), holds no image, or its tilts lie beside it as "
                "movies",
            )


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


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
            Text(plain(encodable(f"{tilt.path} [{tilt.section}]"))),
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
    for heading in ("lamella", "tilts", "mean ice", "", "90 % interval", "occupancy", "verdict"):
        right = heading in ("tilts", "mean ice", "occupancy")
        table.add_column(heading, justify="right" if right else "left")
    for lamella, readings in by_lamella.items():
        history = LamellaHistory(lamella, tuple(readings), Decision.UNDECIDED)
        verdict = policy.decide(history)
        table.add_row(
            Text(plain(encodable(lamella))),
            str(verdict.tilts_seen),
            percent_text(verdict.ice_percent),
            bar(verdict.ice_percent),
            interval_text(verdict.ice_percent_low, verdict.ice_percent_high),
            percent_text(occupancy_of(history)),
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
