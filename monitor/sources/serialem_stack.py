"""A stack that SerialEM lets grow, one section per tilt, with its mdoc.

SerialEM writes pixels, header, extended header, and last of all the section of the mdoc; so a
section is safe once the mdoc tells of it and header and file size agree. Stacks are also
rewritten: sorted by angle at the end, resumed, a section overwritten. Nothing here depends on
the number of a section beyond the moment in which it is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.mrc import read_header, read_section, read_tilt_angles
from engines.readers.mrc_header import MrcHeader
from monitor.errors import NotReady, SourceError
from monitor.model import Landed, Tilt, TiltId
from monitor.sources.complete import (
    WAIT_FOR_MDOC_S,
    ReadingFailures,
    not_yet,
    settled,
    while_listing,
)
from monitor.sources.exposure import exposure_id, mdoc_path, tilt_of
from monitor.sources.mdoc import Mdoc, MdocSection, read_mdoc
from monitor.sources.naming import (
    Place,
    extension,
    image_of,
    is_ignored,
    parse_movie_name,
    place,
)
from monitor.sources.protocol import Known, NotMine

_EXTENSIONS = (".mrc", ".st")
_ANGLE_TOLERANCE_DEG = 0.06
"""SerialEM keeps the angle in the extended header to 0.01 degrees."""
_REWRITE_GAP_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class _Exposure:
    said: MdocSection
    id: TiltId
    order: int
    """Rank by the microscope's clock; by number where it is not known for all."""


class SerialEMStack:
    """Reads growing stacks section by section; a tilt is an angle and a time, not a number."""

    kind = "serialem_stack"

    def __init__(self, directory: Path) -> None:
        """Take the acquisition directory, from which tilts have their relative paths."""
        self._directory = directory
        self._listed: tuple[str, int] = ("", 0)
        """The stack whose tilts are being yielded, and when it was last modified (ns)."""
        self._failures = ReadingFailures()

    def claims(self, relative: str) -> str | None:
        image = image_of(relative)
        if is_ignored(relative) or extension(image) not in _EXTENSIONS:
            return None
        return image

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        name = landed.path.name
        # The mdoc first: whatever it tells of was on disk before it.
        mdoc = _read_stack_mdoc(landed)
        try:
            header = read_header(landed.path)
            angles = read_tilt_angles(landed.path, header)
        except PixelsError as error:
            raise while_listing(landed, error) from error
        where = place(landed.relative, landed.path.stem)
        unread = [one for one in _exposures(mdoc, where) if not known(one.id)]
        if unread and _is_newer(header, mdoc) and landed.quiet_s < WAIT_FOR_MDOC_S:
            raise NotReady(f"{name!r} is being written anew", "rewriting")
        self._listed = (landed.relative, header.modified_ns)
        self._failures.listing(landed)
        lacking: SourceError | None = None
        for exposure in unread:
            try:
                _check(landed, exposure.said, header, angles)
            except SourceError as error:
                lacking = lacking or error
                continue
            yield _tilt(where, landed.relative, exposure, header)
        if lacking is None:
            lacking = _more_to_come(landed, mdoc, header)
        if lacking is not None:
            raise lacking

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        path = self._directory / tilt.path
        try:
            header = read_header(path)
            image = read_section(path, tilt.section, header)
            header = read_header(path)
            angles = read_tilt_angles(path, header)
        except PixelsError as error:
            raise self._failures.error_for(tilt.id, error) from error
        self._failures.over(tilt.id)
        # The stack may have been sorted or a section replaced since its mdoc was looked at.
        mdoc = read_mdoc(mdoc_path(path), settled=True)
        exposures = _exposures(mdoc, place(tilt.path, path.stem)) if mdoc else []
        said = next((one.said for one in exposures if one.id == tilt.id), None)
        replaced = (
            mdoc is None
            or said is None
            or said.z_value != tilt.section
            or _disagrees(said, angles)
            or (self._listed != (tilt.path, header.modified_ns) and _is_newer(header, mdoc))
        )
        if replaced:
            raise NotReady(f"{path.name!r} was rewritten while it was read", "changed")
        return image


