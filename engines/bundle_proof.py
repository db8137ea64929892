"""Proves a bundle in a process of its own: python -m engines.bundle_proof DIRECTORY [BACKEND].

A network that crashes the runtime, hangs, or answers with nonsense harms nobody there. What is
wrong is one line on standard error, and exit status 1.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from engines.backends import BACKENDS
from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.bundle import Bundle
from engines.bundle_weights import check_weights
from engines.canary import Canary
from engines.errors import BundleError, EngineError
from engines.gate import admitted
from engines.icemap import IceMap
from engines.own_process import OwnProcess
from engines.reference import REFERENCE, KnownTilt, known_tilts, read_known
from engines.segmenter import Segmenter

LIMIT_S = 300.0
"""A proof takes seconds; one that takes longer hangs."""
READ_MAX_S = 10.0
"""A network that needs longer for one small tilt would end the daemon."""
_NICE = 10
_OTHERS = ("openvino",)
"""Backends on the CPU besides ONNX Runtime: they must read as it does."""


def prove(bundle: Bundle, backend: str = "onnxruntime") -> None:
    """Let a bundle read its known tilts; raises `EngineError` with one sentence.

    The graphics card has a gate of its own (`engines.gate`) before its plan serves.
    """
    check_weights(bundle)
    tilts = known_tilts(bundle)
    with closing(OnnxRuntimeSettings().build(bundle)) as reference:
        found = _read(bundle, Segmenter(bundle, reference), tilts)
        Canary.of(reference, tilts[0].picture).check(reference)
    if REFERENCE in bundle.manifest.files and all(one.percent is None for one in found):
        raise BundleError(
            f"{bundle.name} {bundle.version} measures none of its own known tilts; export it again."
        )
    if backend in _OTHERS:
        with closing(BACKENDS[backend]().build(bundle)) as other:
            admitted(bundle, other)


def _read(bundle: Bundle, segmenter: Segmenter, tilts: tuple[KnownTilt, ...]) -> list[IceMap]:
    start_s = time.monotonic()
    found = read_known(segmenter, tilts, bundle.manifest.pixel_size_angstrom)
    each_s = (time.monotonic() - start_s) / len(tilts)
    if each_s > READ_MAX_S:
        raise BundleError(
            f"{bundle.name} {bundle.version} needs {each_s:.0f} s for a small tilt; use a smaller "
            "network."
        )
    for one in found:
        numbers = (one.percent, one.percent_low, one.percent_high, one.valid_area_percent)
        if not np.isfinite([number for number in numbers if number is not None]).all():
            raise BundleError(
                f"{bundle.name} {bundle.version} gives percentages that are not numbers; export it "
                "again."
            )
    return found


class Proof(OwnProcess):
    """One proof in a process of its own."""

    def __init__(self, bundle: Path, backend: str = "onnxruntime") -> None:
        """Start the process; raises OSError where that cannot be."""
        super().__init__(
            "engines.bundle_proof",
            str(bundle),
            backend,
            limit_s=LIMIT_S,
            late=f"its proof took over {LIMIT_S:g} s; see how busy this computer is",
            died="its proof died",
        )


def main(arguments: list[str]) -> int:
    """Run the command."""
    from engines.gpu.make_plan import end_with_parent

    end_with_parent()
    os.nice(_NICE)
    try:
        prove(Bundle.load(arguments[0]), *arguments[1:2])
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
