"""PyTorch as a backend, for comparison alone: what a network costs without a compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from engines.backends.protocol import (
    Inference,
    Memory,
    Ports,
    check_inference,
    check_inputs,
)
from engines.bundle import Bundle
from engines.errors import BackendError

WEIGHTS = "weights.safetensors"


class TorchBackend:
    """The network of a bundle in PyTorch, in float32; eager, or compiled."""

    name = "torch"

    def __init__(self, bundle: Bundle, device: str, threads: int, *, compiled: bool) -> None:
        """Build the network from the bundle's weights; raises `BackendError`, `BundleError`."""
        model = network_of(bundle)

        import torch

        if threads:
            torch.set_num_threads(threads)
        self.threads = torch.get_num_threads()
        self.version = str(torch.__version__)
        self.device = torch.cuda.get_device_name() if device == "cuda" else "CPU"
        self._torch, self._device = torch, device
        self._ports = Ports.of(bundle.manifest)
        model = model.to(device)
        self._model: Callable[..., Any] = torch.compile(model) if compiled else model

    def infer(
        self,
        picture: NDArray[float32],
        valid: NDArray[float32],
        memory: Memory | None = None,
    ) -> Inference:
        """Run the network on a batch."""
        check_inputs(picture, valid, memory)
        given = self.put(self._ports.inputs(picture, valid, memory))
        answers = [one.cpu().numpy() for one in self.call(given)]
        inference = self._ports.inference(answers[: len(self._ports.outputs)])
        return check_inference(inference, picture, self._ports, self.name)

    @property
    def reserved_bytes(self) -> int | None:
        """Memory that is held on the GPU; None without one."""
        on_gpu = self._device == "cuda"
        return int(self._torch.cuda.max_memory_reserved()) if on_gpu else None

    def put(self, inputs: dict[str, NDArray[float32]]) -> list[Any]:
        """Bring inputs to where the network is."""
        arrays = (np.ascontiguousarray(one) for one in inputs.values())
        return [self._torch.from_numpy(one).to(self._device) for one in arrays]

    def call(self, given: list[Any]) -> tuple[Any, ...]:
        """Run the bare network; its answers are there when this returns."""
        with self._torch.inference_mode():
            answers: tuple[Any, ...] = self._model(*given)
        if self._device == "cuda":
            self._torch.cuda.synchronize()
        return answers

    def close(self) -> None:
        """Nothing is to be given back before the process ends."""


def network_of(bundle: Bundle) -> Any:
    """Build the network that a bundle was exported from, with its weights, to measure with.

    Raises `BackendError` where the bundle does not tell which network it holds, `BundleError`
    where it has no weights.
    """
    content = bundle.read(WEIGHTS)
    settings = bundle.manifest.training.get("settings")
    network = settings.get("network") if isinstance(settings, dict) else None
    if not isinstance(network, dict):
        raise BackendError(f"the bundle {bundle.name} does not tell which network it holds")
    from safetensors.torch import load

    from engines.networks import IceModel, NetworkSettings

    model = IceModel(NetworkSettings.of(network))
    model.load_state_dict({name: value.float() for name, value in load(content).items()})
    return model.eval()
