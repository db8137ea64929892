"""What file names and folders say: which files are tilts, of which series, at which angle.

SerialEM joins the parts of a frame file's name with `_`: base, open file, navigator label,
number, tilt angle, date, time, hole (SerialEM, CameraController.cpp). Tomography 5 writes
`<position>_<number>_<angle>_<date>_<time>_<kind>`, older versions
`<position>_<number>[<angle>]_<kind>`. All are read from the right, since users may name a
position or a base as they like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import pairwise

from monitor.sources.wall_clock import iso_time

_MDOC = ".mdoc"
_NAMES_KEPT = 4096
"""Each source asks about the same name in turn."""
EXTENSIONS = (".mrc", ".mrcs", ".st", ".tif", ".tiff", ".eer")
"""Of all images that a microscope may have written."""
_IGNORED = re.compile(
    r"^\."  # dot files, and the temporary names of rsync
    r"|~$|downloading$|\.openTS$|_override\.mdoc$"
    r"|-half1|-unsorted|_unsorted(?=\.|$)"  # what a reordered series leaves behind
    r"|_view\.mrc|_tgt_\d+\.mrc|_tempref\.mrc"  # PACEtomo's targets and references
    r"|[_-](?:bd|bidir)?_?anchor\."  # of a bidirectional series
    r"|^(?:countref|superref|darkref|gainref)|gain[_-]?ref|(?:^|[_-])gain\.(?:mrc|st|tiff?)",
    re.IGNORECASE,
)
_ANGLE = re.compile(r"\[?([+-]?\d{1,2}\.\d{1,3})\]?|([+-]?\d{1,2})p(\d)", re.ASCII)
_KIND = re.compile(r"fractions|eer", re.IGNORECASE)
_POSITION = re.compile(
    r"(?:_\[?[+-]?\d{1,2}\.\d{1,3}\]?_[^_/]+_[^_/]+|\[[+-]?\d{1,2}\.\d{1,3}\])"
    r"_(?:fractions|eer)\.[a-z]+(?:\.mdoc)?$",
    re.ASCII | re.IGNORECASE,
)
_NUMBER_AND_ANGLE = re.compile(r"(?<=_)(\d{3,5})(?=\[[^\[\]_]*\](?:_|$))", re.ASCII)
_NUMBER = re.compile(r"\d{3,5}", re.ASCII)
_CLOCK = re.compile(r"(\d\d)\.(\d\d)\.(\d\d)", re.ASCII)
_TAIL = re.compile(
    r"[A-Z][a-z]{2}\d\d|\d\d\.\d\d\.\d\d"  # Oct08, 07.39.05
    r"|R\d+H\d+-\d+|X[+-]\d+Y[+-]\d+-\d+|\d+-\d+",  # hole and position
    re.ASCII,
)
_DATE_PREFIX = re.compile(r"(\d{4})-(\d\d)-(\d\d)_(\d\d)\.(\d\d)\.(\d\d)_?", re.ASCII)
_TOMOGRAPHY_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)", re.ASCII)
_DEFAULT_POSITION = re.compile(r"(Position_\d+)_\d+", re.ASCII)
_PACETOMO_FRAMES = re.compile(r"_ts_\d{3}_tilt_\d{3}_angle_[-+]?\d", re.ASCII)
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


@lru_cache(maxsize=_NAMES_KEPT)
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
    return image if extension(image) in EXTENSIONS else ""


@lru_cache(maxsize=_NAMES_KEPT)
def image_announced(relative: str) -> str:
    """Name the image that a path is, or is the metadata of; "" for what can be no tilt."""
    image = image_of(relative)
    return image if extension(image) in EXTENSIONS and not is_ignored(relative) else ""


def mdoc_of(relative: str) -> str:
    """Name the metadata file that SerialEM writes for an image."""
    return relative + _MDOC


def extension(relative: str) -> str:
    """Give the extension in lower case, with its dot ("" where there is none)."""
    at = relative.rfind(".")
    # As of a path, but ten times as fast: this is asked of every file there is, more than once.
    inside = relative.rfind("/") + 1 < at < len(relative) - 1
    return relative[at:].lower() if inside else ""


@lru_cache(maxsize=_NAMES_KEPT)
def parse_movie_name(name: str) -> MovieName:
    """Read what the name of an image says (folders left out, extension allowed).

    A name without an angle gives one without an angle; its series is then the name without a
    number at its end.
    """
    stem = image_of(name).rpartition("/")[2]
    if extension(stem) in EXTENSIONS:
        stem = stem[: -len(extension(stem))]
    stem = _NUMBER_AND_ANGLE.sub(r"\1_", stem)  # Position_1_001[10.00]_EER
    prefix = _DATE_PREFIX.match(stem)
    acquired_at = _time(prefix) if prefix else None
    tokens = (stem[prefix.end() :] if prefix else stem).split("_")
    tail_start = _tail_start(tokens)
    at = tail_start - 1
    angle = _angle(tokens[at]) if at >= 0 else None
    head, tail = (tokens[:at], tokens[tail_start:]) if angle is not None else (tokens, [])
    from_tomography = bool(tail) and is_position(name)
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


def is_named_by_pacetomo(name: str) -> bool:
    """Whether a movie has the name that PACEtomo alone gives: `.._ts_001_tilt_003_angle_-3.0`."""
    return bool(_PACETOMO_FRAMES.search(name))


def is_position(relative: str) -> bool:
    """Whether a path is named as Tomography 5 names movies: angle, date, time and kind at its end.

    Of Falcon cameras SerialEM may have the kind in its names too, but no brackets nor such a date.
    """
    return bool(_POSITION.search(relative))


def first_position(series: str) -> str:
    """Name the position whose lamella a Tomography 5 series is on.

    `Position_9_2` is the second area that is exposed by beam shift around `Position_9`; a name
    that a user gave is left as it is.
    """
    match = _DEFAULT_POSITION.fullmatch(series)
    return match[1] if match else series


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
    pacetomo = None if surely else _PACETOMO_SERIES.fullmatch(series)
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
