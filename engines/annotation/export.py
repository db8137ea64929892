"""Finds and reads the annotation file of an export."""

from __future__ import annotations

from pathlib import Path

from engines.annotation.archive import Opened, opened_export
from engines.annotation.coco import read_coco
from engines.annotation.cvat_images import read_cvat_images
from engines.annotation.model import AnnotationError, Annotations

COCO = Path("annotations/instances_default.json")
CVAT_IMAGES = Path("annotations.xml")
_LARGEST_PICTURE_PX = 1 << 28


def read_export(path: Path) -> Annotations:
    """Read an export: its folder, its ZIP file, or its annotation file (COCO 1.0 or CVAT 1.1).

    Other files are ignored. Raises AnnotationError where there is no annotation file or more than
    one, and where it is not what its name says.
    """
    with opened_export(path) as opened:
        return read_opened(opened)


def read_opened(opened: Opened) -> Annotations:
    """Read an export that was opened; raises as `read_export`."""
    file = _annotation_file(opened) if opened.path.is_dir() else opened.path
    readers = {".json": read_coco, ".xml": read_cvat_images}
    reader = readers.get(file.suffix.lower())
    shown = opened.shown(file)
    if reader is None:
        raise AnnotationError(
            f"'{shown}' is neither a folder nor a ZIP, JSON or XML file; name an export of CVAT."
        )
    try:
        content = file.read_bytes()
    except OSError as error:
        raise AnnotationError(f"'{shown}' cannot be read: {error.strerror}.") from error
    if not content.strip():
        raise AnnotationError(f"'{shown}' is empty; export it again.")
    found = reader(shown, content)
    _refuse_twice(found)
    _refuse_huge(found)
    return found


def _annotation_file(opened: Opened) -> Path:
    """Find the annotation file; COCO 1.0 is named for the subset of the task, `default` of none."""
    there = [opened.path / name for name in (COCO, CVAT_IMAGES) if (opened.path / name).is_file()]
    there = there or sorted((opened.path / COCO.parent).glob("instances_*.json"))
    if not there:
        raise AnnotationError(
            f"'{opened.named}' holds neither {COCO} nor {CVAT_IMAGES}; name an export of CVAT "
            "(COCO 1.0 or CVAT for images 1.1)."
        )
    if len(there) > 1:
        names = " and ".join(str(file.relative_to(opened.path)) for file in there[:2])
        raise AnnotationError(f"'{opened.named}' holds both {names}; name one.")
    return there[0]


def _refuse_twice(found: Annotations) -> None:
    seen: set[str] = set()
    for image in found.images:
        if image.name in seen:
            raise AnnotationError(
                f"'{found.source}' lists the picture '{image.name}' twice; merge its annotations."
            )
        seen.add(image.name)


def _refuse_huge(found: Annotations) -> None:
    for image in found.images:
        if image.width_px * image.height_px > _LARGEST_PICTURE_PX:
            raise AnnotationError(
                f"'{found.source}' says that '{image.name}' has {image.width_px} x "
                f"{image.height_px} pixels, more than any camera; export it again."
            )
