"""Teach late fusion: python -m engines.learning.train_memory --run RUN --data DIR... --out RUN2.

Everything that reads a single tilt stays as it was trained; only what weighs its neighbours learns.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import bool_, float32
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from engines.alignment import Matrix, align, reduced, scaled
from engines.learning.batches import (
    DISTRACTING,
    AugmentSettings,
    Batch,
    choose,
    cut,
    expose,
    turn,
)
from engines.learning.checkpoint import CHECKPOINT, read_checkpoint, trained_model
from engines.learning.losses import LossSettings, total_loss
from engines.learning.shards import Scene, list_shards, read_about, read_scene
from engines.learning.train import at_loss_stride, schedule
from engines.networks import IceModel
from engines.networks.settings import STRIDE
from engines.simulation import random_camera

LOG = "memory.csv"
MOST_NEIGHBOURS = 3
FOLLOWING = ("dose_symmetric", "bidirectional", "level")
"""Schemes of the simulator whose tilts follow each other by small steps."""
LOG_EVERY_STEPS = 10
MOST_TRIES = 300


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """How late fusion is taught."""

    seed: int
    steps: int
    batch: int = 4
    rate: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 0.01
    crop_px: int = 320


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbouring tilt, and how its pixels lie in the tilt that is read."""

    picture: NDArray[float32]
    valid: NDArray[bool_]
    matrix: Matrix


@dataclass(frozen=True, slots=True)
class Example:
    """A tilt with its truth, and neighbours that could be aligned."""

    scene: Scene
    picture: NDArray[float32]
    valid: NDArray[bool_]
    neighbours: tuple[Neighbour, ...]


def draw_example(
    shards: Sequence[Path], generator: np.random.Generator, crop_px: int
) -> Example | None:
    """Draw a tilt with up to three others of its series; None where none could be aligned.

    Ice is as frequent as it was when the network learned to read single tilts: with less of it,
    neighbours would teach it to find less.
    """
    path, index = choose(shards, generator, AugmentSettings())
    about = read_about(path)
    if len(about) < 2 or about[0].get("scheme") not in FOLLOWING:
        return None
    chosen, *others = _places(generator, index, len(about))
    camera = random_camera(generator)
    way = int(generator.integers(2**32))
    pictures = []
    for index in (chosen, *others):
        # the same crop and turn for all tilts of an example
        same = np.random.default_rng(way)
        scene = turn(cut(read_scene(path, index), crop_px, same), same)
        settings = AugmentSettings(foreign_scale=0.0, border=0.0)
        pictures.append((scene, *expose(scene, generator, settings, camera)))
    scene, picture, valid = pictures[0]
    own = reduced(picture, valid, scene.about["angle_deg"])
    neighbours = []
    for other, its_picture, its_valid in pictures[1:]:
        found = align(reduced(its_picture, its_valid, other.about["angle_deg"]), own)
        if found is not None:
            neighbours.append(Neighbour(its_picture, its_valid, found.matrix))
    return Example(scene, picture, valid, tuple(neighbours)) if neighbours else None


def _places(generator: np.random.Generator, chosen: int, count: int) -> list[int]:
    """Choose to a tilt one to three of those that are nearest to it in angle."""
    others = sorted((k for k in range(count) if k != chosen), key=lambda k: abs(k - chosen))
    near = others[: MOST_NEIGHBOURS + 1]
    number = min(len(near), 1 + int(generator.integers(MOST_NEIGHBOURS)))
    return [chosen, *(int(k) for k in generator.choice(near, number, replace=False))]


