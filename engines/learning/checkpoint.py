"""The state of a training run on disk, whole or not at all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.networks import IceModel, NetworkSettings

CHECKPOINT = "checkpoint.pt"


@dataclass
class Average:
    """Running average of weights and statistics: steadier than the last step's."""

    decay: float
    values: dict[str, Tensor]
    steps: int = 0

    @classmethod
    def of(cls, model: nn.Module, decay: float) -> Average:
        """Start at the present weights."""
        return cls(decay, {k: v.detach().clone() for k, v in model.state_dict().items()})

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the present weights, faster in the first steps."""
        self.steps += 1
        decay = min(self.decay, (1.0 + self.steps) / (10.0 + self.steps))
        for name, value in model.state_dict().items():
            kept = self.values[name]
            if value.dtype.is_floating_point:
                kept.lerp_(value, 1.0 - decay)
            else:
                kept.copy_(value)


@dataclass
class RunState:
    """Everything that a run needs to go on as if it had never stopped."""

    model: IceModel
    optimizer: torch.optim.Optimizer
    average: Average
    generator: np.random.Generator
    step: int = 0
    elapsed_s: float = 0.0
    record: dict[str, Any] = field(default_factory=dict)
    """What the run was started with, for the model card."""

    def save(self, run: Path) -> None:
        """Replace the checkpoint of a run atomically."""
        content = {
            "network": asdict(self.model.settings),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.values,
            "average_steps": self.average.steps,
            "generator": self.generator.bit_generator.state,
            "dropout": torch.get_rng_state(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "record": self.record,
        }
        partial = run / (CHECKPOINT + ".partial")
        torch.save(content, partial)
        partial.replace(run / CHECKPOINT)

    def load(self, run: Path) -> None:
        """Take up the checkpoint of a run; the network must have the same settings."""
        content = read_checkpoint(run)
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.average.values = content["average"]
        self.average.steps = content["average_steps"]
        self.generator.bit_generator.state = content["generator"]
        torch.set_rng_state(content["dropout"])
        self.step = content["step"]
        self.elapsed_s = content["elapsed_s"]
        self.record = content["record"]


def read_checkpoint(run: Path) -> dict[str, Any]:
    """Read a checkpoint as it is."""
    content: dict[str, Any] = torch.load(run / CHECKPOINT, weights_only=True, map_location="cpu")
    return content


def network_settings(content: dict[str, Any]) -> NetworkSettings:
    """Say which network a checkpoint holds."""
    return NetworkSettings.of(content["network"])


def trained_model(run: Path) -> tuple[IceModel, dict[str, Any]]:
    """Build the network of a run with its averaged weights, ready to measure, and its record."""
    content = read_checkpoint(run)
    model = IceModel(network_settings(content))
    model.load_state_dict(content["average"])
    record = {**content["record"], "step": content["step"], "elapsed_s": content["elapsed_s"]}
    return model.eval(), record
