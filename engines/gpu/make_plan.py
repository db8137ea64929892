"""Build the plan of a bundle alone: python -m engines.gpu.make_plan BUNDLE CACHE.

A build takes minutes of a core and much memory, and a crash of the builder must not end the daemon.
What goes wrong is one line on standard error, and exit status 1.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from engines.bundle import Bundle
from engines.errors import EngineError
from engines.gpu.installation import Site

NICE = 10
_SET_PARENT_DEATH_SIGNAL = 1


def end_with_parent() -> None:
    """Let the kernel end this process when the daemon that started it dies (prctl(2))."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """Run the command."""
    bundle, cache = arguments
    end_with_parent()
    os.nice(NICE)
    try:
        Site.find(Bundle.load(bundle), Path(cache)).build()
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
