"""One contender in a process of its own: `python -m engines.benchmarking.child`.

It is told what to do by lines of JSON on standard input and answers each with one line, so that
its memory is its own and its death is nobody else's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from numpy import float32, int16
from numpy.typing import NDArray

from engines.backends.protocol import Ports
from engines.benchmarking.contenders import Call, Contender, build
from engines.benchmarking.memory import device_bytes, peak_bytes, reset_peak
from engines.bundle import SIDE_STEP_PX, Bundle
from engines.errors import EngineError
from engines.icemap import IceMap
from engines.preprocess import prepare
from engines.segmenter import Segmenter

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What a contender is to run, as the parent writes it on the command line."""

    name: str
    bundle: str
    threads: int
    size_px: int
    pixel_size_angstrom: float
    folder: str
    """Holds the tilts, `<number>.raw` (int16), and takes the masks, `<name>-<number>.mask`."""

    def tilt_file(self, number: int) -> Path:
        return Path(self.folder) / f"{number}.raw"

    def mask_file(self, number: int) -> Path:
        return Path(self.folder) / f"{self.name}-{number}.mask"


class Runner:
    """A contender at work."""

    def __init__(self, task: Task) -> None:
        """Build it and let it warm up; raises EngineError."""
        self._task = task
        self._tilt = np.zeros((task.size_px, task.size_px), int16)
        self._read(0)
        bundle = Bundle.load(task.bundle)
        self._target = bundle.manifest.pixel_size_angstrom
        self._ports = Ports.of(bundle.manifest)
        picture, valid = self._prepared()
        before = reset_peak()
        start = time.perf_counter()
        self._contender = build(task.name, bundle, task.threads)
        self._segmenter = Segmenter(bundle, self._contender.backend, self._contender.resampler)
        self._contender.backend.infer(picture, valid)
        self._start_s = time.perf_counter() - start
        for _ in range(2):
            self._whole()
        self._grown = max(0, peak_bytes() - before)
        self._bare = self._bare_call(self._contender, picture, valid)

    def hello(self) -> Answer:
        """Say what runs here."""
        one = self._contender
        return {
            "device": one.device,
            "version": one.version,
            "threads": one.threads,
            "start_s": self._start_s,
            "memory_bytes": self._grown,
        }

    def tilt(self, number: int, turn: int) -> Answer:
        """Time one tilt: the network with and without what is around it, and all there is to do.

        In each turn another of the three comes first: it finds the caches as the others left them.
        """
        self._read(number)
        picture, valid = self._prepared()
        backend = self._contender.backend
        found: dict[str, IceMap] = {}
        calls: dict[str, Call] = {
            "network": lambda: backend.infer(picture, valid),
            "whole": lambda: found.update(tilt=self._whole()),
        }
        if self._bare is not None:
            calls["bare"] = self._bare
        names = sorted(calls)
        at = turn % len(names)
        taken = {name: _timed(calls[name]) for name in names[at:] + names[:at]}
        np.packbits(found["tilt"].ice).tofile(self._task.mask_file(number))
        return {
            "wall_s": {name: wall_s for name, (wall_s, _) in taken.items()},
            "cpu_s": {name: cpu_s for name, (_, cpu_s) in taken.items()},
            "percent": found["tilt"].percent,
        }

    def batch(self, size: int) -> Answer:
        """Time the network on a batch of the same tilt, which is in memory already."""
        one, valid_of_one = self._prepared()
        picture, valid = (np.repeat(array, size, axis=0) for array in (one, valid_of_one))
        backend = self._contender.backend
        return {"batch_s": _timed(lambda: backend.infer(picture, valid))[0]}

    def end(self) -> Answer:
        """Say how much memory of a GPU is held, and close."""
        held = device_bytes() or getattr(self._contender.backend, "reserved_bytes", None)
        self._segmenter.close()
        return {"device_memory_bytes": held}

    def answer(self, order: Answer) -> Answer:
        """Do what an order says."""
        if order["do"] == "tilt":
            return self.tilt(order["number"], order["turn"])
        return self.batch(order["size"]) if order["do"] == "batch" else self.end()

    def _read(self, number: int) -> None:
        with self._task.tilt_file(number).open("rb") as file:
            file.readinto(self._tilt.data.cast("B"))

    def _whole(self) -> IceMap:
        return self._segmenter.read(self._tilt, self._task.pixel_size_angstrom)

    def _prepared(self) -> tuple[NDArray[float32], NDArray[float32]]:
        """Bring the tilt to what a backend takes: picture and valid, (1, 1, height, width)."""
        found = prepare(self._tilt, self._task.pixel_size_angstrom, self._target)
        rows, columns = (-side % SIDE_STEP_PX for side in found.picture.shape)
        picture, valid = (
            np.asarray(cv2.copyMakeBorder(one, 0, rows, 0, columns, kind), float32)[None, None]
            for one, kind in (
                (found.picture, cv2.BORDER_REFLECT_101),
                (found.valid.astype(float32), cv2.BORDER_CONSTANT),
            )
        )
        return picture, valid

    def _bare_call(
        self, contender: Contender, picture: NDArray[float32], valid: NDArray[float32]
    ) -> Call | None:
        if contender.bare is None:
            return None
        call = contender.bare(self._ports.inputs(picture, valid, None))
        call()
        return call


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Run a call: seconds on the wall, and of the CPU in all threads."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start_s, time.process_time() - start_cpu_s


def main() -> None:
    """Answer orders until there are no more, or something fails."""
    out = _own_standard_output()
    try:
        runner = Runner(Task(**json.loads(sys.argv[1])))
        _say(out, runner.hello())
        for line in sys.stdin:
            _say(out, runner.answer(json.loads(line)))
    except (EngineError, ImportError, MemoryError) as error:
        _say(out, {"error": " ".join(str(error).split()) or type(error).__name__})


def _own_standard_output() -> TextIO:
    """Keep standard output for answers: what libraries print there goes to standard error."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept


def _say(out: TextIO, answer: Answer) -> None:
    out.write(json.dumps(answer, allow_nan=False) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
