"""Work in a process of its own, where it may die or hang and harm nobody."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

_END_S = 2.0
_MAX_TEXT = 400


class OwnProcess:
    """One piece of work, whose module says on standard error what is wrong; used by one thread."""

    def __init__(self, module: str, *words: str, limit_s: float, late: str, died: str) -> None:
        """Start `python -m MODULE WORDS`; raises OSError where that cannot be.

        `late` is said of one that takes longer than `limit_s`, `died` begins what is said of one
        that ended without a word.
        """
        self._limit_s, self._late, self._died = limit_s, late, died
        self._started_s = time.monotonic()
        self._complaint = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._complaint,
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not, or takes too long."""
        is_late = time.monotonic() - self._started_s > self._limit_s
        return is_late or self._process.poll() is not None

    def wait(self) -> str | None:
        """Wait for the end; gives what `failure` does."""
        try:
            self._process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            pass
        except BaseException:
            self.close()
            raise
        return self.failure()

    def failure(self) -> str | None:
        """Say in one sentence why it failed; None after a good end. To be asked once it is over."""
        is_late, said = self._process.poll() is None, self._said()
        self.close()
        if is_late:
            return self._late
        status = self._process.returncode
        if status == 0:
            return None
        return said or f"{self._died} (status {status}); see that there is memory for it"

    def _said(self) -> str:
        self._complaint.seek(0)
        text = self._complaint.read().decode(errors="replace")
        return text.strip().rpartition("\n")[2][:_MAX_TEXT].rstrip(".")

    def close(self) -> None:
        """End it, whatever it has reached."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._complaint.close()
