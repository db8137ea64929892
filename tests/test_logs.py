"""What the daemon logs: one line each, fields for journald, and never a flood or a wait."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.logs import FLOOD_LINES, Handler, Journald, Plain, entry, one_line, runs_under_journald
from monitor.logs_sink import LogLines
from monitor.messages import parse
from monitor.sinks.protocol import Outgoing
from tests.golden_journals import GOLDEN

NASTY = "s1/\x1b[31mL1\nERROR forged\r\u202egnp.\udcff\u2028end"


def outgoing(topic: str, **names: str) -> Outgoing:
    body = (GOLDEN / f"{topic}_0.1.0.json").read_bytes()
    message = parse(topic, body)
    if topic == "tilt":
        part = message.tilt.model_copy(update=names)  # type: ignore[union-attr]
        message = message.model_copy(update={"tilt": part})
    else:
        message = message.model_copy(update=names)
    return Outgoing(message.seq, topic, body, message)


def parsed(datagram: bytes) -> dict[str, str]:
    """Read an entry as journald does."""
    found: dict[str, str] = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        found[name.decode()] = value.decode()
        datagram = rest
    return found


class Listener:
    """A socket like journald's, and a logger that writes to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "socket"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(10.0)
        self.journald = Journald(self.path)
        self.handler = Handler(self.journald)
        self.logger = logging.getLogger("monitor.logs_sink")

    def received(self) -> dict[str, str]:
        return parsed(self.socket.recv(1 << 20))


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    found = Listener(tmp_path)
    found.logger.addHandler(found.handler)
    found.logger.setLevel(logging.INFO)
    yield found
    found.logger.removeHandler(found.handler)
    found.logger.setLevel(logging.NOTSET)
    found.journald.close()
    found.socket.close()


def test_a_tilt_is_one_entry_with_its_numbers(listener: Listener) -> None:
    LogLines().publish(outgoing("tilt"))
    found = listener.received()
    assert found["MESSAGE"] == (
        "tilt s1/g1/L1 -3.0 deg: 5.0 % ice (4.0-6.0) [partly_saturated], 0.25 s after it landed"
    )
    assert found["PRIORITY"] == "6"
    assert found["SYSLOG_IDENTIFIER"] == "icewatch"
    wanted = {
        "EVENT": "tilt",
        "MICROSCOPE": "krios1",
        "LAMELLA": "s1/g1/L1",
        "TILT_ID": "s1/L1@-3.00@2026-01-01T10:03:01",
        "ICE_PERCENT": "5.0",
        "LATENCY_S": "0.25",
        "SEQ": "7",
        "ANGLE_DEG": "-3.0",
    }
    assert {key: found[key] for key in wanted} == wanted


def test_a_verdict_is_one_entry_with_its_evidence(listener: Listener) -> None:
    LogLines().publish(outgoing("lamella"))
    found = listener.received()
    assert found["MESSAGE"].startswith("verdict s1/g1/L1 keep: Mean ice 5.1 %")
    assert (found["VERDICT"], found["REASON"]) == ("keep", "ice_below_limit")
    assert "TILTS_EXPECTED" not in found, "what is not known is left out"


def test_what_is_sent_again_is_not_logged_again(listener: Listener) -> None:
    one = outgoing("tilt")
    LogLines().publish(Outgoing(one.seq, one.topic, one.body, one.message, resent=True))
    listener.logger.warning("the end")
    assert listener.received()["MESSAGE"] == "the end"


@pytest.mark.parametrize("topic", ["tilt", "lamella"])
def test_a_nasty_name_stays_in_its_field_and_line(listener: Listener, topic: str) -> None:
    LogLines().publish(outgoing(topic, lamella=NASTY))
    found = listener.received()
    assert found["MESSAGE"].count("\n") == 0
    assert found["MESSAGE"].isprintable() and found["LAMELLA"].isprintable()
    assert r"\x1b[31mL1\nERROR forged\r\u202egnp.\udcff\u2028end" in found["LAMELLA"]
    assert "forged" not in found


@given(st.text(st.characters(exclude_categories=())), st.text())
def test_any_text_is_one_line_and_nothing_is_lost(first: str, second: str) -> None:
    assert one_line(first).isprintable()
    if first.isprintable():
        assert one_line(first) == first
    found = parsed(entry({"MESSAGE": one_line(first), "LAMELLA": one_line(second)}))
    assert found == {"MESSAGE": one_line(first), "LAMELLA": one_line(second)}


def test_a_traceback_is_one_entry(listener: Listener) -> None:
    try:
        raise ValueError("bad\nname")
    except ValueError:
        listener.logger.exception("failed at %s", "a\nb")
    found = listener.received()
    assert found["MESSAGE"].startswith("failed at a\\nb\nTraceback (most recent call last):\n")
    assert found["PRIORITY"] == "3"


