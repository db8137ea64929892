"""Train: python -m engines.learning.train --data DIR... --out RUN --seed S --steps N."""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn.functional import avg_pool2d

from engines.learning.batches import AugmentSettings, Batch, draw_batch
from engines.learning.checkpoint import CHECKPOINT, Average, RunState
from engines.learning.losses import LossSettings, total_loss
from engines.learning.plots import plot_curve
from engines.learning.shards import list_shards
from engines.networks import VARIANTS, IceModel, NetworkSettings
from engines.networks.ice_model import enlarge

LOG = "log.csv"
LOG_EVERY_STEPS = 20
LOSS_STRIDE = 2
"""Pixels of the picture for each at which the loss is taken: a quarter of the work."""
SHARDS_ARE_LISTED_EVERY_STEPS = 200
_WHICH = ("seed", "simulator")
"""What tells one data set from another."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How a run goes; a run ends when its steps or its minutes are used up.

    With `minutes` at infinity the run is the same each time it is started from the same seed and
    data. A limit in minutes that is reached first shortens the schedule instead of cutting it.
    """

    seed: int
    steps: int
    minutes: float = math.inf
    batch: int = 8
    rate: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 0.01
    average_decay: float = 0.999
    half_precision: bool = True
    """Convolutions in bfloat16 (three times as fast on processors with AMX)."""
    checkpoint_every_s: float = 180.0
    network: NetworkSettings = field(default_factory=NetworkSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    loss: LossSettings = field(default_factory=LossSettings)


class Run:
    """One training run in a folder; started again, it goes on from its last checkpoint."""

    def __init__(
        self,
        data: Sequence[Path],
        out: Path,
        settings: TrainSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.data, self.out, self.settings, self._clock = tuple(data), out, settings, clock
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(settings.seed)
        model = IceModel(settings.network).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(
            model.parameters(), settings.rate, weight_decay=settings.weight_decay
        )
        self.state = RunState(
            model,
            optimizer,
            Average.of(model, settings.average_decay),
            np.random.default_rng(settings.seed),
            record={"settings": _plain(settings)},
        )
        if (out / CHECKPOINT).exists():
            self.state.load(out)
            self._note_settings(_plain(settings))
        self.shards: list[Path] = []

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 to 1: by steps or by time, whichever is further."""
        by_time = self.state.elapsed_s / (60.0 * self.settings.minutes)
        return min(1.0, max(self.state.step / self.settings.steps, by_time))

    def go(self, report: Callable[[float, str], None] = lambda done, text: None) -> None:
        """Train until the end of the schedule, with a checkpoint every few minutes."""
        self.state.model.train()
        saved = started = self._clock()
        before = self.state.elapsed_s
        parts: list[dict[str, float]] = []
        while self.progress < 1.0:
            if not self.shards or self.state.step % SHARDS_ARE_LISTED_EVERY_STEPS == 0:
                self.shards = self._listed()
            parts.append(self.step())
            now = self._clock()
            self.state.elapsed_s = before + now - started
            if self.state.step % LOG_EVERY_STEPS == 0:
                report(self.progress, self._log(parts))
                parts = []
            if now - saved >= self.settings.checkpoint_every_s:
                self.state.save(self.out)
                plot_curve(self.out / LOG, self.out / "curve.png")
                saved = now
        self.state.save(self.out)
        plot_curve(self.out / LOG, self.out / "curve.png")

    def step(self) -> dict[str, float]:
        """Take one step on a new batch: the parts of the loss."""
        settings, state = self.settings, self.state
        batch = draw_batch(self.shards, settings.batch, state.generator, settings.augment)
        for group in state.optimizer.param_groups:
            group["lr"] = settings.rate * schedule(self.progress, settings.warm_up)
        parts = self._descend(batch.to(self.device))
        state.average.update(state.model)
        state.step += 1
        return parts

    def _descend(self, batch: Batch) -> dict[str, float]:
        model, optimizer = self.state.model, self.state.optimizer
        scaled = model.scaling(batch.picture, batch.valid)
        scaled = scaled.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.half_precision):
            coarse = model.coarse_logits(scaled)
        loss, parts = total_loss(at_loss_stride(coarse, model.stride), batch, self.settings.loss)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return {"loss": float(loss.detach()), **parts}

    def _listed(self) -> list[Path]:
        listed: list[Path] = []
        for data in self.data:
            shards = list_shards(data)
            if not shards:
                raise FileNotFoundError(
                    f"{data} holds no simulated series: run engines.learning.dataset first."
                )
            self._note_data(data, len(shards))
            listed += shards
        return listed

    def _note_settings(self, settings: dict[str, Any]) -> None:
        """Record that a run goes on with other settings than before."""
        before = self.state.record.get("settings")
        if before not in (None, settings):
            self.state.record.setdefault("earlier_settings", []).append(
                {**before, "until_step": self.state.step}
            )
        self.state.record["settings"] = settings

    def _note_data(self, directory: Path, series: int) -> None:
        """Record what was trained on; a run may pass from one data set to another."""
        about = json.loads((directory / "dataset.json").read_text())
        entry = {**about, "series": series, "until_step": self.state.step}
        noted = self.state.record.setdefault("data", [])
        same = [k for k, one in enumerate(noted) if all(one[key] == about[key] for key in _WHICH)]
        if same:
            noted[same[-1]] = entry
        else:
            noted.append(entry)

    def _log(self, parts: list[dict[str, float]]) -> str:
        mean = {name: sum(p[name] for p in parts) / len(parts) for name in parts[0]}
        row = {
            "step": self.state.step,
            "elapsed_s": round(self.state.elapsed_s, 1),
            "series": len(self.shards),
            **{name: round(value, 5) for name, value in mean.items()},
        }
        path = self.out / LOG
        is_new = not path.exists()
        with path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)
        return f"step {self.state.step} loss {mean['loss']:.4f} ice {mean['ice']:.4f}"


def at_loss_stride(coarse: Tensor, stride: int) -> Tensor:
    """Bring logits of one pixel for each `stride` of the picture to one for each `LOSS_STRIDE`."""
    if stride < LOSS_STRIDE:
        return avg_pool2d(coarse, LOSS_STRIDE // stride)
    return enlarge(coarse, stride // LOSS_STRIDE)


def schedule(progress: float, warm_up: float) -> float:
    """Share of the top learning rate: a linear rise, then half a cosine down to a hundredth."""
    if progress < warm_up:
        return (progress + 0.01) / (warm_up + 0.01)
    after = (progress - warm_up) / (1.0 - warm_up)
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * after))


def _plain(settings: TrainSettings) -> dict[str, Any]:
    """Settings as plain numbers, lists and text (a limit of infinity becomes None)."""
    plain = asdict(settings)
    plain["minutes"] = None if math.isinf(settings.minutes) else settings.minutes
    plain["augment"]["crops_px"] = list(settings.augment.crops_px)
    plain["network"]["widths"] = list(settings.network.widths)
    plain["loss"]["ice"] = list(settings.loss.ice)
    return plain


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engines.learning.train", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="fpn-resnet18-narrow")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = _parse(arguments)
    torch.set_num_threads(given.threads)
    settings = TrainSettings(
        given.seed,
        given.steps,
        given.minutes,
        given.batch,
        given.rate,
        network=VARIANTS[given.variant],
    )
    run = Run(given.data, given.out, settings)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=1.0)
        run.go(lambda done, text: bar.update(task, completed=done, description=text))


if __name__ == "__main__":
    main()
