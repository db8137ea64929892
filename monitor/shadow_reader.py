"""Reads tilts beside the daemon, in a process of its own: python -m monitor.shadow_reader BUNDLE.

On standard input comes a line of JSON on each tilt, then its pixels; on standard output goes a line
of JSON with the reading. Whatever else wants the processor has it first.
"""

from __future__ import annotations

import json
import os
import sys
from typing import IO, Any

import numpy as np

from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.bundle import Bundle
from engines.errors import EngineError
from engines.icemap import Flag
from engines.segmenter import Segmenter
from monitor.journal_records import reading_text
from monitor.model import Tilt, TiltId
from monitor.readings import reading_of
from monitor.recent_series import RecentSeries

READY = b"ready\n"
_NICE = 19
"""At idle priority a computer that is always busy would never let it answer."""


def main(arguments: list[str]) -> int:
    """Run the command until standard input ends."""
    from engines.gpu.make_plan import end_with_parent

    end_with_parent()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    os.nice(_NICE)
    try:
        bundle = Bundle.load(arguments[0])
        segmenter = Segmenter(bundle, OnnxRuntimeSettings().build(bundle))
        _say(answers, READY)
        _read_all(segmenter, sys.stdin.buffer, answers)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _read_all(segmenter: Segmenter, asked: IO[bytes], answers: IO[bytes]) -> None:
    recent = RecentSeries()
    while line := asked.readline():
        head: dict[str, Any] = json.loads(line)
        pixels = asked.read(head["bytes"])
        image = np.frombuffer(pixels, head["dtype"]).reshape(head["shape"])
        series = recent.at(_tilt(head))
        flags = tuple(Flag(word) for word in head["flags"])
        found = segmenter.read(image, head["pixel_size_angstrom"], series, flags)
        model = (segmenter.bundle_name, segmenter.bundle_version, segmenter.backend_name)
        reading = reading_of(found, model, (), series.occupancy_percent)
        _say(answers, reading_text(reading).encode() + b"\n")


def _tilt(head: dict[str, Any]) -> Tilt:
    name = TiltId(head["series"], head["angle_deg"], None, head["id"])
    return Tilt(name, "", "", head["series"], head["series"], "", 0, head["angle_deg"])


def _say(answers: IO[bytes], line: bytes) -> None:
    answers.write(line)
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
