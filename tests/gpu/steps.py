"""What is tried on a GPU, step by step: python -m tests.gpu.steps NAME prints one JSON object.

Every step is a process of its own, so that one that crashes or hangs costs only itself.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

Facts = dict[str, Any]
CACHE = Path(os.environ.get("ICEWATCH_GPU_CACHE", "/tmp/icewatch-gpu-engines"))
BUNDLE = os.environ.get("ICEWATCH_GPU_BUNDLE", "default")
MOST_TIMES = int(os.environ.get("ICEWATCH_GPU_TIMES", "200"))
"""Repetitions of what is timed, at most."""
SIDE_PX, PIXEL_SIZE_ANGSTROM = 4096, 1.97


def card() -> Facts:
    """Which card and driver."""
    from engines.plans.card import find_card

    return find_card().model_dump()


def libraries() -> Facts:
    """Which TensorRT packages can be loaded, and for which cards they build."""
    from engines.plans.errors import PlanError
    from engines.plans.library import NAMES, find

    found: Facts = {"python": platform.python_version()}
    for name in NAMES:
        try:
            library = find(name)
            found[name] = {"version": library.version, "capabilities": library.capabilities}
        except PlanError as error:
            found[name] = str(error)
    return found


def build() -> Facts:
    """Build a plan for this card and keep it."""
    from engines.bundle import Bundle
    from engines.gpu.installation import Site

    start = time.perf_counter()
    site = Site.find(Bundle.load(BUNDLE), CACHE)
    plan = site.build()
    return {
        "library": site.library.label,
        "seconds": time.perf_counter() - start,
        "megabytes": len(plan) / 1e6,
    }


def serve() -> Facts:
    """Load the plan, compare it with ONNX Runtime, and time it."""
    from engines.backends.protocol import Ports
    from engines.bundle import Bundle
    from engines.gate import apart_from_cpu
    from engines.gpu.backend import PlanBackend
    from engines.gpu.device import open_device
    from engines.gpu.installation import Site
    from engines.gpu.plan_runner import PlanRunner
    from engines.reference import known_tilts
    from engines.segmenter import Segmenter

    bundle = Bundle.load(BUNDLE)
    site = Site.find(bundle, CACHE)
    plan = site.plan() or site.build()
    device = open_device()
    free = device.free_bytes()
    start = time.perf_counter()
    backend = PlanBackend(PlanRunner(site.library, plan, device), Ports.of(bundle.manifest))
    loaded_s = time.perf_counter() - start
    apart = apart_from_cpu(bundle, backend, known_tilts(bundle))
    generator = np.random.default_rng(0)
    picture = generator.poisson(200.0, (8, 1, 608, 608)).astype(np.float32)
    image = generator.poisson(10.0, (SIDE_PX, SIDE_PX)).astype(np.int16)
    segmenter = Segmenter(bundle, backend)
    facts = {
        "load_s": loaded_s,
        "difference_from_onnx_runtime": {**asdict(apart), "is_small": apart.is_small},
        "network_ms": timed(lambda: backend.infer(picture[:1], picture[:1] * 0 + 1), 200),
        "pixels_to_percent_ms": timed(lambda: segmenter.read(image, PIXEL_SIZE_ANGSTROM), 30),
        "device_megabytes": (free - device.free_bytes()) / 1e6,
        "reserved_megabytes": backend.reserved_bytes / 1e6,
    }
    batch = timed(lambda: backend.infer(picture, picture * 0 + 1), 50)
    facts["tilts_per_s_in_batches_of_8"] = 8e3 / batch["p50"]
    backend.close()
    return facts


def torch_on_cuda() -> Facts:
    """The same network in PyTorch on the card: eager, half, CUDA graph; and the area average."""
    import torch

    from engines.benchmarking.torch_model import network_of
    from engines.bundle import Bundle
    from engines.preprocess import prepare

    facts: Facts = {"torch": torch.__version__, "card": torch.cuda.get_device_name()}
    model = network_of(Bundle.load(BUNDLE)).cuda().eval()
    picture = torch.poisson(torch.full((1, 1, 608, 608), 200.0)).cuda()
    valid = torch.ones_like(picture)
    with torch.inference_mode():
        for name, half in (("eager_float32", False), ("eager_half", True)):
            with torch.autocast("cuda", torch.float16, enabled=half):
                facts[f"{name}_ms"] = timed(lambda: finished(model(picture, valid)), 100)
        graph = torch.cuda.CUDAGraph()
        with torch.autocast("cuda", torch.float16), torch.cuda.graph(graph):
            model(picture, valid)

        def replay() -> None:
            graph.replay()
            finished(None)

        facts["cuda_graph_half_ms"] = timed(replay, 200)
    image = np.random.default_rng(0).poisson(10.0, (SIDE_PX, SIDE_PX)).astype(np.int16)
    prepared = prepare(image, PIXEL_SIZE_ANGSTROM, 13.5).picture
    facts["area_average"] = area_average(image, prepared)
    return facts


def area_average(image: Any, expected: Any) -> Facts:
    """Average on the card by two matrix products, and compare with the CPU."""
    import torch

    from engines.gpu.resampler import shares_of

    torch.backends.cuda.matmul.allow_tf32 = False
    down, across = (
        torch.tensor(shares_of(side, small)).cuda()
        for side, small in zip(image.shape, expected.shape, strict=True)
    )
    raw = torch.from_numpy(image).pin_memory()

    def run() -> Any:
        return finished(down @ raw.cuda(non_blocking=True).float() @ across.T)

    apart = float(np.abs(run().cpu().numpy() - expected).max())
    return {"largest_difference": apart, "upload_and_average_ms": timed(run, 50)}


def finished(answer: Any) -> Any:
    """Wait for the card."""
    import torch

    torch.cuda.synchronize()
    return answer


def timed(call: Callable[[], Any], times: int) -> Facts:
    """Median and 99th percentile in ms, after three calls that do not count."""
    for _ in range(3):
        call()
    taken = []
    for _ in range(min(times, MOST_TIMES)):
        start = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - start))
    return {"p50": statistics.median(taken), "p99": float(np.percentile(taken, 99))}


STEPS: dict[str, Callable[[], Facts]] = {
    "card": card,
    "libraries": libraries,
    "build": build,
    "serve": serve,
    "torch_on_cuda": torch_on_cuda,
}

if __name__ == "__main__":
    json.dump(STEPS[sys.argv[1]](), sys.stdout)
