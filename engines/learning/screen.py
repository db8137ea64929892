"""Screen networks at one small budget: python -m engines.learning.screen --data D --test T --out O.

Every variant is trained for the same steps on the same batches, and measured on the same tilts;
what was screened already is kept, so that a screening may be interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import torch
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from engines.backends.onnx_runtime import usable_cores
from engines.learning.batches import AugmentSettings
from engines.learning.checkpoint import trained_model
from engines.learning.export import save_graph
from engines.learning.measuring import measure, overlap, segmenter_of
from engines.learning.train import Run, TrainSettings
from engines.networks import VARIANTS, IceModel

CUTS = tuple(round(0.05 * k, 2) for k in range(4, 17))
TIMED_PX = 608
"""Side of the picture that a 4096-pixel camera gives at the usual sampling."""
TIMED_RUNS = 7


@dataclass(frozen=True, slots=True)
class Screened:
    """What one variant is worth after the budget."""

    variant: str
    parameters_million: float
    bundle_megabytes: float
    """Of the three files that hold the weights as half."""
    cpu_ms: float
    """Median time of one picture of 608 x 608 on ONNX Runtime, all cores."""
    train_s_per_step: float
    cut: float
    """Of the probability, chosen on every other tilt."""
    iou: float
    """On the other tilts, all pixels together."""
    mean_absolute_error: float
    """Of the masked percentage on the other tilts, percentage points."""
    bias: float


def screen(
    name: str, data: Path, test: Path, out: Path, settings: TrainSettings, limit: int
) -> Screened:
    """Train one variant for the budget and measure it; its time on a processor is left open."""
    torch.manual_seed(settings.seed)
    run = Run([data], out / name, replace(settings, network=VARIANTS[name]))
    run.go()
    seconds = run.state.elapsed_s / settings.steps
    model, _ = trained_model(out / name)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    cut, iou, error, bias = _errors(model, test, limit)
    return Screened(name, parameters, 6 * parameters, math.nan, seconds, cut, iou, error, bias)


def _errors(model: IceModel, test: Path, limit: int) -> tuple[float, float, float, float]:
    """Choose the cut on every other tilt: cut, IoU, mean absolute error and bias on the rest."""
    segmenter, size = segmenter_of(model), model.settings.pixel_size_angstrom
    masked, truth, overlaps = [], [], []
    for one in measure(segmenter, test, 0, limit, size):
        if one.found.percent is None:
            continue
        masked.append([one.masked_percent(cut) for cut in CUTS])
        truth.append(one.true_percent)
        label = one.scene.label("0.10") & one.scene.valid
        overlaps.append(
            [overlap((one.found.probability > cut) & one.found.valid, label) for cut in CUTS]
        )
    found, true = np.array(masked), np.array(truth)
    chosen = int(np.abs(found[::2] - true[::2, None]).mean(axis=0).argmin())
    both, either = np.array(overlaps)[1::2, chosen].sum(axis=0)
    errors = found[1::2, chosen] - true[1::2]
    iou = float(both / max(1, either))
    return CUTS[chosen], iou, float(np.abs(errors).mean()), float(errors.mean())


def cpu_ms(model: IceModel) -> float:
    """Time one picture of a single tilt on ONNX Runtime: median, ms."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save_graph(model, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    small = TIMED_PX // 4
    inputs = {
        "picture": np.random.default_rng(0).poisson(200.0, (1, 1, TIMED_PX, TIMED_PX)),
        "valid": np.ones((1, 1, TIMED_PX, TIMED_PX)),
        "memory": np.zeros((1, model.settings.memory_channels, small, small)),
        "memory_weight": np.zeros((1, 1, small, small)),
    }
    inputs = {name: values.astype(np.float32) for name, values in inputs.items()}
    times = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def table(screened: Sequence[Screened]) -> str:
    """Write what was screened as a Markdown table, least error first."""
    lines = [
        "| network | million weights | bundle, MB | CPU, ms | s/step | cut | IoU | MAE, pp "
        "| bias, pp |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.variant} | {s.parameters_million:.1f} | {s.bundle_megabytes:.0f} | {s.cpu_ms:.0f} "
        f"| {s.train_s_per_step:.2f} | {s.cut:.2f} | {s.iou:.3f} "
        f"| {s.mean_absolute_error:.2f} | {s.bias:+.2f} |"
        for s in sorted(screened, key=lambda s: s.mean_absolute_error)
    ]
    return "\n".join(lines) + "\n"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engines.learning.screen", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="training set")
    parser.add_argument("--test", type=Path, required=True, help="set to measure on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", nargs="*", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--limit", type=int, default=120, help="tilts to measure")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = _parse(arguments)
    torch.set_num_threads(given.threads)
    augment = AugmentSettings(crops_px=(given.crop,))
    settings = TrainSettings(given.seed, given.steps, batch=given.batch, augment=augment)
    given.out.mkdir(parents=True, exist_ok=True)
    results = given.out / "screened.json"
    done = {}
    if results.exists():
        done = {s["variant"]: Screened(**s) for s in json.loads(results.read_text())}
    for name in track(given.variants, "screening networks"):
        if name not in done:
            done[name] = screen(name, given.data, given.test, given.out, settings, given.limit)
            results.write_text(json.dumps([asdict(s) for s in done.values()], indent=1) + "\n")
    # all in one sitting: a machine is not equally fast from one hour to the next
    timed = [
        replace(one, cpu_ms=cpu_ms(IceModel(VARIANTS[one.variant])))
        for one in track(done.values(), "timing networks")
    ]
    results.write_text(json.dumps([asdict(one) for one in timed], indent=1) + "\n")
    (given.out / "screened.md").write_text(table(timed))
    Console().print(Markdown(table(timed)))


if __name__ == "__main__":
    main()
