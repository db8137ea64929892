"""Crowds for tests of the stream: subscribers in a process of their own, and what is no subscriber.

`python -m tests.stream_crowd ENDPOINT COUNT` subscribes so many times, says `ready` once each has
heard something, and reads on until it is ended.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.parse import urlsplit

import zmq

ROOT = Path(__file__).resolve().parents[1]
ZMTP_3_1 = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
"""The greeting with which a ZeroMQ peer of today begins (rfc.zeromq.org/spec/37)."""
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
JUNK = {
    "nothing": b"",
    "http": b"GET /metrics HTTP/1.1\r\nHost: icewatch\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "zmtp 1": b"\x01\x00\x01\x01" * 50,
    "half a greeting": ZMTP_3_1[:11],
    "a greeting": ZMTP_3_1,
    "a greeting for keys": ZMTP_3_1.replace(b"NULL\0", b"CURVE"),
    "half a hello": ZMTP_3_1 + READY[:9],
    "a subscriber with a topic of 100 MB": ZMTP_3_1
    + READY
    + b"\x02"
    + struct.pack(">Q", 100_000_000)
    + bytes(70_000),
    "a frame longer than all memory": ZMTP_3_1 + READY + b"\x02" + b"\x7f" + b"\xff" * 7,
}


def connect(endpoint: str, timeout_s: float = 5.0) -> socket.socket:
    """A TCP connection to a ZeroMQ endpoint."""
    parts = urlsplit(endpoint)
    assert parts.hostname and parts.port
    return socket.create_connection((parts.hostname, parts.port), timeout_s)


@contextmanager
def subscribers(endpoint: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """Subscribers that are heard in a process of their own."""
    command = [sys.executable, "-m", "tests.stream_crowd", endpoint, str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def pester(ports: list[int], per_s: float, on: Event, end: Event, count: Synchronized[int]) -> None:
    """Connect to ports in turn, with junk, and hold on to the last thousand, until told to end."""
    os.nice(19)  # it stands for other machines: its own work is not what is measured
    held: deque[socket.socket] = deque()
    turns = cycle((port, junk) for port in ports for junk in JUNK.values())
    while not end.is_set():
        if not on.wait(0.1):
            continue
        port, junk = next(turns)
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
        held.append(one)
        count.value += 1
        end.wait(1.0 / per_s)
        with suppress(OSError):
            one.send(junk)
        if len(held) > 1000:
            held.popleft().close()


def _read(endpoint: str, count: int) -> None:
    context = zmq.Context()
    poller = zmq.Poller()
    silent = set()
    for _ in range(count):
        one = context.socket(zmq.SUB)
        one.subscribe(b"")
        one.connect(endpoint)
        poller.register(one, zmq.POLLIN)
        silent.add(one)
    while True:
        for ready, _ in poller.poll():
            ready.recv_multipart()
            if ready in silent:
                silent.discard(ready)
                if not silent:
                    print("ready", flush=True)


if __name__ == "__main__":
    _read(sys.argv[1], int(sys.argv[2]))
