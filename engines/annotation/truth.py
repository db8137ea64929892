"""Which annotation belongs to which tilt, and what it says at the size of an ice map."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy import bool_, float32
from numpy.typing import NDArray

from engines.annotation.export import read_export
from engines.annotation.labels import Meanings, meanings_in
from engines.annotation.masks import Masks, find_masks, read_mask
from engines.annotation.model import AnnotatedImage, AnnotationError, Annotations, TiltName
from engines.annotation.raster import MAX_ASPECT_ERROR, check_aspect, rasterise


class TiltTruth(Protocol):
    """What is annotated on one tilt."""

    def at(self, shape: tuple[int, int], tilt_shape: tuple[int, int]) -> Masks:
        """Give ice, and where the tilt is valid (None: not told), at (rows, columns).

        `tilt_shape` is that of the tilt. Raises AnnotationError where it does not fit.
        """
        ...

    def left_out(self, shape: tuple[int, int]) -> NDArray[bool_] | None:
        """Give what says nothing, neither ice nor none, at (rows, columns); None of nothing."""
        ...


@dataclass(frozen=True, slots=True)
class DrawnTruth:
    """Shapes on a picture of the tilt."""

    image: AnnotatedImage
    meanings: Meanings

    def at(self, shape: tuple[int, int], tilt_shape: tuple[int, int]) -> Masks:
        """Draw the shapes; what is left out is no ice."""
        check_aspect(self.image, tilt_shape)
        ice = rasterise(self.image, shape, self.meanings.ice)
        left_out = self.left_out(shape)
        return ice if left_out is None else ice & ~left_out, None

    def left_out(self, shape: tuple[int, int]) -> NDArray[bool_] | None:
        """Draw what is to be ignored, and what is labelled both ice and not ice."""
        drawn = {one.label for one in self.image.shapes}
        if not drawn & (self.meanings.ignore | self.meanings.not_ice):
            return None
        ice = rasterise(self.image, shape, self.meanings.ice)
        not_ice = rasterise(self.image, shape, self.meanings.not_ice)
        return rasterise(self.image, shape, self.meanings.ignore) | (ice & not_ice)


@dataclass(frozen=True, slots=True)
class MaskTruth:
    """A mask file."""

    path: Path

    def at(self, shape: tuple[int, int], tilt_shape: tuple[int, int]) -> Masks:
        """Read and scale the mask."""
        ice, valid = read_mask(self.path)
        rows, columns = ice.shape
        off = (columns / rows) / (tilt_shape[1] / tilt_shape[0])
        if abs(off - 1.0) > MAX_ASPECT_ERROR:
            raise AnnotationError(
                f"'{self.path}' ({columns} x {rows} pixels) has not the aspect ratio of its tilt "
                f"({tilt_shape[1]} x {tilt_shape[0]}); it must cover the whole field of view."
            )
        return _scaled(ice, shape), None if valid is None else _scaled(valid, shape)

    def left_out(self, shape: tuple[int, int]) -> NDArray[bool_] | None:
        """A mask leaves nothing out that it does not call not valid."""
        return None


def _scaled(mask: NDArray[bool_], shape: tuple[int, int]) -> NDArray[bool_]:
    """Scale a mask: where at least half of a pixel is marked."""
    if mask.shape == shape:
        return mask
    how = cv2.INTER_LINEAR if shape[0] > mask.shape[0] else cv2.INTER_AREA
    scaled = cv2.resize(mask.astype(float32), (shape[1], shape[0]), interpolation=how)
    return np.asarray(scaled >= 0.5)


class Matches:
    """Finds the annotation of a tilt: by folder, name and section, else by name and section."""

    def __init__(self, truths: Mapping[tuple[str, TiltName], TiltTruth]) -> None:
        self._truths = truths
        self._by_name: dict[TiltName, list[tuple[str, TiltName]]] = {}
        for key in truths:
            self._by_name.setdefault(key[1], []).append(key)
        self._taken: dict[tuple[str, TiltName], str] = {}

    def __len__(self) -> int:
        return len(self._truths)

    def find(self, folder: str, tilt: TiltName) -> TiltTruth | None:
        """Give the annotation of a tilt in a folder below the path that was named; None of none.

        Raises AnnotationError where two annotations or two tilts could be meant.
        """
        key = (folder, tilt)
        if key not in self._truths:
            alike = self._by_name.get(tilt, [])
            if not alike:
                return None
            if len(alike) > 1:
                raise AnnotationError(
                    f"Several annotations are named {tilt.stem}, section {tilt.section}; put them "
                    "into the folders that the tilts lie in."
                )
            key = alike[0]
        if self._taken.setdefault(key, folder) != folder:
            raise AnnotationError(
                f"Tilts of two folders are named {tilt.stem}, section {tilt.section}, and there is "
                "one annotation; evaluate the folders one by one."
            )
        return self._truths[key]

    @property
    def left(self) -> list[str]:
        """Names of the annotations that no tilt was found for."""
        keys = sorted(key for key in self._truths if key not in self._taken)
        return [f"{tilt.stem}_{tilt.section:04d}" for _, tilt in keys]


def truths_of_masks(directory: Path) -> Matches:
    """Find the masks below a folder; raises AnnotationError where there is none."""
    return Matches({key: MaskTruth(path) for key, path in find_masks(directory).items()})


def truths_of_export(path: Path, ice_labels: Sequence[str] = ()) -> Matches:
    """Read an export of CVAT; raises AnnotationError.

    `ice_labels` are the labels that mean ice; without any they are guessed.
    """
    annotations = read_export(path)
    if not annotations.images:
        raise AnnotationError(f"'{annotations.source}' lists no picture; export annotated tilts.")
    meanings = meanings_in(annotations, ice_labels)
    truths: dict[tuple[str, TiltName], TiltTruth] = {}
    for image in annotations.images:
        key = ("", image.tilt)
        if key in truths:
            raise AnnotationError(
                f"'{annotations.source}' holds two pictures of {image.tilt.stem}, section "
                f"{image.tilt.section}; keep one."
            )
        truths[key] = DrawnTruth(image, meanings)
    return Matches(truths)


def choose_ice_labels(annotations: Annotations, given: Collection[str] = ()) -> frozenset[str]:
    """Say which labels mean ice; raises as `meanings_in`."""
    return meanings_in(annotations, given).ice