def read_pipe(reading: int) -> list[str]:
    os.set_blocking(reading, False)
    try:
        return os.read(reading, 1 << 20).decode().splitlines()
    except BlockingIOError:
        return []


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def record(text: str, name: str = "monitor.x") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "x.py", 1, text, (), None)


def test_where_journald_is_away_lines_are_written(tmp_path: Path, pipe: tuple[int, int]) -> None:
    journald = Journald(tmp_path / "none", Plain(pipe[1]))
    Handler(journald).handle(record("hello\nworld"))
    journald.close()
    assert read_pipe(pipe[0]) == ["WARNING monitor.x hello\\nworld"]


def test_nobody_who_does_not_read_holds_the_daemon_up(pipe: tuple[int, int]) -> None:
    plain = Plain(pipe[1])
    done = threading.Event()

    def write() -> None:
        for number in range(500):
            plain(record(""), [f"{number} " + "x" * 3000])
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(30.0)
    assert plain.dropped > 400
    dropped = plain.dropped
    lines = read_pipe(pipe[0])
    assert all(line.startswith("WARNING monitor.x ") for line in lines)
    plain(record(""), ["again"])
    assert read_pipe(pipe[0]) == [
        f"({dropped} lines were dropped: nobody read them)",
        "WARNING monitor.x again",
    ]


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_flood_is_held_back_and_counted() -> None:
    said: list[str] = []
    clock = Clock()
    handler = Handler(lambda one, lines: said.extend(lines), clock)
    for number in range(10_000):
        handler.handle(logging.LogRecord("m", 30, "x", 1, "cannot read %d", (number,), None))
    handler.handle(record("something else"))
    assert len(said) == FLOOD_LINES + 1
    clock.now_s = 61.0
    handler.handle(logging.LogRecord("m", 30, "x", 1, "cannot read %d", (7,), None))
    assert said[-2:] == [
        f"{10_000 - FLOOD_LINES} more lines like the next were left out in a minute",
        "cannot read 7",
    ]


def test_tilts_of_a_fast_microscope_are_no_flood() -> None:
    said: list[str] = []
    handler = Handler(lambda one, lines: said.extend(lines), Clock())
    for _ in range(1000):
        one = record("tilt")
        one.fields = {"EVENT": "tilt"}
        handler.handle(one)
    assert len(said) == 1000


def test_a_line_that_cannot_be_written_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(one: logging.LogRecord, lines: list[str]) -> None:
        raise OSError("no")

    Handler(fail).handle(record("x"))
    assert "OSError: no" in capsys.readouterr().err


def test_journald_is_known_by_its_socket(pipe: tuple[int, int]) -> None:
    stat = os.fstat(pipe[1])
    assert runs_under_journald(f"{stat.st_dev}:{stat.st_ino}", pipe[1])
    for given_stream in ("", "8:1", "nonsense", f"{stat.st_dev}:"):
        assert not runs_under_journald(given_stream, pipe[1])


def test_on_a_terminal_or_in_a_file_lines_are_plain() -> None:
    code = (
        "import logging; from monitor.logs import set_up; set_up(); "
        "logging.getLogger('monitor.intake').warning('a\\nb')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "WARNING monitor.intake a\\nb\n")


_REAL_JOURNALD = r"""
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal
/lib/systemd/systemd-journald >/dev/null 2>&1 &
for _ in $(seq 100); do test -S /run/systemd/journal/socket && break; sleep 0.1; done
"$PYTHON" -c "
import json
import logging
from monitor.logs import Handler, Journald
from monitor.logs_sink import LogLines
from tests.test_logs import NASTY, outgoing
logging.basicConfig(level=logging.INFO, handlers=[Handler(Journald())])
LogLines().publish(outgoing('tilt', lamella=NASTY))
LogLines().publish(outgoing('lamella'))
"
journalctl --sync
journalctl -D /run/log/journal -o json EVENT=tilt + EVENT=verdict
kill %1
"""


@pytest.mark.slow
def test_the_real_journald_keeps_every_field() -> None:
    needed = ("/lib/systemd/systemd-journald", "/etc/machine-id", "/usr/bin/journalctl")
    if os.geteuid() != 0 or not all(Path(path).exists() for path in needed):
        pytest.skip("needs root, and journald of systemd")
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", _REAL_JOURNALD],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
        cwd=Path(__file__).resolve().parents[1],
    )
    if "permitted" in done.stderr:
        pytest.skip("namespaces are not allowed here")
    tilt, verdict = (json.loads(line) for line in done.stdout.splitlines())
    assert (tilt["ICE_PERCENT"], tilt["LAMELLA"]) == ("5.0", one_line(NASTY))
    assert tilt["MESSAGE"].startswith(f"tilt {one_line(NASTY)} -3.0 deg")
    assert (verdict["VERDICT"], verdict["PRIORITY"]) == ("keep", "6")
