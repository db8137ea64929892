"""Strangers, junk, frozen and vanished peers: the stream goes on, and costs no more than before."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.listen import listen
from monitor.messages import StatusMessage, parse
from monitor.sinks.protocol import Outgoing
from monitor.sinks.stream_doorman import MAX_CONNECTIONS
from monitor.sinks.stream_replay import BATCH
from tests.ports import free_port
from tests.stream_bench import Bench, running
from tests.stream_crowd import JUNK, READY, ZMTP_3_1, connect, subscribers
from tests.waiting import wait_until


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


def memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def kept_waiting_s() -> float:
    """How long this thread could have run, but other processes had the cores (proc(5))."""
    said = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text()
    return int(said.split()[1]) / 1e9


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def heard(endpoint: str, count: int) -> list[int]:
    """The seqs that a listener gets from the beginning on."""
    seqs = []
    for message, _ in listen(endpoint, 0, heard_within_s=20.0):
        if not isinstance(message, StatusMessage):
            seqs.append(message.seq)
        if len(seqs) == count:
            break
    return seqs


def test_junk_on_both_ports_is_survived(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench, ExitStack() as held:
        bench.add(0.0)
        before_mb = memory_mb()
        for address in (endpoint, bench.stream.replay_endpoint):
            for junk in JUNK.values():
                client = held.enter_context(connect(address))
                client.sendall(junk)
        bench.add(3.0)
        assert heard(endpoint, 4) == [1, 2, 3, 4]
        assert memory_mb() - before_mb < 50.0


def test_junk_is_hung_up_on(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench, ExitStack() as held:
        clients = [held.enter_context(connect(endpoint)) for _ in JUNK]
        for client, junk in zip(clients, JUNK.values(), strict=True):
            client.settimeout(20.0)
            client.sendall(junk)
        for client in clients:
            with suppress(ConnectionResetError):
                while client.recv(1 << 16):
                    pass
        wait_until(lambda: bench.stream.connections == 0, "the end of all connections")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running(tmp_path_factory.mktemp("bench"), f"tcp://127.0.0.1:{free_port()}") as found:
        found.add(0.0)
        yield found


def answers(bench: Bench, from_seq: int) -> list[int]:
    """The seqs that replay gives."""
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.setsockopt(zmq.LINGER, 0)
        client.connect(bench.stream.replay_endpoint)
        client.send(json.dumps({"from_seq": from_seq}).encode())
        assert client.poll(10_000)
        return [json.loads(body)["seq"] for body in client.recv_multipart()[1::2]]


SAY = st.sampled_from([b"", ZMTP_3_1, ZMTP_3_1 + READY])


@settings(deadline=None)
@given(start=SAY, junk=st.binary(max_size=2000), to_replay=st.booleans())
def test_any_bytes_are_survived(bench: Bench, start: bytes, junk: bytes, to_replay: bool) -> None:
    address = bench.stream.replay_endpoint if to_replay else bench.settings.zmq_endpoint
    with connect(address) as client:
        client.sendall(start + junk)
    assert answers(bench, 1) == [1, 2]


ABSURD = ["-1", "0", "1e999", "1e300", "-1e300", "9" * 900, '"1"', "true", "1.9", "null", "[]"]
REQUESTS = [f'{{"from_seq": {one}}}'.encode() for one in ABSURD]
REQUESTS += [b"", b"\xff", b"[]", b"{}", b"[" * 900, b"1", b'{"from_seq"', b'"from_seq"']


def test_absurd_requests_hurt_nobody(bench: Bench) -> None:
    with zmq.Context() as context:
        for request in REQUESTS:
            with context.socket(zmq.DEALER) as client:
                client.setsockopt(zmq.LINGER, 100)
                client.connect(bench.stream.replay_endpoint)
                for frames in ([b"", request], [request], [b"", request, b""], [request] * 50):
                    client.send_multipart(frames)
    assert heard(bench.settings.zmq_endpoint, 2) == [1, 2]


@settings(deadline=None)
@given(from_seq=st.integers(-(2**70), 2**70) | st.integers(-5, 5))
def test_replay_begins_where_it_is_asked_to(bench: Bench, from_seq: int) -> None:
    assert answers(bench, from_seq) == [seq for seq in (1, 2) if seq >= from_seq]


def test_a_request_of_100_mb_ends_the_connection(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench, zmq.Context() as context:
        bench.add(0.0)
        with context.socket(zmq.DEALER) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.setsockopt(zmq.RECONNECT_IVL, -1)
            client.connect(bench.stream.replay_endpoint)
            client.send_multipart([b"", b'{"from_seq": 0}'])
            assert client.poll(5000)
            assert bench.stream.connections == 1
            before_mb = memory_mb()
            client.send_multipart([b"", bytes(100_000_000)])
            wait_until(lambda: bench.stream.connections == 0, "the end of the connection")
        bench.add(3.0)
        assert heard(endpoint, 4) == [1, 2, 3, 4]
        assert memory_mb() - before_mb < 20.0


def test_a_client_that_asks_and_never_reads_costs_little(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench, zmq.Context() as context:
        for angle in range(BATCH // 4):
            bench.add(angle / 10)
        before_mb = memory_mb()
        with context.socket(zmq.DEALER) as frozen:
            frozen.setsockopt(zmq.LINGER, 0)
            frozen.setsockopt(zmq.RCVHWM, 1)
            frozen.setsockopt(zmq.RCVBUF, 4096)
            frozen.connect(bench.stream.replay_endpoint)
            for _ in range(300):
                frozen.send_multipart([b"", b'{"from_seq": 0}'])
            assert heard(endpoint, BATCH // 2) == list(range(1, BATCH // 2 + 1))
            assert memory_mb() - before_mb < 20.0


def test_the_gate_shuts_before_descriptors_run_out(
    tmp_path: Path, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, endpoint) as bench, subscribers(endpoint, 2), ExitStack() as held:
        before = descriptors()

        def seen(knocking: int) -> bool:
            return "no more are let in" in caplog.text or bench.stream.connections >= knocking

        for number in range(1, MAX_CONNECTIONS + 201):
            one = held.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", int(endpoint.rpartition(":")[2])))
            if number % 50 == 0:  # else this thread would keep the doorman from looking
                wait_until(partial(seen, number), "a look")
        wait_until(lambda: "no more are let in" in caplog.text, "the gate")
        # The ends of the knocking clients are in this process, too.
        assert descriptors() - before - (MAX_CONNECTIONS + 200) <= MAX_CONNECTIONS + 100
        assert bench.stream.connections <= MAX_CONNECTIONS + 100
        held.close()
        wait_until(lambda: bench.stream.connections == 2, "the end of the crowd", 20.0)
        bench.add(0.0)
        assert heard(endpoint, 2) == [1, 2]


def test_a_subscriber_that_vanished_is_let_go(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench:
        with subscribers(endpoint, 5):
            assert bench.stream.connections == 5
        wait_until(lambda: bench.stream.connections == 0, "the end of the connections")


def test_replay_leaves_time_for_what_is_new(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench, zmq.Context() as context:
        for angle in range(100):
            bench.add(angle / 10)
        stop = threading.Event()
        replies = []

        def ask_on() -> None:
            with context.socket(zmq.REQ) as client:
                client.setsockopt(zmq.LINGER, 0)
                client.connect(bench.stream.replay_endpoint)
                while not stop.is_set():
                    client.send(b'{"from_seq": 0}')
                    if client.poll(5000):
                        replies.append(len(client.recv_multipart()))

        askers = [threading.Thread(target=ask_on) for _ in range(4)]
        for asker in askers:
            asker.start()
        wait_until(lambda: len(replies) > 8, "replies")
        with context.socket(zmq.SUB) as live:
            live.setsockopt(zmq.LINGER, 0)
            live.subscribe(b"tilt")
            live.connect(endpoint)
            waits_s = []
            for number in range(20):
                began_s = time.monotonic()
                bench.add(100.0 + number)
                if live.poll(5000 if number else 1000):  # the first may come before we are in
                    live.recv_multipart()
                    waits_s.append(time.monotonic() - began_s)
        stop.set()
        for asker in askers:
            asker.join()
        assert len(waits_s) >= 19
        assert sorted(waits_s)[len(waits_s) // 2] < 0.25
        assert min(replies) >= 400


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fifty_subscribers_ten_of_them_frozen_delay_nothing(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path / "messages", f"tcp://127.0.0.1:{free_port()}") as other:
        for angle in range(1000):
            other.add(angle / 100)
        ready = other.journal.messages_from(0, 2000)
    outgoing = [Outgoing(one.seq, one.topic, one.body, parse(one.topic, one.body)) for one in ready]
    with running(tmp_path, endpoint) as bench:
        with subscribers(endpoint, 40), subscribers(endpoint, 10) as frozen:
            assert bench.stream.connections == 50
            bench.stop.set()
            bench.publisher.wake()
            bench.thread.join()  # its socket is this thread's now, which shares the core with none
            frozen.send_signal(signal.SIGSTOP)
            before_mb = memory_mb()
            took_s = sorted(publishing_s(bench, one) for one in outgoing * 3)
            grown_mb = memory_mb() - before_mb
            frozen.send_signal(signal.SIGCONT)
    p50_s, p99_s = (took_s[int(share * len(took_s))] for share in (0.5, 0.99))
    print(f"publish: p50 {1e3 * p50_s:.3f}, p99 {1e3 * p99_s:.3f} ms, {grown_mb:+.1f} MB")
    assert p99_s < 1e-3
    assert grown_mb < 60.0


def publishing_s(bench: Bench, outgoing: Outgoing) -> float:
    """How long one message takes, less what other processes had the core for."""
    began_s = time.perf_counter() - kept_waiting_s()
    bench.stream.publish(outgoing)
    took_s = time.perf_counter() - kept_waiting_s() - began_s
    time.sleep(0.002)  # a hundred times faster than any camera
    return took_s
