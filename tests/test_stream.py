"""Publishing for real: sockets, replay, gaps, heartbeats, metrics and the verdict files."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
import zmq

from monitor.errors import MonitorError
from monitor.journal import Journal
from monitor.listen import listen
from monitor.messages import (
    LamellaMessage,
    Stamp,
    StatusMessage,
    lamella_message,
    parse,
    utc_now,
)
from monitor.model import Decision, Reason, Verdict
from monitor.publish_settings import PublishSettings
from monitor.sinks.metrics import Metrics, RecalledLamella
from monitor.sinks.stream import Stream
from monitor.sinks.verdict_files import VerdictFiles
from tests.builders import tilt
from tests.ports import free_port
from tests.stream_bench import Bench, running
from tests.waiting import wait_until


@pytest.fixture
def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


def committed_only(endpoint: str, from_seq: int | None, count: int) -> list[tuple[int, bytes]]:
    """What was committed, once every sink is done with it: a heartbeat comes after them."""
    found: list[tuple[int, bytes]] = []
    for message, body in listen(endpoint, from_seq, heard_within_s=10.0):
        if not isinstance(message, StatusMessage):
            found.append((message.seq, body))
        elif len(found) >= count and message.last_seq >= found[-1][0]:
            break
    return found


def test_a_late_listener_gets_the_past_then_goes_on_live(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench:
        for angle in range(600):  # more than one batch of the replay
            bench.add(angle / 10)
        heard: list[tuple[int, bytes]] = []
        half = threading.Event()

        def follow() -> None:
            for message, body in listen(endpoint, 0, heard_within_s=10.0):
                if not isinstance(message, StatusMessage):
                    heard.append((message.seq, body))
                if len(heard) == 1200:
                    half.set()
                if len(heard) == 1220:
                    return

        listener = threading.Thread(target=follow)
        listener.start()
        assert half.wait(20.0)
        for angle in range(10):
            bench.add(-1.0 - angle)
        listener.join(10.0)
        assert [seq for seq, _ in heard] == list(range(1, 1221))
        assert [body for _, body in heard] == [
            one.body for one in bench.journal.messages_from(0, 10**4)
        ]


def test_a_listener_without_a_seq_hears_only_what_is_new(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench:
        bench.add(0.0)
        first_beat = threading.Event()
        heard: list[int] = []

        def follow() -> None:
            for message, _ in listen(endpoint, None, heard_within_s=10.0):
                if isinstance(message, StatusMessage) and message.last_seq == 2:
                    first_beat.set()
                elif not isinstance(message, StatusMessage) and message.seq > 2:
                    heard.append(message.seq)
                if len(heard) == 2:
                    return

        listener = threading.Thread(target=follow)
        listener.start()
        assert first_beat.wait(10.0)
        bench.add(3.0)
        listener.join(10.0)
        assert heard == [3, 4]


def test_what_may_not_have_been_sent_is_sent_again(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench:
        bench.add(0.0)
        bench.add(3.0)
        bodies = [one.body for one in bench.journal.messages_from(0, 10)]
        bench.journal.close(cleanly=False)
        bench.journal = Journal(tmp_path / "state", "m")
        again = bench.journal.unsure_whether_sent()
        assert [one.body for one in again] == bodies


def test_a_stream_survives_junk(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench, zmq.Context() as context:
        bench.add(0.0)
        for junk in (b"", b"\xff", b"[]", b'{"from_seq": "x"}', b'{"from_seq": 1e999}', b"[" * 900):
            with context.socket(zmq.DEALER) as client:
                client.setsockopt(zmq.LINGER, 100)
                client.connect(bench.stream.replay_endpoint)
                client.send_multipart([b"", junk])
        assert [seq for seq, _ in committed_only(endpoint, 0, 2)] == [1, 2]


def test_a_taken_port_is_said_with_its_key(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench:
        with pytest.raises(MonitorError, match=r"publish\.zmq_endpoint"):
            Stream(PublishSettings(zmq_endpoint=endpoint), bench.journal)


def test_no_daemon_is_said_in_a_sentence(endpoint: str) -> None:
    with pytest.raises(MonitorError, match="no heartbeat"):
        next(listen(endpoint, 0, heard_within_s=0.3))


def skip_file(folder: Path) -> list[str]:
    return (folder / "verdicts" / "ice_skip.txt").read_text().splitlines()


@pytest.mark.parametrize(("mode", "listed"), [("act", ["s1/L2"]), ("confirm", []), ("advise", [])])
def test_the_skip_file_lists_only_what_may_be_skipped(
    tmp_path: Path, endpoint: str, mode: str, listed: list[str]
) -> None:
    with running(tmp_path, endpoint, mode) as bench:
        bench.add(0.0, Decision.KEEP)
        bench.add(0.0, Decision.SKIP, series="L2")
        bench.add(0.0, Decision.UNDECIDED, series="L3")
        bench.add(0.0, Decision.SKIP, series="two\nlines")
        committed_only(endpoint, 0, 8)
    first, *names = skip_file(tmp_path)
    assert first.startswith("icewatch 1 ")
    assert names == listed
    verdicts = json.loads((tmp_path / "verdicts" / "verdicts.json").read_text())
    assert [one["verdict"] for one in verdicts["lamellae"]] == ["keep", "skip", "undecided", "skip"]


def test_sessions_that_come_in_turns_lose_no_verdict(tmp_path: Path, endpoint: str) -> None:
    with running(tmp_path, endpoint) as bench:
        bench.add(0.0, Decision.SKIP, series="L1", session="gridA")
        bench.add(0.0, Decision.KEEP, series="L1", session="gridB")
        bench.add(0.0, Decision.KEEP, series="L2", session="gridA")
        committed_only(endpoint, 0, 6)
        held = {
            (sample.labels["lamella"], sample.labels["verdict"])
            for family in bench.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "icewatch_lamella_verdict" and sample.value
        }
    assert skip_file(tmp_path)[1:] == ["gridA/L1"]
    assert held == {("gridA/L1", "skip"), ("gridA/L2", "keep")}


def test_a_backlog_takes_no_verdict_of_the_running_session_away(
    tmp_path: Path, endpoint: str
) -> None:
    with running(tmp_path, endpoint) as bench:
        bench.add(6.0, Decision.SKIP, series="L1", session="live")
        bench.add(0.0, Decision.KEEP, series="L1", session="old")
        committed_only(endpoint, 0, 4)
    assert skip_file(tmp_path)[1:] == ["live/L1"]


class StaleHeartbeats(Bench):
    """Tells an old seq now and then, as a heartbeat that waited in a buffer does."""

    def status(self) -> StatusMessage:
        found = super().status()
        return found.model_copy(update={"seq": 1, "last_seq": 1}) if found.seq > 2 else found


def test_an_old_heartbeat_makes_nothing_come_twice(tmp_path: Path, endpoint: str) -> None:
    bench = StaleHeartbeats(tmp_path, endpoint)
    try:
        bench.add(0.0)
        seqs: list[int] = []
        for message, _ in listen(endpoint, 0, heard_within_s=10.0):
            if isinstance(message, StatusMessage):
                if len(seqs) == 2:
                    bench.add(3.0)
                elif len(seqs) == 4 and message.last_seq == 1:
                    bench.add(-3.0)
                elif len(seqs) == 6:
                    break
            else:
                seqs.append(message.seq)
        assert seqs == [1, 2, 3, 4, 5, 6]
    finally:
        bench.close()


def test_the_counter_goes_on_over_restarts(tmp_path: Path) -> None:
    counters = []
    for _ in range(3):
        files = VerdictFiles(tmp_path / "verdicts", "m", "act", lambda session: [], "")
        files.beat()
        counters.append(int(skip_file(tmp_path)[0].split()[-1]))
    assert counters == sorted(set(counters))


def test_metrics_follow_the_running_session(tmp_path: Path, endpoint: str) -> None:
    def value(name: str, **labels: str) -> float | None:
        return bench.metrics.registry.get_sample_value(name, {"microscope": "m", **labels})

    with running(tmp_path, endpoint) as bench:
        bench.add(0.0, Decision.SKIP, percent=20.0)
        bench.add(3.0, Decision.SKIP, percent=None)
        committed_only(endpoint, 0, 4)
        lamella = {"lamella": "s1/L1"}
        assert value("icewatch_tilt_ice_ratio", **lamella) == pytest.approx(0.2)
        assert value("icewatch_lamella_verdict", **lamella, verdict="skip") == 1.0
        assert value("icewatch_tilts_published_total", result="measured") == 1.0
        assert value("icewatch_tilts_published_total", result="not_measurable") == 1.0
        assert value("icewatch_landed_to_published_seconds_count") == 2.0
        bench.add(0.0, Decision.KEEP, series="new", session="s2", percent=None)
        committed_only(endpoint, 5, 2)
        assert value("icewatch_lamella_verdict", **lamella, verdict="skip") is None
        assert value("icewatch_tilt_ice_ratio", lamella="s2/new") is None


def test_restored_metrics_show_the_session_before_any_new_tilt(tmp_path: Path) -> None:
    message = parse(
        "lamella",
        lamella_message(
            Stamp(seq=2, boot_id="b", time=utc_now(), microscope="m"),
            tilt(),
            Verdict(Decision.SKIP, Reason.ICE_ABOVE_LIMIT, "x", 30.0, 20.0, 40.0, 0.99, 5, None),
        ).body(),
    )
    assert isinstance(message, LamellaMessage)
    known = {"s1/L1": RecalledLamella(message, 12.0)}
    metrics = Metrics("m", "0", lambda session: known if session == "s1" else {}, "s1")
    labels = {"microscope": "m", "lamella": "s1/L1", "verdict": "skip"}
    assert metrics.registry.get_sample_value("icewatch_lamella_verdict", labels) == 1.0
    del labels["verdict"]
    assert metrics.registry.get_sample_value("icewatch_tilt_ice_ratio", labels) == 0.12


def test_a_verdict_directory_that_hangs_holds_nobody_up(tmp_path: Path, endpoint: str) -> None:
    """A pipe that nobody reads hangs whoever opens it, as a share does whose server went away."""
    pipe = tmp_path / "verdicts" / ".ice_skip.txt.tmp"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    with running(tmp_path, endpoint) as bench:
        bench.add(0.0, Decision.SKIP, percent=40.0)
        bench.add(3.0, Decision.SKIP, percent=40.0)
        committed_only(endpoint, 0, 4)
        assert "does not answer" in wait_until(
            lambda: bench.publisher.failing.get("verdict_files"), "a complaint"
        )
        assert not (tmp_path / "verdicts/ice_skip.txt").exists()
        bench.add(6.0, Decision.KEEP, percent=0.0)
        late = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        pipe.unlink()
        wait_until(lambda: not bench.publisher.failing, "the directory to work again")
        os.close(late)
        assert len(skip_file(tmp_path)) == 1


def test_a_verdict_directory_that_cannot_be_written_is_told_until_it_can(
    tmp_path: Path, endpoint: str
) -> None:
    (tmp_path / "verdicts").write_text("in the way")
    with running(tmp_path, endpoint) as bench:
        bench.add(0.0, Decision.SKIP, percent=40.0)
        told = []
        for message, _ in listen(endpoint, 0, heard_within_s=10.0):
            if isinstance(message, StatusMessage):
                told.append("cannot be written" in bench.publisher.failing.get("verdict_files", ""))
            if len(told) == 3:
                break
        assert all(told)
        (tmp_path / "verdicts").unlink()
        wait_until(lambda: not bench.publisher.failing, "the directory to work")
        assert skip_file(tmp_path)[1:] == ["s1/L1"]
