"""Annotations that people drew: exports of CVAT (COCO 1.0, CVAT for images 1.1), and masks."""

from engines.annotation.export import read_export
from engines.annotation.model import (
    AnnotatedImage,
    AnnotationError,
    Annotations,
    Bitmap,
    Polygon,
    Shape,
    TiltName,
    tilt_of,
)
from engines.annotation.raster import check_aspect, rasterise
from engines.annotation.truth import (
    Matches,
    TiltTruth,
    choose_ice_labels,
    truths_of_export,
    truths_of_masks,
)

__all__ = [
    "AnnotatedImage",
    "AnnotationError",
    "Annotations",
    "Bitmap",
    "Matches",
    "Polygon",
    "Shape",
    "TiltName",
    "TiltTruth",
    "check_aspect",
    "choose_ice_labels",
    "rasterise",
    "read_export",
    "tilt_of",
    "truths_of_export",
    "truths_of_masks",
]
