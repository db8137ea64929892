"""Movies of any kind, told apart by what is in them: MRC, TIFF and EER."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers import eer_frames, mrc, tiff_frames, tiff_walk
from engines.readers.raw_file import Pace, facts, opened, read_at, refuse_rewritten, unpaced
from engines.readers.tiff_walk import Page, Walk

if TYPE_CHECKING:
    import os

    from engines.readers.gain import Gain
    from engines.readers.mrc_header import MrcHeader

EXTENSIONS = (".mrc", ".mrcs", ".st", ".tif", ".tiff", ".eer")
_ANGSTROM_PER_UNIT = {2: 2.54e8, 3: 1e8}
"""Of the resolution unit of TIFF: inch and centimetre."""
_ANGSTROM_PER_NAME = {b"nm": 10.0, b"a": 1.0, b"angstrom": 1.0, b"\\u00c5": 1.0, b"\xc5": 1.0}
_IMAGEJ_UNIT = re.compile(rb"^unit=(\S{1,16})\s*$", re.MULTILINE)


_OF_TIFF = (
    "a kind of TIFF pixels or compression that is not read",
    "one channel of 4, 8, 16 or 32 bits, plain, LZW or ZIP",
)
_LEGACY_TAIL = struct.Struct(f"<q{len(eer_frames.LEGACY_END)}s")


@dataclass(frozen=True, slots=True)
class MovieHeader:
    """What a movie says of itself, checked against the size of its file."""

    kind: Literal["mrc", "tiff", "eer"]
    nx: int
    """Columns (px) of a frame as it is read."""
    ny: int
    """Rows (px)."""
    frames: int
    """Complete frames; of an MRC file as many as the header says."""
    is_whole: bool
    """MRC: exactly as long as the header says. TIFF and EER: the chain of frames has its end and
    all of them are inside the file; the next may still be appended."""
    pixel_size_angstrom: float | None
    readable: bool
    """False for pixels of a kind that cannot be decoded."""
    size_known: bool
    """Whether `is_whole` is proof that the movie is complete."""
    counts_per_electron: float | None
    """1.0 for EER, which counts electrons; None where the file does not say."""
    file_size: int
    inode: int
    modified_ns: int


def read_movie_header(path: Path) -> MovieHeader:
    """Read and check what a movie says of itself.

    Raises `PixelsError` with reason `missing`, `unreadable` (not a regular file, no permission,
    I/O error), `truncated` (not all there, or no frame in it yet) or `header` (nonsense).
    """
    with opened(path) as file:
        return _look(file, path)[0]


def sum_of_frames(
    path: Path,
    header: MovieHeader | None = None,
    *,
    gain: Gain | None = None,
    pace: Pace = unpaced,
) -> NDArray[Any]:
    """Sum all frames of a movie: (rows, columns), rows as stored, as they are: not aligned.

    Never more than one frame is held beside the sum, and the file is open only while it is read;
    `pace` is called with the number of bytes before each piece is read. With `header`, as read
    before, a file that was replaced or written to since is refused. Raises `PixelsError` as
    `read_movie_header` does, and with reason `mode` (pixels of a kind that cannot be read),
    `changed`, `decode` (damaged), `bomb` (unpacks to more than it can hold) or `gain`.
    """
    with opened(path) as file:
        before = facts(file, path)
        now, found = _look(file, path)
        if header is not None:
            _refuse_other_movie(header, now, path)
        if not now.readable:
            raise _unreadable_mode(file, now, path)
        if not now.is_whole:
            raise PixelsError(f"{path.name!r} is cut after {now.frames} frames", "truncated")
        if found is None:
            image = mrc.sum_of_sections(file, mrc.header_of(file, path), path, pace)
        else:
            image = _sum_of_pages(file, found, _frames(found, path), path, pace)
        refuse_rewritten(before, file, path)
    return image if gain is None else gain.apply(image)


def first_frame(path: Path) -> NDArray[Any]:
    """Read the first frame alone, of whatever may follow; raises `PixelsError` as the sum does."""
    with opened(path) as file:
        before = facts(file, path)
        if tiff_walk.is_tiff(read_at(file, 0, 4, path)):
            found = tiff_walk.walk(file, before.st_size, path)
            image = _sum_of_pages(file, found, found.pages[:1], path, unpaced)
            refuse_rewritten(before, file, path)
            return image
    return mrc.read_section(path, 0)


def _look(file: int, path: Path) -> tuple[MovieHeader, Walk | None]:
    """Tell the kind of a movie; of a TIFF or EER file give all that was found on the way."""
    now = facts(file, path)
    if tiff_walk.is_tiff(read_at(file, 0, 4, path)):
        found = tiff_walk.walk(file, now.st_size, path)
        return _tiff_header(found, now, path), found
    legacy_frames = _legacy_eer_frames(file, now, path)
    if legacy_frames:
        return _legacy_eer_header(legacy_frames, now), None
    return _mrc_header(mrc.header_of(file, path), path), None


def _mrc_header(header: MrcHeader, path: Path) -> MovieHeader:
    if header.nz > tiff_walk.MAX_PAGES:
        raise PixelsError(
            f"{path.name!r} claims {header.nz} frames, more than any camera saves", "header"
        )
    return MovieHeader(
        kind="mrc",
        nx=header.nx,
        ny=header.ny,
        frames=header.nz,
        is_whole=header.is_whole,
        pixel_size_angstrom=header.pixel_size_angstrom,
        readable=header.dtype is not None,
        size_known=header.section_bytes > 0,
        counts_per_electron=None,
        file_size=header.file_size,
        inode=header.inode,
        modified_ns=header.modified_ns,
    )


def _tiff_header(found: Walk, now: os.stat_result, path: Path) -> MovieHeader:
    pages = _frames(found, path)
    is_eer = eer_frames.is_electrons(pages[0])
    if is_eer:
        nx, ny = eer_frames.shape_px(pages[0], path)
        readable = all(eer_frames.is_readable(page) for page in pages)
        metadata = found.texts.get(tiff_walk.EER_METADATA, b"")
        pixel_size = eer_frames.pixel_size_angstrom(metadata)
    else:
        kind = tiff_frames.frame_kind(pages[0], found, path)
        nx, ny, readable = kind.nx, kind.ny, kind.dtype is not None
        pixel_size = _tiff_pixel_size_angstrom(found, pages[0])
        if kind.packed == "low" and pixel_size is not None:
            pixel_size = None  # of which of the two widths, nobody says
    return MovieHeader(
        kind="eer" if is_eer else "tiff",
        nx=nx,
        ny=ny,
        frames=len(pages),
        is_whole=found.is_whole,
        pixel_size_angstrom=pixel_size,
        readable=readable,
        size_known=False,
        counts_per_electron=1.0 if is_eer else None,
        file_size=now.st_size,
        inode=now.st_ino,
        modified_ns=now.st_mtime_ns,
    )


def _frames(found: Walk, path: Path) -> list[Page]:
    """Leave out the final image that an EER file may have beside its electrons."""
    electrons = [page for page in found.pages if eer_frames.is_electrons(page)]
    pages = electrons or found.pages
    if any(_kind(page) != _kind(pages[0]) for page in pages):
        raise PixelsError(
            f"{path.name!r} is not a movie: its frames differ in size or kind", "header"
        )
    return pages


def _kind(page: Page) -> tuple[object, ...]:
    return page.numbers, page.is_tiled, len(page.offsets)


def _tiff_pixel_size_angstrom(found: Walk, page: Page) -> float | None:
    """Take the resolution for a pixel size only where it can be nothing else."""
    if not found.x_resolution or found.x_resolution <= 0:
        return None
    description = found.texts.get(tiff_walk.DESCRIPTION, b"")
    if description.startswith(b"ImageJ="):
        named = _IMAGEJ_UNIT.search(description)
        unit = _ANGSTROM_PER_NAME.get(named[1].lower()) if named else None
    else:
        unit = _ANGSTROM_PER_UNIT.get(page.number(tiff_walk.RESOLUTION_UNIT, 2))
    if unit is None:
        return None
    # Dots per inch of a print are a thousand times coarser than any pixel at the specimen.
    size = unit / found.x_resolution
    return round(size, 6) if 0.05 < size < 1000.0 else None


def _legacy_eer_frames(file: int, now: os.stat_result, path: Path) -> int:
    """Count the frames of an EER file that is not TIFF, from its end; 0 where it is none.

    Each ends with its length in words of 8 bytes and a mark.
    """
    end, frames = now.st_size, 0
    while end > _LEGACY_TAIL.size and frames < tiff_walk.MAX_PAGES:
        tail = read_at(file, end - _LEGACY_TAIL.size, _LEGACY_TAIL.size, path)
        if len(tail) < _LEGACY_TAIL.size:
            break
        words, mark = _LEGACY_TAIL.unpack(tail)
        if mark != eer_frames.LEGACY_END or words < 0:
            break
        frames += 1
        end -= _LEGACY_TAIL.size + 8 * words
    return frames


def _legacy_eer_header(frames: int, now: os.stat_result) -> MovieHeader:
    return MovieHeader(
        kind="eer",
        nx=eer_frames.LEGACY_SIDE_PX,
        ny=eer_frames.LEGACY_SIDE_PX,
        frames=frames,
        is_whole=True,
        pixel_size_angstrom=None,
        readable=False,
        size_known=False,
        counts_per_electron=1.0,
        file_size=now.st_size,
        inode=now.st_ino,
        modified_ns=now.st_mtime_ns,
    )


def _unreadable_mode(file: int, header: MovieHeader, path: Path) -> PixelsError:
    if header.kind == "mrc":
        mode = mrc.header_of(file, path).mode
        return _unreadable_kind(path, f"pixels of MRC mode {mode}", mrc.READABLE_MODES)
    if header.kind == "tiff":
        return _unreadable_kind(path, *_OF_TIFF)
    if tiff_walk.is_tiff(read_at(file, 0, 4, path)):
        what = "electrons in codes of a size that is not known"
        return _unreadable_kind(path, what, "EER of 7 + 4 bits")
    return _unreadable_kind(path, "electrons in the first form of EER", "EER in TIFF form")


def _unreadable_kind(path: Path, what: str, instead: str) -> PixelsError:
    return PixelsError(f"{path.name!r} holds {what}; have it written as {instead}", "mode")


def _refuse_other_movie(before: MovieHeader, now: MovieHeader, path: Path) -> None:
    if before != now:
        raise PixelsError(f"{path.name!r} was written to since it was complete", "changed")


def _sum_of_pages(
    file: int, found: Walk, pages: list[Page], path: Path, pace: Pace
) -> NDArray[Any]:
    if eer_frames.is_electrons(pages[0]):
        return eer_frames.sum_of_pages(file, pages, found, path, pace)
    kind = tiff_frames.frame_kind(pages[0], found, path)
    if kind.dtype is None:
        raise _unreadable_kind(path, *_OF_TIFF)
    return tiff_frames.sum_of_pages(file, pages, kind, found, path, pace)
