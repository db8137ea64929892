"""A compiled plan as a backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.backends.protocol import (
    WARM_UP_PX,
    Backend,
    Inference,
    Memory,
    Ports,
    check_inference,
    check_inputs,
)
from engines.errors import BackendError
from engines.gpu.plan_runner import PlanRunner

NAME = "tensorrt"


class PlanBackend:
    """Runs a bundle's network from a plan, on the GPU of its runner."""

    name = NAME

    def __init__(self, runner: PlanRunner, ports: Ports, most_side_px: int = 1536) -> None:
        """Run once, so that buffers are there; raises `BackendError`."""
        if sorted(runner.outputs) != sorted(ports.outputs):
            raise BackendError(
                f"The plan gives {', '.join(runner.outputs)} and the bundle's network "
                f"{', '.join(ports.outputs)}; build it again."
            )
        self._runner: PlanRunner | None = runner
        self.most_side_px = most_side_px
        self._ports = ports
        blank = np.ones((1, 1, WARM_UP_PX, WARM_UP_PX), float32)
        self.infer(blank, blank)

    @property
    def reserved_bytes(self) -> int:
        """Memory that is held on the GPU, without the weights."""
        return 0 if self._runner is None else self._runner.reserved_bytes

    def infer(
        self, picture: NDArray[float32], valid: NDArray[float32], memory: Memory | None = None
    ) -> Inference:
        """Run the network on a batch; raises `BackendError`."""
        check_inputs(picture, valid, memory)
        if max(picture.shape[2:]) > self.most_side_px:
            raise BackendError(
                f"The plan takes pictures of {self.most_side_px} x {self.most_side_px} at most, "
                f"not {picture.shape[2]} x {picture.shape[3]}; ONNX Runtime takes larger ones."
            )
        if self._runner is None:
            raise BackendError(f"The backend {NAME} is closed; build another.")
        found = self._runner.run(self._ports.inputs(picture, valid, memory))
        answers = [found[name] for name in self._ports.outputs]
        return check_inference(self._ports.inference(answers), picture, self._ports, self.name)

    def close(self) -> None:
        """Give the GPU back."""
        if self._runner is not None:
            self._runner.close()
        self._runner = None


class OrOnTheCpu:
    """Hands pictures that are too large for a plan to a backend on the CPU."""

    def __init__(self, gpu: Backend, most_side_px: int, cpu: Callable[[], Backend]) -> None:
        """Take both; `cpu` is built when the first such picture comes."""
        self._gpu, self._most_side_px, self._build = gpu, most_side_px, cpu
        self._cpu: Backend | None = None
        self.name = gpu.name

    def infer(
        self, picture: NDArray[float32], valid: NDArray[float32], memory: Memory | None = None
    ) -> Inference:
        """Run the network on a batch; raises `BackendError`."""
        if max(picture.shape[2:], default=0) <= self._most_side_px:
            return self._gpu.infer(picture, valid, memory)
        self._cpu = self._cpu or self._build()
        return self._cpu.infer(picture, valid, memory)

    def close(self) -> None:
        """Close both."""
        self._gpu.close()
        if self._cpu is not None:
            self._cpu.close()
