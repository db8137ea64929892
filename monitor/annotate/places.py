"""Where annotations may be written: a folder of its own, never where tilts land."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from monitor.errors import ConfigError


def refuse_below_tilts(what: str, out: Path, tilts: Iterable[Path]) -> None:
    """Raise `ConfigError` where a folder to write in lies below one that tilts lie in."""
    for path in tilts:
        folder = path if path.is_dir() else path.parent
        try:
            below = out.resolve().is_relative_to(folder.resolve())  # links followed
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"{what} {out}: is no folder: {error}") from error
        if below:
            raise ConfigError(
                f"{what} {out}: lies below '{folder}', where tilts lie and icewatch never writes; "
                "name a folder elsewhere"
            )


def refuse_used(what: str, out: Path) -> None:
    """Raise `ConfigError` where something is in a folder already that is to be begun."""
    try:
        used = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise ConfigError(f"{what} {out}: cannot be read: {error.strerror}") from error
    if used:
        raise ConfigError(f"{what} {out}: is there already; name a new folder, or an empty one")
