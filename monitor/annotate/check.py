"""`icewatch annotate import`: what came back from CVAT, checked before a network learns from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy import uint8
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from engines.annotation import (
    AnnotatedImage,
    AnnotationError,
    Annotations,
    Bitmap,
    Meanings,
    Opened,
    check_aspect,
    findings_of,
    meanings_in,
    opened_export,
    picture_of,
    rasterise,
    read_opened,
    refuse_unknown,
)
from engines.annotation.findings import FINEST_PX
from engines.annotation.model import TiltName
from engines.annotation.picture import picture_shape
from engines.annotation.preview import jpeg_of, preview_of
from engines.errors import EngineError
from monitor.annotate.magnification import differ
from monitor.annotate.matching import LabelledTilt, tilts_named
from monitor.annotate.places import refuse_below_tilts
from monitor.errors import ConfigError, MonitorError
from monitor.score_files import refuse_missing
from monitor.screen import console, plain
from monitor.writable import refuse_unwritable


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    export: Path
    tilts: tuple[Path, ...] = ()
    preview: Path | None = None
    ice_labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    image: AnnotatedImage
    ice_percent: float
    """Of what is not left out of the picture."""
    left_out_percent: float
    notes: tuple[str, ...]


def check(request: Request) -> int:
    """Check an export, print a row for each picture and draw previews; returns 0.

    Raises `ConfigError` for an export that no network may learn from, `MonitorError` where a
    preview cannot be written.
    """
    for path in (request.export, *request.tilts):
        refuse_missing(path)
    if request.preview is not None:
        refuse_below_tilts("--preview", request.preview, request.tilts)
    try:
        with opened_export(request.export) as opened:
            annotations = read_opened(opened)
            meanings = meanings_in(annotations, request.ice_labels)
            names = _names(annotations)
            refuse_unknown(annotations, meanings)
            _check_pictures(opened, annotations)
            found = tilts_named(request.tilts, names) if request.tilts else {}
            rows = [_row(image, meanings, found, bool(request.tilts)) for image in names.values()]
            _refuse_useless(annotations, rows, found, bool(request.tilts))
            previews = _Previews(opened, meanings, found)
            drawn = previews.write(request.preview, rows) if request.preview else 0
    except AnnotationError as error:
        raise ConfigError(str(error)) from error
    except EngineError as error:
        raise MonitorError(str(error)) from error
    _say(request, annotations, meanings, rows, drawn)
    return 0


def _names(annotations: Annotations) -> dict[TiltName, AnnotatedImage]:
    """Tell the pictures by their tilts; raises AnnotationError where one has two."""
    if not annotations.images:
        raise AnnotationError(f"'{annotations.source}' lists no picture; export labelled tilts.")
    found: dict[TiltName, AnnotatedImage] = {}
    for image in annotations.images:
        if image.tilt in found:
            raise AnnotationError(
                f"'{annotations.source}' holds two pictures of {image.tilt.stem}, section "
                f"{image.tilt.section}; delete one in CVAT."
            )
        found[image.tilt] = image
    return found


def _check_pictures(opened: Opened, annotations: Annotations) -> None:
    """Raise AnnotationError where a picture of the export is not as large as it says."""
    for image in annotations.images:
        path = picture_path(opened, image.name)
        if path is None:
            continue
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise AnnotationError(
                f"'{opened.shown(path)}' cannot be read as a picture; export it again, or without "
                "the pictures."
            )
        rows, columns = picture.shape
        if (columns, rows) != (image.width_px, image.height_px):
            raise AnnotationError(
                f"'{opened.shown(path)}' has {columns} x {rows} pixels, its annotations are for "
                f"{image.width_px} x {image.height_px}; put the picture back that was annotated."
            )


def picture_path(opened: Opened, name: str) -> Path | None:
    """Find a picture of an export, wherever CVAT put it below `images`; None where it is not."""
    if not opened.path.is_dir():
        return None
    folder = opened.path / "images"
    base = name.replace("\\", "/")
    places = [folder / base, folder / Path(base).name, folder / "default" / Path(base).name]
    inside = (one for one in places if one.resolve().is_relative_to(folder.resolve()))
    return next((one for one in inside if one.is_file()), None)


def _row(
    image: AnnotatedImage,
    meanings: Meanings,
    found: dict[TiltName, LabelledTilt],
    compared: bool,
) -> _Row:
    notes = findings_of(image, meanings)
    tilt = found.get(image.tilt)
    if tilt is not None:
        check_aspect(image, tilt.shape)
        if tilt.pixel_size_angstrom is None:
            notes.append("pixel size unknown")
    elif compared:
        notes.append("no tilt of this name was given: left out")
    shape = picture_shape((image.height_px, image.width_px), FINEST_PX)
    ice = rasterise(image, shape, meanings.ice)
    left_out = rasterise(image, shape, meanings.ignore)
    left_out |= ice & rasterise(image, shape, meanings.not_ice)
    ice &= ~left_out
    told = max(1, int((~left_out).sum()))
    if not image.shapes:
        notes.append("nothing drawn: says there is no ice")
    elif left_out.all():
        notes.append("all of it is left out: says nothing")
    return _Row(image, 100.0 * ice.sum() / told, 100.0 * left_out.mean(), tuple(notes))


def _refuse_useless(
    annotations: Annotations,
    rows: Sequence[_Row],
    found: dict[TiltName, LabelledTilt],
    compared: bool,
) -> None:
    """Raise AnnotationError for a set that nothing can be learned from."""
    if not any(row.ice_percent > 0.0 for row in rows):
        count = len(rows)
        raise AnnotationError(
            f"'{annotations.source}' has no ice on any of its {count} pictures; label ice on at "
            "least one, a network cannot learn from clean tilts alone."
        )
    if compared and not found:
        raise AnnotationError(
            f"None of the {len(rows)} pictures of '{annotations.source}' is of a tilt that was "
            f"given (the first: '{rows[0].image.name}'); name the folder of these tilts by --tilts."
        )
    known = (one.pixel_size_angstrom for one in found.values())
    sizes = Counter(round(one, 3) for one in known if one)
    if differ(sizes):
        listed = ", ".join(f"{count} of {size:g} Å" for size, count in sorted(sizes.items())[:4])
        raise AnnotationError(
            f"The tilts of '{annotations.source}' have different pixel sizes ({listed}); label "
            "tilts of one magnification at a time, and export each by itself."
        )


class _Previews:
    """Draws annotations over the pictures of the export, or over the tilts themselves."""

    def __init__(
        self, opened: Opened, meanings: Meanings, found: dict[TiltName, LabelledTilt]
    ) -> None:
        self._opened = opened
        self._meanings = meanings
        self._found = found

    def write(self, folder: Path, rows: Sequence[_Row]) -> int:
        """Write a picture for each row that there is one for; returns how many."""
        refuse_unwritable("--preview", folder)
        count = 0
        for row in rows:
            picture = self._picture(row.image)
            if picture is None:
                continue
            target = folder / Path(row.image.name.replace("\\", "/")).with_suffix(".jpg").name
            try:
                target.write_bytes(jpeg_of(preview_of(picture, row.image, self._meanings)))
            except OSError as error:
                raise MonitorError(f"'{target}' cannot be written: {error.strerror}") from error
            count += 1
        if not count:
            raise ConfigError(
                f"--preview {folder}: the export holds no pictures to draw on; name the tilts with "
                "--tilts, or export from CVAT with 'Save images'"
            )
        return count

    def _picture(self, image: AnnotatedImage) -> NDArray[uint8] | None:
        path = picture_path(self._opened, image.name)
        if path is not None:
            return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), uint8)
        tilt = self._found.get(image.tilt)
        return None if tilt is None else picture_of(tilt.read())


def _say(
    request: Request,
    annotations: Annotations,
    meanings: Meanings,
    rows: Sequence[_Row],
    drawn: int,
) -> None:
    screen = console()
    table = Table(box=None, pad_edge=False)
    for heading in ("picture", "size", "ice", "left out", "areas", "labels", "notes"):
        right = heading in ("size", "ice", "left out", "areas")
        table.add_column(heading, justify="right" if right else "left")
    for row in rows:
        image = row.image
        counts = Counter(one.label for one in image.shapes)
        masks = sum(isinstance(one, Bitmap) for one in image.shapes)
        table.add_row(
            Text(plain(image.name)),
            f"{image.width_px} x {image.height_px}",
            f"{row.ice_percent:.1f} %",
            f"{row.left_out_percent:.1f} %" if row.left_out_percent else "-",
            f"{len(image.shapes)}" + (f" ({masks} painted)" if masks else ""),
            Text(plain(", ".join(f"{label} {count}" for label, count in counts.items()) or "-")),
            Text(plain("; ".join(row.notes))),
        )
    screen.print(table)
    with_ice = sum(row.ice_percent > 0.0 for row in rows)
    ice = ", ".join(sorted(meanings.ice))
    noun = "picture" if len(rows) == 1 else "pictures"
    screen.print(
        f"\n{len(rows)} {noun}, {with_ice} with ice (percent of the picture; labels that mean "
        f"ice: {plain(ice)}).",
        markup=False,
        soft_wrap=True,
    )
    if drawn:
        screen.print(
            f"Previews are in {request.preview}: look at them before a network learns from this.",
            markup=False,
            soft_wrap=True,
        )
