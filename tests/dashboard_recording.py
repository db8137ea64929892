"""A recorded session of two microscopes: what Prometheus would have scraped, to fill it with.

`python -m tests.dashboard_recording FILE` records it anew: real daemons with the shipped bundle
beside pretend microscopes. The microscopes hurry, so each scrape is noted at the time at which it
would have happened without hurry; seconds that icewatch measured itself are left as they were.
"""

from __future__ import annotations

import datetime
import json
import lzma
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from engines.microscope import SerialEMStackWriter
from tests.daemon import Daemon, Subscriber

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests/golden/two_microscopes.json.xz"
SPEED = 8.0
"""How many times faster than real time the microscopes work."""
EVERY_S = 15.0
"""From scrape to scrape, in the time of the microscopes."""
LASTS_S = 2640.0
"""The last lamella of the first microscope is then halfway."""
SHARE_GONE_AFTER_S = 2340.0
"""When the share of the second microscope goes away; the third one never answers."""
BLANK_AFTER_S = 1200.0
BEFORE_THE_FIRST_TILT_S = 45.0
"""A time at which icewatch was ready, and nothing had landed yet."""
_CLOCKS = ("_timestamp_seconds", "process_start_time_seconds")
"""Metrics whose values are times of day."""
_ICE_PERCENT = (0, 0, 1, 25, 20, 30, 0, 0, 0, 45, 35, 40, 4, 7, 5, 0, 0, 0, 2, 0, 3, 60, 50, 55)
"""Of the areas of the first microscope, three on each lamella."""
_KRIOS1 = "--layout pacetomo --series 24 --tilts 9 " + " ".join(
    f"--ice {percent}" for percent in _ICE_PERCENT
)
_KRIOS2 = "--layout tomography5 --series 6 --tilts 13 --ice 0 --ice 0 --ice 30 --ice 0 --ice 0"


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one daemon showed at one time, as lines of samples; nothing where it did not answer."""

    microscope: str
    at_s: float
    """Since the beginning."""
    text: str


@dataclass(frozen=True, slots=True)
class Recording:
    """All scrapes, and the messages that subscribers heard meanwhile: another way to the truth."""

    scrapes: tuple[Scrape, ...]
    lamellae: dict[str, list[dict[str, Any]]]
    """What the messages on lamellae said, by microscope, in their order."""
    tilts: dict[str, list[dict[str, Any]]]
    """What the messages on tilts said."""

    def write(self, path: Path) -> None:
        """Write the recording, compressed."""
        path.write_bytes(lzma.compress(json.dumps(asdict(self)).encode(), preset=9))

    @classmethod
    def read(cls, path: Path = RECORDED) -> Recording:
        """Read what was recorded."""
        raw = json.loads(lzma.decompress(path.read_bytes()))
        scrapes = tuple(Scrape(**one) for one in raw["scrapes"])
        return cls(scrapes, raw["lamellae"], raw["tilts"])

    def open_metrics(self, ends_s: float) -> Iterator[str]:
        """Lines of OpenMetrics with times, of which the last is at `ends_s` since 1970."""
        begins_s = ends_s - max(one.at_s for one in self.scrapes)
        series: dict[str, list[tuple[float, str]]] = {}
        for one in self.scrapes:
            for line in one.text.splitlines():
                name, _, value = line.rpartition(" ")
                series.setdefault(name, []).append((one.at_s, value))
        for name, samples in series.items():
            moved_s = begins_s if name.partition("{")[0].endswith(_CLOCKS) else 0.0
            for at_s, value in samples:
                said = f"{float(value) + moved_s:.3f}" if moved_s else value
                yield f"{name} {said} {begins_s + at_s:.3f}\n"
        yield "# EOF\n"


def _samples(text: str, address: str, microscope: str, began_s: float) -> str:
    """Samples as Prometheus stores them: with its own labels, clocks since the beginning."""
    own = f'instance="{address}",job="icewatch"'
    lines = [f'up{{{own},microscope="{microscope}"}} {int(bool(text))}']
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            value = one.value
            if one.name.endswith(_CLOCKS):
                value = (value - began_s) * SPEED
            labels = {"microscope": microscope, **one.labels}
            inner = ",".join(f"{key}={json.dumps(word)}" for key, word in sorted(labels.items()))
            lines.append(f"{one.name}{{{own},{inner}}} {value:.9g}")
    return "\n".join(lines)


class _Microscope:
    """A daemon and the pretend microscope beside it."""

    def __init__(self, folder: Path, name: str, address: str, words: str) -> None:
        (folder / "data").mkdir(parents=True)
        bundles = [path for path in (ROOT / "engines/bundles").iterdir() if path.is_dir()]
        self.name, self.address = name, address
        self.daemon = Daemon(folder, bundle=bundles[0])
        text = self.daemon.config.read_text().replace('"test"', f'"{name}"')
        self.daemon.config.write_text(text)
        self.heard = Subscriber(self.daemon.endpoint)
        self._words = words.split()
        self._simulate: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Let the microscope write."""
        command = [sys.executable, "-m", "monitor", "simulate", str(self.daemon.acquisition)]
        options = ["--append", "--size", "512", "--pixel-size", "6.75", "--speed", str(SPEED)]
        self._simulate = subprocess.Popen(
            [*command, *self._words, *options], cwd=ROOT, stderr=subprocess.DEVNULL
        )

    def end(self) -> None:
        """Stop both."""
        if self._simulate is not None:
            self._simulate.terminate()
            self._simulate.wait()
        self.daemon.stop()
        self.heard.close()

    def blank(self) -> None:
        """Write tilts that show nothing, and a file that is no picture."""
        folder = self.daemon.acquisition / "2026-01-01_simulated" / "grid_1"
        writer = SerialEMStackWriter(folder / "shutter_closed.mrc", (512, 512), 6.75)
        for angle_deg in (0.0, 3.0, -3.0):
            when = datetime.datetime(2026, 1, 1, 12)
            writer.add(np.zeros((512, 512), np.int16), angle_deg, when)
        (folder / "cut.mrc").write_bytes(b"no picture")
        (folder / "cut.mrc.mdoc").write_text("[ZValue = 0]\nTiltAngle = 0\n")

    def lose_share(self) -> None:
        """Take the acquisition directory away."""
        self.daemon.acquisition.rename(self.daemon.folder / "gone")


