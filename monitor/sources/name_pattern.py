"""A user's regular expression for the names of images, refused where it could do harm."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from monitor.sources.angle_table import angle_in
from monitor.sources.naming import extension
from monitor.sources.wall_clock import iso_time, mdoc_time

REQUIRED = frozenset({"series", "angle"})
OPTIONAL = frozenset({"number", "time", "lamella", "session", "grid"})
LONGEST_PATH = 1024
"""Paths longer than this are nobody's tilts."""
_TRIAL_S = 20.0
_SLOW_S = 0.25
_PLAIN_START = re.compile(r"[\w\-/ ]*")
_TRIAL = """
import re, signal, sys
pattern, *names = sys.stdin.buffer.read().decode("utf-8", "surrogatepass").split("\\0")
compiled = re.compile(pattern)
for name in names:
    # Unhandled, the signal ends the process, also in the midst of a match.
    signal.setitimer(signal.ITIMER_VIRTUAL, float(sys.argv[1]))
    compiled.fullmatch(name)
"""


@dataclass(frozen=True, slots=True)
class CustomName:
    """What a pattern finds in a path; None or "" where it does not ask, or finds nothing."""

    series: str
    angle_deg: float | None
    number: int | None = None
    acquired_at: str | None = None
    lamella: str = ""
    session: str = ""
    grid: str = ""


class NamePattern:
    """Reads paths below the acquisition directory; slashes are forward."""

    def __init__(self, text: str) -> None:
        """Compile a pattern; raises `ValueError` with one sentence."""
        try:
            self._compiled = re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is no regular expression: {error}") from error
        groups = set(self._compiled.groupindex)
        missing, unknown = REQUIRED - groups, groups - REQUIRED - OPTIONAL
        if missing:
            name = min(missing)
            raise ValueError(f"lacks the group (?P<{name}>...) for the {name}; add it")
        if unknown:
            known = ", ".join(sorted(REQUIRED | OPTIONAL))
            raise ValueError(f"has the unknown group '{min(unknown)}'; use only {known}")
        self._names_only = "/" not in text

    def read(self, relative: str) -> CustomName | None:
        """Read a path, with or without its extension; None where the pattern does not fit.

        A pattern without a slash may fit the file's name alone. Of several ways to fit, the first
        that gives an angle counts.
        """
        if len(relative) > LONGEST_PATH:
            return None
        fits: CustomName | None = None
        for text in self._ways(relative):
            match = self._compiled.fullmatch(text)
            found = _custom_name(match.groupdict(default="")) if match else None
            if found is not None and found.angle_deg is not None:
                return found
            fits = fits or found
        return fits

    def _ways(self, relative: str) -> Iterator[str]:
        end = len(extension(relative))
        texts = (relative, relative.rpartition("/")[2]) if self._names_only else (relative,)
        for text in texts:
            # Without it first: a greedy group would swallow it.
            if end:
                yield text[:-end]
            yield text


def is_fast_enough(text: str) -> bool:
    """Whether a pattern gives up on names that do not fit in a moment, as far as a trial shows.

    Nested repeats, such as `(a+)+`, may take years for a long name, and nothing can end that but
    the end of the process; so another process tries.
    """
    if not sys.executable:
        return True
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRIAL, str(_SLOW_S)],
            input="\0".join([text, *_nasty_names(text)]).encode("utf-8", "surrogatepass"),
            capture_output=True,
            timeout=_TRIAL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    except OSError:
        return True
    return done.returncode != -signal.SIGVTALRM


def _nasty_names(text: str) -> list[str]:
    """Make long names that begin as the pattern does, repeat themselves, and end otherwise."""
    start = (_PLAIN_START.match(text) or [""])[0]
    letters = "".join(dict.fromkeys(one for one in text if one.isalnum()))[:8] or "a"
    pieces = ["a", "A", "0", "1.0", "_", "-", ".", " ", "/", "a_", "0_", "a/", "1_0.0_", "é"]
    pieces += [*letters, f"{letters}_"]
    return [head + (piece * 120)[:120] + "\n!" for piece in pieces for head in {"", start}]


def _custom_name(found: dict[str, str]) -> CustomName | None:
    series = _last(found["series"])
    if not series:
        return None
    number = found.get("number", "")
    return CustomName(
        series=series,
        angle_deg=_angle(found["angle"]),
        number=int(number) if re.fullmatch(r"\d{1,9}", number, re.ASCII) else None,
        acquired_at=time_in(found.get("time", "")),
        lamella=_last(found.get("lamella", "")),
        session=_last(found.get("session", "")),
        grid=_last(found.get("grid", "")),
    )


def _last(value: str) -> str:
    """Leave out folders: they are known from the path."""
    return value.rstrip("/").rpartition("/")[2]


def _angle(text: str) -> float | None:
    """Read an angle; some cameras write `-10p0` since a second dot is not allowed."""
    return angle_in(re.sub(r"(?<=\d)p(?=\d)", ".", text))


def time_in(text: str) -> str | None:
    """Read a date and a time: six numbers however joined, or as SerialEM writes them."""
    digits = "".join(re.findall(r"\d", text, re.ASCII))
    if len(digits) == 14:
        year, rest = int(digits[:4]), [int(digits[at : at + 2]) for at in range(4, 14, 2)]
        return iso_time(year, *rest)
    return mdoc_time(text, year_first=False)
