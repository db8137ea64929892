"""Real pictures for `icewatch evaluate pictures`: folders of files, each with its label."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import PixelsError
from monitor.errors import ConfigError, SourceError
from monitor.model import Tilt
from monitor.readings import missing_of
from monitor.score_files import EXTENSIONS, FileToScore, landed, refuse_missing
from monitor.sources import Source, tilts_on_disk

if TYPE_CHECKING:
    from engines.learning.evaluation_pictures import Picture

PNG = ".png"
_MASK_ENDING = "mask.mrc"
"""Masks of icewatch and of other programs that lie beside pictures."""


def list_pictures(given: str) -> list[Picture]:
    """List the pictures of a folder, given as DIR or DIR=ANGSTROM, with labels and outlines.

    Raises ConfigError for a folder that is not there, holds no picture, or has a size that cannot
    be meant; EvaluationError for labels that do not fit.
    """
    from engines.learning.evaluation_labels import read_grains, read_labels

    folder, size = split_size(given)
    refuse_missing(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; name the folder that the pictures lie in")
    found: list[Picture] = []
    paths = [path for path in sorted(folder.iterdir()) if _is_picture(path)]
    labels = read_labels(folder, {path.name for path in paths})
    grains = read_grains(folder)
    for path in paths:
        label, outlined = labels.get(path.name, ""), grains.get(path.name, ())
        found += _pictures_of(path, size, label, outlined)
    if not found:
        known = ", ".join((*EXTENSIONS, PNG))
        raise ConfigError(f"{folder}: holds no picture that can be read ({known})")
    return found


def split_size(given: str) -> tuple[Path, float | None]:
    """Split DIR=ANGSTROM; a folder may have an equals sign in its own name."""
    name, equals, text = given.rpartition("=")
    if not equals or Path(given).is_dir():
        return Path(given), None
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0.0 < size < 1e4:
        raise ConfigError(f"{given}: '{text}' is no pixel size in angstrom; write DIR=7.8")
    return Path(name), size


def _is_picture(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith((*EXTENSIONS, PNG)) and not name.endswith(_MASK_ENDING) and path.is_file()


def _pictures_of(path: Path, size: float | None, label: str, grains: Any) -> list[Picture]:
    """List the pictures of a file: one, or the sections of a stack.

    What cannot be opened is a picture too, whose `read` says why.
    """
    from engines.learning.evaluation_pictures import Picture

    if path.name.lower().endswith(PNG):
        return [
            Picture(path.name, size, partial(_read_png, path), label, grains, rows_run_up=False)
        ]
    try:
        tilts = list(tilts_on_disk(path.parent, landed(FileToScore(path.parent, path, ""))))
    except (SourceError, OSError) as error:
        return [Picture(path.name, size, partial(_refuse, str(error)), label, grains)]
    return [
        Picture(
            path.name if len(tilts) == 1 else f"{path.name} [{tilt.section}]",
            size or tilt.pixel_size_angstrom,
            partial(_read, source, tilt),
            label,
            grains,
            missing_of(tilt),
        )
        for tilt, source in tilts
    ]


def _read(source: Source, tilt: Tilt) -> NDArray[Any]:
    try:
        return source.pixels(tilt)
    except SourceError as error:
        raise PixelsError(str(error), error.reason) from error


def _refuse(sentence: str) -> NoReturn:
    raise PixelsError(sentence, "unreadable")


def _read_png(path: Path) -> NDArray[Any]:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 2:
        raise PixelsError("is no PNG of one channel; save it in grey", "mode")
    return np.asarray(picture)
