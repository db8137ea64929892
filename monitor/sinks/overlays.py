"""A small picture of each tilt with its ice outlined, kept below the state directory.

How long they are kept is a matter of `[state]`: `monitor.retention` removes the oldest.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath

from engines.overlay import overlay_png
from monitor.errors import SinkError
from monitor.sinks.protocol import Outgoing

_LEAVE_FREE_BYTES, _LEAVE_FREE_SHARE = 200_000_000, 0.02
"""The last of a disk is for the journal: pictures can be done without."""


class Overlays:
    """Writes one PNG for each tilt that was looked at in this boot."""

    name = "overlays"

    def __init__(self, directory: Path) -> None:
        """Take the folder, which is made with the first overlay."""
        self.directory = directory

    def publish(self, outgoing: Outgoing) -> None:
        """Draw and write the overlay of a tilt, replacing one of the same name atomically."""
        if outgoing.icemap is None or outgoing.overlay_name is None:
            return
        target = self.directory / _safe(outgoing.overlay_name)
        target = target.with_name(target.name + ".png")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._keep_some_free()
            temporary = target.with_name(f".{target.name}.tmp")
            temporary.write_bytes(overlay_png(outgoing.icemap))
            os.replace(temporary, target)  # noqa: PTH105  says what matters: atomic
        except OSError as error:
            raise SinkError(
                f"overlay '{target}' cannot be written ({error.strerror}); free space in "
                "state.directory"
            ) from error

    def _keep_some_free(self) -> None:
        usage = shutil.disk_usage(self.directory)
        if usage.free < min(_LEAVE_FREE_BYTES, _LEAVE_FREE_SHARE * usage.total):
            raise SinkError(
                f"no overlays are written: only {usage.free / 1e6:.0f} MB are free on the disk of "
                "state.directory, which the journal needs; free space there, or lower "
                "state.max_size_gb"
            )

    def beat(self) -> None:
        """Nothing is due between tilts."""


def _safe(name: PurePosixPath) -> PurePosixPath:
    """Keep a name below its folder and printable, whatever the microscope called its files."""
    parts = (re.sub(r"[^\w.+@=-]", "_", part)[:120] for part in name.parts)
    return PurePosixPath(*(part if part.strip(".") else "_" for part in parts))
