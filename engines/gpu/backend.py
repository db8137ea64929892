"""A compiled plan as a backend."""

from __future__ import annotations

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.backends.protocol import Inference, Memory, Ports, check_inference, check_inputs
from engines.errors import BackendError
from engines.gpu.plan_runner import PlanRunner

NAME = "tensorrt"
_WARM_UP_PX = 608


class PlanBackend:
    """Runs a bundle's network from a plan, on the GPU of its runner."""

    name = NAME

    def __init__(self, runner: PlanRunner, ports: Ports) -> None:
        """Run once, so that buffers are there; raises `BackendError`."""
        if sorted(runner.outputs) != sorted(ports.outputs):
            raise BackendError(
                f"The plan gives {', '.join(runner.outputs)} and the bundle's network "
                f"{', '.join(ports.outputs)}; build it again."
            )
        self._runner: PlanRunner | None = runner
        self._ports = ports
        blank = np.ones((1, 1, _WARM_UP_PX, _WARM_UP_PX), float32)
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
