"""Nothing is lost to who asks: late, stalled and killed subscribers get every message, once."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.listen import listen
from monitor.messages import StatusMessage, parse
from monitor.publish_settings import PublishSettings
from monitor.simulate.stream import MadeUp, Part
from monitor.simulate.stream_play import Player, StreamRequest
from monitor.sinks.protocol import Outgoing
from monitor.sinks.stream import Stream
from tests.ports import free_port
from tests.schema_check import faults
from tests.stream_bench import running
from tests.stream_crowd import ROOT
from tests.test_messages import shipped
from tests.waiting import wait_until

STATUS = parse("status", (ROOT / "tests/golden/status_0.1.0.json").read_bytes())


@contextmanager
def playing(
    part: Part, speed: float = 1e5, **more: float
) -> Iterator[tuple[str, threading.Thread, Player]]:
    """A pretend daemon in a thread; it answers for a while after the last message."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    player = Player(StreamRequest(endpoint, part, speed, **more))  # type: ignore[arg-type]
    thread = threading.Thread(target=player.play)
    thread.start()
    try:
        yield endpoint, thread, player
    finally:
        player.stop()
        thread.join(10.0)
        assert not thread.is_alive()
        player.close()


def heard(endpoint: str, last_seq: int, from_seq: int | None = 0) -> list[int]:
    seqs: list[int] = []
    for message, _ in listen(endpoint, from_seq, heard_within_s=20.0):
        if not isinstance(message, StatusMessage):
            seqs.append(message.seq)
        if seqs and seqs[-1] >= last_seq:
            return seqs
    raise AssertionError("the stream ended")


def test_an_address_that_is_dead_is_asked_once(tmp_path: Path) -> None:
    """A listener that was stopped for long finds a queue from before a restart."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    tilt = json.loads((ROOT / "tests/golden/tilt_0.1.0.json").read_bytes())
    with (
        running(tmp_path, f"tcp://127.0.0.1:{free_port()}") as bench,
        socket.create_server(("127.0.0.1", 0)) as dead,
        zmq.Context() as context,
        context.socket(zmq.XPUB) as queue,
    ):
        queue.linger = 0
        queue.bind(endpoint)
        bench.add(0.0)
        now = bench.status()
        before = f"tcp://127.0.0.1:{dead.getsockname()[1]}"
        messages = [("status", now.model_copy(update={"replay_endpoint": before}).body())]
        messages += [("tilt", json.dumps(tilt | {"seq": seq}).encode()) for seq in range(3, 23)]
        messages += [("status", now.body())]

        def play() -> None:
            queue.recv()  # somebody subscribes
            for topic, body in messages:
                queue.send_multipart([topic.encode(), body])

        player = threading.Thread(target=play)
        player.start()
        assert heard(endpoint, 2) == [1, 2]
        player.join()
        dead.settimeout(0.0)
        connections = 0
        with suppress(BlockingIOError):
            while True:
                dead.accept()[0].close()
                connections += 1
        assert connections == 1


@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 1000),
    drop=st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]),
    restart_every=st.none() | st.integers(20, 60),
)
def test_every_message_comes_once_whatever_is_lost(
    seed: int, drop: float, restart_every: int | None
) -> None:
    part = Part(lamellae=3, tilts=20, seed=seed)
    more = {"drop": drop, "restart_every": restart_every}
    with playing(part, speed=20_000, **more) as (endpoint, _, _):  # type: ignore[arg-type]
        assert heard(endpoint, 120) == list(range(1, 121))


def test_every_message_fits_the_shipped_schema() -> None:
    schemas = {topic: shipped(topic) for topic in ("tilt", "lamella", "status")}
    topics = []
    unmeasured = 0
    with playing(Part(lamellae=2, tilts=30)) as (endpoint, _, _):
        for message, body in listen(endpoint, 0, heard_within_s=20.0):
            raw = json.loads(body)
            assert faults(raw, schemas[message.topic]) == []
            topics.append(message.topic)
            unmeasured += message.topic == "tilt" and raw["ice"]["percent"] is None
            if topics.count("lamella") == 60 and "status" in topics:
                break
    assert topics.count("tilt") == 60
    assert unmeasured


class Example:
    """`deploy/examples/subscriber.py` in a process of its own."""

    def __init__(self, endpoint: str, from_seq: int) -> None:
        command = [sys.executable, "deploy/examples/subscriber.py", endpoint, str(from_seq)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.seqs: list[int] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seqs.append(json.loads(line)["seq"])

    def kill(self) -> list[int]:
        self.process.kill()
        self.process.wait()
        self._thread.join(10.0)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.seqs


def test_the_example_goes_on_where_it_was_killed() -> None:
    part = Part(lamellae=3, tilts=30)
    with playing(part, speed=1000, drop=0.2) as (endpoint, _, _):
        first = Example(endpoint, 1)
        wait_until(lambda: len(first.seqs) > 20, "the first messages", 30.0)
        seqs = first.kill()
        second = Example(endpoint, seqs[-1] + 1)
        wait_until(lambda: second.seqs[-1:] == [180], "the last message", 60.0)
        assert seqs + second.kill() == list(range(1, 181))


def subscribed(stream: Stream) -> None:
    """Serve a stream until somebody subscribed."""

    def asked() -> bool:
        stream.wait(0.05)
        return stream._last_values.due_in_s is not None

    wait_until(asked, "a subscriber")


def gaps_noticed(count: int, dropped: set[int]) -> int:
    """Send so many messages but some; how often does a subscriber notice that one is missing?"""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    stream = Stream(PublishSettings(zmq_endpoint=endpoint), MadeUp("m"))
    noticed, expected = 0, 1
    with zmq.Context() as context, context.socket(zmq.SUB) as live:
        live.setsockopt(zmq.LINGER, 0)
        live.subscribe(b"")
        live.connect(endpoint)
        subscribed(stream)
        for first in range(1, count + 1, 500):  # fewer than are kept for a subscriber
            sent = [seq for seq in range(first, first + 500) if seq not in dropped]
            for seq in sent:
                stream.publish(Outgoing(seq, "tilt", b"%d" % seq, STATUS))
            for _ in sent:
                assert live.poll(10_000)
                found = int(live.recv_multipart()[1])
                noticed += found != expected
                expected = found + 1
    stream.close()
    return noticed


@settings(max_examples=5, deadline=None)
@given(drops=st.sets(st.integers(1, 999).map(lambda half: 2 * half), max_size=100))
def test_every_gap_shows_in_the_seq(drops: set[int]) -> None:
    assert gaps_noticed(2000, drops) == len(drops)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_gaps_in_a_million_messages_show() -> None:
    drops = {2 * half for half in Random(1).sample(range(1, 499_999), 1000)}
    assert gaps_noticed(1_000_000, drops) == 1000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_frozen_listener_gets_everything_in_the_end() -> None:
    part = Part(lamellae=200, tilts=60)
    with playing(part, speed=26_000.0, drop=0.05, restart_every=5000) as (endpoint, _, player):
        listener = Example(endpoint, 1)
        wait_until(lambda: len(listener.seqs) > 100, "the first messages", 30.0)
        listener.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: player.played >= 12_000, "the end of the session", 300.0)
        listener.process.send_signal(signal.SIGCONT)
        wait_until(lambda: listener.seqs[-1:] == [24_000], "the last message", 300.0)
        assert player.dropped > 1000
        assert listener.kill() == list(range(1, 24_001))