def _read_stack_mdoc(landed: Landed) -> Mdoc:
    name = landed.path.name
    mdoc = read_mdoc(mdoc_path(landed.path), settled=settled(landed))
    if mdoc is None and parse_movie_name(name).angle_deg is not None:
        raise NotMine(f"{name!r} is named like a movie", "movie")
    if mdoc is None or not mdoc.sections:
        raise not_yet(
            landed,
            f"{name!r} has no mdoc and no tilt angle in its name: no tilt; have SerialEM save one",
            "no_angle",
        )
    stack_sections = [one for one in mdoc.sections if one.kind == "ZValue"]
    if not stack_sections or _is_single_tilt(name, stack_sections):
        raise NotMine(f"the mdoc of {name!r} is that of a movie", "movie")
    if mdoc.is_montage:
        raise not_yet(landed, f"{name!r} is a map made of pieces, not a tilt series", "map")
    return replace(mdoc, sections=tuple(stack_sections))


def _is_single_tilt(name: str, sections: list[MdocSection]) -> bool:
    """Whether this is one tilt saved as a stack of its own, named after its angle."""
    named, said = parse_movie_name(name).angle_deg, sections[0].tilt_angle_deg
    agree = named is not None and said is not None and abs(named - said) < 1.0
    return len(sections) == 1 and agree


def _exposures(mdoc: Mdoc, where: Place) -> list[_Exposure]:
    """List the complete exposures in acquisition order.

    Should two have the same angle and the same second, all but the first in the file carry a
    running number: sorting may swap their names, but makes no new ones.
    """
    complete = [one for one in mdoc.sections if one.complete]
    dated = all(one.acquired_at for one in complete)
    seen: Counter[TiltId] = Counter()
    named: list[tuple[MdocSection, TiltId]] = []
    for said in complete:
        tilt_id = exposure_id(where, said)
        seen[tilt_id] += 1
        if seen[tilt_id] > 1:
            again = (
                f"{tilt_id.fallback}#{seen[tilt_id]}" if tilt_id.fallback else str(seen[tilt_id])
            )
            tilt_id = replace(tilt_id, fallback=again)
        named.append((said, tilt_id))
    named.sort(key=lambda one: (one[0].acquired_at or "" if dated else "", one[0].z_value))
    return [_Exposure(said, tilt_id, order) for order, (said, tilt_id) in enumerate(named)]


def _check(
    landed: Landed, said: MdocSection, header: MrcHeader, angles: tuple[float | None, ...]
) -> None:
    """Raise unless the pixels that an mdoc section tells of are there, and are those."""
    name, k = landed.path.name, said.z_value
    if said.tilt_angle_deg is None:
        raise not_yet(landed, f"the mdoc of {name!r} gives section {k} no tilt angle", "no_angle")
    if k >= min(header.nz, header.sections_on_disk):
        raise not_yet(
            landed, f"{name!r} ends before section {k}, which its mdoc tells of", "truncated"
        )
    if _disagrees(said, angles):
        raise not_yet(
            landed,
            f"{name!r} and its mdoc disagree on the tilt angle of section {k}",
            "angle_mismatch",
        )


def _disagrees(said: MdocSection, angles: tuple[float | None, ...]) -> bool:
    """Whether SerialEM's extended header gives the section another angle than the mdoc."""
    stored = angles[said.z_value] if said.z_value < len(angles) else None
    if stored is None or said.tilt_angle_deg is None:
        return False
    return abs(stored - said.tilt_angle_deg) > _ANGLE_TOLERANCE_DEG


def _is_newer(header: MrcHeader, mdoc: Mdoc) -> bool:
    """Whether a stack that lacks nothing was modified after its mdoc, which is written last.

    So it looks while sections are replaced in place: one taken again, or all while PACEtomo sorts
    the stack. A copy may look the same, but is quiet. Both times are the file server's own.
    """
    full = header.is_whole and header.nz == len(mdoc.sections)
    return full and header.modified_ns - mdoc.modified_ns > _REWRITE_GAP_NS


def _more_to_come(landed: Landed, mdoc: Mdoc, header: MrcHeader) -> SourceError | None:
    name = landed.path.name
    if not all(one.complete for one in mdoc.sections):
        return not_yet(landed, f"the mdoc of {name!r} ends within a section", "mdoc_cut")
    told = {one.z_value for one in mdoc.sections}
    untold = [k for k in range(min(header.nz, 100_000)) if k not in told]
    if untold:
        return not_yet(
            landed,
            f"the mdoc of {name!r} says nothing on section {untold[0]}: its angle is not known",
            "no_angle",
        )
    return None


def _tilt(where: Place, relative: str, exposure: _Exposure, header: MrcHeader) -> Tilt:
    said = exposure.said
    return tilt_of(
        where,
        exposure.id,
        relative,
        said.z_value,
        angle_deg=said.tilt_angle_deg or 0.0,
        order=exposure.order,
        acquired_at=said.acquired_at,
        said=said,
        header=header,
    )
