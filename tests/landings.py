"""Files as the intake would offer them, without an intake."""

from __future__ import annotations

from pathlib import Path

from monitor.model import FileStat, Landed

FRESH_S = 0.0
SETTLED_S = 60.0


def landed(
    root: Path, relative: str, quiet_s: float = FRESH_S, unchanged_scans: int | None = None
) -> Landed:
    """Offer a file that has not changed for `quiet_s`; by default scans saw that too."""
    found = (root / relative).lstat()
    return Landed(
        path=root / relative,
        relative=relative,
        stat=FileStat(found.st_size, found.st_mtime_ns, found.st_ino),
        unchanged_scans=int(quiet_s // 2) if unchanged_scans is None else unchanged_scans,
        quiet_s=quiet_s,
    )
