"""A build of a plan in the background, while the CPU serves."""

from __future__ import annotations

from pathlib import Path

from engines.own_process import OwnProcess

LIMIT_S = 1800.0
"""A build that takes longer hangs."""


class BackgroundBuild(OwnProcess):
    """One build in a process of its own."""

    def __init__(self, bundle: Path, cache: Path) -> None:
        """Start the process; raises OSError where that cannot be."""
        super().__init__(
            "engines.gpu.make_plan",
            str(bundle),
            str(cache),
            limit_s=LIMIT_S,
            late=f"the build took over {LIMIT_S / 60:g} minutes; restart icewatch to try again",
            died="the builder died",
        )
