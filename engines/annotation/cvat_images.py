"""Reads CVAT for images 1.1 (https://docs.cvat.ai/docs/manual/advanced/xml_format/)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy import float64
from numpy.typing import NDArray

from engines.annotation.coco import LARGEST_SIDE_PX, decoded
from engines.annotation.model import (
    AnnotatedImage,
    AnnotationError,
    Annotations,
    Bitmap,
    Polygon,
    Shape,
)

_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton")
_ELLIPSE_POINTS = 72


def read_cvat_images(path: Path, content: bytes) -> Annotations:
    """Read the content of `annotations.xml`; raises AnnotationError."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise AnnotationError(f"'{path}' declares entities, as no export does; export it again.")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise AnnotationError(f"'{path}' is not XML ({error}); export it again.") from error
    if root.tag != "annotations" or root.find("track") is not None:
        raise AnnotationError(
            f"'{path}' is not in the format CVAT for images 1.1; choose that format or COCO 1.0."
        )
    images = tuple(_image(path, element) for element in root.iterfind("image"))
    named = [(name.text or "").strip() for name in root.iterfind("./meta//labels/label/name")]
    used = [shape.label for image in images for shape in image.shapes]
    return Annotations(path, tuple(dict.fromkeys(named + used)), images)


def _image(path: Path, element: ElementTree.Element) -> AnnotatedImage:
    name = element.get("name", "")
    try:
        width, height = int(element.attrib["width"]), int(element.attrib["height"])
        if not (1 <= width <= LARGEST_SIDE_PX and 1 <= height <= LARGEST_SIDE_PX):
            raise ValueError(f"a picture of {width} x {height} pixels")
        drawn = [child for child in element if child.tag != "tag"]
        shapes = [_shape(child.tag, child.attrib) for child in drawn]
    except KeyError as error:
        raise AnnotationError(
            f"'{path}': the picture '{name}' or a shape on it has no {error}; export it again."
        ) from error
    except ValueError as error:
        raise AnnotationError(f"'{path}': picture '{name}': {error}; correct it.") from error
    groups = [child.get("group_id", "0") for child in drawn]
    return AnnotatedImage(name, width, height, tuple(_grouped(shapes, groups)))


def _grouped(shapes: list[Shape], groups: list[str]) -> list[Shape]:
    """Put the polygons of a group together that have one label: some may be holes in others.

    So does CVAT itself where it writes COCO 1.0.
    """
    found: list[Shape] = []
    at: dict[tuple[str, str], int] = {}
    for shape, group in zip(shapes, groups, strict=True):
        key = (shape.label, group)
        if not isinstance(shape, Polygon) or group in ("", "0"):
            found.append(shape)
        elif key in at:
            before = found[at[key]]
            found[at[key]] = Polygon(shape.label, (*getattr(before, "rings", ()), *shape.rings))
        else:
            at[key] = len(found)
            found.append(shape)
    return found


def _shape(kind: str, given: Mapping[str, str]) -> Shape:
    """Turn an element into an area; raises KeyError and ValueError."""
    label = given["label"]
    if kind == "polygon":
        ring = _points(given["points"])
    elif kind == "box":
        left, top, right, bottom = (_number(given[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        ring = _turned(corners, given)
    elif kind == "ellipse":
        cx, cy, rx, ry = (_number(given[key]) for key in ("cx", "cy", "rx", "ry"))
        turn = np.linspace(0.0, 2.0 * math.pi, _ELLIPSE_POINTS, endpoint=False)
        ring = _turned(np.stack([cx + rx * np.cos(turn), cy + ry * np.sin(turn)], axis=1), given)
    elif kind == "mask":
        return _mask(label, given)
    elif kind in _WITHOUT_AREA:
        raise ValueError(f"a {kind} has no area, draw polygons or masks")
    else:
        raise ValueError(f"'{kind}' is no shape that is known")
    return Polygon(label, (ring,))


def _points(text: str) -> NDArray[float64]:
    points = [[_number(value) for value in pair.split(",")] for pair in text.split(";")]
    if len(points) < 3 or any(len(point) != 2 for point in points):
        raise ValueError("a polygon has not three points of x,y")
    return np.array(points, float64)


def _turned(ring: NDArray[float64], given: Mapping[str, str]) -> NDArray[float64]:
    """Turn about the centre by the `rotation` in degrees, clockwise as seen."""
    turn = math.radians(_number(given.get("rotation", "0")))
    centre = (ring.min(axis=0) + ring.max(axis=0)) / 2.0
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return np.asarray((ring - centre) @ rotation + centre)


def _mask(label: str, given: Mapping[str, str]) -> Bitmap:
    """Decode a mask: run lengths along the rows of its frame, beginning with what is not marked."""
    frame = ("left", "top", "width", "height")
    left, top, width, height = (round(_number(given[key])) for key in frame)
    if min(left, top) < 0 or not (1 <= width and 1 <= height):
        raise ValueError("the frame of a mask lies outside the picture")
    counts = [int(count) for count in given["rle"].split(",")]
    try:
        mask = decoded(counts, width, height).T
    except ValueError as error:
        raise ValueError(f"a mask {error}") from error
    return Bitmap(label, left, top, mask)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no coordinate")
    return value
