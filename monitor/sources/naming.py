"""What file names and folders say: which files are tilts, of which series, at which angle.

SerialEM joins the parts of a frame file's name with `_`: base, open file, navigator label,
number, tilt angle, date, time, hole (SerialEM, CameraController.cpp). Tomography 5 writes
`<position>_<number>_<angle>_<date>_<time>_<kind>`. Both are read from the right, since users may
name a position or a base as they like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import PurePosixPath

from monitor.sources.wall_clock import iso_time

_MDOC = ".mdoc"
_EXTENSIONS = (".mrc", ".mrcs", ".st", ".tif", ".tiff", ".eer")
_IGNORED = re.compile(
    r"^\."  # dot files, and the temporary names of rsync
    r"|~$|downloading$|\.openTS$|_override\.mdoc$"
    r"|-half1|-unsorted|_unsorted(?=\.|$)"  # what a reordered series leaves behind
    r"|_view\.mrc|_tgt_\d+\.mrc|_tempref\.mrc"  # PACEtomo's targets and references
    r"|[_-](?:bd|bidir)?_?anchor\."  # of a bidirectional series
    r"|^(?:countref|superref|darkref|gainref)|gain_?ref|[_-]gain\.(?:mrc|st)|^gain\.(?:mrc|st)",
    re.IGNORECASE,
)
_ANGLE = re.compile(r"\[?([+-]?\d{1,2}\.\d{1,3})\]?|([+-]?\d{1,2})p(\d)", re.ASCII)
_KIND = re.compile(r"fractions|eer", re.IGNORECASE)
_NUMBER = re.compile(r"\d{3,5}", re.ASCII)
_CLOCK = re.compile(r"(\d\d)\.(\d\d)\.(\d\d)", re.ASCII)
_TAIL = re.compile(
    r"[A-Z][a-z]{2}\d\d|\d\d\.\d\d\.\d\d"  # Oct08, 07.39.05
    r"|R\d+H\d+-\d+|X[+-]\d+Y[+-]\d+-\d+|\d+-\d+",  # hole and position
    re.ASCII,
)
_DATE_PREFIX = re.compile(r"(\d{4})-(\d\d)-(\d\d)_(\d\d)\.(\d\d)\.(\d\d)_?", re.ASCII)
_TOMOGRAPHY_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)", re.ASCII)
_PACETOMO_SERIES = re.compile(r"(.+?_ts_\d{3})(?:_.*)?", re.ASCII | re.DOTALL)
_SERIES_WORD = re.compile(
    r"(?:ts|tomo|tilt|tiltseries|position|pos|lamella|lam|target|tgt|area|series|l|p)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class MovieName:
    """What the name of a file says about one exposure."""

    series: str
    """The name without number, angle, date and time."""
    angle_deg: float | None = None
    number: int | None = None
    """Counts exposures; does not always start at 0."""
    acquired_at: str | None = None
    """ISO 8601 without zone, where the name holds a whole date and time."""
    from_tomography: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tilt belongs; each name is unique within the one before."""

    session: str
    """First folder below the acquisition directory; "" for a file that lies directly in it."""
    grid: str
    lamella: str
    series: str
    series_key: str
    """Unique within the microscope."""


@dataclass(frozen=True, slots=True)
class LooseSession:
    """A session of files that lie directly in the acquisition directory."""

    name: str
    first_at: datetime
    last_at: datetime


def is_ignored(relative: str) -> bool:
    """Say whether a path is never a tilt: leftovers, references, maps, hidden files or folders."""
    *folders, name = relative.split("/")
    return any(folder.startswith(".") for folder in folders) or bool(_IGNORED.search(name))


def image_of(relative: str) -> str:
    """Name the image that a path is about: the path itself, or for an mdoc the image it tells of.

    Gives "" for an mdoc that is not named after an image.
    """
    if not relative.lower().endswith(_MDOC):
        return relative
    image = relative[: -len(_MDOC)]
    return image if extension(image) in _EXTENSIONS else ""


def mdoc_of(relative: str) -> str:
    """Name the metadata file that SerialEM writes for an image."""
    return relative + _MDOC


def extension(relative: str) -> str:
    """Give the extension in lower case, with its dot ("" where there is none)."""
    return PurePosixPath(relative).suffix.lower()


