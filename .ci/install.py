"""Run `pip install` with one moving line instead of pages of output; on failure show its end.

Usage: python .ci/install.py WHAT PIP_ARGUMENTS...; works with the standard library alone.
"""

import queue
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable

TICK_S = 0.5
TAIL_LINES = 15


def forward(lines: Iterable[str], into: "queue.Queue[str | None]") -> None:
    """Hand each line on, then None at the end of the output."""
    for line in lines:
        into.put(line.rstrip())
    into.put(None)


def show(text: str) -> None:
    """Redraw the moving line, or stay silent where the output is not a terminal."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width), end="", flush=True)


def install(what: str, arguments: list[str]) -> int:
    """Install, and return pip's exit status."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", *arguments]
    print(f"Installing {what}", flush=True)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as pip:
        assert pip.stdout is not None
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=forward, args=(pip.stdout, lines), daemon=True).start()
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        step = ""
        while True:
            try:
                line = lines.get(timeout=TICK_S)
            except queue.Empty:
                line = ""
            if line is None:
                break
            if line:
                tail.append(line)
            if line and not line.startswith("Requirement already satisfied"):
                step = line.strip()
            show(f"  {time.monotonic() - start:4.0f} s  {step}")
        status = pip.wait()
    show("")
    if status:
        print("\r" + "\n".join(tail), file=sys.stderr)
        print(f"pip could not install {what}: the lines above say why", file=sys.stderr)
    else:
        end = "\r" if sys.stdout.isatty() else ""
        print(f"{end}Installed in {time.monotonic() - start:.0f} s", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(install(sys.argv[1], sys.argv[2:]))
