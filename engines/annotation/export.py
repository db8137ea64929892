"""Finds and reads the annotation file of an export."""

from __future__ import annotations

from pathlib import Path

from engines.annotation.coco import read_coco
from engines.annotation.cvat_images import read_cvat_images
from engines.annotation.model import AnnotationError, Annotations

COCO = Path("annotations/instances_default.json")
CVAT_IMAGES = Path("annotations.xml")


def read_export(path: Path) -> Annotations:
    """Read an export: its folder, or its annotation file (COCO 1.0 or CVAT for images 1.1).

    Other files are ignored. Raises AnnotationError where there is no annotation file or more than
    one, and where it is not what its name says.
    """
    if path.is_dir():
        there = [path / name for name in (COCO, CVAT_IMAGES) if (path / name).is_file()]
        if not there:
            raise AnnotationError(
                f"'{path}' holds neither {COCO} nor {CVAT_IMAGES}; name an export of CVAT "
                "(COCO 1.0 or CVAT for images 1.1)."
            )
        if len(there) > 1:
            raise AnnotationError(f"'{path}' holds both {COCO} and {CVAT_IMAGES}; name one.")
        path = there[0]
    readers = {".json": read_coco, ".xml": read_cvat_images}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        hint = "unpack it first" if path.suffix.lower() == ".zip" else "name an export of CVAT"
        raise AnnotationError(f"'{path}' is neither a folder nor a JSON or XML file; {hint}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"'{path}' cannot be read: {error.strerror}.") from error
    found = reader(path, content)
    _refuse_twice(found)
    return found


def _refuse_twice(found: Annotations) -> None:
    seen: set[str] = set()
    for image in found.images:
        if image.name in seen:
            raise AnnotationError(
                f"'{found.source}' lists the picture '{image.name}' twice; merge its annotations."
            )
        seen.add(image.name)
