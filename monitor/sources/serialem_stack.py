"""A stack that SerialEM lets grow, one section per tilt, with its mdoc.

SerialEM writes pixels, header, extended header, and last of all the section of the mdoc; so a
section is safe once the mdoc tells of it and header and file size agree, and a stack is not
opened while it is newer than its mdoc. Stacks are also rewritten: sorted by angle at the end,
resumed, a section overwritten. Nothing here depends on the number of a section beyond the moment
in which it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

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
from monitor.sources.exposure import mdoc_path, tilt_of
from monitor.sources.mdoc import Mdoc, MdocSection
from monitor.sources.mdocs import Mdocs
from monitor.sources.naming import (
    Place,
    extension,
    image_of,
    is_ignored,
    place,
)
from monitor.sources.protocol import Known
from monitor.sources.stack_mdoc import Exposure, exposures_of, of_stack
from monitor.sources.targets import Lamella, Lamellae, target_root

_EXTENSIONS = (".mrc", ".st")
ANGLE_MISMATCH = "angle_mismatch"
"""Flag of a tilt whose stack gives it another angle than its mdoc."""
_ANGLE_TOLERANCE_DEG = 0.06
"""SerialEM keeps the angle in the extended header to 0.01 degrees."""
_REWRITE_GAP_NS = 2_000_000_000
_PACETOMO_ADDS_S = 1.0
"""PACEtomo adds its keys a moment after SerialEM wrote the section."""
_WAIT_FOR_MOVIE_S = 10.0
"""As long as a movie may take from its last byte to its being read, with or without its mdoc."""


class SerialEMStack:
    """Reads growing stacks section by section; a tilt is an angle and a time, not a number."""

    kind = "serialem_stack"

    def __init__(
        self,
        directory: Path,
        lamellae: Lamellae | None = None,
        *,
        prefer: Literal["stack", "movie"] = "stack",
        pace: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Take the acquisition directory, from which tilts have their relative paths.

        `lamellae` knows which series share one; `prefer`: whether a section gives way to the
        movie of its frames; `pace` is called with the number of bytes before pixels are read.
        """
        self._directory = directory
        self._lamellae = lamellae or Lamellae(directory)
        self._movies_first = prefer == "movie"
        self._pace = pace
        self._mdocs = Mdocs()
        self._listed: tuple[str, int, int] = ("", 0, 0)
        """The stack whose tilts are being yielded, and when it and its mdoc were modified (ns)."""
        self._settled = True
        self._surely_written = True
        self._held_since_s: dict[TiltId, float] = {}
        self._failures = ReadingFailures()

    def claims(self, relative: str) -> str | None:
        image = image_of(relative)
        if is_ignored(relative) or extension(image) not in _EXTENSIONS:
            return None
        return image

    def new_tilts(self, landed: Landed, known: Known) -> Iterator[Tilt]:
        name = landed.path.name
        # The mdoc first: whatever it tells of was on disk before it.
        mdoc = self._stack_mdoc(landed)
        if not _at_rest(landed, mdoc):
            raise NotReady(f"{name!r} is being written to", "writing")
        try:
            header = read_header(landed.path)
            angles = read_tilt_angles(landed.path, header)
        except PixelsError as error:
            raise while_listing(landed, error) from error
        where = place(landed.relative, landed.path.stem)
        unread = [one for one in exposures_of(mdoc, where) if not known(one.id)]
        if unread and _is_newer(header, mdoc) and landed.quiet_s < WAIT_FOR_MDOC_S:
            raise NotReady(f"{name!r} is being written anew", "rewriting")
        shared = self._shared_lamella(landed, where, mdoc)
        self._listed = (landed.relative, header.modified_ns, mdoc.modified_ns)
        self._settled = settled(landed)
        # Some programs copy into a file that has its full size, full of zeros, from the start.
        self._surely_written = _is_older(landed, mdoc) or self._settled
        self._failures.listing(landed)
        lacking: SourceError | None = None
        for exposure in unread:
            try:
                _check(landed, exposure.said, header, angles)
                self._hold_for_movie(landed, exposure)
            except SourceError as error:
                lacking = lacking or error
                continue
            tilt = _tilt(where, landed.relative, exposure, header, shared)
            yield replace(
                tilt,
                tilts_expected=max(tilt.tilts_expected or 0, len(mdoc.sections)),
                flags=(ANGLE_MISMATCH,) if _disagrees(exposure.said, angles) else (),
            )
        if lacking is None:
            lacking = _more_to_come(landed, mdoc, header)
        if lacking is not None:
            raise lacking

    def _stack_mdoc(self, landed: Landed) -> Mdoc:
        """Read the mdoc of a stack; raises where it is none, or not of a tilt series."""
        mdoc = self._mdocs.of(landed, settled=settled(landed))
        return of_stack(landed, mdoc)

    def _hold_for_movie(self, landed: Landed, exposure: Exposure) -> None:
        """Raise `NotReady` while the movie of the frames may still come, if that is preferred."""
        if not self._movies_first or not exposure.said.sub_frame_path:
            return
        now_s = landed.changed_s + landed.quiet_s
        since_s = self._held_since_s.setdefault(exposure.id, now_s)
        if now_s - since_s < _WAIT_FOR_MOVIE_S:
            raise NotReady(f"{landed.path.name!r} waits for the movies of its tilts", "movie_first")
        self._held_since_s.pop(exposure.id)

    def _shared_lamella(self, landed: Landed, where: Place, mdoc: Mdoc) -> Lamella | None:
        """Find the lamella of a target; None where the series is a lamella of its own."""
        of_pacetomo = any(one.from_pacetomo for one in mdoc.sections)
        shared = self._lamellae.of(landed.relative, where.series, from_pacetomo=of_pacetomo)
        if shared is None and target_root(where.series) and landed.quiet_s < _PACETOMO_ADDS_S:
            raise NotReady(f"the mdoc of {landed.path.name!r} has only just changed", "settling")
        return shared

    def pixels(self, tilt: Tilt) -> NDArray[Any]:
        path = self._directory / tilt.path
        try:
            header = read_header(path)
            self._pace(header.section_bytes)
            image = read_section(path, tilt.section, header)
            header = read_header(path)
            angles = read_tilt_angles(path, header)
        except PixelsError as error:
            raise self._failures.error_for(tilt.id, error) from error
        self._failures.over(tilt.id)
        # The stack may have been sorted or a section replaced since its mdoc was looked at.
        mdoc = self._mdocs.read(mdoc_path(path), settled=self._settled)
        exposures = exposures_of(mdoc, place(tilt.path, path.stem)) if mdoc else []
        said = next((one.said for one in exposures if one.id == tilt.id), None)
        replaced = (
            mdoc is None
            or said is None
            or said.z_value != tilt.section
            or (_disagrees(said, angles) and not self._settled)
            or self._is_overwritten(tilt, header, mdoc)
        )
        if replaced:
            raise NotReady(f"{path.name!r} was rewritten while it was read", "changed")
        if not self._surely_written and not image[-1].any():
            raise NotReady(f"{path.name!r} ends section {tilt.section} in zeros", "zeros")
        return image

    def _is_overwritten(self, tilt: Tilt, header: MrcHeader, mdoc: Mdoc) -> bool:
        """Whether sections are being replaced, as far as can be told from when what was written."""
        path, stack_ns, mdoc_ns = self._listed
        if path != tilt.path:
            return _is_newer(header, mdoc)
        same_mdoc = mdoc.modified_ns == mdoc_ns
        return header.modified_ns != stack_ns and same_mdoc and _is_full(header, mdoc)


