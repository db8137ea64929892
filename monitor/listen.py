"""A subscriber: prints the past from a seq on, then goes on live without a gap."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import zmq

from monitor.errors import ConfigError, MonitorError
from monitor.messages import Message, StatusMessage, parse

_REPLAY_TIMEOUT_MS = 5000
Received = tuple[Message, bytes]


def listen(
    endpoint: str, from_seq: int | None, *, heard_within_s: float | None = None
) -> Iterator[Received]:
    """Yield messages in the order of their seq, heartbeats in between as they come.

    With `from_seq` (0: all) the past comes first, from the journal of the daemon. A gap in the
    live stream is closed by replay too. Raises `MonitorError` if no heartbeat is heard within
    `heard_within_s` seconds (None: wait for ever).
    """
    with zmq.Context() as context, context.socket(zmq.SUB) as live:
        live.setsockopt(zmq.LINGER, 0)
        live.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            live.connect(endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"--endpoint {endpoint}: {error.strerror}; give one like tcp://127.0.0.1:5556"
            ) from error
        yield from _follow(context, live, endpoint, from_seq, heard_within_s)


def _follow(
    context: zmq.Context[zmq.Socket[bytes]],
    live: zmq.Socket[bytes],
    endpoint: str,
    from_seq: int | None,
    heard_within_s: float | None,
) -> Iterator[Received]:
    expected = None if from_seq is None else max(1, from_seq)
    deadline = None if heard_within_s is None else time.monotonic() + heard_within_s
    heartbeat: StatusMessage | None = None
    while True:
        received = _receive(live, deadline)
        message = received[0]
        if isinstance(message, StatusMessage):
            new_boot = heartbeat is None or heartbeat.boot_id != message.boot_id
            heartbeat, deadline = message, None
            upto = message.last_seq
            if expected is None or (new_boot and expected > upto + 1):
                expected = upto + 1  # also where a new journal began to count from 1
        elif heartbeat is None and from_seq is not None:
            continue  # it is in the journal: it comes by replay once a heartbeat names the way
        else:
            upto = message.seq - 1
        if expected is not None and heartbeat is not None and expected <= upto:
            for past in _replay(context, _reachable(heartbeat.replay_endpoint, endpoint), expected):
                expected = past[0].seq + 1
                yield past
        if isinstance(message, StatusMessage):
            yield received
        elif expected is not None and expected < message.seq:
            continue  # the gap could not be closed yet: the next heartbeat tries again
        elif expected is None or message.seq >= expected:
            expected = message.seq + 1
            yield received


def _receive(live: zmq.Socket[bytes], deadline: float | None) -> Received:
    while True:
        wait_ms = 1000 if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
        if live.poll(wait_ms):
            frames = live.recv_multipart()
            try:
                topic, body = frames
                return parse(topic.decode(), body), body
            except (ValueError, KeyError):  # not icewatch, or a newer one: others may do
                continue
        if deadline is not None and time.monotonic() >= deadline:
            raise MonitorError(
                "no heartbeat was heard; is `icewatch run` up, and is --endpoint its "
                "publish.zmq_endpoint?"
            )


def _replay(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, from_seq: int
) -> Iterator[Received]:
    with context.socket(zmq.REQ) as request:
        request.setsockopt(zmq.LINGER, 0)
        request.connect(endpoint)
        while True:
            request.send(json.dumps({"from_seq": from_seq}).encode())
            if not request.poll(_REPLAY_TIMEOUT_MS):
                return  # the daemon went away: what is missing comes with its next heartbeat
            frames = request.recv_multipart()
            if len(frames) < 2:
                return
            for topic, body in zip(frames[::2], frames[1::2], strict=True):
                message = parse(topic.decode(), body)
                from_seq = message.seq + 1
                yield message, body


def _reachable(replay_endpoint: str, live_endpoint: str) -> str:
    """Replace a wildcard host in what the daemon advertises by the host we already reach."""
    host, _, port = replay_endpoint.removeprefix("tcp://").rpartition(":")
    if host in ("0.0.0.0", "[::]", "*") and live_endpoint.startswith("tcp://"):
        host = live_endpoint.removeprefix("tcp://").rpartition(":")[0]
    return f"tcp://{host}:{port}"
