"""Frames of an EER movie: electrons, each noted by where it hit, added up in one image."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers import tiff_walk
from engines.readers.mrc_header import MAX_SIDE_PX
from engines.readers.raw_file import Pace, fill
from engines.readers.tiff_walk import Page, Walk

COMPRESSIONS = frozenset({65000, 65001, 65002})
LEGACY_END = b"ThermoFisherECComprOK000"
"""How each frame ends in the files of before the TIFF form."""
LEGACY_SIDE_PX = 4096
_VARIABLE = 65002
_SKIP_BITS = {65000: 8, 65001: 7}
_POSITION_BITS = 2
_LARGEST_RATIO = 10_000
_PIXEL_SIZE = re.compile(
    rb'<item\s[^>]*name="sensorPixelSize\.width"[^>]*>\s*([0-9.eE+-]{1,32})\s*</item>'
)
_METRE = re.compile(rb'unit="m"')


def is_electrons(page: Page) -> bool:
    """Whether a page holds electrons; the first may be the final image instead."""
    return page.number(tiff_walk.COMPRESSION, 1) in COMPRESSIONS


def shape_px(page: Page, path: Path) -> tuple[int, int]:
    """Columns and rows of the sensor; raises `PixelsError` (`header`)."""
    nx, ny = page.number(tiff_walk.COLUMNS, 0), page.number(tiff_walk.ROWS, 0)
    if not (0 < nx <= MAX_SIDE_PX and 0 < ny <= MAX_SIDE_PX and nx * ny <= MAX_SIDE_PX**2 // 8):
        raise PixelsError(
            f"{path.name!r} claims {nx} x {ny} pixels, more than any camera has", "header"
        )
    strips = -(-ny // max(1, min(page.number(tiff_walk.ROWS_PER_STRIP, ny), ny)))
    if page.is_tiled or strips != len(page.offsets):
        raise PixelsError(
            f"{path.name!r} is not a sound EER file: a frame has {len(page.offsets)} pieces "
            f"where {strips} make it up",
            "header",
        )
    return nx, ny


def bits(page: Page) -> tuple[int, int, int]:
    """How many bits the run before an electron takes, and each part of its position."""
    compression = page.number(tiff_walk.COMPRESSION, 1)
    if compression != _VARIABLE:
        return _SKIP_BITS[compression], _POSITION_BITS, _POSITION_BITS
    return (
        page.number(tiff_walk.EER_SKIP_BITS, 7),
        page.number(tiff_walk.EER_COLUMN_BITS, _POSITION_BITS),
        page.number(tiff_walk.EER_ROW_BITS, _POSITION_BITS),
    )


def is_readable(page: Page) -> bool:
    """Whether the decoder knows codes of these sizes."""
    skip, columns, rows = bits(page)
    return 4 <= skip < 15 and 0 < columns < 5 and 0 < rows < 5 and 8 < skip + columns + rows < 17


def pixel_size_angstrom(metadata: bytes) -> float | None:
    """Find the pixel size at the specimen, where the metadata of the first frame give it."""
    found = _PIXEL_SIZE.search(metadata)
    if not found or not _METRE.search(found[0]):
        return None
    try:
        size = float(found[1]) * 1e10
    except ValueError:
        return None
    # Some writers may mean the sensor's own pixels, which are micrometres wide.
    return round(size, 6) if 0.01 < size < 1000.0 else None


def sum_of_pages(
    file: int, pages: list[Page], found: Walk, path: Path, pace: Pace
) -> NDArray[np.uint16]:
    """Count the electrons of all frames in each pixel; never more than one frame is held.

    A frame counts one electron a pixel at most and there are at most `MAX_PAGES` frames, so that
    16 bits are always enough. Raises `PixelsError` with reason `bomb`, `decode` or `truncated`.
    """
    from imagecodecs import eer_decode

    nx, ny = shape_px(pages[0], path)
    _refuse_bombs(pages, nx * ny, found, path)
    total = np.zeros((ny, nx), np.uint16)
    packed = bytearray()
    for page in pages:
        sizes = bits(page)
        rows = min(page.number(tiff_walk.ROWS_PER_STRIP, ny), ny)
        for strip, (start, count) in enumerate(
            zip(page.offsets.tolist(), page.byte_counts.tolist(), strict=True)
        ):
            even = count + count % 2  # as the decoder wants it
            if len(packed) < even:
                packed = bytearray(even + even // 8)
            stored = memoryview(packed)[:even]
            stored[count:] = bytes(even - count)
            if fill(file, stored[:count], start, path, pace) < count:
                raise PixelsError(f"{path.name!r} was cut while it was read", "truncated")
            part = total[strip * rows : (strip + 1) * rows]
            try:
                # (its type hints know no memoryview, which spares a copy)
                eer_decode(stored, part.shape, *sizes, superres=0, out=part)  # type: ignore[arg-type]
            except (RuntimeError, ValueError) as error:
                raise PixelsError(
                    f"{path.name!r} is damaged: a frame cannot be decompressed", "decode"
                ) from error
    return total


def _refuse_bombs(pages: list[Page], pixels: int, found: Walk, path: Path) -> None:
    stored = [int(page.byte_counts.sum()) for page in pages]
    # A frame takes at most 16 bits a pixel, and no electron at all still takes 1:150.
    if max(stored) > 2 * pixels + (1 << 16) or pixels > _LARGEST_RATIO * min(stored):
        raise PixelsError(
            f"{path.name!r} claims frames of {min(stored)} to {max(stored)} bytes, which cannot "
            f"hold {pixels} pixels",
            "bomb",
        )
    if sum(stored) > found.file_size:
        raise PixelsError(
            f"{path.name!r} uses the same bytes for several frames; it is not unpacked", "bomb"
        )
