"""A small picture of each tilt with its ice outlined, kept below the state directory."""

from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path, PurePosixPath

from engines.overlay import overlay_png
from monitor.errors import SinkError
from monitor.sinks.protocol import Outgoing

MAX_OVERLAYS = 5000
"""The newest that are kept: about 1 GB at 200 kB each."""


class Overlays:
    """Writes one PNG for each tilt that was looked at in this boot."""

    name = "overlays"

    def __init__(self, directory: Path, keep: int = MAX_OVERLAYS) -> None:
        """Take up the overlays of earlier boots, so that old ones go first."""
        self.directory = directory
        self._keep = keep
        found = directory.rglob("*.png") if directory.exists() else ()
        self._written = deque(sorted(found, key=lambda path: path.stat().st_mtime))

    def publish(self, outgoing: Outgoing) -> None:
        """Draw and write the overlay of a tilt, replacing one of the same name atomically."""
        if outgoing.icemap is None or outgoing.overlay_name is None:
            return
        target = self.directory / _safe(outgoing.overlay_name)
        target = target.with_name(target.name + ".png")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.tmp")
            temporary.write_bytes(overlay_png(outgoing.icemap))
            os.replace(temporary, target)  # noqa: PTH105  says what matters: atomic
            self._written.append(target)
            while len(self._written) > self._keep:
                self._written.popleft().unlink(missing_ok=True)
        except OSError as error:
            raise SinkError(
                f"overlay '{target}' cannot be written ({error.strerror}); free space in "
                "state.directory"
            ) from error

    def beat(self) -> None:
        """Nothing is due between tilts."""


def _safe(name: PurePosixPath) -> PurePosixPath:
    """Keep a name below its folder and printable, whatever the microscope called its files."""
    parts = (re.sub(r"[^\w.+@=-]", "_", part)[:120] for part in name.parts)
    return PurePosixPath(*(part if part.strip(".") else "_" for part in parts))
