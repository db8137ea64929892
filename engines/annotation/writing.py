"""Writes annotations as CVAT reads them: COCO 1.0 and CVAT for images 1.1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy import bool_, float64
from numpy.typing import NDArray

from engines.annotation.labels import LABELS
from engines.annotation.model import AnnotatedImage, Annotations, Bitmap, Shape
from engines.annotation.outlines import area_px

_DECIMALS = 2
"""As CVAT itself writes coordinates."""
_COLORS = {one.name: one.color for one in LABELS}


def run_lengths(line: NDArray[bool_]) -> list[int]:
    """Give the run lengths of a line of pixels, beginning with what is not marked."""
    edges = np.flatnonzero(np.diff(line.astype(np.int8))) + 1
    bounds = np.concatenate([[0], edges, [line.size]])
    lengths = [int(one) for one in np.diff(bounds)]
    return [0, *lengths] if line.size and line[0] else lengths


def as_coco(annotations: Annotations) -> bytes:
    """Write `instances_default.json` (https://docs.cvat.ai/docs/manual/advanced/formats/)."""
    numbers = {label: number for number, label in enumerate(annotations.labels, 1)}
    drawn = [
        (number, shape)
        for number, image in enumerate(annotations.images, 1)
        for shape in image.shapes
    ]
    content = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": dict.fromkeys(
            ("contributor", "date_created", "description", "url", "version", "year"), ""
        ),
        "categories": [
            {"id": number, "name": label, "supercategory": ""} for label, number in numbers.items()
        ],
        "images": [_coco_image(*one) for one in enumerate(annotations.images, 1)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": numbers[shape.label],
                **_coco_area(shape, annotations.images[image - 1]),
                "attributes": {"occluded": False},
            }
            for number, (image, shape) in enumerate(drawn, 1)
        ],
    }
    return json.dumps(content).encode()


def _coco_image(number: int, image: AnnotatedImage) -> dict[str, Any]:
    return {
        "id": number,
        "width": image.width_px,
        "height": image.height_px,
        "file_name": image.name,
        "license": 0,
        "flickr_url": "",
        "coco_url": "",
        "date_captured": 0,
    }


def _coco_area(shape: Shape, image: AnnotatedImage) -> dict[str, Any]:
    if isinstance(shape, Bitmap):
        whole = np.zeros((image.height_px, image.width_px), bool)
        rows, columns = shape.mask.shape
        whole[shape.top : shape.top + rows, shape.left : shape.left + columns] = shape.mask
        counts = run_lengths(whole.T.ravel())
        return {
            "segmentation": {"counts": counts, "size": list(whole.shape)},
            "area": int(shape.mask.sum()),
            "bbox": [shape.left, shape.top, columns, rows],
            "iscrowd": 1,
        }
    points = np.concatenate(shape.rings)
    corner, opposite = points.min(axis=0), points.max(axis=0)
    return {
        "segmentation": [_rounded(ring).ravel().tolist() for ring in shape.rings],
        "area": round(max(area_px(ring) for ring in shape.rings), _DECIMALS),
        "bbox": _rounded(np.concatenate([corner, opposite - corner])).tolist(),
        "iscrowd": 0,
    }


def as_cvat_images(annotations: Annotations) -> bytes:
    """Write `annotations.xml` (https://docs.cvat.ai/docs/manual/advanced/xml_format/)."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    ElementTree.SubElement(task, "size").text = str(len(annotations.images))
    ElementTree.SubElement(task, "mode").text = "annotation"
    labels = ElementTree.SubElement(task, "labels")
    for name in annotations.labels:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "color").text = _COLORS.get(name, "#ffffff")
        ElementTree.SubElement(label, "type").text = "any"
        ElementTree.SubElement(label, "attributes")
    for number, image in enumerate(annotations.images):
        size = {"width": str(image.width_px), "height": str(image.height_px)}
        facts = {"id": str(number), "name": image.name, **size}
        element = ElementTree.SubElement(root, "image", facts)
        for group, shape in enumerate(image.shapes, 1):
            _cvat_shape(element, shape, group)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True))


def _cvat_shape(image: ElementTree.Element, shape: Shape, group: int) -> None:
    facts = {"label": shape.label, "source": "auto", "occluded": "0"}
    if isinstance(shape, Bitmap):
        rows, columns = shape.mask.shape
        frame = {"left": shape.left, "top": shape.top, "width": columns, "height": rows}
        facts["rle"] = ", ".join(str(one) for one in run_lengths(shape.mask.ravel()))
        facts |= {name: str(value) for name, value in frame.items()}
        ElementTree.SubElement(image, "mask", {**facts, "z_order": "0"})
        return
    for ring in shape.rings:
        pairs = (f"{x:.{_DECIMALS}f},{y:.{_DECIMALS}f}" for x, y in ring)
        more = {"points": ";".join(pairs), "z_order": "0"}
        if len(shape.rings) > 1:  # a hole is known by its group
            more["group_id"] = str(group)
        ElementTree.SubElement(image, "polygon", {**facts, **more})


def _rounded(values: NDArray[float64]) -> NDArray[float64]:
    return np.round(values, _DECIMALS)


def as_labels(labels: Sequence[str]) -> bytes:
    """Write labels as the Raw tab of CVAT's label constructor takes them."""
    content = [
        {"name": name, "color": _COLORS.get(name, "#ffffff"), "type": "any", "attributes": []}
        for name in labels
    ]
    return (json.dumps(content, indent=1) + "\n").encode()
