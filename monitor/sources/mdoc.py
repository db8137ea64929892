"""SerialEM's metadata files (.mdoc), also as written by PACEtomo and Tomography 5.

Format: https://bio3d.colorado.edu/SerialEM/hlp/html/about_formats.htm. Only whole lines count: a
file cut in the middle of `TiltAngle = -52.0` must never be read as -5 degrees.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Literal

from monitor.errors import NotReady, Unreadable
from monitor.sources.wall_clock import is_whole_mdoc_time, mdoc_time

MAX_BYTES = 64 << 20
"""Larger than the mdoc of any series: 2 kB a tilt."""

SectionKind = Literal["ZValue", "FrameSet"]
Program = Literal["SerialEM", "Tomography", ""]

_HEADING = re.compile(r"^\[\s*(\w+)\s*=\s*(.*?)\s*\]$")
_NUMBER = re.compile(r"^[+-]?(\d{1,18}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?$", re.ASCII)
_AXIS = re.compile(r"Tilt\s*axis\s*angle\s*=\s*([-+]?\d+(?:[.,]\d+)?)", re.IGNORECASE)
_SCHEME = re.compile(r"\b(dosym|bidir)\s*=\s*([-+]?\d+(?:[.,]\d+)?)")
_WANTED = frozenset(
    "tiltangle pixelspacing exposuredose priorrecorddose countsperelectron numsubframes "
    "subframepath datetime navigatorlabel imagefile".split()
)
_PACETOMO_KEYS = frozenset({"specimenshift", "eucentricoffset"})
"""What PACEtomo adds to each section, through SerialEM's AddToAutodoc (PACEtomo.py)."""


@dataclass(frozen=True, slots=True)
class MdocSection:
    """What the microscope said about one exposure; None where it said nothing usable."""

    kind: SectionKind
    """`ZValue` for a section of a stack, `FrameSet` for a movie of its own."""
    z_value: int
    tilt_angle_deg: float | None
    pixel_spacing_angstrom: float | None
    exposure_dose_e_per_A2: float | None
    prior_dose_e_per_A2: float | None
    counts_per_electron: float | None
    num_subframes: int | None
    sub_frame_path: str
    """Name of the movie without its folder ("" where there is none)."""
    acquired_at: str | None
    """The microscope's wall clock, ISO 8601 without zone, where it can be believed."""
    date_time: str
    """The same as written, also where it was not understood or not believed."""
    navigator_label: str
    complete: bool
    """Whether everything that is needed of this section is known to be written."""
    from_pacetomo: bool = False
    """Whether it bears keys that only PACEtomo writes."""


@dataclass(frozen=True, slots=True)
class Mdoc:
    """A metadata file: one entry for each exposure, in the order of the file."""

    program: Program
    titles: tuple[str, ...]
    image_file: str
    pixel_spacing_angstrom: float | None
    tilt_axis_angle_deg: float | None
    scheme: Literal["dose_symmetric", "bidirectional", ""]
    """How the series goes, as far as the titles tell ("" where they do not)."""
    scheme_start_deg: float | None
    is_montage: bool
    """Whether the image is a map put together from pieces."""
    sections: tuple[MdocSection, ...]
    modified_ns: int = 0


def read_mdoc(path: Path, *, settled: bool = False) -> Mdoc | None:
    """Read an mdoc; None where there is none (SerialEM takes it away for a moment to rewrite it).

    `settled`: the file has not changed for so long that nothing more is coming. Raises `NotReady`
    where it cannot be read now, `Unreadable` where it is no metadata file.
    """
    try:
        # Never through a link: the name was made from another file's, not found by the scan.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None  # no such file can be
        raise NotReady(f"{path.name!r} cannot be read: {error.strerror}", "unreadable") from error
    try:
        now = os.fstat(file)
        if not stat.S_ISREG(now.st_mode) or now.st_size > MAX_BYTES:
            raise Unreadable(
                f"{path.name!r} is no metadata file ({now.st_size} bytes); move it away", "mdoc"
            )
        with open(file, "rb", closefd=False) as stream:
            raw = stream.read(MAX_BYTES)
    except OSError as error:
        raise NotReady(f"{path.name!r} cannot be read: {error.strerror}", "unreadable") from error
    finally:
        os.close(file)
    text = raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return parse_mdoc(text, settled=settled, modified_ns=now.st_mtime_ns)


def parse_mdoc(text: str, *, settled: bool = False, modified_ns: int = 0) -> Mdoc:
    """Parse the text of an mdoc, however it is cut; never raises.

    A section is complete once another heading follows it, or once its line `DateTime` ends in a
    newline (SerialEM writes all that is needed before that); in a `settled` file also without a
    date, if it lacks nothing that the section before it has. Of two sections with the same number
    the last complete one counts.
    """
    lines = text.split("\n")
    cut = lines.pop()
    draft = _Draft()
    for line in lines:
        draft.take(line.strip())
    if settled and _is_whole_date(cut):
        draft.take(cut.strip())
    draft.close(followed=False, settled=settled)
    program = _program(draft.titles)
    titles = "\n".join(draft.titles)
    axis, scheme = _AXIS.search(titles), _SCHEME.search(titles)
    return Mdoc(
        program=program,
        titles=tuple(draft.titles),
        image_file=_basename(draft.file_values.get("imagefile", "")),
        pixel_spacing_angstrom=_positive(draft.file_values, "pixelspacing"),
        tilt_axis_angle_deg=_number(axis.group(1)) if axis else None,
        scheme="" if not scheme else _SCHEMES[scheme.group(1)],
        scheme_start_deg=_number(scheme.group(2)) if scheme else None,
        is_montage=draft.is_montage,
        sections=tuple(
            _section(kind, number, values, complete, draft.file_values, program)
            for (kind, number), (values, complete) in draft.sections.items()
        ),
        modified_ns=modified_ns,
    )


