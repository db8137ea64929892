"""A journal, a stream and a publisher thread for tests, without a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monitor.journal import Draft, Journal
from monitor.messages import (
    LamellaMessage,
    Stamp,
    StatusMessage,
    lamella_message,
    parse,
    tilt_message,
    utc_now,
)
from monitor.model import Decision, Reason, Verdict
from monitor.publish_settings import PublishSettings
from monitor.publisher import Publisher
from monitor.sinks.metrics import Metrics, RecalledLamella
from monitor.sinks.protocol import Outgoing
from monitor.sinks.stream import Stream
from monitor.sinks.verdict_files import VerdictFiles
from tests.builders import reading, tilt


class Bench:
    """A journal, a stream and a publisher thread, without a pipeline."""

    def __init__(self, folder: Path, endpoint: str, mode: str = "act", **settings: Any) -> None:
        self.journal = Journal(folder / "state", "m")
        self.journal.mark_started()
        self.settings = PublishSettings(zmq_endpoint=endpoint, **settings)
        self.stream = Stream(self.settings, self.journal)
        self.metrics = Metrics("m", "0", self.recall_with_tilts)
        self.verdicts = VerdictFiles(folder / "verdicts", "m", mode, self.recall, "")  # type: ignore[arg-type]
        self.publisher = Publisher(
            self.stream, self.metrics, [self.verdicts], self.status, reconnect_s=0.0
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.publisher.run, args=(self.stop,))
        self.thread.start()

    def recall(self, session: str) -> list[LamellaMessage]:
        found = (parse(one.topic, one.body) for one in self.journal.lamella_messages(session))
        return [message for message in found if isinstance(message, LamellaMessage)]

    def recall_with_tilts(self, session: str) -> dict[str, RecalledLamella]:
        return {one.lamella: RecalledLamella(one, None) for one in self.recall(session)}

    def status(self) -> StatusMessage:
        last_seq = self.journal.last_seq()
        return StatusMessage(
            seq=last_seq,
            boot_id="b",
            time=utc_now(),
            microscope="m",
            state="ready",
            reason="",
            backend="test",
            last_seq=last_seq,
            backlog=0,
            oldest_unprocessed_s=0.0,
            replay_endpoint=self.stream.replay_endpoint,
        )

    def add(
        self,
        angle: float,
        decision: Decision = Decision.KEEP,
        percent: float | None = 5.0,
        series: str = "L1",
        session: str = "s1",
    ) -> None:
        one = tilt(angle, series, session)
        verdict = Verdict(
            decision, Reason.NOT_SURE_YET, "Because.", percent, 0.0, 100.0, 0.5, 1, None
        )

        def draft(first: int) -> list[Draft]:
            stamps = [
                Stamp(seq=s, boot_id="b", time=utc_now(), microscope="m")
                for s in (first, first + 1)
            ]
            messages = (
                tilt_message(stamps[0], one, reading(percent), 0.1),
                lamella_message(stamps[1], one, verdict),
            )
            return [(message.topic, message.body()) for message in messages]

        committed = self.journal.add(one, reading(percent), decision, draft)
        self.publisher.put(
            [
                Outgoing(
                    c.seq,
                    c.topic,
                    c.body,
                    parse(c.topic, c.body),
                    landed_s=0.0 if c.topic == "tilt" else None,
                )
                for c in committed
            ]
        )

    def close(self) -> None:
        self.stop.set()
        self.publisher.wake()
        self.thread.join(5.0)
        assert not self.thread.is_alive()
        self.stream.close()
        self.journal.close(cleanly=True)


@contextmanager
def running(folder: Path, endpoint: str, mode: str = "act", **settings: Any) -> Iterator[Bench]:
    """A bench that is closed at the end."""
    bench = Bench(folder, endpoint, mode, **settings)
    try:
        yield bench
    finally:
        bench.close()
