"""Annotations as CVAT exports them, made from a few shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

Ring = Sequence[tuple[float, float]]
Drawn = Mapping[str, Sequence[tuple[str, Ring]]]
"""Pictures by name: label and outline of each polygon."""


def run_lengths(line: NDArray[np.bool_]) -> list[int]:
    """Run lengths of a line of pixels, beginning with what is not marked."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(int)))
    return [int(one) for one in np.diff(np.concatenate([[0], edges, [line.size]]))]


def compressed(counts: Sequence[int]) -> str:
    """Text form of run lengths as the COCO API writes it (rleToString)."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 if more else bits) + 48)
    return text


def write_coco(
    folder: Path, size: tuple[int, int], drawn: Drawn, labels: Sequence[str] = ("ice",)
) -> Path:
    """Write an export in COCO 1.0; `size` is width and height of every picture."""
    numbers = {label: number for number, label in enumerate(labels, 1)}
    annotations = [
        {
            "id": 1,
            "image_id": image,
            "category_id": numbers[label],
            "segmentation": [[value for point in ring for value in point]],
            "iscrowd": 0,
        }
        for image, shapes in enumerate(drawn.values())
        for label, ring in shapes
    ]
    content = {
        "images": [
            {"id": number, "file_name": name, "width": size[0], "height": size[1]}
            for number, name in enumerate(drawn)
        ],
        "categories": [{"id": number, "name": label} for label, number in numbers.items()],
        "annotations": annotations,
    }
    path = folder / "annotations" / "instances_default.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return folder


def write_cvat(
    folder: Path, size: tuple[int, int], drawn: Drawn, labels: Sequence[str] = ("ice",)
) -> Path:
    """Write an export in the format CVAT for images 1.1."""
    names = "".join(f"<label><name>{label}</name></label>" for label in labels)
    lines = [f"<annotations><meta><task><labels>{names}</labels></task></meta>"]
    for number, (name, shapes) in enumerate(drawn.items()):
        lines.append(
            f'<image id="{number}" name={quoteattr(name)} width="{size[0]}" height="{size[1]}">'
        )
        for label, ring in shapes:
            points = ";".join(f"{x},{y}" for x, y in ring)
            lines.append(f'<polygon label="{label}" points="{points}" z_order="0"/>')
        lines.append("</image>")
    folder.mkdir(parents=True)
    (folder / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))
    return folder
