"""Asks a running daemon for its status."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

from monitor.errors import ConfigError, MonitorError

_ADDRESS = re.compile(r"(?:[^\s:/]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", re.ASCII)


def fetch_status(address: str, timeout_s: float = 5.0) -> dict[str, Any]:
    """Fetch `/status` from HOST:PORT.

    Raises `ConfigError` for what is not such an address, and `MonitorError` if nothing of ours
    answers there.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise ConfigError(
            f"--address '{address}' is not HOST:PORT with a port from 1 to 65535, for example "
            "127.0.0.1:8080"
        )
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
