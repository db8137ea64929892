"""Plays the recorded session as SerialEM would write it, and shows what the daemon makes of it."""

from __future__ import annotations

import datetime
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from engines.microscope import SerialEMStackWriter
from monitor.demo.daemon import Places, WatchedDaemon, prepare_places
from monitor.demo.session import (
    COUNTS_PER_ELECTRON,
    ENLARGED,
    RecordedSession,
    expose,
    load_session,
)
from monitor.demo.summary import summarise
from monitor.errors import MonitorError
from monitor.listen import listen
from monitor.messages import LamellaMessage, Message, TiltMessage
from monitor.model import Decision
from monitor.screen import VERDICT_STYLE, console, message_line

TILT_EVERY_S = 1.3
SILENCE_MAX_S = 45.0
SESSION_NAME = "demo-session"


def play(keep: Path | None, speed: float) -> int:
    """Run the demo; returns 0 if every lamella was judged rightly, else 1."""
    screen = console()
    session = load_session()
    root = keep or Path(tempfile.mkdtemp(prefix="icewatch-demo-"))
    if keep and keep.exists() and any(keep.iterdir()):
        raise MonitorError(f"--keep {keep}: is not empty; name a new or an empty directory")
    places = prepare_places(root.resolve(), session.skip_above_ice_percent)
    screen.print(
        f"A pretend microscope writes {session.tilts} tilts of {len(session.lamellae)} lamellae "
        f"into {places.acquisition};\nthe real icewatch daemon watches that directory and reads "
        f"each tilt as it lands. Limit: {session.skip_above_ice_percent:g} % ice.\n",
        soft_wrap=True,
        markup=False,
    )
    daemon = WatchedDaemon(places)
    daemon.start()
    try:
        heard = _watch(screen, session, places, daemon, TILT_EVERY_S / speed)
        return summarise(screen, session, places, heard)
    finally:
        daemon.stop()


def _watch(
    screen: Console,
    session: RecordedSession,
    places: Places,
    daemon: WatchedDaemon,
    tilt_every_s: float,
) -> list[Message]:
    """Show every message until each tilt of the session was published."""
    microscope = threading.Thread(
        target=_acquire, args=(session, places.acquisition, tilt_every_s), daemon=True
    )
    heard: list[Message] = []
    published = 0
    verdicts: dict[str, Decision] = {}
    with _progress(screen) as progress:
        task = progress.add_task("tilts published", total=session.tilts)
        for message in _messages(places, daemon, screen):
            if not microscope.ident:
                microscope.start()  # the first heartbeat: the daemon is up
            if isinstance(message, TiltMessage):
                published += 1
                progress.update(task, completed=published)
                screen.print(message_line(message), markup=False, soft_wrap=True)
            elif isinstance(message, LamellaMessage):
                _show_verdict(screen, message, verdicts)
            elif published == session.tilts:
                return heard  # a heartbeat comes after every sink is done with what was sent
            heard.append(message)
    return heard


def _progress(screen: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )


def _show_verdict(screen: Console, message: LamellaMessage, verdicts: dict[str, Decision]) -> None:
    """Say a verdict when it changes, not at every tilt."""
    if verdicts.get(message.lamella, Decision.UNDECIDED) is not message.verdict:
        screen.print(
            f"        {message.verdict.upper()}  {message.lamella}: {message.explanation}",
            style=VERDICT_STYLE[message.verdict],
            markup=False,
            soft_wrap=True,
        )
    verdicts[message.lamella] = message.verdict


def _messages(places: Places, daemon: WatchedDaemon, screen: Console) -> Iterator[Message]:
    """Every message from the first on; raises `MonitorError` when nothing comes any more."""
    last_news_s = time.monotonic()
    deaths = 0
    for message, _ in listen(places.zmq_endpoint, 0, heard_within_s=SILENCE_MAX_S):
        if len(daemon.deaths) > deaths:
            deaths = len(daemon.deaths)
            screen.print(f"        the daemon died ({daemon.deaths[-1]}) and was started again")
        if isinstance(message, TiltMessage):
            last_news_s = time.monotonic()
        if time.monotonic() - last_news_s > SILENCE_MAX_S:
            raise MonitorError(
                f"no tilt was published for {SILENCE_MAX_S:.0f} s; see what the daemon says in "
                f"{places.log}"
            )
        yield message


def _acquire(session: RecordedSession, acquisition: Path, tilt_every_s: float) -> None:
    """Write the session section by section, as SerialEM does (the microscope's thread)."""
    generator = np.random.default_rng(20260101)
    pixel_size_angstrom = session.pixel_size_angstrom / ENLARGED
    pace = _Pace(tilt_every_s)
    when = datetime.datetime(2026, 1, 1, 10, 0, 0)
    for lamella in session.lamellae:
        folder = acquisition / SESSION_NAME
        folder.mkdir(parents=True, exist_ok=True)
        rows, columns = lamella.tilts[0].expected.shape
        stack = SerialEMStackWriter(
            folder / f"{lamella.name}.mrc",
            (rows * ENLARGED, columns * ENLARGED),
            pixel_size_angstrom,
            chunk_bytes=1 << 19,
            between=lambda step: time.sleep(tilt_every_s / 20),
        )
        for tilt in lamella.tilts:
            counts = expose(tilt, generator)
            pace.wait()
            stack.add(
                counts,
                tilt.angle_deg,
                when=when,
                exposure_dose_e_per_A2=tilt.exposure_dose_e_per_A2,
                counts_per_electron=COUNTS_PER_ELECTRON,
            )
            when += datetime.timedelta(seconds=26)


class _Pace:
    """Lets one tilt go every so many seconds, whatever drawing its electrons took."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next_s = time.monotonic()

    def wait(self) -> None:
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = max(self._next_s, time.monotonic()) + self._every_s
