"""ZeroMQ: the live stream, and the replay of what a subscriber missed.

Every socket belongs to the publisher thread; another thread may only call `wake`.

Replay is request and reply on an endpoint that the heartbeat names. The request is JSON,
`{"from_seq": N}`; the reply is a multipart message `topic, body, topic, body, ...` with at most
`REPLAY_BATCH` messages from seq N on, oldest first, or one empty frame where there is nothing.
A subscriber asks on until the reply is empty.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable

import zmq

from monitor.errors import JournalError, MonitorError, SinkError
from monitor.journal import Committed
from monitor.messages import StatusMessage
from monitor.sinks.protocol import Outgoing

REPLAY_BATCH = 500
_REQUEST_MAX_BYTES = 1024
_LINGER_MS = 1000


class Stream:
    """The sink that publishes on ZeroMQ and answers replay requests from the journal."""

    name = "zmq"

    def __init__(self, endpoint: str, messages_from: Callable[[int, int], list[Committed]]) -> None:
        """Bind both sockets; raises `MonitorError` naming the key where the endpoint is taken."""
        self._messages_from = messages_from
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._context = zmq.Context()
        self._live = self._context.socket(zmq.XPUB)
        self._replay = self._context.socket(zmq.ROUTER)
        self._replay.setsockopt(zmq.MAXMSGSIZE, _REQUEST_MAX_BYTES)
        for socket in (self._live, self._replay):
            socket.setsockopt(zmq.LINGER, _LINGER_MS)
            socket.setsockopt(zmq.IPV6, "[" in endpoint)
        try:
            self._live.bind(endpoint)
            self._replay.bind(f"tcp://{_host(endpoint)}:*")
        except zmq.ZMQError as error:
            self.close()
            raise MonitorError(
                f"publish.zmq_endpoint: {endpoint} cannot be bound ({error.strerror}); choose "
                "another port, or stop the program that uses it"
            ) from error
        self.replay_endpoint = str(self._replay.getsockopt_string(zmq.LAST_ENDPOINT))
        self._poller = zmq.Poller()
        for source in (self._live, self._replay, self._wake_fd):
            self._poller.register(source, zmq.POLLIN)

    def wake(self) -> None:
        """End a running `wait` early; may be called from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def wait(self, timeout_s: float) -> None:
        """Answer replay requests until woken or until the time is over."""
        ready = dict(self._poller.poll(max(0, round(timeout_s * 1000))))
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        if self._live in ready:
            self._live.recv()  # a subscription came or went; libzmq itself filters by topic
        if self._replay in ready:
            self._answer()

    def _answer(self) -> None:
        frames = self._replay.recv_multipart()
        client, request = frames[0], frames[-1]
        try:
            from_seq = int(json.loads(request)["from_seq"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return  # not one of ours; no answer
        try:
            found = self._messages_from(max(0, min(from_seq, 2**62)), REPLAY_BATCH)
        except JournalError:
            return  # the state says why; the client asks again
        reply = [part for one in found for part in (one.topic.encode(), one.body)] or [b""]
        envelope = frames[:-1] if len(frames) > 1 else [client]
        with contextlib.suppress(zmq.Again):  # a client that does not read asks again
            self._replay.send_multipart([*envelope, *reply], zmq.NOBLOCK)

    def publish(self, outgoing: Outgoing) -> None:
        """Send one committed message; a slow subscriber loses it and asks for replay."""
        self._send(outgoing.topic, outgoing.body)

    def heartbeat(self, status: StatusMessage) -> None:
        """Send the heartbeat, which is not journalled."""
        self._send(status.topic, status.body())

    def _send(self, topic: str, body: bytes) -> None:
        try:
            self._live.send_multipart([topic.encode(), body], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            raise SinkError(f"ZeroMQ message could not be sent: {error.strerror}") from error

    def beat(self) -> None:
        """Nothing is due: the heartbeat is sent through `heartbeat`."""

    def close(self) -> None:
        """Give queued messages a second to leave, then close."""
        self._live.close()
        self._replay.close()
        self._context.term()
        os.close(self._wake_fd)


def _host(endpoint: str) -> str:
    """Replay binds where the stream does; a stream on a local file is replayed on loopback."""
    if not endpoint.startswith("tcp://"):
        return "127.0.0.1"
    return endpoint.removeprefix("tcp://").rpartition(":")[0]
