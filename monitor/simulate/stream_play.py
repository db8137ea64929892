"""`icewatch simulate stream`: a pretend daemon for who writes a subscriber.

Endpoint, last values, heartbeats, replay and the messages themselves are those of the real one;
what a network and a restart do to a subscriber can be asked for.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from pydantic import ValidationError

from monitor.errors import ConfigError
from monitor.messages import StatusMessage, parse, utc_now
from monitor.publish_settings import PublishSettings, stays_here
from monitor.publisher import HEARTBEAT_S
from monitor.simulate.stream import INTERVAL_S, MadeUp, Part, tilts
from monitor.sinks.protocol import Outgoing
from monitor.sinks.stream import Stream

_MICROSCOPE = "simulated"


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What to play, and what goes wrong."""

    endpoint: str
    part: Part
    speed: float = 20.0
    drop: float = 0.0
    """Share of the messages that are not sent: they have to be asked for."""
    restart_every: int | None = None
    """Tilts after which the daemon is started anew."""
    stall_every: int | None = None
    """Tilts after which nothing is heard, not even heartbeats, for `stall_s`."""
    stall_s: float = 10.0
    end_after_s: float | None = None
    """How long the past can be asked for once all was played; None: until stopped."""


class Player:
    """Plays one session on one endpoint; `play` and `close` belong to one thread."""

    def __init__(self, request: StreamRequest) -> None:
        """Bind; raises `ConfigError` or `MonitorError` where that cannot be."""
        try:
            self._settings = PublishSettings(zmq_endpoint=request.endpoint)
        except ValidationError as error:
            sentence = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"--endpoint: {sentence}") from error
        if not stays_here(request.endpoint):
            raise ConfigError(
                f"--endpoint {request.endpoint} can be reached from other computers; a pretend "
                "session stays on this one: name 127.0.0.1"
            )
        self._request = request
        self._past = MadeUp(_MICROSCOPE)
        self._random = Random(request.part.seed)
        self._stop = threading.Event()
        self.dropped = self.played = 0
        self._start()

    def _start(self) -> None:
        self._boot_id = uuid.uuid4().hex
        self._stream = Stream(self._settings, self._past)
        self._next_beat_s = 0.0

    def play(self) -> None:
        """Play all tilts, then answer for as long as is wanted."""
        request = self._request
        for count, (tilt, reading) in enumerate(tilts(request.part), start=1):
            self._serve(INTERVAL_S / request.speed)
            if self._stop.is_set():
                return
            for one in self._past.add(tilt, reading, self._boot_id):
                if self._random.random() < request.drop:
                    self.dropped += 1
                    continue
                message = parse(one.topic, one.body)
                self._stream.publish(Outgoing(one.seq, one.topic, one.body, message))
            self.played = count
            if request.stall_every and count % request.stall_every == 0:
                _say(f"after seq {self._past.last_seq()}: silence for {request.stall_s:g} s")
                self._stop.wait(request.stall_s)
            if request.restart_every and count % request.restart_every == 0:
                _say(f"after seq {self._past.last_seq()}: a restart, with another boot_id")
                self._stream.close()
                self._start()
        _say(f"all {self._past.last_seq()} messages were played, {self.dropped} were not sent")
        if request.end_after_s is None:
            _say("they can still be asked for; Ctrl-C ends")
        self._serve(float("inf") if request.end_after_s is None else request.end_after_s)

    def _serve(self, seconds: float) -> None:
        """Answer subscribers and send heartbeats for a while."""
        until_s = time.monotonic() + seconds
        while True:
            now_s = time.monotonic()
            if now_s >= self._next_beat_s:
                self._next_beat_s = now_s + HEARTBEAT_S
                self._stream.heartbeat(self._status())
            self._stream.wait(max(0.0, min(until_s, self._next_beat_s) - now_s))
            if time.monotonic() >= until_s or self._stop.is_set():
                return

    def _status(self) -> StatusMessage:
        last_seq = self._past.last_seq()
        return StatusMessage(
            seq=last_seq,
            boot_id=self._boot_id,
            time=utc_now(),
            microscope=_MICROSCOPE,
            state="ready",
            reason="",
            backend="onnxruntime",
            last_seq=last_seq,
            backlog=0,
            oldest_unprocessed_s=0.0,
            replay_endpoint=self._stream.replay_endpoint,
        )

    def stop(self) -> None:
        """Have `play` come back within a second; may be called from any thread."""
        self._stop.set()

    def close(self) -> None:
        """Let what was sent leave, and close."""
        self._stream.close()


def play_stream(request: StreamRequest, on_ready: Callable[[], None] = lambda: None) -> int:
    """Play a session; returns 0. Raises `ConfigError` or `MonitorError` with one sentence."""
    player = Player(request)
    count = request.part.lamellae * request.part.tilts
    _say(f"{count} tilts on {request.endpoint}, one each {INTERVAL_S / request.speed:.3g} s")
    on_ready()
    try:
        player.play()
    except KeyboardInterrupt:
        _say("stopped")
    finally:
        player.close()
    return 0


def _say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()