def record(folder: Path, lasts_s: float = LASTS_S) -> Recording:
    """Run both microscopes and scrape them; takes `lasts_s / SPEED` seconds and a little more."""
    scopes = [
        _Microscope(folder / "1", "krios1", "127.0.0.1:9108", _KRIOS1),
        _Microscope(folder / "2", "krios2", "192.168.10.12:9108", _KRIOS2),
    ]
    with ExitStack() as running:
        for one in scopes:
            running.callback(one.end)
            one.daemon.start()
        for one in scopes:
            one.daemon.wait_for_state("ready")
        scrapes = tuple(_scrapes(scopes, lasts_s))
    return Recording(
        scrapes,
        {
            one.name: [_about_lamella(body) for body in one.heard.messages("lamella")]
            for one in scopes
        },
        {one.name: [_about_tilt(body) for body in one.heard.messages("tilt")] for one in scopes},
    )


def _about_lamella(body: dict[str, Any]) -> dict[str, Any]:
    said = ("seq", "session", "grid", "lamella", "verdict", "ice_percent")
    return {name: body[name] for name in (*said, "tilts_seen", "tilts_expected")}


def _about_tilt(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "seq": body["seq"],
        "lamella": body["tilt"]["lamella"],
        "percent": body["ice"]["percent"],
        "in_domain": body["quality"]["in_domain"],
        "flags": body["quality"]["flags"],
    }


def _scrapes(scopes: list[_Microscope], lasts_s: float) -> Iterator[Scrape]:
    began_s, start_s = time.time(), time.monotonic()
    due = [(60.0, one.begin) for one in scopes]
    due += [(BLANK_AFTER_S, scopes[0].blank), (SHARE_GONE_AFTER_S, scopes[1].lose_share)]
    pause = threading.Event()
    for number in range(int(lasts_s / EVERY_S) + 1):
        at_s = number * EVERY_S
        pause.wait(max(0.0, start_s + at_s / SPEED - time.monotonic()))
        while due and due[0][0] <= at_s:
            due.pop(0)[1]()
        for one in scopes:
            text = _samples(one.daemon.metrics(), one.address, one.name, began_s)
            yield Scrape(one.name, at_s, text)
        yield Scrape("krios3", at_s, _samples("", "192.168.10.13:9108", "krios3", began_s))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder)).write(Path(sys.argv[1]))
