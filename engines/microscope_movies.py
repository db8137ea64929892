"""One movie for each tilt, as SerialEM and Tomography 5 write it, with its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    text = frame_mdoc(
        path.name,
        len(frames) if frames.ndim == 3 else 1,
        angle_deg,
        when,
        pixel_size_angstrom,
        exposure_dose_e_per_A2=exposure_dose_e_per_A2,
        counts_per_electron=counts_per_electron,
        line_end=line_end,
    )
    path.with_name(path.name + ".mdoc").write_bytes(text.encode())


def frame_mdoc(
    movie: str,
    frames: int,
    angle_deg: float,
    when: datetime,
    pixel_size_angstrom: float,
    *,
    exposure_dose_e_per_A2: float = 2.2,  # noqa: N803  e/Å², as everywhere
    counts_per_electron: float = 221.663,
    prior_dose_e_per_A2: float = 0.0,  # noqa: N803
    line_end: str = "\n",
    extra: Mapping[str, object] | None = None,
) -> str:
    """Give the text of `<movie>.mdoc` for a movie of so many frames."""
    keys = {
        **exposure_keys(angle_deg, exposure_dose_e_per_A2, pixel_size_angstrom),
        "CountsPerElectron": f"{counts_per_electron:g}",
        "TargetDefocus": "-3.5",
        "PriorRecordDose": f"{prior_dose_e_per_A2:g}",
        "SubFramePath": movie,
        "NumSubFrames": f"{frames}",
        "FrameDosesAndNumber": f"{exposure_dose_e_per_A2 / frames:g} {frames}",
        "DateTime": serialem_time(when),
        "NavigatorLabel": "1",
        "FilterSlitAndLoss": "10 0",
        **(extra or {}),
    }
    start = [f"T = {PROGRAM_TITLE}    ", "Voltage = 300", "", "[FrameSet = 0]"]
    return line_end.join([*start, *(f"{key} = {value}" for key, value in keys.items()), ""])


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
    path = folder / tomography5_name(position, number, angle_deg, when)
    write_mrc(path, frames, pixel_size_angstrom)
    return path


def tomography5_name(
    position: str, number: int, angle_deg: float, when: datetime, kind: str = "Fractions.mrc"
) -> str:
    """Name a movie as Tomography 5 does; up to 5.7 the kind is `fractions.tiff`."""
    angle = f"[{angle_deg:.1f}]" if kind.startswith("fractions") else f"{angle_deg:.2f}"
    return f"{position}_{number:03d}_{angle}_{when:%Y%m%d_%H%M%S}_{kind}"


def tomography5_mdoc(
    position: str,
    movies: Sequence[tuple[str, float, datetime]],
    pixel_size_angstrom: float,
    size_px: int,
    *,
    frames: int = 1,
    counts_per_electron: float = 46.98,
    exposure_dose_e_per_A2: float = 2.07,  # noqa: N803  e/Å², as everywhere
    year_first: bool = False,
) -> str:
    """Give the text of the mdoc that Tomography 5 writes at the end of a series.

    `movies` are name, angle (degrees) and time in the order of acquisition. `year_first`: dates
    are written `22-Feb-04`, as up to 2022. Blanks and `NaN` are as in a real file.
    """
    dose = exposure_dose_e_per_A2
    stamp = _old_time if year_first else serialem_time
    text = f"DataMode = 6\nImageSize = {size_px} {size_px} \nImageFile = {position}.mrc\n"
    text += f"PixelSpacing = {pixel_size_angstrom:.2f}\nVoltage = 300.00\n\n"
    text += f"[T = Tomography: TITAN52337180    {stamp(movies[0][2])}]\n\n"
    text += "[T =   TiltAxisAngle = -174.23  Binning = 1  SpotSize = 7]\n\n"
    for number, (movie, angle_deg, when) in enumerate(movies):
        text += f"[ZValue = {number}]\nTiltAngle = {angle_deg:.2f}\n"
        text += "StagePosition = 440.20 -722.52 \nStageZ = 29.73\nMagnification = 42000\n"
        text += f"Intensity = 0.00\nExposureDose = {dose:.2f}\n"
        text += f"PixelSpacing = {pixel_size_angstrom:.2f}\nSpotSize = 7\nDefocus = -10.47\n"
        text += "ImageShift = 0.01 1.78 \nRotationAngle = -84.23\nExposureTime = 3.17\n"
        text += f"Binning = 1\nMagIndex = 27\nCountsPerElectron = {counts_per_electron:.2f}\n"
        text += "MinMaxMean = 2170.00 14617.00 5536.87 \nTargetDefocus = -5.50\n"
        text += f"PriorRecordDose = {dose * number:.2f}\n"
        text += f"SubFramePath = \\\\192.168.10.1\\OffloadData\\session\\{movie}\n"
        text += f"NumSubFrames = {frames}\nFrameDosesAndNumber = {dose / frames:.2f} {frames}  \n"
        text += f"DateTime = {stamp(when)}\nFilterSlitAndLoss = 10.00 0.00 \n"
        text += "ChannelName = \nCameraLength = NaN\n\n"
    return text


def _old_time(when: datetime) -> str:
    day, month, rest = serialem_time(when).split("-", 2)
    return f"{when:%y}-{month}-{day}{rest[4:]}"
