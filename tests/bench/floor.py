"""The floor: the least that any program must do with a tilt on this machine and this graph."""

import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from numpy.typing import NDArray

from engines.backends.onnx_runtime import usable_cores
from engines.bundle import GRAPH, SIDE_STEP_PX, Bundle
from engines.preprocess import working_shape
from tests.bench.tilts import PIXEL_SIZE_ANGSTROM, SIDE_PX

_TRIALS = 4


class Floor:
    """Read the bytes, average them down, run the bare graph: nothing else."""

    def __init__(self) -> None:
        bundle = Bundle.load("default")
        target = bundle.manifest.pixel_size_angstrom
        self.working_px = working_shape((SIDE_PX, SIDE_PX), PIXEL_SIZE_ANGSTROM, target)[0]
        side = -(-self.working_px // SIDE_STEP_PX) * SIDE_STEP_PX
        self._picture = np.zeros((1, 1, side, side), np.float32)
        self._valid = np.zeros_like(self._picture)
        self._valid[..., : self.working_px, : self.working_px] = 1.0
        self._session = self._fastest(bundle.read(GRAPH))

    def _fastest(self, graph: bytes) -> Any:
        """Which setting is fastest differs from machine to machine: the floor takes the best."""
        threads = {1, usable_cores(), len(os.sched_getaffinity(0))}
        sessions = [_session(graph, n, spin) for n in sorted(threads) for spin in ("0", "1")]
        return min(sessions, key=self._trial_s)

    def _trial_s(self, session: Any) -> float:
        self._infer(session)
        start = time.perf_counter()
        for _ in range(_TRIALS):
            self._infer(session)
        return time.perf_counter() - start

    def time_s(self, stack: Path, offset: int) -> tuple[float, float]:
        """Take one section of a stack, `offset` bytes into the file; elapsed and CPU time."""
        start, cpu_start = time.perf_counter(), time.process_time()
        pixels = np.fromfile(stack, np.int16, SIDE_PX * SIDE_PX, offset=offset)
        self._reduce(pixels.reshape(SIDE_PX, SIDE_PX))
        self._infer(self._session)
        return time.perf_counter() - start, time.process_time() - cpu_start

    def _reduce(self, image: NDArray[np.int16]) -> None:
        side = self.working_px
        self._picture[0, 0, :side, :side] = cv2.resize(
            image.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA
        )

    def _infer(self, session: Any) -> None:
        session.run(None, {"picture": self._picture, "valid": self._valid})


def _session(graph: bytes, threads: int, spinning: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
