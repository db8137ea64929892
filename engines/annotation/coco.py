"""Reads COCO 1.0: polygons, and masks as run lengths (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from numpy import bool_, int64
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.annotation.model import (
    AnnotatedImage,
    AnnotationError,
    Annotations,
    Bitmap,
    Polygon,
    Shape,
)

LARGEST_SIDE_PX = 65536
_LARGEST_MASK_PX = 1 << 28

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE_PX)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Image(_Record):
    id: int
    width: Side
    height: Side
    file_name: str


class _Category(_Record):
    id: int
    name: str


class _RunLengths(_Record):
    counts: list[int] | str
    size: tuple[Side, Side]
    """Rows, columns."""


class _Annotation(_Record):
    id: int = 0
    image_id: int
    category_id: int
    segmentation: list[list[float]] | _RunLengths = []
    bbox: tuple[float, float, float, float] | None = None
    """x, y, width, height."""


class _File(_Record):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def read_coco(path: Path, content: bytes) -> Annotations:
    """Read the content of `instances_default.json`; raises AnnotationError."""
    try:
        file = _File.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise AnnotationError(
            f"'{path}' is not COCO 1.0: {where}: {first['msg']}; export it again."
        ) from error
    labels = {one.id: one.name for one in file.categories}
    shapes: dict[int, list[Shape]] = {one.id: [] for one in file.images}
    for one in file.annotations:
        if one.image_id not in shapes or one.category_id not in labels:
            raise AnnotationError(
                f"'{path}': annotation {one.id} belongs to a picture or a label that the file does "
                "not list; export it again."
            )
        shape = _shape(path, one, labels[one.category_id])
        if shape is not None:
            shapes[one.image_id].append(shape)
    images = (
        AnnotatedImage(i.file_name, i.width, i.height, tuple(shapes[i.id])) for i in file.images
    )
    return Annotations(path, tuple(labels.values()), tuple(images))


def _shape(path: Path, one: _Annotation, label: str) -> Shape | None:
    """Turn an annotation into an area; None of a box without extent."""
    if isinstance(one.segmentation, _RunLengths):
        rows, columns = one.segmentation.size
        try:
            return Bitmap(label, 0, 0, decoded(one.segmentation.counts, rows, columns))
        except ValueError as error:
            raise AnnotationError(
                f"'{path}': the mask of annotation {one.id} {error}; export it again."
            ) from error
    rings = [ring for ring in one.segmentation if ring]
    if not rings and one.bbox is not None:
        x, y, width, height = one.bbox
        rings = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    if any(len(ring) < 6 or len(ring) % 2 for ring in rings):
        raise AnnotationError(
            f"'{path}': annotation {one.id} has a polygon without three points; draw it again."
        )
    points = tuple(np.array(ring, float).reshape(-1, 2) for ring in rings)
    return Polygon(label, points) if points else None


def decoded(counts: list[int] | str, rows: int, columns: int) -> NDArray[bool_]:
    """Decode run lengths, which go down the columns and begin with what is not marked.

    Returns (rows, columns); raises ValueError where they do not fill the mask exactly.
    """
    lengths = np.array(_decompressed(counts) if isinstance(counts, str) else counts, int64)
    if rows * columns > _LARGEST_MASK_PX:
        raise ValueError("is larger than any picture")
    if (lengths < 0).any() or lengths.sum() != rows * columns:
        raise ValueError(f"does not fill {columns} x {rows} pixels")
    marked = np.arange(len(lengths)) % 2 == 1
    return np.asarray(np.repeat(marked, lengths).reshape(columns, rows).T)


def _decompressed(text: str) -> list[int]:
    """Decode the text form of run lengths (rleFrString of the COCO API, maskApi.c).

    Five bits in each character, the sixth says that more follow; from the third on, numbers are
    differences to the one before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii", "replace"):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("is not written as run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("is cut")
    return counts
