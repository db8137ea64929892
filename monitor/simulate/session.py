"""What all layouts share: where they write, the microscope's clock, and its camera."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.microscope import bidirectional, dose_symmetric
from monitor.simulate.images import Camera, GivenCamera, Picture, RecordedCamera
from monitor.simulate.request import Request
from monitor.simulate.script import Exposure, Wait

BEGINS_AT = datetime.datetime(2026, 1, 1, 10, 0, 0)
_NAME = "2026-01-01_simulated"
_STEP_DEG = 3.0
_STARTS_DEG = (0.0, 9.0, -9.0)
"""Lamellae are tilted from their own plane: about 9 degrees to either side."""
_READOUT_DEG = 0.02


class Session:
    """The microscope during one session, with a clock that only waiting moves."""

    def __init__(self, request: Request) -> None:
        """Take what is wanted; nothing is written yet."""
        self.request = request
        self.folder = _unused(request.out / _NAME)
        self.random = np.random.default_rng(request.seed)
        self.elapsed_s = 0.0
        self.camera = self._camera()

    def _camera(self) -> Camera:
        request = self.request
        if request.images is not None:
            return GivenCamera(request.images, request.size_px)
        return RecordedCamera(
            request.size_px, request.pixel_size_angstrom, request.ice_percent, self.random
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of an image (px)."""
        return self.request.size_px, self.request.size_px

    @property
    def chunk_bytes(self) -> int:
        """How much is written at once: an image takes at least four writes."""
        return max(1, min(8 << 20, self.request.size_px**2 * 2 // 4))

    @property
    def now(self) -> datetime.datetime:
        """The microscope's wall clock, in whole seconds."""
        return BEGINS_AT + datetime.timedelta(seconds=int(self.elapsed_s))

    def wait(self, seconds: float) -> Wait:
        """Let time pass."""
        self.elapsed_s += seconds
        return Wait(self.elapsed_s)

    def next_tilt(self) -> Wait:
        """Let pass what tilting, tracking and focusing take: 23 to 32 s where the mean is 26 s."""
        usual = self.request.interval_s
        drawn = self.random.normal(usual, 0.08 * usual)
        return self.wait(float(np.clip(drawn, 0.88 * usual, 1.23 * usual)))

    def angles_deg(self, series: int, tilts: int | None = None) -> list[float]:
        """List the nominal angles of a dose-symmetric series, in the order of acquisition."""
        tilts = self.request.tilts if tilts is None else tilts
        start = _STARTS_DEG[series % len(_STARTS_DEG)]
        return dose_symmetric(start, self.step_deg, self.step_deg * tilts)[:tilts]

    def bidirectional_deg(self, series: int) -> tuple[list[float], int]:
        """List the nominal angles of a bidirectional series, and after how many it turns."""
        start, half = _STARTS_DEG[series % len(_STARTS_DEG)], self.request.tilts // 2
        angles, turn = bidirectional(start, self.step_deg, self.step_deg * half)
        return angles[: self.request.tilts], turn

    @property
    def step_deg(self) -> float:
        """Between two tilts; small enough for the stage to reach all of them."""
        return min(_STEP_DEG, 120.0 / max(self.request.tilts, 2))

    def read_out(self, nominal_deg: float) -> float:
        """Give what the stage reads at a nominal angle (degrees)."""
        return round(nominal_deg + float(self.random.normal(0.0, _READOUT_DEG)), 5)

    def expose(
        self, number: int, series: str, lamella: Path, angle_deg: float, order: int
    ) -> tuple[Exposure, Picture]:
        """Take a tilt of series `number` (from 0); `lamella` lies below the session."""
        picture = self.camera.expose(number, angle_deg)
        name = lamella.relative_to(self.request.out).as_posix()
        exposure = Exposure(series, name, angle_deg, order, self.now, picture.ice_percent)
        return exposure, picture

    def pick(self, choices: Sequence[int]) -> int:
        """Choose one of several places for a fault."""
        return int(self.random.choice(list(choices)))


def _unused(folder: Path) -> Path:
    """Name a folder that is not there yet: the same with a number, if need be."""
    number, name = 1, folder.name
    while folder.exists():
        number += 1
        folder = folder.with_name(f"{name}_{number}")
    return folder
