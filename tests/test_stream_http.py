"""The web and the metrics port among strangers: slow clients, junk, large requests, storms."""

from __future__ import annotations

import gzip
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily

from monitor.web import crowd
from monitor.web.crowd import MAX_CONNECTIONS, REQUEST_MAX_BYTES, Shared
from monitor.web.server import serve_metrics, serve_status
from tests.ports import free_port
from tests.waiting import wait_until

RENDERING_S = 0.02
"""What a scrape of some hundred lamellae takes."""


@dataclass
class Ports:
    """Both servers, and how often they had to work."""

    web: int
    metrics: int
    asked: int = 0
    rendered: int = 0


class Slow:
    """A collector that takes a while."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self._ports.rendered += 1
        time.sleep(RENDERING_S)
        yield GaugeMetricFamily("slow", "Slow", value=1.0)


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    found = Ports(free_port(), free_port())
    registry = CollectorRegistry()

    def status() -> dict[str, object]:
        found.asked += 1
        time.sleep(RENDERING_S)
        return {"state": "ready"}

    web = serve_status(f"127.0.0.1:{found.web}", status)
    stop_metrics = serve_metrics(f"127.0.0.1:{found.metrics}", registry)
    registry.register(Slow(found))
    Counter("tilts", "Tilts", registry=registry).inc()
    yield found
    web.shutdown()
    web.server_close()
    stop_metrics()


def fetch(port: int, path: str = "/status", **headers: str) -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("Content-Type", "")
    finally:
        connection.close()


def both(ports: Ports) -> list[int]:
    return [ports.web, ports.metrics]


def answered(ports: Ports) -> bool:
    return fetch(ports.web)[0] == 200 and b"tilts_total 1.0" in fetch(ports.metrics, "/metrics")[1]


def test_prometheus_gets_what_it_asks_for(ports: Ports) -> None:
    status, body, kind = fetch(ports.metrics, "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"tilts_total 1.0" in body
    zipped = fetch(ports.metrics, "/metrics", **{"Accept-Encoding": "gzip"})[1]
    assert b"tilts_total 1.0" in gzip.decompress(zipped)
    wanted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    _, body, kind = fetch(ports.metrics, "/metrics", Accept=wanted)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


WISHES = ["*/*", "text/plain;version=1.0.0", "application/openmetrics-text;version=zzz"]
WISHES += ["text/plain;version=" + "9" * 99, "application/openmetrics-text;version=9.9.9", ";;,=,;"]


@settings(deadline=None, max_examples=20)
@given(accept=st.sampled_from(WISHES) | st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_any_wish_for_a_format_is_answered(ports: Ports, accept: str) -> None:
    assert b"tilts_total 1.0" in fetch(ports.metrics, "/metrics", Accept=accept)[1]


@settings(deadline=None, max_examples=30)
@given(junk=st.binary(min_size=1, max_size=2000), to_web=st.booleans())
def test_any_bytes_are_survived(ports: Ports, junk: bytes, to_web: bool) -> None:
    port = ports.web if to_web else ports.metrics
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(junk)
    assert fetch(ports.web, "/live")[0] == 200


def ends(client: socket.socket, limit_s: float = 20.0) -> bytes:
    """What is said until the other side hangs up."""
    client.settimeout(limit_s)
    said = b""
    with suppress(ConnectionResetError, BrokenPipeError):
        while some := client.recv(1 << 16):
            said += some
    return said


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 10 * REQUEST_MAX_BYTES,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * REQUEST_MAX_BYTES,
        b"GET / HTTP/1.1\r\nA: " + b"b" * 10 * REQUEST_MAX_BYTES,
        b"POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n" + bytes(1_000_000),
        b"GET / HTTP/9.9\r\n\r\n",
    ],
)
def test_oversized_requests_are_hung_up_on(ports: Ports, head: bytes) -> None:
    for port in both(ports):
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            with suppress(ConnectionResetError, BrokenPipeError):
                client.sendall(head)
            said = ends(client)
        assert said == b"" or re.match(rb"HTTP/1\.\d (414|431|501|505|400)|.*Error", said, re.S)
    assert answered(ports)


def test_clients_that_never_finish_do_not_keep_others_out(ports: Ports) -> None:
    with ExitStack() as held:
        slow = []
        for _ in range(2 * MAX_CONNECTIONS):
            for port in both(ports):
                client = held.enter_context(socket.create_connection(("127.0.0.1", port), 20))
                client.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
                slow.append(client)
        began_s = time.monotonic()
        assert answered(ports)
        assert time.monotonic() - began_s < 5.0
        assert threading.active_count() < 2 * MAX_CONNECTIONS + 20
        assert [ends(client) for client in slow[:10]] == [b""] * 10  # the oldest made room


def test_a_client_that_drips_is_hung_up_on_in_the_end(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "CONNECTION_MAX_S", 1.0)
    pause = threading.Event()
    for port in both(ports):
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
            began_s = time.monotonic()
            with suppress(ConnectionResetError, BrokenPipeError):
                while time.monotonic() - began_s < 20.0:
                    client.sendall(b"a")
                    pause.wait(0.05)
            assert time.monotonic() - began_s < 10.0


def test_a_storm_of_scrapes_is_rendered_few_times(ports: Ports) -> None:
    def storm(port: int, path: str, count: Callable[[], int]) -> float:
        before, began_s = count(), time.monotonic()
        threads = [threading.Thread(target=fetch, args=(port, path)) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (count() - before) * RENDERING_S / (time.monotonic() - began_s)

    for share in (
        storm(ports.metrics, "/metrics", lambda: ports.rendered),
        storm(ports.web, "/status", lambda: ports.asked),
    ):
        assert share < 0.5


def test_what_is_shared_is_never_old() -> None:
    made = iter(range(100))
    shared = Shared(lambda: next(made))
    assert shared() == 0
    wait_until(lambda: shared() >= 1, "a new one", 1.0)


def test_the_reason_of_a_failure_is_not_kept() -> None:
    def fails() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise OSError
        return 7

    calls: list[int] = []
    shared = Shared(fails)
    with pytest.raises(OSError):
        shared()
    assert shared() == 7
