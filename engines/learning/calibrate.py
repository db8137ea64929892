"""Calibrates a run or a bundle on simulated series that its network never saw.

python -m engines.learning.calibrate --run RUN --data DIR... [--check DIR...]
python -m engines.learning.calibrate --bundle DIR --data DIR... --out DIR [--install]
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.backends.protocol import Backend, Ports
from engines.bundle import GRAPH, MANIFEST, Bundle, Manifest
from engines.errors import BundleError
from engines.learning.calibration import Calibrated
from engines.learning.calibration_fit import HEADLINE, Tilts
from engines.learning.calibration_model import Fitted, Readings, fit, read, read_left_out
from engines.learning.calibration_records import CHANNELS, TiltRecord, records
from engines.learning.calibration_report import CalibrationReport
from engines.learning.checkpoint import CHECKPOINT, trained_model
from engines.learning.dataset import ABOUT
from engines.learning.evaluation_tables import as_markdown, as_rich, progress
from engines.learning.measuring import TorchBackend, manifest_of
from engines.learning.plots import can_draw
from engines.learning.shards import list_shards

REPORT, TABLES, RECORDS = "calibration_report.json", "calibration.md", "records"
HELD_BACK = "held_back"
FEWEST_SERIES = 10
ALL_SERIES = 1_000_000


class CalibrationError(ValueError):
    """Raised when there is not enough to calibrate on."""


@dataclass(frozen=True, slots=True)
class Calibrating:
    """What is calibrated, and how."""

    bundle: Bundle
    backend: Backend
    identity: str
    """Tells networks apart, so that what one measured is not taken for another's."""
    out: Path
    """Gets the calibration, tables, pictures, and what was measured."""
    seed: int = 0
    """Of the electrons and cameras."""
    limit: int = ALL_SERIES
    """Series of each data set at most."""

    def measured(self, data: Sequence[Path], limit: int | None = None) -> Tilts:
        """Measure data sets, or take up what was measured before; `limit` goes before its own.

        Raises CalibrationError where there is nothing to measure.
        """
        most = self.limit if limit is None else limit
        found: list[TiltRecord] = []
        with progress() as bar:
            for directory in data:
                total = min(most, len(list_shards(directory)))
                if total == 0:
                    raise CalibrationError(
                        f"{directory} holds no simulated series (series_*.npz): name folders that "
                        "`icewatch simulate dataset` wrote."
                    )
                steps = records(
                    self.bundle,
                    self.backend,
                    directory,
                    self.out / RECORDS / self._key(directory),
                    self.seed,
                    most,
                )
                for one in bar.track(steps, total=total, description=directory.name):
                    found += one
        if not found:
            raise CalibrationError(
                "None of the simulated tilts could be measured: see with `icewatch evaluate "
                "simulated` why, and simulate others."
            )
        return Tilts.of(found)

    def about(self, data: Sequence[Path], tilts: Tilts) -> dict[str, Any]:
        """Say what a calibration was fitted to, so that anyone can repeat it."""
        sets = [json.loads((one / ABOUT).read_text()) for one in data if (one / ABOUT).exists()]
        return {
            "data": [{k: one.get(k) for k in ("seed", "families", "simulator")} for one in sets],
            "series": len(set(tilts.series.tolist())),
            "tilts": len(tilts),
            "seed": self.seed,
        }

    def _key(self, data: Path) -> str:
        """Name what a data set gives with this network and this seed."""
        text = f"{self.identity} {data.resolve()} {self.seed}"
        return f"{data.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def of_run(run: Path, out: Path, seed: int = 0, limit: int = ALL_SERIES) -> Calibrating:
    """Take up the network of a training run."""
    model, _ = trained_model(run)
    manifest = manifest_of(model)
    identity = hashlib.sha256((run / CHECKPOINT).read_bytes()).hexdigest()
    backend = TorchBackend(model, Ports.of(manifest))
    return Calibrating(Bundle(run, manifest), backend, identity, out, seed, limit)


def of_bundle(
    where: str, out: Path, seed: int = 0, limit: int = ALL_SERIES, threads: int = 1
) -> Calibrating:
    """Take up a bundle; raises BundleError, and CalibrationError where it lacks a channel."""
    bundle = Bundle.load(where)
    lacking = sorted(set(CHANNELS) - set(bundle.manifest.channels))
    if lacking or bundle.manifest.ice_channel != CHANNELS[HEADLINE]:
        raise CalibrationError(
            f"'{where}' has no channel {lacking[0] if lacking else CHANNELS[HEADLINE]} for its ice "
            "percentage: export it from a run of this version."
        )
    backend = OnnxRuntimeSettings(threads=threads).build(bundle)
    identity = bundle.manifest.files[GRAPH].sha256
    return Calibrating(bundle, backend, identity, out, seed, limit)


