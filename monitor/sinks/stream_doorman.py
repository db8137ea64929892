"""The doorman: who may connect to the stream, and how many.

ZeroMQ accepts whatever connects, and each connection takes a file descriptor that the daemon
needs for tilts. The doorman counts them by the events of ZeroMQ's monitors. At `MAX_CONNECTIONS`
of a socket it shuts the gate: the kernel then drops new connections before they come to be, and
those who knock try again by themselves. Handshakes that do not end are cut by ZeroMQ in time.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import socket
import struct
import threading
import time

import zmq
from zmq.utils import z85

from monitor.stream_keys import AllowedKeys

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
"""Of each socket. A thousand file descriptors is what a process usually has."""
HANDSHAKE_MAX_MS = 5000
ZAP_DOMAIN = b"icewatch"
_SAY_EVERY_S = 60.0
_EVENTS = zmq.EVENT_LISTENING | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # linux/asm-generic/socket.h
_RETURN_0 = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
_DROP_ALL = struct.pack("HL", 1, ctypes.addressof(_RETURN_0))
"""A socket filter (`man 7 socket`) of one instruction, by which the kernel drops each packet."""


class Gate:
    """Counts the connections of one ZeroMQ socket and lets in no more than there is room for."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], watched: zmq.Socket[bytes]) -> None:
        """Watch a socket that is not bound yet."""
        address = f"inproc://monitor-{id(watched)}"
        watched.monitor(address, _EVENTS)
        self.events = context.socket(zmq.PAIR)
        self.events.connect(address)
        self._open: set[int] = set()
        self._listener: socket.socket | None = None
        self._shut = False
        self._said_s = float("-inf")

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._open)

    def take_event(self) -> None:
        """Take in one thing that happened to the socket."""
        frames = self.events.recv_multipart()
        event, descriptor = struct.unpack("=hi", frames[0])
        if event == zmq.EVENT_LISTENING:
            self._listen_at(descriptor)
        elif event == zmq.EVENT_ACCEPTED:
            self._open.add(descriptor)
        elif event == zmq.EVENT_DISCONNECTED:
            self._open.discard(descriptor)
        self._see_to_the_gate()

    def _listen_at(self, descriptor: int) -> None:
        self._forget_listener()
        with contextlib.suppress(OSError):  # it was closed at once: another event will come
            self._listener = socket.socket(fileno=os.dup(descriptor))

    def _see_to_the_gate(self) -> None:
        full = len(self._open) >= MAX_CONNECTIONS
        if full == self._shut or self._listener is None:
            return
        if self._listener.family == socket.AF_UNIX:
            return  # the mode of the file says who may connect
        option, value = (_SO_ATTACH_FILTER, _DROP_ALL) if full else (_SO_DETACH_FILTER, bytes(4))
        with contextlib.suppress(OSError):
            self._listener.setsockopt(socket.SOL_SOCKET, option, value)
            self._shut = full
        if full and time.monotonic() - self._said_s > _SAY_EVERY_S:
            self._said_s = time.monotonic()
            logger.warning(
                "%d connections to %s are open: no more are let in until some end",
                *(len(self._open), _text(self._listener.getsockname())),
            )

    def _forget_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """Stop watching."""
        self._forget_listener()
        self.events.close(linger=0)


class Doorman:
    """A thread of its own, so that nothing that the publisher does keeps anybody at the door."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], allowed: AllowedKeys | None
    ) -> None:
        """Be ready for the sockets of a context; with `allowed`, only for those with such a key."""
        self._allowed = allowed
        self._gates: list[Gate] = []
        self._context = context
        self._stop_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._questions = context.socket(zmq.REP)  # ZeroMQ asks here: rfc.zeromq.org/spec/27
        self._questions.setsockopt(zmq.LINGER, 0)
        self._questions.bind("inproc://zeromq.zap.01")
        self._refused_said_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name="doorman", daemon=True)

    def watch(self, watched: zmq.Socket[bytes]) -> None:
        """Watch a socket; before it is bound, and before `start`."""
        self._gates.append(Gate(self._context, watched))

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def connections(self) -> int:
        """How many are open now, over all sockets."""
        return sum(gate.connections for gate in self._gates)

    def _run(self) -> None:
        poller = zmq.Poller()
        gates = {gate.events: gate for gate in self._gates}
        for source in (self._stop_fd, self._questions, *gates):
            poller.register(source, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._stop_fd in ready:
                break
            if self._questions in ready:
                self._answer()
            for events, gate in gates.items():
                if events in ready:
                    gate.take_event()

    def _answer(self) -> None:
        version, number, _, address, _, mechanism, *credentials = self._questions.recv_multipart()
        code, user = self._judge(mechanism, credentials, address)
        text = b"OK" if code == b"200" else b"not in the list"
        self._questions.send_multipart([version, number, code, text, user, b""])

    def _judge(
        self, mechanism: bytes, credentials: list[bytes], address: bytes
    ) -> tuple[bytes, bytes]:
        if self._allowed is None:
            return (b"200", b"") if mechanism == b"NULL" else (b"400", b"")
        if mechanism != b"CURVE" or len(credentials) != 1 or len(credentials[0]) != 32:
            return b"400", b""
        public = z85.encode(credentials[0])
        name = self._allowed.name_of(public)
        if name is not None:
            return b"200", name.encode()
        self._say_refused(public, address)
        return b"300", b""  # after a 400 ZeroMQ would not try again, not even when let in later

    def _say_refused(self, public: bytes, address: bytes) -> None:
        if time.monotonic() - self._refused_said_s > _SAY_EVERY_S:
            self._refused_said_s = time.monotonic()
            logger.warning(
                "a subscriber at %s was refused: its public key %s is not in "
                "publish.curve.allowed_keys",
                *(address.decode("ascii", "replace"), public.decode()),
            )

    def close(self) -> None:
        """End; once the sockets that are watched are closed."""
        os.eventfd_write(self._stop_fd, 1)
        if self._thread.ident is not None:
            self._thread.join()
        for gate in self._gates:
            gate.close()
        self._questions.close()
        os.close(self._stop_fd)


def _text(address: object) -> str:
    return ":".join(str(part) for part in address[:2]) if isinstance(address, tuple) else ""