def _at_rest(landed: Landed, mdoc: Mdoc) -> bool:
    """Whether nobody writes to a stack: its mdoc was written after it, or a scan saw no change.

    Both times are the file server's own.
    """
    return _is_older(landed, mdoc) or landed.unchanged_scans >= 1


def _is_older(landed: Landed, mdoc: Mdoc) -> bool:
    return landed.stat.mtime_ns <= mdoc.modified_ns


def _check(
    landed: Landed, said: MdocSection, header: MrcHeader, angles: tuple[float | None, ...]
) -> None:
    """Raise unless the pixels that an mdoc section tells of are there, and are those.

    Where stack and mdoc disagree for good the mdoc is believed: some versions of PACEtomo sort
    pixels and mdoc, but not the angles in the extended header.
    """
    name, k = landed.path.name, said.z_value
    if said.tilt_angle_deg is None:
        raise not_yet(landed, f"the mdoc of {name!r} gives section {k} no tilt angle", "no_angle")
    if k >= min(header.nz, header.sections_on_disk):
        raise not_yet(
            landed, f"{name!r} ends before section {k}, which its mdoc tells of", "truncated"
        )
    if _disagrees(said, angles) and not settled(landed):
        raise NotReady(
            f"{name!r} and its mdoc disagree on the tilt angle of section {k}", ANGLE_MISMATCH
        )


def _disagrees(said: MdocSection, angles: tuple[float | None, ...]) -> bool:
    """Whether SerialEM's extended header gives the section another angle than the mdoc."""
    stored = angles[said.z_value] if said.z_value < len(angles) else None
    if stored is None or said.tilt_angle_deg is None:
        return False
    return abs(stored - said.tilt_angle_deg) > _ANGLE_TOLERANCE_DEG


def _is_newer(header: MrcHeader, mdoc: Mdoc) -> bool:
    """Whether a stack that lacks nothing was not modified right before its mdoc.

    So it looks while sections are replaced in place: one taken again, or all while PACEtomo sorts
    the stack; older than the mdoc, too, where the server's clock was set back. A copy may look
    the same, but is quiet. Both times are the file server's own.
    """
    return _is_full(header, mdoc) and abs(header.modified_ns - mdoc.modified_ns) > _REWRITE_GAP_NS


def _is_full(header: MrcHeader, mdoc: Mdoc) -> bool:
    """Whether no section is being added: then whoever writes to a stack replaces some."""
    return header.is_whole and header.nz == len(mdoc.sections)


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


def _tilt(
    where: Place, relative: str, exposure: Exposure, header: MrcHeader, shared: Lamella | None
) -> Tilt:
    said = exposure.said
    tilt = tilt_of(
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
    return replace(
        tilt,
        lamella=shared.key if shared else where.lamella,
        tilts_expected=shared.tilts_planned if shared else None,
        movie=said.sub_frame_path,
    )
