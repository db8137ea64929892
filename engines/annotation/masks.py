"""Masks on disk: as `icewatch score --masks` writes them, or as PNG."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy import bool_
from numpy.typing import NDArray

from engines.annotation.model import AnnotationError, TiltName
from engines.errors import EngineError
from engines.overlay import ICE, NOT_VALID
from engines.readers.mrc import read_header, read_section

_NAME = re.compile(r"(?P<stem>.+)_(?P<section>\d{3,9})(\.mask\.mrc|(\.mask)?\.png)", re.I | re.S)

Masks = tuple[NDArray[bool_], NDArray[bool_] | None]
"""Ice, and where the tilt is valid (None: not told), (rows, columns)."""


def find_masks(directory: Path) -> dict[tuple[str, TiltName], Path]:
    """Find masks below a folder, by the folder they lie in and the tilt that they are of.

    Named `<stem>_<section:04d>.mask.mrc`, `.mask.png` or `.png`. Raises AnnotationError where
    there is none, or two for one tilt.
    """
    found: dict[tuple[str, TiltName], Path] = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        folder = path.parent.relative_to(directory).as_posix()
        key = (folder, TiltName(match["stem"], int(match["section"])))
        if key in found:
            raise AnnotationError(f"'{path}' and '{found[key].name}' are of one tilt; keep one.")
        found[key] = path
    if not found:
        raise AnnotationError(
            f"'{directory}' holds no mask; name masks <tilt file>_<section>.mask.mrc or .png, as "
            "TS_001_0000.mask.mrc."
        )
    return found


def read_mask(path: Path) -> Masks:
    """Read a mask at its own size, row 0 as row 0 of the tilt; raises AnnotationError."""
    if path.suffix.lower() == ".png":
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if values is None or values.ndim != 2:
            raise AnnotationError(
                f"'{path}' is not a PNG of one channel; write 0 where there is no ice, else 255."
            )
        return np.asarray(values > 0), None
    try:
        stored = read_section(path, 0, read_header(path))
    except (EngineError, OSError) as error:
        raise AnnotationError(f"'{path}' cannot be read as a mask: {error}") from error
    if not np.isin(stored, (ICE, 0, NOT_VALID)).all():
        raise AnnotationError(
            f"'{path}' is no mask; its values must be 1 (ice), 0 (none) and -1 (not valid)."
        )
    return np.asarray(stored == ICE), np.asarray(stored != NOT_VALID)
