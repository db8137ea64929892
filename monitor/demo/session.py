"""The recorded session: noise-free simulated tilts, from which electrons are drawn on replay."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy import float32, int16
from numpy.typing import NDArray

from monitor.errors import MonitorError

SESSION = Path(__file__).parent / "session"
ENLARGED = 4
"""Camera pixels per recorded pixel, along each axis: electrons are counted on the finer grid."""
COUNTS_PER_ELECTRON = 32.0


@dataclass(frozen=True, slots=True)
class RecordedTilt:
    """One tilt of the recorded session."""

    angle_deg: float
    exposure_dose_e_per_A2: float
    ice_percent: float
    """The truth, known from the simulation."""
    expected: NDArray[float32]
    """(rows, columns): electrons expected per recorded pixel, without noise."""


@dataclass(frozen=True, slots=True)
class RecordedLamella:
    """One lamella of the recorded session."""

    name: str
    title: str
    """What it shows, for a person."""
    icy: bool
    """Whether its mean truth lies above the session's limit."""
    tilts: tuple[RecordedTilt, ...]

    @property
    def ice_percent(self) -> float:
        """The truth: mean over the tilts."""
        return sum(tilt.ice_percent for tilt in self.tilts) / len(self.tilts)


@dataclass(frozen=True, slots=True)
class RecordedSession:
    """All lamellae, the limit that tells icy from clean, and the size of a recorded pixel."""

    lamellae: tuple[RecordedLamella, ...]
    pixel_size_angstrom: float
    skip_above_ice_percent: float

    @property
    def tilts(self) -> int:
        """Number of tilts in all."""
        return sum(len(lamella.tilts) for lamella in self.lamellae)


def load_session(folder: Path = SESSION) -> RecordedSession:
    """Read the recorded session; raises `MonitorError` if it is not in the installation."""
    try:
        index = json.loads((folder / "session.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise MonitorError(
            f"the recorded session of the demo is missing ({error}); install icewatch again"
        ) from error
    limit = float(index["skip_above_ice_percent"])
    lamellae = tuple(_lamella(folder, one, limit) for one in index["lamellae"])
    return RecordedSession(lamellae, float(index["pixel_size_angstrom"]), limit)


def _lamella(folder: Path, raw: dict[str, object], limit: float) -> RecordedLamella:
    raw_tilts = raw["tilts"]
    assert isinstance(raw_tilts, list)
    strip = cv2.imread(str(folder / f"{raw['name']}.png"), cv2.IMREAD_GRAYSCALE)
    if strip is None:
        raise MonitorError(f"'{raw['name']}.png' of the demo is missing; install icewatch again")
    pictures = np.split(strip, len(raw_tilts), axis=0)
    tilts = tuple(
        RecordedTilt(
            angle_deg=float(tilt["angle_deg"]),
            exposure_dose_e_per_A2=float(tilt["exposure_dose_e_per_A2"]),
            ice_percent=float(tilt["ice_percent"]),
            expected=picture.astype(float32) * float32(tilt["electrons_per_grey_level"]),
        )
        for tilt, picture in zip(raw_tilts, pictures, strict=True)
    )
    icy = sum(tilt.ice_percent for tilt in tilts) / len(tilts) > limit
    return RecordedLamella(str(raw["name"]), str(raw["title"]), icy, tilts)


def expose(tilt: RecordedTilt, generator: np.random.Generator) -> NDArray[int16]:
    """Draw the electrons of one exposure on the camera's finer pixels, as int16 counts."""
    rows, columns = tilt.expected.shape
    fine = cv2.resize(
        tilt.expected, (columns * ENLARGED, rows * ENLARGED), interpolation=cv2.INTER_CUBIC
    )
    electrons = generator.poisson(np.maximum(fine, 0.0) / ENLARGED**2)
    counts: NDArray[int16] = np.minimum(electrons * COUNTS_PER_ELECTRON, 32767).astype(int16)
    return counts
