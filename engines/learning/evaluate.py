"""Evaluate a bundle: python -m engines.learning.evaluate --bundle DIR --data DIR --out DIR."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.bundle import Bundle
from engines.learning.evaluation import (
    RealFigures,
    TiltFigures,
    figures_of,
    measure_real,
    real_table,
    table,
    write_report,
)
from engines.learning.measuring import Measured, measure
from engines.learning.plots import Overlay, plot_overlays, plot_percentages
from engines.segmenter import Segmenter

SHOWN = 12


def evaluate_simulated(
    segmenter: Segmenter, data: Sequence[Path], out: Path, seed: int, limit: int, size: float
) -> list[TiltFigures]:
    """Measure simulated data sets, `limit` tilts of each, and draw some of them."""
    tilts, shown = [], []
    for directory in data:
        steps = track(measure(segmenter, directory, seed, limit, size), f"{directory}", total=limit)
        for index, measured in enumerate(steps):
            tilts.append(figures_of(measured))
            if index % max(1, limit // SHOWN) == 0:
                shown.append(_overlay(measured))
    plot_overlays(shown, out / "simulated.jpg", columns=6)
    seen = [t for t in tilts if t.measured]
    truth, percent = (np.array([getattr(t, n) for t in seen]) for n in ("true_percent", "percent"))
    plot_percentages(truth, percent, [t.family for t in seen], out / "percent.png")
    return tilts


def evaluate_real(
    segmenter: Segmenter,
    pictures: Sequence[tuple[Path, float | None]],
    out: Path,
    threshold: float,
) -> list[RealFigures]:
    """Measure real pictures, and draw all of them."""
    figures, shown = [], []
    for path, size in pictures:
        one, found = measure_real(segmenter, path, size, threshold)
        figures.append(one)
        percent = "not measured" if one.percent is None else f"{one.percent:.2f} %"
        # the last row up, as these pictures were outlined
        arrays = (found.picture[::-1], found.valid[::-1], found.ice[::-1])
        shown.append(Overlay(f"{path.stem}\n{percent}", *arrays))
    if shown:
        plot_overlays(shown, out / "real.jpg")
    return figures


def _overlay(measured: Measured) -> Overlay:
    scene, found = measured.scene, measured.found
    percent = "not measured" if found.percent is None else f"{found.percent:.2f} %"
    title = f"{scene.about['family']}: {percent}, true {measured.true_percent:.2f} %"
    truth = scene.label("0.10") & scene.valid
    return Overlay(title, measured.picture, found.valid, found.ice, truth)


def _real_pictures(given: Sequence[str]) -> list[tuple[Path, float | None]]:
    """Read folders given as DIR or DIR=ANGSTROM; masks of other programs are left out."""
    pictures: list[tuple[Path, float | None]] = []
    for folder in given:
        name, _, size = folder.partition("=")
        paths = sorted(p for p in Path(name).glob("*.mrc") if "mask" not in p.name)
        pictures += [(path, float(size) if size else None) for path in paths]
    return pictures


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engines.learning.evaluate", description=__doc__
    )
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="simulated data sets")
    parser.add_argument("--real", nargs="*", default=[], help="folders: DIR or DIR=ANGSTROM")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=400, help="tilts of each data set")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = _parse(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.load(given.bundle)
    segmenter = Segmenter(bundle, OnnxRuntimeSettings(threads=given.threads).build(bundle))
    size = bundle.manifest.pixel_size_angstrom
    tilts = []
    if given.data:
        tilts = evaluate_simulated(segmenter, given.data, given.out, given.seed, given.limit, size)
    pictures = _real_pictures(given.real)
    real = evaluate_real(segmenter, pictures, given.out, bundle.manifest.threshold)
    families = write_report(given.out, tilts, real)
    Console().print(Markdown(table(families)), Markdown(real_table(real)))


if __name__ == "__main__":
    main()
