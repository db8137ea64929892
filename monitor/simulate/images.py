"""What the pretend microscope's camera sees: the recorded session of the demo, or given images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy import float32, int16, int32
from numpy.typing import NDArray

from engines.errors import PixelsError
from engines.readers.mrc import read_header, read_section
from monitor.demo.session import RecordedLamella, load_session
from monitor.errors import ConfigError

COUNTS_PER_ELECTRON = 32.0
_IMAGES = (".mrc", ".mrcs", ".st", ".png", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Picture:
    """One exposure."""

    counts: NDArray[int16]
    """(rows, columns), as the camera's driver gives a summed image."""
    electrons: NDArray[int32]
    """(rows, columns), as a counting camera has them."""
    ice_percent: float | None


class Camera(Protocol):
    """Gives the picture of each exposure."""

    def expose(self, series: int, angle_deg: float) -> Picture:
        """Take the next picture of a series (from 0) at a tilt angle (degrees)."""
        ...


class RecordedCamera:
    """Draws electrons from the simulated tilts that come with the demo."""

    def __init__(
        self,
        size_px: int,
        pixel_size_angstrom: float,
        wanted_ice_percent: Sequence[float],
        generator: np.random.Generator,
    ) -> None:
        """Take the size of an image (px), its pixel size (Å), and the ice wanted per series."""
        session = load_session()
        self._lamellae = session.lamellae
        if wanted_ice_percent:
            self._lamellae = tuple(
                min(session.lamellae, key=lambda one: abs(one.ice_percent - wanted))
                for wanted in wanted_ice_percent
            )
        self._enlarged = session.pixel_size_angstrom / pixel_size_angstrom
        self._size_px = size_px
        self._generator = generator
        self._expected = lru_cache(maxsize=4)(self._magnified)

    def expose(self, series: int, angle_deg: float) -> Picture:
        lamella = self._lamellae[series % len(self._lamellae)]
        tilt = _nearest(lamella, angle_deg)
        expected = self._expected(series % len(self._lamellae), tilt)
        electrons = self._generator.poisson(expected).astype(int32)
        counts = np.minimum(electrons * COUNTS_PER_ELECTRON, 32767).astype(int16)
        return Picture(counts, electrons, lamella.tilts[tilt].ice_percent)

    def _magnified(self, lamella: int, tilt: int) -> NDArray[float32]:
        recorded = self._lamellae[lamella].tilts[tilt].expected
        # Never larger than needed: a recorded tilt at 0.5 Å would be 60 megapixels.
        needed = max(4, int(np.ceil(self._size_px / self._enlarged)) + 2)
        recorded = recorded[:needed, :needed]
        sides = [max(4, round(side * self._enlarged)) for side in recorded.shape]
        how = cv2.INTER_CUBIC if self._enlarged > 1 else cv2.INTER_AREA
        fine = cv2.resize(recorded, (sides[1], sides[0]), interpolation=how)
        field = filled(np.asarray(fine, float32), self._size_px)
        return np.asarray(np.maximum(field, 0.0) / self._enlarged**2, float32)


def _nearest(lamella: RecordedLamella, angle_deg: float) -> int:
    distances = [abs(tilt.angle_deg - angle_deg) for tilt in lamella.tilts]
    return distances.index(min(distances))


def filled(image: NDArray[float32], size_px: int) -> NDArray[float32]:
    """Cut an image to a square of `size_px`, or fill that by mirroring the image at its edges."""
    rows, columns = (max(0, size_px - side) for side in image.shape)
    wide = np.pad(image, ((0, rows), (0, columns)), mode="symmetric") if rows or columns else image
    return np.asarray(wide[:size_px, :size_px], float32)


class GivenCamera:
    """Shows the images of a folder, one after the other, over and over."""

    def __init__(self, folder: Path, size_px: int) -> None:
        """Take the folder; raises `ConfigError` where it holds no image that can be read."""
        try:
            paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGES)
        except OSError as error:
            raise ConfigError(f"--images {folder}: cannot be read: {error.strerror}") from error
        self._sections = [(path, k) for path in paths for k in range(_sections_in(path))]
        if not self._sections:
            raise ConfigError(f"--images {folder}: holds no image ({', '.join(_IMAGES)})")
        self._size_px = size_px
        self._shown = 0

    def expose(self, series: int, angle_deg: float) -> Picture:
        path, section = self._sections[self._shown % len(self._sections)]
        self._shown += 1
        image = filled(_read(path, section), self._size_px)
        counts = np.clip(np.round(image), -32768, 32767).astype(int16)
        return Picture(counts, np.maximum(counts, 0).astype(int32), None)


def _sections_in(path: Path) -> int:
    if path.suffix.lower() not in (".mrc", ".mrcs", ".st"):
        if not cv2.haveImageReader(str(path)):
            raise ConfigError(f"--images: {path.name!r} cannot be read as an image")
        return 1
    try:
        return read_header(path).nz
    except PixelsError as error:
        raise ConfigError(f"--images: {error}") from error


def _read(path: Path, section: int) -> NDArray[float32]:
    if path.suffix.lower() in (".mrc", ".mrcs", ".st"):
        try:
            return read_section(path, section).astype(float32)
        except PixelsError as error:
            raise ConfigError(f"--images: {error}") from error
    image = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ConfigError(f"--images: {path.name!r} cannot be read as an image")
    return image.astype(float32)
