"""Sessions of the pretend microscope, what is true of them, and what the real sources find."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from monitor.errors import SourceError
from monitor.model import Landed, Tilt
from monitor.settings import CustomSettings
from monitor.simulate.command import simulate
from monitor.simulate.custom import PATTERN
from monitor.simulate.driver import truth_line
from monitor.simulate.request import FAULTS, Request
from monitor.simulate.script import Taken
from monitor.sources import Source, tilts_on_disk
from monitor.sources.at_rest import AtRest
from monitor.sources.custom import Custom
from monitor.sources.movies import Movies
from tests.landings import SETTLED_S, landed

SIZE_PX = 96
PIXEL_SIZE_ANGSTROM = 13.5
AT_ONCE = 1e6
_ANGLE_TOLERANCE_DEG = 0.11
"""Names round to 0.1 degrees."""
_TIME_TOLERANCE_S = 6.0
"""The names of Tomography 5 say when an exposure began, its mdoc when that ended."""


@dataclass(frozen=True, slots=True)
class Truth:
    """One exposure as the pretend microscope noted it."""

    series: str
    lamella: str
    angle_deg: float
    time: str
    order: int
    paths: tuple[str, ...]
    complete: bool
    kept: bool

    def fits(self, found: Mapping[str, Any]) -> bool:
        """Whether something that was found, as in a message, is this exposure."""
        angle_deg, time = found["angle_deg"], found["acquired_at"]
        return (
            found["path"] in self.paths
            and found["series"] == self.series
            and found["lamella"] == self._lamella_by(found["path"])
            and angle_deg is not None
            and abs(angle_deg - self.angle_deg) <= _ANGLE_TOLERANCE_DEG
            and (time is None or self._apart_s(time) <= _TIME_TOLERANCE_S)
        )

    def _lamella_by(self, path: str) -> str:
        """Name the lamella by the folder of a movie that is beside a stack."""
        if path == self.paths[0]:
            return self.lamella
        return f"{path.rpartition('/')[0]}/{self.series}"

    def _apart_s(self, time: str) -> float:
        apart = datetime.fromisoformat(time) - datetime.fromisoformat(self.time)
        return abs(apart.total_seconds())


def request(out: Path, layout: str, *faults: str, **changes: Any) -> Request:
    """Ask for a small session, as fast as it can be written."""
    wanted: dict[str, Any] = {
        "series": 6 if layout == "mixed" else 3,
        "tilts": 5,
        "size_px": SIZE_PX,
        "pixel_size_angstrom": PIXEL_SIZE_ANGSTROM,
        "speed": AT_ONCE,
        "truth": out.with_name(out.name + ".truth.jsonl"),
        **changes,
    }
    return Request(out, layout, faults=faults, **wanted)


def write(wanted: Request) -> list[Truth]:
    """Let a session land, and read what is true of it."""
    assert simulate(wanted) == 0
    return truths(wanted)


def truths(wanted: Request) -> list[Truth]:
    """Read the truth file of a session."""
    assert wanted.truth is not None
    return [_truth(json.loads(line)) for line in wanted.truth.read_text().splitlines()]


def _truth(line: dict[str, Any]) -> Truth:
    names = ("series", "lamella", "angle_deg", "time", "order", "complete", "kept")
    return Truth(**{name: line[name] for name in names}, paths=tuple(line["paths"]))


def faults_of(layout: str) -> list[str]:
    """List what can go wrong with a layout."""
    return [fault for fault, (_, layouts) in FAULTS.items() if layout in layouts]


def on_disk(root: Path, layout: str = "") -> list[Tilt]:
    """List every exposure below a directory that the real sources find."""
    listed = _by_pattern(root) if layout == "custom" else tilts_on_disk
    found: list[Tilt] = []
    for path in sorted(root.rglob("*")):
        if path.is_file():
            relative = path.relative_to(root).as_posix()
            try:
                found += [one for one, _ in listed(root, landed(root, relative, SETTLED_S))]
            except SourceError:
                continue
    return [one for one in found if one.angle_deg is not None]


def _by_pattern(root: Path) -> Callable[[Path, Landed], Iterator[tuple[Tilt, Source]]]:
    source = Custom(Movies(root, at_rest=AtRest(at_once=True)), CustomSettings(pattern=PATTERN))

    def listed(root: Path, one: Landed) -> Iterator[tuple[Tilt, Source]]:
        if source.claims(one.relative) == one.relative:
            for tilt in source.new_tilts(one, lambda tilt_id: False):
                yield tilt, source

    return listed


def vars_of(tilt: Tilt) -> dict[str, Any]:
    """Give what a message on a tilt says."""
    return {name: getattr(tilt, name) for name in tilt.__slots__}


def check_disk(expected: Iterable[Truth], tilts: Iterable[Tilt]) -> None:
    """Fail unless each file that holds an exposure is found to hold it once, and no other."""
    wanted = Counter(
        (one.time, one.series, path)
        for one in expected
        if one.complete and one.kept
        for path in one.paths
    )
    found: Counter[tuple[str, str, str]] = Counter()
    for tilt in tilts:
        fitting = [one for one in expected if one.kept and one.fits(vars_of(tilt))]
        assert len(fitting) == 1, (tilt, fitting)
        found[fitting[0].time, tilt.series, tilt.path] += 1
    assert found == wanted


def check_published(expected: list[Truth], tilts: Iterable[Mapping[str, Any]]) -> None:
    """Fail unless each exposure that stayed was published once, and none that was cut.

    One that was overwritten a moment later may have been published before.
    """
    published: Counter[int] = Counter()
    for tilt in tilts:
        fitting = [at for at, one in enumerate(expected) if one.fits(tilt)]
        assert fitting, tilt
        exact = [at for at in fitting if expected[at].time == tilt["acquired_at"]]
        published[(exact or fitting)[0]] += 1
    for at, one in enumerate(expected):
        least, most = int(one.complete and one.kept), int(one.complete)
        assert least <= published[at] <= most, (published[at], one)


def truth_of(taken: Taken, root: Path) -> Truth:
    """Give what is true of an exposure, without a file between."""
    return _truth(json.loads(json.dumps(truth_line(taken, root))))


def digest(root: Path) -> str:
    """Name and content of all that lies below a directory."""
    found = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        found.update(repr(path.relative_to(root)).encode())
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()
