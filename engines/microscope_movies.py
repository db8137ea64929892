"""One movie for each tilt, as SerialEM and Tomography 5 write it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engines.mdoc_text import PROGRAM_TITLE, exposure_keys, serialem_time
from engines.readers.mrc import write_mrc


def write_frame_mdoc_movie(
    path: Path,
    frames: NDArray[Any],
    angle_deg: float,
    when: datetime,
    pixel_size_angstrom: float,
    *,
    exposure_dose_e_per_A2: float = 2.2,  # noqa: N803  e/Å², as everywhere
    counts_per_electron: float = 221.663,
    line_end: str = "\n",
    with_mdoc: bool = True,
) -> None:
    """Write one tilt as SerialEM saves frames: an MRC movie, then `<movie>.mdoc`.

    `frames` is (frames, rows, columns), or (rows, columns) for a single image, in counts.
    """
    write_mrc(path, frames, pixel_size_angstrom)
    if not with_mdoc:
        return
    count = len(frames) if frames.ndim == 3 else 1
    keys = {
        **exposure_keys(angle_deg, exposure_dose_e_per_A2, pixel_size_angstrom),
        "CountsPerElectron": f"{counts_per_electron:g}",
        "TargetDefocus": "-3.5",
        "PriorRecordDose": "0",
        "SubFramePath": path.name,
        "NumSubFrames": f"{count}",
        "FrameDosesAndNumber": f"{exposure_dose_e_per_A2 / count:g} {count}",
        "DateTime": serialem_time(when),
        "NavigatorLabel": "1",
        "FilterSlitAndLoss": "10 0",
    }
    start = [f"T = {PROGRAM_TITLE}    ", "Voltage = 300", "", "[FrameSet = 0]"]
    lines = [*start, *(f"{key} = {value}" for key, value in keys.items()), ""]
    path.with_name(path.name + ".mdoc").write_bytes(line_end.join(lines).encode())


def write_tomography5_movie(
    folder: Path,
    position: str,
    number: int,
    angle_deg: float,
    when: datetime,
    frames: NDArray[Any],
    pixel_size_angstrom: float,
) -> Path:
    """Write one tilt as Tomography 5 does: all is in the name, `number` counts from 1."""
    name = f"{position}_{number:03d}_{angle_deg:.2f}_{when:%Y%m%d_%H%M%S}_Fractions.mrc"
    write_mrc(folder / name, frames, pixel_size_angstrom)
    return folder / name
