"""`icewatch evaluate`: what a bundle is worth, on simulated, labelled or annotated pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from engines.annotation import (
    AnnotationError,
    Matches,
    TiltName,
    truths_of_export,
    truths_of_masks,
)
from engines.bundle import Bundle, Manifest
from engines.errors import BackendError, BundleError, EngineError
from engines.icemap import IceMap
from engines.segmenter import Neighbours, Segmenter
from engines.series import SeriesSoFar
from monitor.errors import ConfigError, MonitorError, SourceError
from monitor.evaluate_pictures import list_pictures
from monitor.model import Decision, IceReading, LamellaHistory, Tilt, TiltId
from monitor.network import load_segmenter
from monitor.policies import MeanOverTiltsSettings
from monitor.readings import missing_of, reading_of
from monitor.score_files import FileToScore, complain, files_to_score, landed, refuse_missing
from monitor.screen import console, plain
from monitor.sources import tilts_on_disk
from monitor.writable import refuse_unwritable

if TYPE_CHECKING:
    from engines.learning.evaluation_annotated import AnnotatedTilt
    from engines.learning.evaluation_report import Report
    from engines.learning.evaluation_series import Judged

LIMIT_PERCENT = 10.0


@dataclass(frozen=True, slots=True)
class Output:
    """Which bundle is evaluated, and where the report goes."""

    out: Path
    model: str = "default"
    as_json: bool = False
    draw: bool = True
    """Whether to draw plots and sheets of pictures, where matplotlib is installed."""

    @property
    def pictures(self) -> Path | None:
        """Folder to draw into; None for no pictures."""
        from engines.learning.plots import can_draw

        return self.out if self.draw and can_draw() else None


def evaluate_simulated(data: Sequence[Path], output: Output, limit: int | None, seed: int) -> int:
    """Evaluate on simulated data sets; returns 0.

    Raises `ConfigError` for what cannot be evaluated, `MonitorError` where the work fails.
    """
    if find_spec("torch") is None:
        raise ConfigError(
            "evaluating on simulated data needs torch: pip install 'icewatch[train]' installs it"
        )
    for path in data:
        refuse_missing(path)

    def work(segmenter: Segmenter, manifest: Manifest) -> Report:
        from engines.learning.evaluate import DEFAULT_LIMIT, Simulated
        from engines.learning.evaluate import evaluate_simulated as evaluate

        asked = Simulated(tuple(data), seed, limit or DEFAULT_LIMIT, manifest.min_part_nm2)
        return evaluate(segmenter, asked, output.pictures, partial(DaemonRule, segmenter))

    return _evaluate(output, work)


def evaluate_pictures(folders: Sequence[str], output: Output) -> int:
    """Evaluate on folders of real pictures, DIR or DIR=ANGSTROM; raises as above."""
    from engines.learning.evaluation import EvaluationError

    try:
        pictures = [picture for folder in folders for picture in list_pictures(folder)]
    except EvaluationError as error:
        raise ConfigError(str(error)) from error

    def work(segmenter: Segmenter, manifest: Manifest) -> Report:
        from engines.learning.evaluation_pictures import evaluate_pictures as evaluate
        from engines.learning.evaluation_tables import progress

        with progress() as bar:
            tracked = partial(bar.track, description="pictures")
            drawn, threshold = output.pictures, manifest.threshold
            return evaluate(segmenter, pictures, drawn, threshold, tracked, _complain)

    return _evaluate(output, work)


@dataclass(frozen=True, slots=True)
class Annotated:
    """Tilts, and where they are annotated: a folder of masks or an export of CVAT."""

    tilts: tuple[Path, ...]
    masks: Path | None = None
    cvat: Path | None = None
    ice_labels: tuple[str, ...] = ()
    pixel_size_angstrom: float | None = None


def evaluate_annotated(asked: Annotated, output: Output) -> int:
    """Evaluate on annotated tilts; raises as above."""
    if (asked.masks is None) == (asked.cvat is None):
        raise ConfigError("name the annotations by either --masks or --cvat")
    for path in (*asked.tilts, asked.masks or asked.cvat):
        refuse_missing(path or Path())
    try:
        matches = (
            truths_of_masks(asked.masks)
            if asked.masks
            else truths_of_export(asked.cvat or Path(), asked.ice_labels)
        )
    except AnnotationError as error:
        raise ConfigError(str(error)) from error

    def work(segmenter: Segmenter, manifest: Manifest) -> Report:
        from engines.learning.evaluation_annotated import evaluate_annotated as evaluate

        begin = partial(DaemonRule, segmenter)
        tilts = _annotated_tilts(asked, matches)
        report = evaluate(segmenter, tilts, output.pictures, begin)
        if matches.left:
            report.notes.append(f"{len(matches.left)} annotations belong to no tilt that was named")
            sys.stderr.write(
                f"icewatch: {len(matches.left)} of {len(matches)} annotations belong to no tilt "
                f"that was named (the first: {plain(matches.left[0])})\n"
            )
        return report

    return _evaluate(output, work)


def _complain(sentence: str) -> None:
    sys.stderr.write(f"icewatch: {plain(sentence)}\n")


def _evaluate(output: Output, work: Callable[[Segmenter, Manifest], Report]) -> int:
    """Load the bundle, let `work` measure, write its report and print it."""
    from engines.learning.evaluation import EvaluationError

    refuse_unwritable("--out", output.out)
    try:
        segmenter = load_segmenter(output.model, "auto")
        manifest = Bundle.load(output.model).manifest
    except BundleError as error:
        raise ConfigError(f"--model {output.model}: {error}") from error
    except BackendError as error:
        raise MonitorError(str(error)) from error
    try:
        report = work(segmenter, manifest)
        report.write(output.out)
    except (EvaluationError, AnnotationError) as error:
        raise ConfigError(str(error)) from error
    except (EngineError, SourceError) as error:
        raise MonitorError(str(error)) from error
    except OSError as error:
        raise MonitorError(f"{error.filename or output.out}: {error.strerror}") from error
    if output.draw and output.pictures is None:
        sys.stderr.write(
            "icewatch: nothing is drawn without matplotlib: pip install 'icewatch[train]'\n"
        )
    _print(report, output)
    return 0


def _print(report: Report, output: Output) -> None:
    from engines.learning.evaluation_tables import as_rich

    if output.as_json:
        sys.stdout.write(json.dumps(report.content(), allow_nan=False) + "\n")
        return
    screen = console()
    for table in report.tables:
        screen.print(as_rich(table))
    drawn = f" and {len(report.pictures)} pictures" if report.pictures else ""
    screen.print(f"report.md, figures.json{drawn} are in {output.out}", markup=False)


def _annotated_tilts(asked: Annotated, matches: Matches) -> Iterator[AnnotatedTilt]:
    """Read the tilts that are annotated; raises `ConfigError` where there is none."""
    from engines.learning.evaluation_tables import progress

    files = files_to_score(asked.tilts)
    count = found = 0
    with progress() as bar:
        for file in bar.track(files, description="files"):
            try:
                for one in _tilts_of(file, asked, matches):
                    count += 1
                    if one is not None:
                        found += 1
                        yield one
            except (SourceError, OSError) as error:
                complain(file.path, str(error))
    if not found:
        example = matches.left[0] if matches.left else "none"
        raise ConfigError(
            f"none of {count} tilts is annotated; annotations are named by tilt file and section "
            f"(the first: {plain(example)})"
        )


def _tilts_of(
    file: FileToScore, asked: Annotated, matches: Matches
) -> Iterator[AnnotatedTilt | None]:
    """Read the tilts of a file that are annotated; None for each that is not."""
    from engines.learning.evaluation_annotated import AnnotatedTilt

    for tilt, source in tilts_on_disk(file.root, landed(file)):
        where = PurePosixPath(tilt.path)
        truth = matches.find(where.parent.as_posix(), TiltName(where.stem, tilt.section))
        if truth is None:
            yield None
            continue
        series = "/".join(part for part in (file.prefix, tilt.lamella) if part)
        size = tilt.pixel_size_angstrom or asked.pixel_size_angstrom
        name = f"{tilt.path} [{tilt.section}]"
        image: NDArray[Any] = source.pixels(tilt)
        flags = missing_of(tilt)
        yield AnnotatedTilt(name, series, tilt.angle_deg, size, image, truth, flags)


class DaemonRule:
    """What the daemon makes of the tilts of one lamella."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._model = (segmenter.bundle_name, segmenter.bundle_version, segmenter.backend_name)
        self._readings: list[tuple[Tilt, IceReading]] = []
        self._series = SeriesSoFar()

    def before(self, angle_deg: float | None) -> Neighbours | None:
        """Give the tilts that were read before."""
        return self._series.at(angle_deg, str(len(self._readings)))

    def add(self, angle_deg: float | None, found: IceMap) -> None:
        """Take up the next tilt."""
        section = len(self._readings)
        tilt = Tilt(
            id=TiltId("evaluated", angle_deg, None, str(section)),
            session="",
            grid="",
            lamella="evaluated",
            series="evaluated",
            path="",
            section=section,
            angle_deg=angle_deg,
        )
        occupancy = self._series.occupancy_percent
        self._readings.append((tilt, reading_of(found, self._model, (), occupancy)))

    def judged(self) -> Judged:
        """Judge all tilts so far."""
        from engines.learning.evaluation_series import Judged

        policy = MeanOverTiltsSettings().build(LIMIT_PERCENT)
        history = LamellaHistory("evaluated", tuple(self._readings), Decision.UNDECIDED)
        verdict = policy.decide(history)
        return Judged(
            verdict.ice_percent,
            verdict.ice_percent_low,
            verdict.ice_percent_high,
            str(verdict.decision),
            self._series.occupancy_percent,
        )
