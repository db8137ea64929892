"""What a process did to the files below a directory, from strace, and when they were at rest."""

from __future__ import annotations

import re
import shutil
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engines.microscope_step import Step

STRACE = shutil.which("strace")
_CHANGES = frozenset(
    "rename renameat renameat2 unlink unlinkat rmdir mkdir mkdirat chmod fchmod fchmodat fchmodat2 "
    "chown fchown lchown fchownat utime utimes utimensat futimesat truncate ftruncate fallocate "
    "link linkat symlink symlinkat mknod mknodat setxattr lsetxattr fsetxattr removexattr "
    "lremovexattr fremovexattr setxattrat removexattrat creat".split()
)
_LOOKS = frozenset("stat lstat newfstatat statx".split())
_OPENS = frozenset("open openat openat2".split())
_OTHERS = "flock,fcntl,ftruncate,fchmod,fchown,fallocate,fsetxattr,fremovexattr,mmap,close"
_WRITING = ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE")
_LOCKS = ("F_SETLK", "F_OFD_SETLK", "F_SETLEASE")
_LINE = re.compile(r"^(\d+)\s+(\d+\.\d+) (.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\w+)(.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>\s?")
_FD = re.compile(r"\d+<([^>]*)>")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')

RACE_S = 0.05
"""A file that was seen at rest may be opened so long after somebody began to write to it."""
UNTOUCHED_S = 0.01
"""Who has just begun to write (opened the file, say) has changed nothing yet that a look sees."""
HELD_S = 1.0
"""No file is open for longer."""


def under_strace(trace: Path) -> list[str]:
    """Say what to put before a command: the process that starts is the traced one (`-D`)."""
    assert STRACE is not None
    what = f"trace=%file,{_OTHERS}"
    return [STRACE, "-D", "-f", "--seccomp-bpf", "-ttt", "-y", "-o", str(trace), "-e", what]


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that has to do with a path below the directory."""

    thread: int
    at_s: float
    name: str
    paths: tuple[str, ...]
    arguments: str
    failed: bool
    descriptor: str

    def __str__(self) -> str:
        return f"{self.at_s:.6f} {self.name}({self.arguments}) -> {self.descriptor}"


def calls(trace: Path, root: Path) -> list[Call]:
    """Read what was traced, in the order of the beginnings."""
    found = [call for call in _parsed(trace) if any(_below(one, root) for one in call.paths)]
    return sorted(found, key=lambda call: call.at_s)


def _below(path: str, root: Path) -> bool:
    return path.startswith(f"{root}/") or path == str(root)


def _parsed(trace: Path) -> Iterator[Call]:
    unfinished: dict[int, tuple[float, str]] = {}
    for line in trace.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        thread, at_s, text = int(match[1]), float(match[2]), match[3]
        if text.endswith("<unfinished ...>"):
            unfinished[thread] = (at_s, text.removesuffix("<unfinished ...>").rstrip())
            continue
        resumed = _RESUMED.match(text)
        if resumed:
            at_s, begun = unfinished.pop(thread, (at_s, ""))
            text = begun + text[resumed.end() :]
        call = _CALL.match(text)
        if call is not None:
            yield _call(thread, at_s, call)


def _call(thread: int, at_s: float, match: re.Match[str]) -> Call:
    name, arguments, result, rest = match.groups()
    opened = _FD.match(result + rest)
    if name in _OPENS and opened:
        paths = [opened[1]]
    else:
        paths = [*_STRING.findall(arguments), *_FD.findall(arguments)]
    return Call(thread, at_s, name, tuple(paths), arguments, result.startswith("-"), result)


class Spans:
    """When which file was being written to: filled in by the pretend microscope."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._over: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def on_step(self, step: Step, began_s: float, ended_s: float) -> None:
        """Note a step: between its first byte and the beginning of its last, a file is not."""
        for path in step.settles:
            since_s = self._since.pop(str(path), None)
            if since_s is not None:
                self._over[str(path)].append((since_s, began_s))
        if step.path not in step.settles:
            self._since.setdefault(str(step.path), ended_s)

    def close(self, at_s: float) -> None:
        """Say that nothing more comes: what is not whole by now is not at rest either."""
        for path, since_s in self._since.items():
            self._over[path].append((since_s, at_s))
        self._since.clear()

    def at(self, path: str, at_s: float) -> tuple[float, float] | None:
        """Give the time within which somebody wrote to a file, if that was at this time."""
        return next((one for one in self._over[path] if one[0] < at_s < one[1]), None)

    def __len__(self) -> int:
        return sum(map(len, self._over.values()))


def violations(done: list[Call], root: Path, spans: Spans) -> list[str]:
    """List what a daemon must never do below a directory that it only reads."""
    looks: dict[str, list[float]] = defaultdict(list)
    for call in done:
        if call.name in _LOOKS:
            looks[call.paths[0]].append(call.at_s)
    found = []
    for call in done:
        if call.name in _CHANGES and not call.failed:
            found.append(f"changed: {call}")
        elif call.name in _OPENS and any(flag in call.arguments for flag in _WRITING):
            found.append(f"opened for writing: {call}")
        elif call.name == "flock" or any(lock in call.arguments for lock in _LOCKS):
            found.append(f"locked: {call}")
        elif call.name == "mmap":
            found.append(f"mapped: {call}")
        elif call.name in _OPENS and not call.failed and "O_DIRECTORY" not in call.arguments:
            span = spans.at(call.paths[0], call.at_s)
            seen = looks[call.paths[0]]
            if span and not _seen_at_rest(seen, span[0], call.at_s):
                late_ms = 1000 * (call.at_s - span[0])
                at = bisect_left(seen, call.at_s)
                looked = f"{1000 * (call.at_s - seen[at - 1]):.1f} ms" if at else "never"
                found.append(
                    f"opened {late_ms:.1f} ms into {1000 * (span[1] - span[0]):.1f} ms of writing "
                    f"(last look {looked} before): {call}"
                )
    return found + [f"held open: {call}" for call in _held(done)]


def _seen_at_rest(looks: list[float], writing_since_s: float, opened_s: float) -> bool:
    """Whether the last look before an opening was before somebody began to write."""
    at = bisect_left(looks, opened_s)
    begun_s = writing_since_s + UNTOUCHED_S
    return at > 0 and looks[at - 1] < begun_s and opened_s - writing_since_s < RACE_S


def _held(done: list[Call]) -> Iterator[Call]:
    """Yield the openings of files that stayed open."""
    open_now: dict[tuple[str, str], Call] = {}
    for call in done:
        if call.name in _OPENS and not call.failed and "O_DIRECTORY" not in call.arguments:
            open_now[call.paths[0], call.descriptor] = call
        elif call.name == "close":
            opened = open_now.pop((call.paths[0], call.arguments.split("<")[0]), None)
            if opened and call.at_s - opened.at_s > HELD_S:
                yield opened
    yield from open_now.values()
