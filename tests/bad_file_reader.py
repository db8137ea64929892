"""A process of its own that reads bad files under a limit of memory and says what came of each.

Paths come as one JSON list on standard input, answers go out as one JSON line each.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import imagecodecs

from engines.errors import PixelsError
from engines.readers.movie import read_movie_header, sum_of_frames
from engines.readers.mrc import read_fei_sections, read_header, read_tilt_angles
from monitor.errors import SourceError
from monitor.sources.mdoc import read_mdoc

ROOM_BYTES = 200_000_000
LARGEST_DECLARED_BYTES = 1 << 30


def memory_bytes(name: str) -> int:
    """A figure of this process: `VmHWM` (peak), `VmRSS` (now) or `VmSize` (address space)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def read(path: Path) -> dict[str, Any]:
    """Read one file; gives its reason and sentence, or `sound`, and what an image of it takes."""
    declared = 0
    try:
        if path.suffix == ".mdoc":
            read_mdoc(path, settled=True)
            return {"reason": "sound", "sentence": "", "declared": 1 << 20}
        header = read_movie_header(path)
        declared = header.nx * header.ny
        image = sum_of_frames(path, header)
        declared = image.nbytes
        if header.kind == "mrc":
            mrc = read_header(path)
            read_tilt_angles(path, mrc)
            read_fei_sections(path, mrc)
    except (PixelsError, SourceError) as error:
        return {"reason": error.reason, "sentence": str(error), "declared": declared}
    return {"reason": "sound", "sentence": "", "declared": declared}


def main() -> None:
    """Answer for each path; a crash, an endless loop or too much memory ends the answers."""
    paths = json.load(sys.stdin)
    # What a reader loads once is no part of what a file costs.
    imagecodecs.deflate_decode(imagecodecs.deflate_encode(bytes(1)))
    limit = memory_bytes("VmSize") + ROOM_BYTES + 3 * LARGEST_DECLARED_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for path in paths:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, started, cpu = memory_bytes("VmRSS"), time.monotonic(), time.process_time()
        answer = read(Path(path))
        answer["cpu_s"] = time.process_time() - cpu
        answer["wall_s"] = time.monotonic() - started
        answer["peak_bytes"] = memory_bytes("VmHWM") - before
        print(json.dumps({"path": path, **answer}), flush=True)


if __name__ == "__main__":
    main()
