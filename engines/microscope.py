"""A pretend microscope: writes tilts to disk byte for byte in the order of the real programs.

For tests, the demo and simulated sessions. Keys and titles follow real files of SerialEM 4.0 and
Tomography 5; what SerialEM writes when follows its source (KStoreMRC.cpp, KImageStore.cpp).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.mdoc_text import exposure_keys, serialem_time
from engines.microscope_movies import write_frame_mdoc_movie, write_tomography5_movie
from engines.microscope_stack import StackFile, statistics
from engines.microscope_step import Step

__all__ = [
    "SerialEMStackWriter",
    "bidirectional",
    "dose_symmetric",
    "write_frame_mdoc_movie",
    "write_tomography5_movie",
]


def dose_symmetric(
    start_deg: float, step_deg: float, max_deg: float, group: int = 2
) -> list[float]:
    """List the angles of a dose-symmetric series in the order of acquisition (degrees).

    `max_deg` counts from the start, to either side; `group` tilts are taken before the side
    changes (Hagen et al. 2017, doi:10.1016/j.jsb.2016.06.007).
    """
    steps = int(max_deg / step_deg + 1e-6)
    angles = [start_deg]
    for first in range(1, steps + 1, group):
        block = range(first, min(first + group, steps + 1))
        angles += [start_deg + step * step_deg for step in block]
        angles += [start_deg - step * step_deg for step in block]
    return angles


def bidirectional(start_deg: float, step_deg: float, max_deg: float) -> tuple[list[float], int]:
    """List the angles of a bidirectional series (degrees), and after how many it turns."""
    steps = int(max_deg / step_deg + 1e-6)
    down = [start_deg - step * step_deg for step in range(steps + 1)]
    up = [start_deg + step * step_deg for step in range(1, steps + 1)]
    return down + up, len(down)


class SerialEMStackWriter:
    """Writes one tilt series as SerialEM does: a growing stack, and an mdoc that comes last."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int],
        pixel_size_angstrom: float,
        *,
        dtype: str = "int16",
        start_deg: float = 0.0,
        scheme: str = "dosym",
        line_end: str = "\n",
        chunk_bytes: int = 8 << 20,
        between: Callable[[str], None] = lambda step: None,
    ) -> None:
        """Create the stack as it is before its first image: sizes 0, a blank extended header.

        `shape` is (rows, columns) in px; `scheme` is `dosym`, `bidir` or "" (not said);
        `between` is called after each single write with what was written: `pixels`, `header`,
        `extended`, `mdoc`.
        """
        said = f"{scheme} = {start_deg:.1f}" if scheme else ""
        self.file = StackFile(path, shape, pixel_size_angstrom, dtype, said, line_end, chunk_bytes)
        self._pixel_size_angstrom = pixel_size_angstrom
        self._between = between
        self._prior_dose = 0.0
        for _ in self.file.creating():
            pass

    @property
    def path(self) -> Path:
        """The stack."""
        return self.file.path

    @property
    def mdoc_path(self) -> Path:
        """Its metadata file."""
        return self.file.mdoc_path

    def add(
        self,
        image: NDArray[Any],
        angle_deg: float,
        when: datetime,
        exposure_dose_e_per_A2: float = 2.2,  # noqa: N803  e/Å², as everywhere
        counts_per_electron: float = 165.5,
        **extra: object,
    ) -> None:
        """Add one tilt: image (rows, columns) in counts, angle, wall clock, dose.

        `extra` goes into the mdoc, or overrides what would be there.
        """
        for _ in self.steps(
            image, angle_deg, when, exposure_dose_e_per_A2, counts_per_electron, extra=extra
        ):
            pass

    def steps(
        self,
        image: NDArray[Any],
        angle_deg: float,
        when: datetime,
        exposure_dose_e_per_A2: float = 2.2,  # noqa: N803  e/Å², as everywhere
        counts_per_electron: float = 165.5,
        *,
        section: int | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> Iterator[str]:
        """Do what `add` does one write at a time, yielding what was written.

        `section` overwrites a section that is there, as a resumed series may.
        """
        dose = exposure_dose_e_per_A2
        for step in self.adding(
            image, angle_deg, when, dose, counts_per_electron, section=section, extra=extra
        ):
            self._between(step.what)
            yield step.what

    def adding(
        self,
        image: NDArray[Any],
        angle_deg: float,
        when: datetime,
        exposure_dose_e_per_A2: float = 2.2,  # noqa: N803  e/Å², as everywhere
        counts_per_electron: float = 165.5,
        *,
        section: int | None = None,
        in_place: bool = False,
        extra: Mapping[str, object] | None = None,
    ) -> Generator[Step]:
        """Do what `steps` does, telling which file each write touched.

        `in_place`: the mdoc of a section that is overwritten is truncated and written again; else
        the old one is first moved to `.mdoc~`.
        """
        file = self.file
        k = len(file.sections) if section is None else section
        pixels = np.ascontiguousarray(image, file.dtype)
        if pixels.shape != file.shape:
            raise ValueError(f"image of shape {pixels.shape} for a stack of {file.shape}")
        file.statistics = statistics(pixels)
        keys = self._keys(angle_deg, when, exposure_dose_e_per_A2, counts_per_electron)
        fresh = k == len(file.sections)
        file.keep(k, angle_deg, self._lines({**keys, **(extra or {})}))
        self._prior_dose += exposure_dose_e_per_A2
        mdoc = file.appending_to_mdoc(k) if fresh else file.rewriting_mdoc(in_place=in_place)
        yield from file.writing_tilt(k, pixels.tobytes(), mdoc)

    def add_keys(self, extra: Mapping[str, object]) -> None:
        """Add lines to the last section of the mdoc, without writing it (AddToAutodoc)."""
        angle_deg, text = self.file.sections[-1]
        self.file.sections[-1] = (angle_deg, text + self._lines(extra))

    def rewrite_mdoc(self) -> None:
        """Write the whole mdoc again, as PACEtomo makes SerialEM do after every tilt."""
        for step in self.file.rewriting_mdoc():
            self._between(step.what)

    def sort_by_angle(self) -> None:
        """Finish a dose-symmetric series as SerialEM does: a new stack, sorted by tilt angle."""
        for _ in self.sorting_steps():
            pass

    def sorting_steps(self) -> Iterator[str]:
        """Do what `sort_by_angle` does one write at a time, yielding what was written."""
        for step in self.sorting():
            yield step.what

    def sorting(self) -> Iterator[Step]:
        """Sort the stack by tilt angle, the old one aside as `-unsorted` until it is done."""
        yield from self.file.reordering(self.file.order_by_angle(), "-unsorted")

    def turning(self) -> Iterator[Step]:
        """Invert the first half of a bidirectional series, aside as `-half1` until it is done."""
        backwards = range(len(self.file.sections) - 1, -1, -1)
        yield from self.file.reordering(backwards, "-half1")

    def _keys(
        self, angle_deg: float, when: datetime, dose: float, counts_per_electron: float
    ) -> dict[str, object]:
        low, high, mean = self.file.statistics
        rows, columns = self.file.shape
        return {
            "MinMaxMean": f"{low:g} {high:g} {mean:g}",
            **exposure_keys(angle_deg, dose, self._pixel_size_angstrom),
            "CountsPerElectron": f"{counts_per_electron:g}",
            "TargetDefocus": "-3.5",
            "PriorRecordDose": f"{self._prior_dose:g}",
            "NumSubFrames": "10",
            "FrameDosesAndNumber": f"{dose / 10:g} 10",
            "DateTime": serialem_time(when),
            "FilterSlitAndLoss": "10 0",
            "UncroppedSize": f"{-columns} {-rows}",
        }

    def _lines(self, keys: Mapping[str, object]) -> str:
        return "".join(f"{key} = {value}{self.file.line_end}" for key, value in keys.items())