def _program(titles: list[str]) -> Program:
    for title in titles:
        if title.startswith("SerialEM:"):
            return "SerialEM"
        if title.startswith("Tomography:"):
            return "Tomography"
    return ""


def _is_whole_date(line: str) -> bool:
    """Whether a last line without a newline is a date that nothing can be missing from."""
    key, _, value = line.partition("=")
    return key.strip().lower() == "datetime" and is_whole_mdoc_time(value.strip())


_SCHEMES: dict[str, Literal["dose_symmetric", "bidirectional"]] = {
    "dosym": "dose_symmetric",
    "bidir": "bidirectional",
}


class _Draft:
    """Collects the values that are wanted while lines go by."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.file_values: dict[str, str] = {}
        self.is_montage = False
        self.sections: dict[tuple[SectionKind, int], tuple[dict[str, str], bool]] = {}
        self._kind: SectionKind | None = None
        self._number = 0
        self._values: dict[str, str] = self.file_values

    def take(self, line: str) -> None:
        if line.startswith("["):
            heading = _HEADING.match(line)
            if heading:
                self._heading(heading.group(1).lower(), heading.group(2))
            return
        key, equals, value = line.partition("=")
        key = key.strip().lower()
        if not equals:
            return
        if key == "t" and self._kind is None:
            self._title(value.strip())
        elif key in _WANTED or key in _PACETOMO_KEYS:
            self._values[key] = value.strip()
        elif key == "piececoordinates":
            self.is_montage = True

    def close(self, *, followed: bool = True, settled: bool = False) -> None:
        """End the section in hand, which another heading followed, or the end of the file."""
        if self._kind is not None:
            dated = bool(self._values.get("datetime")) and "tiltangle" in self._values
            complete = followed or dated or (settled and self._is_as_long_as_others())
            key = (self._kind, self._number)
            if complete or key not in self.sections:
                self.sections.pop(key, None)
                self.sections[key] = (self._values, complete)
        self._kind = None

    def _is_as_long_as_others(self) -> bool:
        """Whether a last section without a date lacks nothing that the one before it has.

        Some programs write `DateTime` empty or not at all; a cut section must not pass for that.
        """
        before = next(reversed(self.sections.values()), ({"datetime": ""}, True))[0]
        return before.keys() - _PACETOMO_KEYS <= self._values.keys()

    def _heading(self, kind: str, value: str) -> None:
        self.close()
        self._values = {}
        self.is_montage = self.is_montage or kind == "montsection"
        if kind == "t":
            self._title(value)
        elif kind in ("zvalue", "frameset") and re.fullmatch(r"\d{1,9}", value, re.ASCII):
            self._kind = "ZValue" if kind == "zvalue" else "FrameSet"
            self._number = int(value)

    def _title(self, text: str) -> None:
        if len(self.titles) < 100:
            self.titles.append(text)


def _section(
    kind: SectionKind,
    number: int,
    values: dict[str, str],
    complete: bool,
    file_values: dict[str, str],
    program: Program,
) -> MdocSection:
    angle = _number(values.get("tiltangle", ""))
    frames = _positive(values, "numsubframes")
    date_time = values.get("datetime", "")
    return MdocSection(
        kind=kind,
        z_value=number,
        tilt_angle_deg=angle if angle is not None and abs(angle) <= 90.0 else None,
        pixel_spacing_angstrom=_positive(values, "pixelspacing")
        or _positive(file_values, "pixelspacing"),
        exposure_dose_e_per_A2=_positive(values, "exposuredose"),
        prior_dose_e_per_A2=_number(values.get("priorrecorddose", "")),
        counts_per_electron=_positive(values, "countsperelectron"),
        num_subframes=int(frames) if frames is not None else None,
        sub_frame_path=_basename(values.get("subframepath", "")),
        acquired_at=mdoc_time(date_time, year_first=program == "Tomography"),
        date_time=date_time,
        navigator_label=values.get("navigatorlabel", ""),
        complete=complete,
        from_pacetomo=not _PACETOMO_KEYS.isdisjoint(values),
    )


def _number(text: str) -> float | None:
    """Read a number, with a decimal comma too; None for NaN, nothing, or anything else."""
    if "," in text and "." not in text:
        text = text.replace(",", ".", 1)
    if not _NUMBER.match(text):
        return None
    number = float(text)
    return number + 0.0 if abs(number) < 1e30 else None  # + 0.0: no negative zero


def _positive(values: dict[str, str], key: str) -> float | None:
    """Read a quantity for which 0 means that nobody measured it."""
    number = _number(values.get(key, ""))
    return number if number is not None and number > 0 else None


def _basename(text: str) -> str:
    return PureWindowsPath(text).name  # splits at both kinds of slash
