"""HTTP for a crowd: slow clients, junk and storms of requests get little and hold up nobody."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Generic, TypeVar

MAX_CONNECTIONS = 64
"""With one more the oldest is closed: who asks and reads at once is always served."""
CONNECTION_MAX_S = 15.0
REQUEST_MAX_BYTES = 16 << 10
_PER_S = 100
"""New connections are taken no faster than this; others wait in the kernel's queue."""
_SHARE = 5
"""What is asked for again and again is made anew in at most a fifth of the time."""
Made = TypeVar("Made")


class Shared(Generic[Made]):
    """Something that takes a while to make, shared by all who ask for it at the same time."""

    def __init__(self, make: Callable[[], Made]) -> None:
        """Take what makes it."""
        self._make = make
        self._lock = threading.Lock()
        self._made: Made | None = None
        self._good_until_s = float("-inf")

    def __call__(self) -> Made:
        """Give it, at most four times as old as it took to make."""
        with self._lock:
            if self._made is None or time.monotonic() >= self._good_until_s:
                began_s = time.monotonic()
                self._made = self._make()
                now_s = time.monotonic()
                self._good_until_s = now_s + (_SHARE - 1) * (now_s - began_s)
            return self._made


class _ShortRequest(io.RawIOBase):
    """Reads lines up to a total; `LineTooLong` then becomes HTTP 431."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = REQUEST_MAX_BYTES

    def readline(self, size: int | None = -1) -> bytes:
        limit = self._left + 1 if size is None or size < 0 else min(size, self._left + 1)
        line: bytes = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("request")
        return line

    def close(self) -> None:
        self._file.close()
        super().close()


class CrowdHandler(BaseHTTPRequestHandler):
    """One request of one client, which may be anybody; its body is never read."""

    server_version = "icewatch"
    sys_version = ""
    timeout = 5.0
    """For each byte, as it were; the server closes what takes too long in all."""

    def setup(self) -> None:
        """Read no more than a request may be long."""
        super().setup()
        self.rfile = _ShortRequest(self.rfile)  # type: ignore[assignment]

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: probes come every few seconds."""


class CrowdServer(ThreadingHTTPServer):
    """A thread for each connection, as long as there are few."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[CrowdHandler]) -> None:
        """Bind; raises `OSError`."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._began_s: dict[socket.socket, float] = {}
        self._began_lock = threading.Lock()
        self._next_s = 0.0
        super().__init__(address, handler)

    def start(self, name: str) -> None:
        """Serve in a thread of its own."""
        threading.Thread(target=self.serve_forever, name=name, daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make room and answer in a new thread."""
        now_s = time.monotonic()
        # A second's worth may come at once; after that one by one.
        self._next_s = max(self._next_s, now_s - 1.0) + 1.0 / _PER_S
        if self._next_s > now_s:
            time.sleep(self._next_s - now_s)
        with self._began_lock:
            if len(self._began_s) >= MAX_CONNECTIONS:
                _hang_up(self._forget(next(iter(self._began_s))))
            self._began_s[request] = now_s
        super().process_request(request, client_address)

    def _forget(self, request: socket.socket) -> socket.socket:
        self._began_s.pop(request, None)
        return request

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that ends."""
        with self._began_lock:
            self._forget(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close what takes too long (called twice a second)."""
        too_old_s = time.monotonic() - CONNECTION_MAX_S
        with self._began_lock:
            for request in [one for one, began_s in self._began_s.items() if began_s < too_old_s]:
                _hang_up(self._forget(request))

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent when a client goes away in the middle."""


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it went by itself
        request.shutdown(socket.SHUT_RDWR)
