"""A subscriber: prints the past from a seq on, then goes on live without a gap."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils.monitor import parse_monitor_message

from monitor.errors import ConfigError, MonitorError
from monitor.messages import Message, StatusMessage, parse
from monitor.stream_keys import KeyPair, load_pair, load_public

_REPLAY_TIMEOUT_MS = 2000
_BROKEN_OFF = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_GIVEN_UP = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
"""ZeroMQ does not try again after these."""
_FAILURES_MAX = 3
"""A daemon that just starts or ends breaks off, too; ZeroMQ tries again after 0.1 s."""
_OPTIONS = {
    zmq.LINGER: 0,
    zmq.HANDSHAKE_IVL: 3000,
    zmq.HEARTBEAT_IVL: 10_000,
    zmq.HEARTBEAT_TIMEOUT: 30_000,
}
Received = tuple[Message, bytes]


@dataclass(frozen=True, slots=True)
class Keys:
    """How a subscriber knows a daemon with `[publish.curve]`, and is known to it."""

    server_public: bytes
    own: KeyPair

    def use(self, socket: zmq.Socket[bytes]) -> None:
        """Set up a socket that is not connected yet."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server_public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.own.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.own.secret)


def load_keys(server_key: Path | None, key: Path | None) -> Keys | None:
    """Read the daemon's public key file and the own secret one; raises `ConfigError`."""
    if server_key is None and key is None:
        return None
    if server_key is None or key is None:
        raise ConfigError(
            "give both --server-key (the daemon's NAME.key) and --key (your own NAME.key_secret)"
        )
    return Keys(load_public(server_key, "--server-key"), load_pair(key, "--key"))


def listen(
    endpoint: str,
    from_seq: int | None,
    *,
    heard_within_s: float | None = None,
    keys: Keys | None = None,
) -> Iterator[Received]:
    """Yield messages in the order of their seq, heartbeats in between as they come.

    With `from_seq` (0: all) the past comes first, from the journal of the daemon; without, what
    is new. A gap in the live stream is closed by replay too. Raises `MonitorError` if no
    heartbeat is heard within `heard_within_s` seconds (None: wait for ever), or where the daemon
    does not talk to who has such keys.
    """
    with zmq.Context() as context, _Live(context, endpoint, keys) as live:
        yield from _follow(live, from_seq, heard_within_s)


def _follow(live: _Live, from_seq: int | None, heard_within_s: float | None) -> Iterator[Received]:
    expected = None if from_seq is None else max(1, from_seq)
    deadline = None if heard_within_s is None else time.monotonic() + heard_within_s
    heartbeat: StatusMessage | None = None
    answered = True
    while True:
        received = live.receive(deadline, anew=heartbeat is None)
        message = received[0]
        if isinstance(message, StatusMessage):
            new_boot = heartbeat is None or heartbeat.boot_id != message.boot_id
            heartbeat, deadline, answered = message, None, True
            upto = message.last_seq
            if expected is None or (new_boot and expected > upto + 1):
                expected = upto + 1  # also where a new journal began to count from 1
        elif heartbeat is None:
            continue  # a last value, or in the journal: what is new is told after a heartbeat
        else:
            upto = message.seq - 1
        # Where nobody answers, the next heartbeat may name another address: asking the old one for
        # each message of a long queue would take hours.
        if answered and expected is not None and expected <= upto:
            for seq, past in live.replay(heartbeat.replay_endpoint, expected):
                expected = seq + 1
                if past is not None:
                    yield past
            answered = expected > upto
        if isinstance(message, StatusMessage):
            yield received
        elif expected is not None and expected < message.seq:
            continue  # the gap could not be closed yet: the next heartbeat tries again
        elif expected is None or message.seq >= expected:
            expected = message.seq + 1
            yield received


class _Live:
    """The socket of a subscriber."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, keys: Keys | None
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._keys = keys
        self._failures = 0
        self._socket = self._new(zmq.SUB)
        self._events = self._socket.get_monitor_socket(_BROKEN_OFF | _GIVEN_UP)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.__exit__()
            raise ConfigError(
                f"--endpoint {endpoint}: {error.strerror}; give one like tcp://127.0.0.1:5556"
            ) from error

    def __enter__(self) -> _Live:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.disable_monitor()
        self._events.close()
        self._socket.close()

    def _new(self, kind: int) -> zmq.Socket[bytes]:
        made = self._context.socket(kind)
        for option, value in _OPTIONS.items():
            made.setsockopt(option, value)
        made.setsockopt(zmq.IPV6, "[" in self._endpoint)
        if self._keys is not None:
            self._keys.use(made)
        return made

    def receive(self, deadline: float | None, *, anew: bool) -> Received:
        """Give the next message that is one of icewatch's; `anew`: nothing was heard so far."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._events, zmq.POLLIN)
        while True:
            wait_s = 1.0 if deadline is None else max(0.0, deadline - time.monotonic())
            ready = dict(poller.poll(int(wait_s * 1000)))
            if self._events in ready:
                event = parse_monitor_message(self._events.recv_multipart())
                self._complain(int(event["event"]), anew=anew)
            if self._socket in ready:
                frames = self._socket.recv_multipart()
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

    def _complain(self, event: int, *, anew: bool) -> None:
        """Raise `MonitorError` where the daemon does not want to talk to us."""
        self._failures = self._failures + 1 if anew else 0
        if event & _GIVEN_UP == 0 and self._failures < _FAILURES_MAX:
            return
        if self._keys is None:
            raise MonitorError(
                f"what answers at {self._endpoint} breaks off: it asks for keys (give "
                "--server-key and --key), or is no icewatch"
            )
        raise MonitorError(
            f"what answers at {self._endpoint} breaks off: the NAME.key of --key is not in its "
            "folder publish.curve.allowed_keys, or --server-key is not the NAME.key of its "
            "publish.curve.server_key"
        )

    def replay(self, endpoint: str, from_seq: int) -> Iterator[tuple[int, Received | None]]:
        """Give what the journal holds from `from_seq` on, by seq; None where we cannot read it."""
        with self._new(zmq.REQ) as request:
            request.connect(_reachable(endpoint, self._endpoint))
            while True:
                request.send(json.dumps({"from_seq": from_seq}).encode())
                if not request.poll(_REPLAY_TIMEOUT_MS):
                    return  # the daemon went away: what is missing comes with its next heartbeat
                frames = request.recv_multipart()
                if len(frames) < 2:
                    return
                for topic, body in zip(frames[::2], frames[1::2], strict=False):
                    found = _parsed(topic, body)
                    seq = from_seq if found is None else found[0].seq
                    yield seq, found
                    from_seq = seq + 1


def _parsed(topic: bytes, body: bytes) -> Received | None:
    try:
        return parse(topic.decode(), body), body
    except (ValueError, KeyError):
        return None  # of a newer icewatch


def _reachable(replay_endpoint: str, live_endpoint: str) -> str:
    """Replace a wildcard host in what the daemon advertises by the host we already reach."""
    host, _, port = replay_endpoint.removeprefix("tcp://").rpartition(":")
    if host in ("0.0.0.0", "[::]", "*") and live_endpoint.startswith("tcp://"):
        host = live_endpoint.removeprefix("tcp://").rpartition(":")[0]
    return f"tcp://{host}:{port}"
