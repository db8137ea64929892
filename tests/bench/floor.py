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
from engines.backends.protocol import Ports
from engines.bundle import GRAPH, SIDE_STEP_PX, Bundle
from engines.preprocess import working_shape
from tests.bench.tilts import PIXEL_SIZE_ANGSTROM, SIDE_PX

_TRIALS = 6


class Floor:
    """Read the bytes, average them down, run the bare graph: nothing else."""

    def __init__(self) -> None:
        bundle = Bundle.load("default")
        target = bundle.manifest.pixel_size_angstrom
        self.working_px = working_shape((SIDE_PX, SIDE_PX), PIXEL_SIZE_ANGSTROM, target)[0]
        side = -(-self.working_px // SIDE_STEP_PX) * SIDE_STEP_PX
        # Kept, because touching 64 MB of new memory takes longer than filling it.
        self._float = np.zeros((SIDE_PX, SIDE_PX), np.float32)
        self._picture = np.zeros((1, 1, side, side), np.float32)
        self._valid = np.zeros_like(self._picture)
        self._valid[..., : self.working_px, : self.working_px] = 1.0
        self._inputs = Ports.of(bundle.manifest).inputs(self._picture, self._valid, None)
        self.setting, self._session = self._fastest(bundle.read(GRAPH))

    def _fastest(self, graph: bytes) -> tuple[str, Any]:
        """Which setting is fastest differs from machine to machine: the floor takes the best."""
        threads = sorted({1, usable_cores(), len(os.sched_getaffinity(0))})
        settings = [(number, spinning) for number in threads for spinning in (False, True)]
        sessions = [_session(graph, *setting) for setting in settings]
        # In turns, and the best of each: what else the machine does hits all of them alike.
        trials = [[self._infer(session) for session in sessions] for _ in range(_TRIALS)]
        best = int(np.min(trials[1:], axis=0).argmin())
        number, spinning = settings[best]
        name = f"ONNX Runtime, {number} thread(s), {'' if spinning else 'not '}spinning"
        return name, sessions[best]

    def time_s(self, stack: Path, offset: int) -> tuple[float, float]:
        """Take one section of a stack, `offset` bytes into the file; elapsed and CPU time."""
        start, cpu_start = time.perf_counter(), time.process_time()
        pixels = np.fromfile(stack, np.int16, SIDE_PX * SIDE_PX, offset=offset)
        self._reduce(pixels.reshape(SIDE_PX, SIDE_PX))
        self._infer(self._session)
        return time.perf_counter() - start, time.process_time() - cpu_start

    def _reduce(self, image: NDArray[np.int16]) -> None:
        side = self.working_px
        np.copyto(self._float, image)
        self._picture[0, 0, :side, :side] = cv2.resize(
            self._float, (side, side), interpolation=cv2.INTER_AREA
        )

    def _infer(self, session: Any) -> float:
        start = time.perf_counter()
        session.run(None, self._inputs)
        return time.perf_counter() - start


def _session(graph: bytes, threads: int, spinning: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
