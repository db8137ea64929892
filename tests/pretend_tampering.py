"""What other people do to the files of a pretend session, and how they put it right again."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.pretend_session import Series, Server


class Tampering:
    """Tampers with series between two operations of the microscope, which then waits."""

    def __init__(self, server: Server, aside: Path) -> None:
        """Take the server, and a folder outside of it to put things in."""
        self._server = server
        self._aside = aside
        self._put_right: list[Callable[[], None]] = []
        self._folders_away = 0
        aside.mkdir()

    def tamper(self, series: list[Series], one: Series, what: str, where: int) -> list[Series]:
        """Do something to a file of one series, or its folder; gives all series that it hits."""
        files = [path for path in one.files() if path.exists()]
        if not files:
            return []
        path = files[where % len(files)]
        hit = [one]
        if what == "folder":
            hit = [other for other in series if _is_below(other, path.parent)]
        if path.parent == self._server.root and what == "folder":
            return []
        if any(other.operation or other.frozen for other in hit):
            return []
        undo = self._do(what, path, where)
        if undo is not None:
            for other in hit:
                other.frozen = True
            self._put_right.append(partial(_give_back, hit, undo))
        return hit

    def put_one_right(self) -> bool:
        """Undo what was done last; False if there is nothing left."""
        if not self._put_right:
            return False
        self._put_right.pop()()
        return True

    def bring_folders_back(self) -> None:
        """Undo until no folder is away any more."""
        while self._folders_away:
            self.put_one_right()

    def _do(self, what: str, path: Path, where: int) -> Callable[[], None] | None:
        server = self._server
        if what == "cut":
            raw = path.read_bytes()
            keep = where * 7919 % len(raw)
            os.truncate(path, keep)
            server.clocks.stamp(path)
            return partial(server.append, path, raw[keep:])
        if what == "aside":
            aside = path.with_name(path.name + "~")
            server.rename(path, aside)
            return partial(server.rename, aside, path)
        if what == "gone":
            raw = path.read_bytes()
            server.delete(path)
            return partial(server.create, path, raw)
        if what == "folder":
            return self._take_folder_away(path.parent)
        if what == "replace":
            copy = path.with_name(".copy")
            server.create(copy, path.read_bytes())
            server.rename(copy, path)
        elif what == "touch":
            os.utime(path, ns=(where * 10**15, where * 10**15))
        return None

    def _take_folder_away(self, folder: Path) -> Callable[[], None]:
        aside = self._aside / str(len(self._put_right))
        self._server.rename(folder, aside)
        self._folders_away += 1

        def come_back() -> None:
            self._server.rename(aside, folder)
            self._folders_away -= 1

        return come_back


def _give_back(series: list[Series], undo: Callable[[], None]) -> None:
    undo()
    for one in series:
        one.frozen = False


def _is_below(series: Series, folder: Path) -> bool:
    return any(path.is_relative_to(folder) for path in series.folders())
