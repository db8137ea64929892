"""Liveness, readiness and status as JSON over HTTP; the page for people grows from here."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client import start_http_server as start_metrics_server

from monitor.errors import MonitorError

Status = Callable[[], dict[str, Any]]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "icewatch"
    timeout = 10.0

    def do_GET(self) -> None:
        """Answer `/live`, `/ready` and `/status`."""
        path = self.path.partition("?")[0]
        if path == "/live":
            self._answer(HTTPStatus.OK, {"live": True})
        elif path == "/ready":
            status = self.server.status()
            ready = status["state"] in ("ready", "degraded")
            code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(code, {"ready": ready, "state": status["state"]})
        elif path in ("/", "/status"):
            self._answer(HTTPStatus.OK, self.server.status())
        else:
            hint = "icewatch answers /live, /ready and /status"
            self._answer(HTTPStatus.NOT_FOUND, {"error": hint})

    def _answer(self, code: HTTPStatus, content: dict[str, Any]) -> None:
        body = json.dumps(content, indent=1).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: probes come every few seconds."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    status: Status

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent when a client goes away in the middle."""


class _ServerIPv6(_Server):
    address_family = socket.AF_INET6


def serve_status(address: str, status: Status) -> ThreadingHTTPServer:
    """Serve the status in a thread; raises `MonitorError` where the address is taken."""
    host, port = _split(address)
    kind = _ServerIPv6 if ":" in host else _Server
    try:
        server = kind((host, port), _Handler)
    except OSError as error:
        raise MonitorError(_taken("publish.web_address", address, error)) from error
    server.status = status
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server


def serve_metrics(address: str, registry: CollectorRegistry) -> Callable[[], None]:
    """Serve `/metrics` in a thread; returns what ends it; raises `MonitorError` where taken."""
    host, port = _split(address)
    try:
        server, _ = start_metrics_server(port, host, registry)
    except OSError as error:
        raise MonitorError(_taken("publish.metrics_address", address, error)) from error

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _taken(key: str, address: str, error: OSError) -> str:
    return (
        f"{key}: {address} cannot be bound ({error.strerror}); choose another port, or stop the "
        "program that uses it"
    )
