"""`/metrics` for Prometheus: any number of scrapes cost the daemon little."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from monitor.web.crowd import CrowdHandler, CrowdServer, Shared

_PAGES_MAX = 8
"""A Prometheus wants one format; only junk wants many."""


class _MetricsHandler(CrowdHandler):
    server: MetricsServer

    def do_GET(self) -> None:  # noqa: N802  named by http.server
        """Answer with all metrics, in the format and packing that the client wants."""
        zipped = "gzip" in self.headers.get("Accept-Encoding", "")
        content_type, body = self.server.page(self.headers.get("Accept", ""), zipped)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class MetricsServer(CrowdServer):
    """Serves the metrics of a registry."""

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        """Bind; raises `OSError`."""
        self._registry = registry
        self._pages: dict[tuple[str, bool], Shared[bytes]] = {}
        super().__init__(address, _MetricsHandler)

    def page(self, accept: str, zipped: bool) -> tuple[str, bytes]:
        """Give content type and body for a client's wishes."""
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # it asks for a version that is none
            encode, content_type = choose_encoder("")
        if len(self._pages) >= _PAGES_MAX:
            self._pages.clear()
        page = self._pages.setdefault(
            (content_type, zipped), Shared(partial(self._encoded, encode, zipped))
        )
        return content_type, page()

    def _encoded(self, encode: Callable[[CollectorRegistry], bytes], zipped: bool) -> bytes:
        text = encode(self._registry)
        return gzip.compress(text, 6) if zipped else text
