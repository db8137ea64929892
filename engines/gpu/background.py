"""A build of a plan in the background, while the CPU serves."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

_END_S = 2.0
_MAX_TEXT = 300
LIMIT_S = 1800.0
"""A build that takes longer hangs."""


class BackgroundBuild:
    """One build in a process of its own; used by one thread."""

    def __init__(self, bundle: Path, cache: Path) -> None:
        """Start the process; raises OSError where that cannot be."""
        self._started_s = time.monotonic()
        self._complaint = tempfile.TemporaryFile()
        words = ["-P", "-m", "engines.gpu.make_plan", str(bundle), str(cache)]
        self._process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._complaint,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not, or takes too long."""
        return self._process.poll() is not None or self._is_late

    @property
    def _is_late(self) -> bool:
        return time.monotonic() - self._started_s > LIMIT_S

    def failure(self) -> str | None:
        """Say in one sentence why it failed; None after a good end. To be asked once it is over."""
        late = self._process.poll() is None
        self.close()
        if late:
            return f"the build took over {LIMIT_S / 60:g} minutes; restart icewatch to try again"
        status = self._process.returncode
        if status == 0:
            return None
        self._complaint.seek(0)
        text = self._complaint.read().decode(errors="replace")
        said = text.strip().rpartition("\n")[2][:_MAX_TEXT]
        return said or f"the builder died (status {status}); see that there is memory for it"

    def close(self) -> None:
        """End it, whatever it has reached."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
