"""Liveness, readiness and status as JSON over HTTP; the page for people grows from here."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry

from monitor.errors import MonitorError
from monitor.web.crowd import CrowdHandler, CrowdServer, Shared
from monitor.web.metrics_page import MetricsServer

Status = Callable[[], dict[str, Any]]


class _Handler(CrowdHandler):
    server: _Server

    def do_GET(self) -> None:  # noqa: N802  named by http.server
        """Answer `/live`, `/ready` and `/status`."""
        path = self.path.partition("?")[0]
        if path == "/live":
            self._answer(HTTPStatus.OK, {"live": True})
        elif path in ("/", "/ready", "/status"):
            try:
                self._tell(path, self.server.status())
            except MonitorError as error:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})
        else:
            hint = "icewatch answers /live, /ready and /status"
            self._answer(HTTPStatus.NOT_FOUND, {"error": hint})

    def _tell(self, path: str, status: dict[str, Any]) -> None:
        if path != "/ready":
            self._answer(HTTPStatus.OK, status)
            return
        ready = status["state"] in ("ready", "degraded")
        code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        told = {"ready": ready, "state": status["state"], "reason": status["reason"]}
        self._answer(code, told)

    def _answer(self, code: HTTPStatus, content: dict[str, Any]) -> None:
        body = json.dumps(content, indent=1).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)


class _Server(CrowdServer):
    status: Status


def serve_status(address: str, status: Status) -> CrowdServer:
    """Serve the status in a thread; raises `MonitorError` where the address is taken."""
    try:
        server = _Server(_split(address), _Handler)
    except OSError as error:
        raise MonitorError(_taken("publish.web_address", address, error)) from error
    server.status = Shared(status)
    server.start("http")
    return server


def serve_metrics(address: str, registry: CollectorRegistry) -> Callable[[], None]:
    """Serve `/metrics` in a thread; returns what ends it; raises `MonitorError` where taken."""
    try:
        server = MetricsServer(_split(address), registry)
    except OSError as error:
        raise MonitorError(_taken("publish.metrics_address", address, error)) from error
    server.start("metrics")

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
