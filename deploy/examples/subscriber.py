"""Prints every message that icewatch publishes, none left out and none twice. Needs only pyzmq."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import zmq


def missed(endpoint: str, seq: int) -> Iterator[dict[str, Any]]:
    """Yield what the journal of icewatch holds from `seq` on."""
    with context.socket(zmq.REQ) as request:
        request.linger = 0
        request.connect(endpoint)
        bodies = [b""]
        while bodies:
            request.send_json({"from_seq": seq})
            bodies = request.recv_multipart()[1::2] if request.poll(5000) else []
            for body in bodies:
                yield (message := json.loads(body))
                seq = message["seq"] + 1


def handle(message: dict[str, Any]) -> None:
    """Do what the messages are wanted for."""
    print(json.dumps(message), flush=True)


context = zmq.Context()
live = context.socket(zmq.SUB)
live.subscribe("")
live.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5556")
# A second argument of 1 asks for all the past first; without, only what is new is handled.
expected = int(sys.argv[2]) if len(sys.argv) > 2 else None
heartbeat: dict[str, Any] = {}
while True:
    topic, body = live.recv_multipart()
    message = json.loads(body)
    newest = message["seq"] - 1
    if topic == b"status":  # comes every second, and at once to who subscribes
        newest = message["last_seq"]
        restarted = message["boot_id"] != heartbeat.get("boot_id")
        if expected is None or (restarted and expected > newest + 1):
            expected = newest + 1  # also where icewatch began a new journal
        heartbeat = message
    if expected is not None and heartbeat and expected <= newest:  # a gap
        for past in missed(heartbeat["replay_endpoint"], expected):
            handle(past)
            expected = past["seq"] + 1
        if expected <= newest:  # nobody answers there: the next heartbeat may name another address
            heartbeat = {}
    if heartbeat and topic != b"status" and message["seq"] == expected:  # an old seq: a repetition
        handle(message)
        expected = message["seq"] + 1
