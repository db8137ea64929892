"""Who subscribes is told at once how things stand, in messages that were sent before."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from monitor.journal import Committed
from monitor.listen import listen
from monitor.messages import StatusMessage
from monitor.sinks.stream_last_values import MAX_LAMELLAE, LastValues
from tests.ports import free_port
from tests.stream_bench import Bench, running
from tests.waiting import wait_until

STATUS = StatusMessage.model_validate_json(
    (Path(__file__).parent / "golden/status_0.1.0.json").read_bytes()
).model_copy(update={"seq": 0, "last_seq": 0})
AT_ONCE_S = 0.9
"""Less than the heartbeat's second, on a computer that has other things to do."""


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


@contextmanager
def subscribed(endpoint: str, topic: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        socket.subscribe(topic)
        socket.connect(endpoint)
        yield socket


def settle(bench: Bench, last_seq: int) -> None:
    """Wait until all was sent; to ask the stream itself would make it repeat itself."""
    wait_until(lambda: bench.stream._last_values._published_seq == last_seq, "the last message")


@pytest.mark.parametrize("topic", ["", "l", "lamella"])
def test_the_last_values_come_at_once_and_as_they_were_sent(
    tmp_path: Path, endpoint: str, topic: str
) -> None:
    with running(tmp_path, endpoint) as bench:
        for series in ("L1", "L2", "L1", "L3", "L1"):
            bench.add(float(bench.journal.last_seq()), series=series)
        bench.add(1.0, series="L9", session="s2")
        bench.add(77.0, series="L4")
        settle(bench, 14)
        sent = {one.seq: one.body for one in bench.journal.messages_from(0, 100)}
        began_s = time.monotonic()
        with subscribed(endpoint, topic) as socket:
            frames = [socket.recv_multipart()]
            while json.loads(frames[-1][1])["seq"] < 14 or frames[-1][0] == b"status":
                frames.append(socket.recv_multipart())
        assert time.monotonic() - began_s < AT_ONCE_S
    assert {len(one) for one in frames} == {2}
    assert frames[0][0] == (b"lamella" if topic else b"status")
    told = [json.loads(body)["seq"] for name, body in frames if name == b"lamella"]
    assert told == [4, 8, 10, 14]  # L2, L3, L1, L4 of the session that runs
    assert all(sent[json.loads(body)["seq"]] == body for name, body in frames if name != b"status")


def test_a_subscriber_of_tilts_is_told_nothing_old(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench:
        bench.add(0.0)
        settle(bench, 2)
        with subscribed(endpoint, "tilt") as socket, subscribed(endpoint, "") as other:
            assert other.recv_multipart()[0] == b"status"
            assert other.recv_multipart()[0] == b"lamella"
            bench.add(3.0)
            assert json.loads(socket.recv_multipart()[1])["seq"] == 3


def test_listeners_hear_nothing_twice_while_others_come(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench:
        bench.add(0.0)
        heard = []
        for message, _ in listen(endpoint, 0, heard_within_s=10.0):
            if isinstance(message, StatusMessage):
                continue
            heard.append(message.seq)
            if heard[-1] == 10:
                break
            if heard[-1] % 2 == 0:
                with subscribed(endpoint, "") as other:  # which makes the stream repeat itself
                    assert other.recv_multipart()
                bench.add(float(heard[-1]))
        assert heard == list(range(1, 11))


class Past:
    """A journal of so many lamellae, all of one session."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked = 0

    def lamella_messages(self, session: str) -> list[Committed]:
        self.asked += 1
        return [Committed(seq, "lamella", b"%d" % seq) for seq in range(1, self.count + 1)]

    def messages_from(self, seq: int, limit: int) -> list[Committed]:
        return []

    def running_session(self) -> str:
        return "s"

    def last_seq(self) -> int:
        return self.count


def test_what_waits_to_be_sent_is_no_last_value() -> None:
    past = Past(3)
    last = LastValues(past)
    past.count = 5
    last.published(4)
    last.beat(STATUS)
    last.subscribed(b"\x01")
    (_, beat), *lamellae = last.take()
    assert [body for _, body in lamellae] == [b"1", b"2", b"3", b"4"]
    said = json.loads(beat)
    # A heartbeat of before would tell of less: as if icewatch had begun a new journal.
    assert (said["seq"], said["last_seq"]) == (4, 4)


def test_a_flood_of_subscribers_makes_no_flood_of_answers() -> None:
    past = Past(10_000)
    last = LastValues(past)
    last.beat(STATUS)
    answers = []
    for _ in range(1000):
        last.subscribed(b"\x01lamella")
        answers.append(last.take())
    assert past.asked <= 2
    assert len(answers[0]) == MAX_LAMELLAE
    assert answers[0][-1][1] == b"10000"


@pytest.mark.parametrize(
    "event", [b"", b"\x00", b"\x00lamella", b"\x01x", b"\x01lamellae", b"\x02"]
)
def test_who_leaves_or_wants_something_else_is_told_nothing(event: bytes) -> None:
    last = LastValues(Past(1))
    last.beat(STATUS)
    last.subscribed(event)
    assert last.take() == []