def batch_of(examples: Sequence[Example]) -> Batch:
    """Put the tilts that are read into a batch."""

    def stacked(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    return Batch(
        stacked([e.picture for e in examples])[:, None],
        stacked([e.valid.astype(float32) for e in examples])[:, None],
        stacked([e.scene.packed for e in examples]),
        stacked([(e.scene.distract & int(DISTRACTING)) > 0 for e in examples]),
        stacked([e.scene.contrast.astype(float32) / 255.0 for e in examples]),
    )


@torch.no_grad()
def remembered(
    model: IceModel, examples: Sequence[Example], half_precision: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode all tilts: features of those read, mean features of their neighbours, and where."""
    pictures = [e.picture for e in examples] + [n.picture for e in examples for n in e.neighbours]
    valids = [e.valid for e in examples] + [n.valid for e in examples for n in e.neighbours]
    given = (torch.from_numpy(np.stack(x).astype(float32))[:, None] for x in (pictures, valids))
    scaled_pictures = model.scaling(*given).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=half_precision):
        decoded = model.pooled(model.decode(model.network.encoder(scaled_pictures))).float()
    own, rest = decoded[: len(examples)], list(decoded[len(examples) :])
    means, weights = [], []
    for example in examples:
        total, count = torch.zeros_like(own[0]), torch.zeros_like(own[0, :1])
        for neighbour in example.neighbours:
            moved, there = warped(rest.pop(0), neighbour.matrix)
            total, count = total + moved * there, count + there
        means.append(total / count.clamp(min=1.0))
        weights.append((count > 0).float())
    return own, torch.stack(means), torch.stack(weights)


def warped(features: Tensor, matrix: Matrix) -> tuple[Tensor, Tensor]:
    """Lay features (F, h, w) of one tilt over another: moved, and where they are known."""
    _, rows, columns = features.shape
    small = scaled(matrix, STRIDE)
    linear = np.linalg.inv(small[:, :2])
    offset = -linear @ small[:, 2]
    # from pixel places to those of torch, which run from -1 to 1 over the edges of the pixels
    to_unit = np.array([[2.0 / columns, 0, 1.0 / columns - 1], [0, 2.0 / rows, 1.0 / rows - 1]])
    full = np.vstack([np.column_stack([linear, offset]), [0, 0, 1]])
    unit = np.vstack([to_unit, [0, 0, 1]])
    theta = torch.from_numpy((unit @ full @ np.linalg.inv(unit))[:2].astype(float32))[None]
    with_ones = torch.cat([features, torch.ones_like(features[:1])])[None]
    grid = affine_grid(theta, list(with_ones.shape), align_corners=False)
    moved = grid_sample(with_ones, grid, align_corners=False)[0]
    return moved[:-1], (moved[-1:] > 0.5).float()


class MemoryRun:
    """Teaches the memory of a trained network."""

    def __init__(self, model: IceModel, data: Sequence[Path], settings: MemorySettings) -> None:
        self.model, self.settings = model.eval(), settings
        self.shards = [shard for one in data for shard in list_shards(one)]
        self.generator = np.random.default_rng(settings.seed)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in model.memory.parameters():
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            model.memory.parameters(), settings.rate, weight_decay=settings.weight_decay
        )

    def step(self, progress: float) -> tuple[float, float]:
        """Take one step: loss with neighbours, and without any on the same tilts."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * schedule(progress, self.settings.warm_up)
        examples = self._examples()
        own, others, weight = remembered(self.model, examples, True)
        memory = self.model.memory
        better = memory(own, memory.remember(own), memory.remember(others), weight)
        batch, loss_settings = batch_of(examples), LossSettings()
        loss, _ = self._loss(better, batch, loss_settings)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(memory.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            alone, _ = self._loss(own, batch, loss_settings)
        return float(loss.detach()), float(alone)

    def _loss(
        self, features: Tensor, batch: Batch, settings: LossSettings
    ) -> tuple[Tensor, dict[str, float]]:
        logits = self.model.heads(features)
        return total_loss(at_loss_stride(logits, STRIDE), batch, settings)

    def _examples(self) -> list[Example]:
        examples: list[Example] = []
        for _ in range(MOST_TRIES):
            if len(examples) == self.settings.batch:
                return examples
            example = draw_example(self.shards, self.generator, self.settings.crop_px)
            if example is not None and example.picture.shape == (self.settings.crop_px,) * 2:
                examples.append(example)
        raise ValueError(
            f"Hardly any tilts could be laid over each other in {MOST_TRIES} tries; simulate "
            "series of several tilts, --tilts 6."
        )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engines.learning.train_memory", description=__doc__
    )
    parser.add_argument("--run", type=Path, required=True, help="run of a trained network")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True, help="where the taught run is written")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--crop", type=int, default=320)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    given = _parse(arguments)
    torch.set_num_threads(given.threads)
    model, _ = trained_model(given.run)
    settings = MemorySettings(given.seed, given.steps, crop_px=given.crop)
    run = MemoryRun(model, given.data, settings)
    given.out.mkdir(parents=True, exist_ok=True)
    sums = np.zeros(2)
    with (given.out / LOG).open("w", newline="") as stream:
        log = csv.writer(stream)
        log.writerow(["step", "loss", "without_neighbours"])
        for step in track(range(1, settings.steps + 1), "teaching late fusion"):
            sums += run.step((step - 1) / settings.steps)
            if step % LOG_EVERY_STEPS == 0:
                log.writerow([step, *(round(float(x), 5) for x in sums / LOG_EVERY_STEPS)])
                stream.flush()
                sums[:] = 0.0
    content = read_checkpoint(given.run)
    content["average"] = model.state_dict()
    content["record"] = {**content["record"], "memory": _plain(settings)}
    torch.save(content, given.out / CHECKPOINT)


def _plain(settings: MemorySettings) -> dict[str, float]:
    plain = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    return {name: value for name, value in plain.items() if math.isfinite(value)}


if __name__ == "__main__":
    main()
