"""A table of tilt angles that a user keeps: a line `name,angle` for each image.

Made by hand or by a script, so much is tolerated: a heading, comments, semicolons or tabs, decimal
commas, whole paths of any computer, names with or without extension. What is not certain is
refused: a wrong angle would be worse than none.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath

from monitor.sources.naming import EXTENSIONS, extension

MAX_BYTES = 64 << 20
_NUMBER = re.compile(r"\[?([+-]?(?:\d{1,3}(?:[.,]\d{0,12})?|[.,]\d{1,12}))\]?°?", re.ASCII)
_NAME_WORDS = frozenset({"name", "file", "filename", "image", "movie", "path", "micrograph"})
_ANGLE_WORDS = frozenset({"angle", "tilt", "tiltangle", "angledeg", "alpha", "tiltangledeg"})


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that says nothing usable, and why."""

    number: int
    """Counted from 1."""
    sentence: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.sentence}"


@dataclass(slots=True)
class AngleTable:
    """Angles by name; where a name was given more than once the last line counts."""

    bad_lines: list[BadLine] = field(default_factory=list)
    _by_stem: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)

    def angle_deg(self, relative: str) -> float | None:
        """Find the angle of a file; None where no line, or more than one that differ, tells.

        Of a path in the table or of the file only as many folders count as both have.
        """
        wanted = _parts(relative)
        best: dict[int, set[float]] = {}
        for parts, angle_deg in self._by_stem.get(wanted[0], {}).items():
            common = min(len(parts), len(wanted))
            if parts[:common] == wanted[:common]:
                best.setdefault(common, set()).add(angle_deg)
        angles = best[max(best)] if best else set()
        return next(iter(angles)) if len(angles) == 1 else None

    def __len__(self) -> int:
        return sum(len(paths) for paths in self._by_stem.values())

    def add(self, name: str, angle_deg: float) -> None:
        """Take in one line."""
        parts = _parts(name)
        paths = self._by_stem.setdefault(parts[0], {})
        paths.pop(parts, None)
        paths[parts] = angle_deg


def parse_table(text: str, *, is_settled: bool = True) -> AngleTable:
    """Read a table; a last line without its newline counts only where nothing more is coming."""
    table = AngleTable()
    lines = text.removeprefix("\ufeff").split("\n")
    if not is_settled:
        lines.pop()
    columns: _Columns | None = None
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        fields = _fields(line)
        if columns is None:
            columns = _heading(fields)
            if columns is not None:
                continue
            columns = _Columns(0, 1, None)
        found = _name_and_angle(fields, columns)
        if isinstance(found, str):
            table.bad_lines.append(BadLine(number, found))
        else:
            table.add(*found)
    return table


def angle_in(text: str) -> float | None:
    """Read an angle in degrees, with a decimal point or comma; None for anything else."""
    match = _NUMBER.fullmatch(text.strip().replace("\u2212", "-"))
    if match is None:
        return None
    angle = float(match[1].replace(",", ".")) + 0.0  # + 0.0: no negative zero
    return angle if abs(angle) <= 90.0 else None


@dataclass(frozen=True, slots=True)
class _Columns:
    name: int
    angle: int
    count: int | None
    """How many columns there are; None where no heading tells."""


def _fields(line: str) -> list[str]:
    """Split a line at semicolons, else at tabs, else at commas, else at its last blank."""
    for delimiter in (";", "\t", ","):
        if delimiter in line:
            try:
                return [one.strip() for one in next(csv.reader([line], delimiter=delimiter))]
            except csv.Error:
                return [line]
    return line.rsplit(None, 1)


def _heading(fields: list[str]) -> _Columns | None:
    words = [re.sub(r"[^a-z]", "", one.lower()) for one in fields]
    name = next((at for at, word in enumerate(words) if word in _NAME_WORDS), None)
    angle = next((at for at, word in enumerate(words) if word in _ANGLE_WORDS), None)
    if name is None or angle is None:
        return None
    return _Columns(name, angle, len(fields))


def _name_and_angle(fields: list[str], columns: _Columns) -> tuple[str, float] | str:
    """Find name and angle in a line, or say what is wrong with it."""
    fields = fields if columns.count == len(fields) else _without_empty_end(fields)
    if (columns.count is None and len(fields) != 2) or len(fields) < 2:
        return f"has {len(fields)} columns; write name,angle"
    if columns.count == 2 and len(fields) == 3 and _is_decimal_comma(fields):
        fields = [fields[0], ",".join(fields[1:])]
    if columns.count is not None and len(fields) != columns.count:
        return f"has {len(fields)} columns and the heading {columns.count}; write name,angle"
    angle_deg = angle_in(fields[columns.angle])
    if angle_deg is None:
        shown = fields[columns.angle][:40]
        return f"{shown!r} is no tilt angle from -90 to 90 degrees; write name,angle"
    if not _parts(fields[columns.name])[0]:
        return "has no name; write name,angle"
    return fields[columns.name], angle_deg


def _without_empty_end(fields: list[str]) -> list[str]:
    return fields[:-1] if len(fields) > 2 and not fields[-1] else fields


def _is_decimal_comma(fields: list[str]) -> bool:
    """Whether the comma that was taken to end a column is within the angle: `name,-3,5`."""
    return bool(re.fullmatch(r"[+-]?\d{1,2}", fields[1]) and re.fullmatch(r"\d+", fields[2]))


def _parts(name: str) -> tuple[str, ...]:
    """Split a path of any system, the file first and without its extension."""
    parts = [part for part in PureWindowsPath(name.strip()).parts if part not in (".", "..")]
    if not parts:
        return ("",)
    file_name = parts[-1]
    if extension(file_name) in EXTENSIONS:
        file_name = file_name[: -len(extension(file_name))]
    # Leginon's frames are moved to `<image>.frames.mrc`.
    return (PurePosixPath(file_name.removesuffix(".frames")).name, *reversed(parts[:-1]))