def parse_movie_name(name: str) -> MovieName:
    """Read what the name of an image says (folders left out, extension allowed).

    A name without an angle gives one without an angle; its series is then the name without a
    number at its end.
    """
    stem = PurePosixPath(image_of(name)).name
    if extension(stem) in _EXTENSIONS:
        stem = stem[: -len(extension(stem))]
    prefix = _DATE_PREFIX.match(stem)
    acquired_at = _time(prefix) if prefix else None
    tokens = (stem[prefix.end() :] if prefix else stem).split("_")
    tail_start = _tail_start(tokens)
    at = tail_start - 1
    angle = _angle(tokens[at]) if at >= 0 else None
    head, tail = (tokens[:at], tokens[tail_start:]) if angle is not None else (tokens, [])
    from_tomography = bool(tail) and bool(_KIND.fullmatch(tail[-1]))
    if from_tomography:
        acquired_at = _tomography_time(tail)
    dated = bool(prefix) or any(_CLOCK.fullmatch(token) for token in tail)
    series, number = _series_and_number(head, dated=dated, surely=from_tomography)
    return MovieName(series or "movies", angle, number, acquired_at, from_tomography)


def place(relative: str, series: str) -> Place:
    """Say to which session, grid and lamella a file belongs.

    `relative` has forward slashes; `series` is the stack's stem, or `MovieName.series`. One
    series is one lamella. `session` stays "" for a file directly in the acquisition directory:
    such files are told apart by `loose_session`.
    """
    folders = relative.split("/")[:-1]
    key = "/".join([*folders, series])
    return Place(
        session=folders[0] if folders else "",
        grid="/".join(folders[1:]),
        lamella=key,
        series=series,
        series_key=key,
    )


def loose_session(
    sessions: Iterable[LooseSession], when: datetime, session_gap_h: float
) -> LooseSession:
    """Say to which session something belongs that came at `when` outside any folder.

    It is the one that has no pause longer than `session_gap_h` (hours) to `when`, now reaching
    to `when` (to be kept in place of the one with the same name), or else a new one, named by
    its first time.
    """
    # Differences only: a date plus a pause may lie beyond the calendar.
    gap_s = session_gap_h * 3600.0
    for session in sorted(sessions, key=lambda known: known.last_at, reverse=True):
        before_s = (session.first_at - when).total_seconds()
        after_s = (when - session.last_at).total_seconds()
        if max(before_s, after_s) <= gap_s:
            return replace(
                session,
                first_at=min(session.first_at, when),
                last_at=max(session.last_at, when),
            )
    return LooseSession(f"{when:%Y-%m-%d_%H.%M.%S}", when, when)


def _tail_start(tokens: list[str]) -> int:
    """Find where date, time, hole or kind begin, after the angle."""
    if _KIND.fullmatch(tokens[-1]):
        for at in range(len(tokens) - 2, max(len(tokens) - 6, 0), -1):
            if _angle(tokens[at]) is not None:
                return at + 1
    start = len(tokens)
    while start > 0 and _TAIL.fullmatch(tokens[start - 1]):
        start -= 1
    return start


def _angle(token: str) -> float | None:
    match = _ANGLE.fullmatch(token)
    if match is None:
        return None
    angle = float(match[1] or f"{match[2]}.{match[3]}") + 0.0  # + 0.0: no negative zero
    return angle if abs(angle) <= 90.0 else None


def _tomography_time(tail: list[str]) -> str | None:
    for date, clock in pairwise(tail):
        match = _TOMOGRAPHY_TIME.fullmatch(f"{date}_{clock}")
        when = _time(match) if match else None
        if when is not None:
            return when
    return None


def _time(match: re.Match[str]) -> str | None:
    year, month, day, hour, minute, second = (int(digits) for digits in match.groups())
    return iso_time(year, month, day, hour, minute, second)


def _series_and_number(head: list[str], *, dated: bool, surely: bool) -> tuple[str, int | None]:
    number: int | None = None
    if len(head) > 3 and head[-1] == "angle" and head[-3] == "tilt" and head[-2].isdecimal():
        head, number = head[:-3], int(head[-2])  # PACEtomo: <root>_ts_001_tilt_003_angle_-3.0
    elif len(head) > 1 and _counts_exposures(head, dated=dated, surely=surely):
        head, number = head[:-1], int(head[-1])
    series = "_".join(head)
    pacetomo = _PACETOMO_SERIES.fullmatch(series)
    return (pacetomo[1] if pacetomo else series), number


def _counts_exposures(head: list[str], *, dated: bool, surely: bool) -> bool:
    """Whether the last part counts exposures, or is part of a name such as `TS_001`.

    SerialEM always gives a number or a time, so without a time it is the number; but scripts
    also write `TS_001_51.0`.
    """
    if not _NUMBER.fullmatch(head[-1]):
        return False
    if surely or len(head[-1]) > 3 or not head[-2].isalpha():
        return True
    return not dated and not _SERIES_WORD.fullmatch(head[-2])
