"""What a daemon left behind that does not run: when it last lived, and its last tilt; only read."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from monitor.journal_last_tilt import readable, tell

_LOOK_BACK = 20


def left_by(state: Path, microscope: str) -> dict[str, Any]:
    """Tell of a daemon that does not answer, in the words of `/status`."""
    newest_seq, tilt = _journalled(state / "journal.sqlite3")
    return {
        "schema": "icewatch.daemon/1",
        "microscope": microscope,
        "state": "not_running",
        "reason": "nothing answers at its web_address",
        "last_lived_s_ago": _age_s(state / "alive"),
        "last_seq": newest_seq,
        "last_tilt": tilt,
    }


def _age_s(alive: Path) -> float | None:
    """How long ago the daemon wrote its sign of life, which it does each second."""
    try:
        return round(max(0.0, time.time() - alive.stat().st_mtime), 1)
    except OSError:
        return None


def _journalled(path: Path) -> tuple[int | None, dict[str, Any] | None]:
    """Give the newest seq and tilt; what stands in the log alone is not seen, nor is it touched."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            rows = db.execute(
                "SELECT seq, topic, body FROM messages ORDER BY seq DESC LIMIT ?", (_LOOK_BACK,)
            ).fetchall()
    except (sqlite3.Error, OSError):
        return None, None
    found = (readable(topic, body) for _, topic, body in rows)
    newest = next((message for message in found if message is not None), None)
    return (rows[0][0] if rows else 0), (tell(newest) if newest else None)
