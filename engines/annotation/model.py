"""What people drew on pictures of tilts: shapes with labels, in the pixels of each picture.

A coordinate counts from the upper left corner of the upper left pixel, whose centre is at (0.5,
0.5), x to the right and y downwards, as in CVAT. Row 0 of a picture is row 0 of the section.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from numpy import bool_, float64
from numpy.typing import NDArray

from engines.errors import EngineError

_NAME = re.compile(r"(?P<stem>.+)_(?P<section>\d{3,9})", re.DOTALL)


class AnnotationError(EngineError):
    """Raised for annotations that cannot be meant: one sentence names file and remedy."""


@dataclass(frozen=True, slots=True)
class Polygon:
    """An area with a label; a ring that lies wholly inside another one is a hole in it."""

    label: str
    rings: tuple[NDArray[float64], ...]
    """Each (points, 2): x and y in pixels of the picture; closed by itself."""


@dataclass(frozen=True, slots=True)
class Bitmap:
    """An area painted pixel by pixel."""

    label: str
    left: int
    top: int
    mask: NDArray[bool_]
    """(rows, columns), its first pixel at (top, left) of the picture."""


Shape = Polygon | Bitmap


class TiltName(NamedTuple):
    """Which tilt a picture shows."""

    stem: str
    """Tilt file without its extension."""
    section: int
    """From 0, as ZValue; 0 for a single image or a movie."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One picture and what was drawn on it; nothing drawn means that somebody saw no ice."""

    name: str
    width_px: int
    height_px: int
    shapes: tuple[Shape, ...] = ()

    @property
    def tilt(self) -> TiltName:
        """The tilt that it shows; raises AnnotationError."""
        return tilt_of(self.name)


@dataclass(frozen=True, slots=True)
class Annotations:
    """All pictures of an export."""

    source: Path
    labels: tuple[str, ...]
    """Every label that could be chosen, used or not."""
    images: tuple[AnnotatedImage, ...]


def tilt_of(name: str) -> TiltName:
    """Read the tilt from the name of a picture, `<stem>_<section:03d>.png`.

    Raises AnnotationError for other names.
    """
    stem = PurePosixPath(name.replace("\\", "/")).stem
    match = _NAME.fullmatch(stem)
    if match is None:
        raise AnnotationError(
            f"'{name}' does not tell its tilt; name pictures <tilt file>_<section>.png, as "
            "TS_001_000.png."
        )
    return TiltName(match["stem"], int(match["section"]))
