"""Looks at what lies in the acquisition directory: clock, time zone, names, gain."""

from __future__ import annotations

import datetime
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from monitor.doctor.facts import Facts
from monitor.doctor.finding import Finding, ok, problem, warning

_WALK_S, _FILES_MAX = 1.5, 5000
_FUTURE_S = 120.0
_ZONE_MIN_S, _ZONE_OFF_S = 1700.0, 300.0
"""Time zones differ by whole half hours; between exposure and last write pass seconds."""
_MDOC_BYTES = 1 << 20
_WHEN = re.compile(rb"DateTime = (\d\d-\w{3}-\d{2,4}\s+\d\d:\d\d:\d\d)")
_MOVIES = (".tif", ".tiff", ".eer", ".mrc")


def landed(facts: Facts) -> list[Finding]:
    """See whether what lies there fits the settings; runs with the rights of the service."""
    directory = facts.settings.acquisition.directory
    files = list(_files(directory))
    if not files:
        return []
    found = [*_clock(files), *_zone(files), *_pattern(facts, directory, files)]
    found += _gain(facts, files)
    return found or [ok("files", f"{_count(files)} in '{directory}' fit the settings")]


def _files(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    until_s, count = time.monotonic() + _WALK_S, 0
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            with suppress(OSError):
                yield path, path.stat(follow_symlinks=False)
                count += 1
            if count >= _FILES_MAX or time.monotonic() > until_s:
                return


def _count(files: list[tuple[Path, os.stat_result]]) -> str:
    more = " or more" if len(files) >= _FILES_MAX else ""
    return f"{len(files)} files{more}"


def _clock(files: list[tuple[Path, os.stat_result]]) -> list[Finding]:
    path, info = max(files, key=lambda one: one[1].st_mtime)
    ahead_s = info.st_mtime - time.time()
    if ahead_s < _FUTURE_S:
        return []
    cause = f"'{path.name}' was written {_span(ahead_s)} in the future: the clocks differ"
    return [warning("clock", cause, "set both clocks: `timedatectl` here, and on the microscope")]


def _zone(files: list[tuple[Path, os.stat_result]]) -> list[Finding]:
    """Compare what the newest mdoc says with when it was written."""
    mdocs = [one for one in files if one[0].suffix == ".mdoc"]
    if not mdocs:
        return []
    path, info = max(mdocs, key=lambda one: one[1].st_mtime)
    written = datetime.datetime.fromtimestamp(info.st_mtime)
    taken = _taken(path, info.st_size)
    if taken is None:
        return []
    apart_s = (written - taken).total_seconds()
    off_s = abs(apart_s) % 1800.0
    if abs(apart_s) < _ZONE_MIN_S or 86_400 < abs(apart_s) or _ZONE_OFF_S < off_s < 1500.0:
        return []
    cause = (
        f"'{path.name}' says {taken:%H:%M} and was written at {written:%H:%M} by this computer's "
        "clock: time zone or clock differ"
    )
    remedy = "set the microscope's time zone here: `sudo timedatectl set-timezone Area/City`"
    return [warning("clock", cause, remedy)]


def _taken(path: Path, size: int) -> datetime.datetime | None:
    try:
        with path.open("rb") as file:
            file.seek(max(0, size - _MDOC_BYTES))
            found = _WHEN.findall(file.read(_MDOC_BYTES))
    except OSError:
        return None
    for text in reversed(found):
        words = " ".join(text.decode("ascii", "replace").split())
        for form in ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S"):
            with suppress(ValueError):
                return datetime.datetime.strptime(words, form)
    return None


def _pattern(
    facts: Facts, directory: Path, files: list[tuple[Path, os.stat_result]]
) -> list[Finding]:
    settings = facts.settings.acquisition
    if settings.layout != "custom" or settings.custom.pattern is None:
        return []
    from monitor.sources.name_pattern import NamePattern

    try:
        pattern = NamePattern(settings.custom.pattern)
    except ValueError:
        return []  # said with the configuration
    names = [path.relative_to(directory).as_posix() for path, _ in files]
    if any(pattern.read(name) for name in names):
        return []
    images = [name for name in names if name.lower().endswith(_MOVIES)] or names
    cause = f"the pattern fits none of {_count(files)}, for example {images[0]!a}"
    remedy = "correct the pattern: it is for the whole path below acquisition.directory"
    return [problem("acquisition.custom.pattern", cause, remedy)]


def _gain(facts: Facts, files: list[tuple[Path, os.stat_result]]) -> list[Finding]:
    gain = facts.settings.acquisition.gain
    if gain.reference is None:
        return []
    from engines.errors import EngineError
    from engines.readers.movie import read_movie_header

    movies = [one for one in files if one[0].suffix.lower() in _MOVIES]
    if not movies:
        return []
    path = max(movies, key=lambda one: one[1].st_mtime)[0]
    try:
        reference, movie = read_movie_header(gain.reference), read_movie_header(path)
    except (EngineError, OSError):
        return []  # said with the configuration, or by the daemon
    if {reference.nx, reference.ny} == {movie.nx, movie.ny}:
        return []
    cause = (
        f"the reference has {reference.nx} x {reference.ny} pixels, '{path.name}' has "
        f"{movie.nx} x {movie.ny}"
    )
    remedy = "name the reference of this camera, mode and binning"
    return [problem("acquisition.gain.reference", cause, remedy)]


def _span(seconds: float) -> str:
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
