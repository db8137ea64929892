"""Asks a running daemon for its status."""

from __future__ import annotations

import http.client
import json
from typing import Any

from monitor.errors import MonitorError


def fetch_status(address: str, timeout_s: float = 5.0) -> dict[str, Any]:
    """Fetch `/status` from HOST:PORT; raises `MonitorError` if nothing of ours answers there."""
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("GET", "/status")
        found = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise MonitorError(
            f"no icewatch answers at {address} ({error}); is `icewatch run` up, and is this its "
            "publish.web_address?"
        ) from error
    finally:
        connection.close()
    if not isinstance(found, dict) or found.get("schema") != "icewatch.daemon/1":
        raise MonitorError(f"what answers at {address} is not an icewatch of this version")
    return found
