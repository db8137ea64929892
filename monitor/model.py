"""What flows along the data path: frozen records, one type for each arrow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TiltId:
    """Which exposure this is: series, angle and acquisition time, never a section or a path."""

    series_key: str
    """Series within the microscope: folder relative to the acquisition directory, then name."""
    angle_deg: float | None
    acquired_at: str | None
    """The microscope's wall clock as written, ISO 8601 without zone."""
    fallback: str = ""
    """Tells exposures apart where no time was recorded (the movie's own name), or not well."""

    def __str__(self) -> str:
        angle = "?" if self.angle_deg is None else f"{self.angle_deg + 0.0:+.2f}"
        when = "#".join(part for part in (self.acquired_at, self.fallback) if part)
        return f"{self.series_key}@{angle}@{when}"


@dataclass(frozen=True, slots=True)
class Tilt:
    """One complete exposure: where its pixels are and what the microscope said about it."""

    id: TiltId
    session: str
    grid: str
    """Folder between session and series ("" where there is none)."""
    lamella: str
    """Unique within the microscope: relative folder plus name."""
    series: str
    path: str
    """Relative to the acquisition directory, with forward slashes."""
    section: int
    angle_deg: float | None
    order: int | None = None
    """Acquisition order within the series, from 0."""
    acquired_at: str | None = None
    pixel_size_angstrom: float | None = None
    exposure_dose_e_per_A2: float | None = None
    counts_per_electron: float | None = None
    tilts_expected: int | None = None
    """How many tilts the series is to have: as planned where a file tells, else as announced."""
    flags: tuple[str, ...] = ()
    """What the source noticed about this tilt (a closed list of words, as in `IceReading`)."""
    aliases: tuple[TiltId, ...] = ()
    """By which other identities the same exposure may come again (by its name, say)."""
    movie: str = ""
    """File name of the movie that holds the frames of this exposure ("" where none is known)."""


@dataclass(frozen=True, slots=True)
class IceReading:
    """How much ice one tilt shows; `percent` is None, and `flags` says why, if not measurable."""

    percent: float | None
    percent_low: float | None
    percent_high: float | None
    phases: Mapping[str, float] = field(default_factory=dict)
    """Share of the ice, 0 to 1: `hexagonal`, `cubic`, `stacking_disordered`."""
    valid_area_percent: float = 0.0
    flags: tuple[str, ...] = ()
    in_domain: bool = False
    bundle_name: str = ""
    bundle_version: str = ""
    backend: str = ""
    used_neighbours: bool = False
    """Whether earlier tilts of the series had a say."""
    occupancy_percent: float | None = None
    """Of the series up to this tilt: share of the field that was ice at any of its tilts."""
    area_percent: Mapping[str, float] = field(default_factory=dict)
    """Percent of the valid area whose contrast exceeds a threshold, by threshold: `0.06`..."""


@dataclass(frozen=True, slots=True)
class LamellaHistory:
    """Every reading of one lamella so far, in the order of arrival, and its last verdict."""

    lamella: str
    readings: tuple[tuple[Tilt, IceReading], ...]
    previous: Decision
    tilts_expected: int | None = None


class Decision(StrEnum):
    """What to do with a lamella; `undecided` means: keep acquiring."""

    KEEP = "keep"
    UNDECIDED = "undecided"
    SKIP = "skip"


class Reason(StrEnum):
    """Why a verdict is what it is (closed list: it becomes a label)."""

    TOO_FEW_TILTS = "too_few_tilts"
    ICE_ABOVE_LIMIT = "ice_above_limit"
    ICE_BELOW_LIMIT = "ice_below_limit"
    NOT_SURE_YET = "not_sure_yet"
    NOTHING_MEASURABLE = "nothing_measurable"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evidence on one lamella says, and how sure it is."""

    decision: Decision
    reason: Reason
    explanation: str
    """One sentence for a person."""
    ice_percent: float | None
    ice_percent_low: float | None
    ice_percent_high: float | None
    probability_bad: float | None
    tilts_seen: int
    tilts_expected: int | None


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a directory scan knows about a file without opening it."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Landed:
    """A file that changed, or that a source asked to see again."""

    path: Path
    relative: str
    """Relative to the acquisition directory, with forward slashes."""
    stat: FileStat
    unchanged_scans: int
    """How many scans in a row saw this very stat (0: changed at the last one)."""
    quiet_s: float
    """Seconds, by our own monotonic clock, since the stat last changed."""
    changed_s: float = 0.0
    """When the stat last changed, by our own monotonic clock (s)."""
    image_quiet_s: float = 0.0
    """Seconds since the image itself changed, whatever its mdoc did; never less than `quiet_s`."""
    closed: bool = True
    """Whether its last writer is known to have closed or renamed it (always where nobody asks)."""
    members: Mapping[str, FileStat] | None = None
    """The image and the files that announce it, as last looked at; None where nobody looked."""

    @property
    def at_rest(self) -> bool:
        """Whether nobody writes to it, as far as can be told without opening anything."""
        return self.closed or self.unchanged_scans >= 1

    def __post_init__(self) -> None:
        """See that what says nothing on the image itself counts it as quiet as all together."""
        object.__setattr__(self, "image_quiet_s", max(self.image_quiet_s, self.quiet_s))
