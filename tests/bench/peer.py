"""The peer: the same tilts the way Ice Finder's published workflow takes them.

mrcfile, bilinear reduction to 1024 x 1024, minimum to maximum as 8 bit, 1 - x / 255, PyTorch eager
FPN-ResNet34, a threshold. Run as a program of its own, so that its CPU time and memory are its own:
`python -m tests.bench.peer STACK COUNT` prints one line of JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import mrcfile  # type: ignore[import-untyped]
import numpy as np
import segmentation_models_pytorch as smp  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray

SIDE_PX = 1024
THREADS = 2
_WARM_UP = 2


def ice_mask(network: Any, image: NDArray[Any]) -> NDArray[np.bool_]:
    """Segment one image of any size into (1024, 1024)."""
    small = cv2.resize(image.astype(np.float32), (SIDE_PX, SIDE_PX))
    grey = cv2.normalize(small, np.empty(0), 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    picture = torch.from_numpy(1.0 - grey.astype(np.float32) / 255.0)[None, None]
    with torch.no_grad():
        logit: torch.Tensor = network(picture)
    return np.asarray((logit[0, 0] > 0.5).numpy())


def cpu_s() -> float:
    """CPU time of this process so far, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(stack: Path, count: int) -> dict[str, float]:
    """Take the first sections of a stack one by one."""
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
    network = smp.FPN("resnet34", encoder_weights=None, in_channels=1, classes=1).eval()
    wall: list[float] = []
    cpu: list[float] = []
    # A memory map spares the peer from reading the whole stack for one section.
    with mrcfile.mmap(stack, mode="r") as sections:
        for index in [0] * _WARM_UP + list(range(count)):
            wall_start, cpu_start = time.perf_counter(), cpu_s()
            ice_mask(network, np.array(sections.data[index]))
            wall.append(time.perf_counter() - wall_start)
            cpu.append(cpu_s() - cpu_start)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "cpu_s_per_tilt": float(np.mean(cpu[_WARM_UP:])),
        "wall_s_p50": float(np.median(wall[_WARM_UP:])),
        "peak_memory_bytes": peak_kib * 1024.0,
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
