"""A build of a plan in the background, while the CPU serves."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_END_S = 2.0
_MAX_TEXT = 300


class BackgroundBuild:
    """One build in a process of its own; used by one thread."""

    def __init__(self, bundle: Path, cache: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engines.gpu.make_plan", str(bundle), str(cache)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self._process.poll() is not None

    def failure(self) -> str | None:
        """Say in one sentence why it failed; None after a good end. To be asked once it is over."""
        _, text = self._process.communicate()
        if self._process.returncode == 0:
            return None
        said = text.decode(errors="replace").strip().rpartition("\n")[2][:_MAX_TEXT]
        return said or f"The builder of plans died (status {self._process.returncode})."

    def close(self) -> None:
        """End it, whatever it has reached."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        with suppress(ValueError):  # closed already
            self._process.communicate()
