"""The floor: the least that any program must do with a tilt on this machine and this graph."""

import os
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from engines.bundle import GRAPH, SIDE_STEP_PX, Bundle
from engines.preprocess import working_shape
from tests.bench.tilts import PIXEL_SIZE_ANGSTROM, SIDE_PX

_WARM_UP = 3


class Floor:
    """Read the bytes, average them down, run the bare graph: nothing else."""

    def __init__(self) -> None:
        bundle = Bundle.load("default")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        self._session = onnxruntime.InferenceSession(
            bundle.read(GRAPH), options, providers=["CPUExecutionProvider"]
        )
        target = bundle.manifest.pixel_size_angstrom
        self.working_px = working_shape((SIDE_PX, SIDE_PX), PIXEL_SIZE_ANGSTROM, target)[0]
        side = -(-self.working_px // SIDE_STEP_PX) * SIDE_STEP_PX
        self._picture = np.zeros((1, 1, side, side), np.float32)
        self._valid = np.zeros_like(self._picture)
        self._valid[..., : self.working_px, : self.working_px] = 1.0
        for _ in range(_WARM_UP):
            self._infer()

    def time_s(self, stack: Path, offset: int) -> float:
        """Measure one section of a stack whose pixels begin `offset` bytes into the file."""
        start = time.perf_counter()
        pixels = np.fromfile(stack, np.int16, SIDE_PX * SIDE_PX, offset=offset)
        self._reduce(pixels.reshape(SIDE_PX, SIDE_PX))
        self._infer()
        return time.perf_counter() - start

    def _reduce(self, image: NDArray[np.int16]) -> None:
        side = self.working_px
        self._picture[0, 0, :side, :side] = cv2.resize(
            image.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA
        )

    def _infer(self) -> None:
        self._session.run(None, {"picture": self._picture, "valid": self._valid})
