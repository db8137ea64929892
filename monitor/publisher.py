"""The publisher thread: sends committed messages to every sink, in the order of their seq."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from monitor.errors import JournalError, SinkError
from monitor.messages import StatusMessage
from monitor.sinks.metrics import Metrics
from monitor.sinks.protocol import Outgoing, Sink
from monitor.sinks.stream import Stream

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
BATCH = 32
"""Messages at once, so that heartbeats and replay go on while thousands are sent again."""
RECONNECT_S = 1.0
"""After a start nothing is sent for this long: subscribers that were connected to the last boot
need it to come back (ZeroMQ tries every 0.1 s), and what is sent before is lost to them."""


class Publisher:
    """Takes what was committed from the worker and hands it to all sinks.

    A sink that fails is counted and named once; it stops neither the others nor the pipeline.
    """

    def __init__(
        self,
        stream: Stream,
        metrics: Metrics,
        slow_sinks: Sequence[Sink],
        heartbeat: Callable[[], StatusMessage],
        reconnect_s: float = RECONNECT_S,
    ) -> None:
        self._stream = stream
        self._metrics = metrics
        self._sinks: tuple[Sink, ...] = (stream, metrics, *slow_sinks)
        self._heartbeat = heartbeat
        self._reconnect_s = reconnect_s
        self._outbox: deque[Outgoing] = deque()
        self._failing: dict[str, str] = {}

    def put(self, messages: Sequence[Outgoing]) -> None:
        """Queue committed messages; called by the worker, never blocks."""
        self._outbox.extend(messages)
        self._stream.wake()

    def wake(self) -> None:
        """Have the thread look around at once."""
        self._stream.wake()

    @property
    def failing(self) -> dict[str, str]:
        """The sinks that fail now, each with its sentence."""
        return dict(self._failing)

    def run(self, stop: threading.Event) -> None:
        """Publish until told to stop and everything committed is sent (the thread's body)."""
        send_from_s = time.monotonic() + self._reconnect_s
        next_beat_s = 0.0
        while not (stop.is_set() and not self._outbox):
            now = time.monotonic()
            if now >= next_beat_s:
                next_beat_s = now + HEARTBEAT_S
                self._beat()
            if now >= send_from_s or stop.is_set():
                self._send_waiting()
                wait_s = 0.0 if self._outbox else next_beat_s - time.monotonic()
            else:
                wait_s = min(next_beat_s, send_from_s) - now
            if not stop.is_set():
                self._stream.wait(wait_s)
        self._beat()

    def _send_waiting(self) -> None:
        batch = [self._outbox.popleft() for _ in range(min(BATCH, len(self._outbox)))]
        # Sink by sink, so that no overlay is drawn while a message still waits to leave.
        for sink in self._sinks:
            for outgoing in batch:
                self._guarded(sink, partial(sink.publish, outgoing))

    def _beat(self) -> None:
        status = self._heartbeat()
        self._guarded(self._stream, partial(self._stream.heartbeat, status))
        self._metrics.heartbeat(status)
        for sink in self._sinks:
            self._guarded(sink, sink.beat)

    def _guarded(self, sink: Sink, call: Callable[[], None]) -> None:
        try:
            call()
        except (SinkError, JournalError) as error:
            self._metrics.count_error(error.stage)
            if sink.name not in self._failing:
                logger.error("%s", error)
            self._failing[sink.name] = str(error)
        else:
            if self._failing.pop(sink.name, None):
                logger.info("sink %s works again", sink.name)
