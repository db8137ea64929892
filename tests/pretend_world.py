"""A pretend session, a daemon that may die at any moment, and the truth about both.

Every action here is one that a test can call by hand; the state machine draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

from monitor.retry import ask_again
from monitor.settings import Settings
from tests.pretend_daemon import Daemon, Killed, Moments
from tests.pretend_movies import Movies
from tests.pretend_session import Clocks, Series, Server, advance
from tests.pretend_stack import Stack
from tests.pretend_tampering import Tampering
from tests.pretend_truth import Truth

EVERY_FILE_S = 31.0
"""After this long a scan looks at every file."""
ATTENDED_S = (2.0, 6.0, 16.0, 2.0)
"""Pauses before the scans after that one, for as long as any rule waits."""
_PROMISE_S = EVERY_FILE_S + sum(ATTENDED_S)


class World:
    """The server, the share, the daemon, and what was promised to whom."""

    def __init__(self, folder: Path, clocks: Clocks) -> None:
        """Make a server without files in a new folder, and start a daemon."""
        folder.mkdir()
        self.folder = folder
        self.clocks = clocks
        self.moments = Moments()
        self.server = Server(folder / "server", clocks)
        self.server.make_folder(self.server.root)
        self.series: list[Series] = []
        self.people = Tampering(self.server, folder / "aside")
        self.truth = Truth(self.server)
        self.daemon: Daemon | None = None
        self.mounted = True
        self._deaths = 0
        self._attended_s = 0.0
        """For how long a daemon has scanned and worked without a break, all in all."""
        self._nothing = folder / "nothing"
        self._nothing.mkdir()
        self._mount = folder / "mount"
        self._mount.symlink_to(self.server.root)
        self._state = folder / "state"
        self.start()

    # The daemon.

    def start(self) -> None:
        """Start a daemon if there is none."""
        if self.daemon is None:
            self.daemon = Daemon(
                self._mount, self._state, self.clocks, self.moments, self.truth.sent
            )

    def kill(self) -> None:
        """End the daemon without a word."""
        if self.daemon is not None:
            self.daemon.die()
            self.daemon = None
            self._deaths += 1

    def stop(self) -> None:
        """End the daemon in order."""
        if self.daemon is not None:
            self.daemon.stop()
            self.daemon = None

    def scan(self) -> None:
        """One turn of the intake thread."""
        self._alive(lambda daemon: daemon.scan())

    def scan_meanwhile(self) -> None:
        """Have the intake see what happened while the worker has a file in hands."""
        if self.daemon is not None and not self.daemon.is_scanning:
            self.clocks.now_s += 2.0
            self.daemon.intake.step()

    def work(self, turns: int = 1_000) -> None:
        """Some turns of the worker, or as many as there is work for."""
        self._alive(lambda daemon: daemon.work(turns))

    def hint(self, series: Series, *, closed: bool) -> None:
        """Have the intake hear of all files of a series, as events would have it, if late.

        `closed`: that somebody closed them, who may be writing to them again by now.
        """
        if self.daemon is not None:
            for path in series.files():
                self.daemon.hint(path.relative_to(self.server.root).as_posix(), closed)

    def _alive(self, act: Callable[[Daemon], object]) -> None:
        if self.daemon is None:
            return
        try:
            act(self.daemon)
        except Killed:
            self.kill()

    def arm_kill(self, kind: str, count: int) -> None:
        """Have the daemon die at the n-th moment of a kind from now on."""

        def killed() -> None:
            raise Killed

        self.moments.arm(kind, count, killed)

    # Time.

    def pass_time(self, seconds: float) -> None:
        """Time goes by without a scan; what the publisher holds leaves within a second."""
        if seconds > 1.0:
            self._alive(lambda daemon: daemon.beat())
            self._finish_swift()
        self.clocks.now_s += seconds

    def _finish_swift(self) -> None:
        """Sections are replaced swiftly: a pause within it would look like a finished copy."""
        for one in self.series:
            while one.swift and not one.frozen:
                self.write(one, 1)
                self.clocks.now_s += 0.5

    def attend(self) -> None:
        """Scan after each pause and work off all there is; then see what had been promised."""
        slow_s = self.daemon.slowest_scan_s if self.daemon else 0.0
        # After slow scans, the next that looks at every file comes late.
        for pause_s in (max(EVERY_FILE_S, 10.0 * slow_s + 1.0), *ATTENDED_S):
            self.pass_time(pause_s)
            self.scan()
            self.work()
            if self.daemon is None or not self.mounted:
                self._touch(self.series)
                return
            self._attended_s += pause_s
        self._alive(lambda daemon: daemon.beat())
        set_aside = {entry["path"] for entry in self._set_aside()}
        for one in self.series:
            if not one.frozen and self._attended_s - one.touched_s >= _PROMISE_S:
                self._demand(one, "lost", set_aside)

    def _demand(self, series: Series, what: str, excused: Container[str] = ()) -> None:
        self.truth.wrong += [
            f"{what}: {one}"
            for one in self.truth.lost(series)
            if not any(path in excused for path in one.paths)
        ]

    def _touch(self, hit: list[Series]) -> None:
        for one in hit:
            one.touched_s = self._attended_s

    # The microscope, other people, and the share.

    def begin_series(self, kind: str, folder: str, line_end: str = "\n") -> Series:
        """Begin a series; folders that are away come back before."""
        self._touch([one for one in self.series if one.frozen])
        self.people.bring_folders_back()
        number = len(self.series) + 1
        prefix = f"{folder}/" if folder else ""
        series: Series
        if kind == "stack":
            series = Stack(self.server, f"{prefix}L{number}.mrc", line_end)
        elif kind == "stack and movies":
            movies = Movies(self.server, f"{prefix}frames/L{number}", line_end=line_end)
            series = Stack(self.server, f"{prefix}L{number}.mrc", line_end, movies)
        elif kind == "movies":
            series = Movies(self.server, f"{prefix}TS_{number:02d}", line_end=line_end)
        else:
            series = Movies(self.server, f"{prefix}Position_{number}", "Tomography")
        self.series.append(series)
        self._touch([series])
        return series

    def write(self, series: Series, steps: int = 1_000) -> None:
        """Do some single writes of the operation that runs, or all."""
        self._touch([series])
        advance(series, steps)

    def tamper(self, series: Series, what: str, where: int) -> None:
        """Do something to the files of a series."""
        self._touch(self.people.tamper(self.series, series, what, where))

    def put_one_right(self) -> bool:
        """Undo what was tampered with last; False if there is nothing left."""
        frozen = [one for one in self.series if one.frozen]
        done = self.people.put_one_right()
        self._touch(frozen)
        return done

    def blink(self, *, empty: bool) -> None:
        """The share goes away: its directory is gone, or there and empty."""
        if self.mounted:
            self.mounted = False
            self._mount.unlink()
            if empty:
                self._mount.symlink_to(self._nothing)

    def remount(self, *, anew: bool = False) -> None:
        """The share is back, the same or as another mount: its root has another inode then."""
        if not self.mounted:
            if anew:
                self._replace_root()
            self._mount.unlink(missing_ok=True)
            self._mount.symlink_to(self.server.root)
            self.mounted = True
            self._touch(self.series)

    def _replace_root(self) -> None:
        root = self.server.root
        old = root.rename(root.with_name("old"))
        self.server.make_folder(root)
        for path in old.iterdir():
            path.rename(root / path.name)
        self.clocks.stamp(root)
        old.rmdir()

    # The end.

    def end(self) -> None:
        """Put everything right, let time pass, and demand all that is there."""
        self.moments.armed.clear()
        while self.put_one_right():
            pass
        self._finish_swift()
        self.remount()
        self.start()
        self.attend()
        if self._set_aside():
            self._retry()
            self.attend()
        for one in self.series:
            self._demand(one, "lost at the end")
        self.truth.wrong += filter(None, [self.truth.seqs_with_gaps()])
        self.judge()

    def _set_aside(self) -> list[dict[str, Any]]:
        return self.daemon.set_aside.listed() if self.daemon else []

    def _retry(self) -> None:
        """Ask for the tilts that are set aside, as `icewatch retry` does."""
        settings = {
            "microscope": "scope",
            "acquisition": {"directory": str(self._mount)},
            "state": {"directory": str(self._state)},
        }
        ask_again(Settings.model_validate(settings), [])

    def judge(self) -> None:
        """Fail if any promise was broken."""
        wrong = list(self.truth.wrong)
        if self.daemon is not None and self.daemon.metrics.unexpected:
            wrong.append("an unexpected error was swallowed, or a file opened to be written")
        if 2 * len(self._set_aside()) > self._deaths:
            wrong.append(f"{self._set_aside()} set aside after {self._deaths} deaths")
        assert not wrong, "\n".join(wrong)
