"""Refuses a folder to write in before any work is done for it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from monitor.errors import ConfigError


def refuse_unwritable(option: str, directory: Path) -> None:
    """Make the folder that an option names; raises ConfigError where it cannot be written to."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigError(
            f"{option} {directory}: cannot be written to: {error.strerror}; name a folder that can"
        ) from error