def calibrated_by(tilts: Tilts) -> Fitted:
    """Fit a calibration; raises CalibrationError for too few series."""
    series = len(set(tilts.series.tolist()))
    if series < FEWEST_SERIES:
        raise CalibrationError(
            f"Only {series} series could be measured and a calibration needs {FEWEST_SERIES}: "
            "simulate more with `icewatch simulate dataset`."
        )
    return fit(tilts)


def install(fitted: Fitted, bundle: Bundle, about: Mapping[str, Any]) -> None:
    """Write a calibration, and what it was fitted to, into the manifest of a bundle.

    It is written whole or not at all.
    """
    path = bundle.directory / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["threshold"] = fitted.threshold
    manifest["calibration"] = fitted.calibration.model_dump()
    manifest.setdefault("training", {})["calibrated_on"] = dict(about)
    Manifest.model_validate(manifest)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(manifest, indent=1) + "\n")
    partial.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = _parser().parse_args(arguments)
    torch.set_num_threads(given.threads)
    out = given.out or given.run
    if out is None:
        raise SystemExit("--bundle needs --out, a folder for tables and pictures.")
    if given.install and given.run:
        raise SystemExit("--install is for a bundle; a run is exported with what is in its folder.")
    if not 0.0 <= given.check_share < 1.0:
        raise SystemExit("--check-share is a share of the series: from 0 to less than 1.")
    try:
        if given.run:
            work = of_run(given.run, out, given.seed, given.limit)
        else:
            work = of_bundle(given.bundle, out, given.seed, given.limit, given.threads)
        data, check = tuple(given.data), tuple(given.check)
        _go(work, Asked(data, check, given.check_share, given.install, given.check_limit))
    except (BundleError, CalibrationError) as error:
        raise SystemExit(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engines.learning.calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, help="training run that is not exported yet")
    what.add_argument("--bundle", help="folder of a bundle, or default")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="to fit on")
    parser.add_argument("--check", type=Path, nargs="+", default=[], help="only to look at")
    parser.add_argument(
        "--check-share",
        type=float,
        default=0.0,
        metavar="S",
        help="share of the series of --data to hold back from the fit, and to check it on",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for what is written (default: RUN)",
    )
    parser.add_argument("--install", action="store_true", help="write it into the bundle")
    parser.add_argument("--seed", type=int, default=0, help="of electrons and cameras")
    parser.add_argument("--limit", type=int, default=ALL_SERIES, help="series of each data set")
    parser.add_argument("--check-limit", type=int, help="series of each set of --check, if other")
    parser.add_argument("--threads", type=int, default=1)
    return parser


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command is to do with what it takes up."""

    data: tuple[Path, ...]
    check: tuple[Path, ...]
    check_share: float
    """Of the series of `data`, held back from the fit."""
    install: bool
    check_limit: int | None = None
    """Series of each set of `check` at most, where it differs."""


def _go(work: Calibrating, asked: Asked) -> None:
    """Measure, fit, write and show."""
    work.out.mkdir(parents=True, exist_ok=True)
    tilts, held_back = work.measured(asked.data).halves(asked.check_share)
    fitted = calibrated_by(tilts)
    Calibrated(fitted.threshold, fitted.calibration).write(work.out)
    if asked.install:
        install(fitted, work.bundle, work.about(asked.data, tilts))
    left_out = read_left_out(tilts)
    _draw(work.out, tilts, left_out, fitted)
    reports = [CalibrationReport.of("each series left out of its fit", tilts, left_out, fitted)]
    if len(held_back):
        reports.append(_checked("held back from the fit", held_back, fitted, work.out / HELD_BACK))
    for directory in asked.check:
        other = work.measured([directory], asked.check_limit)
        reports.append(_checked(directory.name, other, fitted, work.out / directory.name))
    _show(reports, work.out)


def _checked(what: str, tilts: Tilts, fitted: Fitted, out: Path) -> CalibrationReport:
    """Read tilts that the fit never saw."""
    found = read(tilts, fitted)
    _draw(out, tilts, found, fitted)
    return CalibrationReport.of(what, tilts, found, fitted)


def _show(reports: Sequence[CalibrationReport], out: Path) -> None:
    """Write and print the tables."""
    tables = [table for report in reports for table in report.tables()]
    (out / TABLES).write_text("\n".join(as_markdown(table) for table in tables))
    content = json.dumps([report.as_json() for report in reports], indent=1)
    (out / REPORT).write_text(content + "\n")
    console = Console()
    for table in tables:
        console.print(as_rich(table))


def _draw(out: Path, tilts: Tilts, found: Readings, fitted: Fitted) -> None:
    if can_draw():
        from engines.learning.calibration_plots import draw

        draw(out, tilts, found, fitted)


if __name__ == "__main__":
    main()
