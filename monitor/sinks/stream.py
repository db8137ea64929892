"""ZeroMQ: the live stream, last values for who comes late, and replay for who missed something.

Both sockets belong to the publisher thread, who connects is seen to by the doorman's; another
thread may only call `wake`. Replay is asked for on an endpoint that the heartbeat names.
"""

from __future__ import annotations

import os

import zmq

from monitor.errors import MonitorError, SinkError
from monitor.messages import StatusMessage
from monitor.publish_settings import PublishSettings
from monitor.sinks.protocol import Outgoing
from monitor.sinks.stream_doorman import HANDSHAKE_MAX_MS, ZAP_DOMAIN, Doorman
from monitor.sinks.stream_last_values import LastValues
from monitor.sinks.stream_replay import REPLIES_WAITING, REQUEST_MAX_BYTES, Past, Replay
from monitor.stream_keys import AllowedKeys, KeyPair, load_pair

_LINGER_MS = 1000
_WAITING_FOR_ONE = 2000
"""Messages kept for a subscriber that does not read; their bytes are shared between all."""
_SENT_TO_ONE_BYTES = 256 << 10
"""What the kernel keeps besides."""
_EVENTS_AT_ONCE = 1000
_OPTIONS: dict[int, int | bytes] = {
    zmq.LINGER: _LINGER_MS,
    zmq.MAXMSGSIZE: REQUEST_MAX_BYTES,  # subscribers send topics and requests, nothing longer
    zmq.HANDSHAKE_IVL: HANDSHAKE_MAX_MS,
    zmq.SNDBUF: _SENT_TO_ONE_BYTES,
    # A peer that vanished, or froze, is let go within a minute; it comes back by itself.
    zmq.HEARTBEAT_IVL: 10_000,
    zmq.HEARTBEAT_TIMEOUT: 30_000,
    zmq.HEARTBEAT_TTL: 30_000,
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 30,
    zmq.TCP_KEEPALIVE_INTVL: 10,
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: 30_000,
    # Without a name, who speaks a ZeroMQ of before 2013, or HTTP, would count as a subscriber.
    zmq.ZAP_DOMAIN: ZAP_DOMAIN,
}


class Stream:
    """The sink that publishes on ZeroMQ and answers replay requests from the journal."""

    name = "zmq"

    def __init__(self, settings: PublishSettings, past: Past) -> None:
        """Bind both sockets.

        Raises `MonitorError` naming the key where the endpoint is taken, and `ConfigError` where
        the keys cannot be used.
        """
        endpoint = settings.zmq_endpoint
        keys, allowed = _keys(settings)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._context = zmq.Context()
        self._doorman = Doorman(self._context, allowed)
        self._live = self._socket(zmq.XPUB, endpoint, keys)
        self._live.setsockopt(zmq.SNDHWM, _WAITING_FOR_ONE)
        self._live.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of each subscriber, not of the first
        self._router = self._socket(zmq.ROUTER, endpoint, keys)
        self._router.setsockopt(zmq.SNDHWM, REPLIES_WAITING)
        self._doorman.start()
        try:
            self._bind(endpoint, settings.replay_port)
        except MonitorError:
            self.close()
            raise
        self.replay_endpoint = str(self._router.getsockopt_string(zmq.LAST_ENDPOINT))
        self._replay = Replay(self._router, past)
        self._last_values = LastValues(past)

    def _socket(self, kind: int, endpoint: str, keys: KeyPair | None) -> zmq.Socket[bytes]:
        made = self._context.socket(kind)
        for option, value in _OPTIONS.items():
            made.setsockopt(option, value)
        made.setsockopt(zmq.IPV6, "[" in endpoint)
        if keys is not None:
            made.setsockopt(zmq.CURVE_SERVER, 1)
            made.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
        self._doorman.watch(made)
        return made

    def _bind(self, endpoint: str, replay_port: int) -> None:
        replay_endpoint = f"tcp://{_host(endpoint)}:{replay_port or '*'}"
        for key, socket, address in (
            ("publish.zmq_endpoint", self._live, endpoint),
            ("publish.replay_port", self._router, replay_endpoint),
        ):
            try:
                socket.bind(address)
            except zmq.ZMQError as error:
                raise MonitorError(
                    f"{key}: {address} cannot be bound ({error.strerror}); choose another port, "
                    "or stop the program that uses it"
                ) from error

    @property
    def connections(self) -> int:
        """How many connections are open now, on both sockets."""
        return self._doorman.connections

    def wake(self) -> None:
        """End a running `wait` early; may be called from any thread."""
        os.eventfd_write(self._wake_fd, 1)

    def wait(self, timeout_s: float) -> None:
        """Answer subscribers until woken or until the time is over, whichever comes first."""
        for topic, body in self._last_values.take():
            self._live.send_multipart([topic, body], zmq.NOBLOCK)
        rest_s = self._replay.rests_for_s
        due_s = [one for one in (rest_s, self._last_values.due_in_s) if one]
        poller = zmq.Poller()
        for source in (self._live, self._wake_fd, *(() if rest_s else (self._router,))):
            poller.register(source, zmq.POLLIN)
        wait_s = max(0.0, min(timeout_s, *due_s) if due_s else timeout_s)
        ready = dict(poller.poll(round(wait_s * 1000 + 0.5)))
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        if self._live in ready:
            self._take_subscriptions()
        if self._router in ready:
            self._replay.answer()

    def _take_subscriptions(self) -> None:
        for _ in range(_EVENTS_AT_ONCE):
            try:
                self._last_values.subscribed(self._live.recv(zmq.NOBLOCK))
            except zmq.Again:
                return

    def publish(self, outgoing: Outgoing) -> None:
        """Send one committed message; a slow subscriber loses it and asks for replay."""
        self._send(outgoing.topic, outgoing.body)
        self._last_values.published(outgoing.seq)

    def heartbeat(self, status: StatusMessage) -> None:
        """Send the heartbeat, which is not journalled."""
        self._last_values.beat(status)
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
        for socket in (self._live, self._router):
            socket.disable_monitor()
            socket.close()
        self._doorman.close()
        self._context.term()
        os.close(self._wake_fd)


def _keys(settings: PublishSettings) -> tuple[KeyPair | None, AllowedKeys | None]:
    if settings.curve is None:
        return None, None
    pair = load_pair(settings.curve.server_key, "publish.curve.server_key")
    return pair, AllowedKeys(settings.curve.allowed_keys)


def _host(endpoint: str) -> str:
    """Replay binds where the stream does; a stream on a local file is replayed on loopback."""
    if not endpoint.startswith("tcp://"):
        return "127.0.0.1"
    return endpoint.removeprefix("tcp://").rpartition(":")[0]
