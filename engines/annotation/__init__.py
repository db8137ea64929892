"""Annotations that people drew: exports of CVAT (COCO 1.0, CVAT for images 1.1), and masks."""

from engines.annotation.archive import Opened, opened_export
from engines.annotation.export import read_export, read_opened
from engines.annotation.findings import findings_of
from engines.annotation.labels import LABELS, Meaning, Meanings, meanings_in, refuse_unknown
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
from engines.annotation.outlines import outlines_of
from engines.annotation.picture import picture_of, png_of
from engines.annotation.raster import check_aspect, rasterise
from engines.annotation.truth import (
    Matches,
    TiltTruth,
    choose_ice_labels,
    truths_of_export,
    truths_of_masks,
)
from engines.annotation.writing import as_coco, as_cvat_images, as_labels

__all__ = [
    "LABELS",
    "AnnotatedImage",
    "AnnotationError",
    "Annotations",
    "Bitmap",
    "Matches",
    "Meaning",
    "Meanings",
    "Opened",
    "Polygon",
    "Shape",
    "TiltName",
    "TiltTruth",
    "as_coco",
    "as_cvat_images",
    "as_labels",
    "check_aspect",
    "choose_ice_labels",
    "findings_of",
    "meanings_in",
    "opened_export",
    "outlines_of",
    "picture_of",
    "png_of",
    "rasterise",
    "read_export",
    "read_opened",
    "refuse_unknown",
    "tilt_of",
    "truths_of_export",
    "truths_of_masks",
]
