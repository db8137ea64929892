"""Replay: answers a subscriber that asks for what it missed, from the journal.

The request is JSON, `{"from_seq": N}`; the reply is a multipart message `topic, body, topic,
body, ...` with at most `BATCH` messages from seq N on, oldest first, or one empty frame where
there is nothing. A subscriber asks on until the reply is empty. What is no request gets no reply.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Protocol

import zmq

from monitor.errors import JournalError
from monitor.journal import Committed

logger = logging.getLogger(__name__)

BATCH = 500
REPLY_MAX_BYTES = 1 << 20
"""A batch ends with the message that reaches this."""
REQUEST_MAX_BYTES = 1024
REPLIES_WAITING = 2
"""Kept for a client that asks and does not read; further replies to it are dropped."""
_SAY_EVERY_S = 60.0


class Past(Protocol):
    """What the stream wants of the journal."""

    def messages_from(self, seq: int, limit: int) -> list[Committed]:
        """Give at most `limit` messages from `seq` on, oldest first; raises `JournalError`."""
        ...

    def lamella_messages(self, session: str) -> list[Committed]:
        """Give the newest message of every lamella of a session; raises `JournalError`."""
        ...

    def running_session(self) -> str:
        """Name the session that was last written to; raises `JournalError`."""
        ...

    def last_seq(self) -> int:
        """Give the seq of the newest message; raises `JournalError`."""
        ...


class Replay:
    """Answers requests on a ROUTER; used by the publisher thread alone.

    At most half of its time goes into answers, however many ask: the journal's lock and the
    interpreter are needed for the next tilt.
    """

    def __init__(self, router: zmq.Socket[bytes], past: Past) -> None:
        """Take the socket, and the journal."""
        self._router = router
        self._past = past
        self._free_s = 0.0
        self._said_s = float("-inf")

    @property
    def rests_for_s(self) -> float:
        """How long it is not to be asked again."""
        return max(0.0, self._free_s - time.monotonic())

    def answer(self) -> None:
        """Answer the request that waits."""
        began_s = time.monotonic()
        frames = self._router.recv_multipart()
        from_seq = _from_seq(frames[-1]) if len(frames) > 1 else None
        if from_seq is None:
            self._say_junk()
        else:
            self._reply(frames[:-1], from_seq)
        now_s = time.monotonic()
        self._free_s = now_s + (now_s - began_s)

    def _reply(self, envelope: Sequence[bytes], from_seq: int) -> None:
        try:
            found = self._past.messages_from(max(0, min(from_seq, 2**62)), BATCH)
        except JournalError:
            return  # the state says why; the client asks again
        parts: list[bytes] = []
        size = 0
        for one in found:
            parts += (one.topic.encode(), one.body)
            size += len(one.body)
            if size >= REPLY_MAX_BYTES:
                break
        try:
            self._router.send_multipart([*envelope, *(parts or [b""])], zmq.NOBLOCK)
        except zmq.ZMQError:
            return  # gone, or it does not read: it asks again

    def _say_junk(self) -> None:
        if time.monotonic() - self._said_s > _SAY_EVERY_S:
            self._said_s = time.monotonic()
            logger.warning('a replay request was no JSON like {"from_seq": 1}: not answered')


def _from_seq(request: bytes) -> int | None:
    """Read a request; None for junk."""
    try:
        return int(json.loads(request)["from_seq"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
