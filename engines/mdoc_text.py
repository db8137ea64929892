"""The lines of an mdoc as SerialEM writes them, for the pretend microscope."""

from __future__ import annotations

from datetime import datetime

PROGRAM_TITLE = "SerialEM: icewatch pretend microscope                01-Jan-26  08:00:00"
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def serialem_time(when: datetime) -> str:
    """Format a time as SerialEM has since 2022: `01-Aug-2022  18:58:35`."""
    return f"{when.day:02d}-{_MONTHS[when.month - 1]}-{when.year}  {when:%H:%M:%S}"


def exposure_keys(angle_deg: float, dose: float, pixel_size_angstrom: float) -> dict[str, object]:
    """Give what every section begins with, for a dose in e/Å² and a tilt angle in degrees."""
    return {
        "TiltAngle": f"{angle_deg:g}",
        "StagePosition": "139.497 367.787",
        "StageZ": "17.6146",
        "Magnification": "64000",
        "Intensity": "0.186771",
        "ExposureDose": f"{dose:g}",
        "DoseRate": "6.97969",
        "PixelSpacing": f"{pixel_size_angstrom:g}",
        "SpotSize": "5",
        "Defocus": "2.35633",
        "ImageShift": "0.100533 -0.090803",
        "RotationAngle": "174.2",
        "ExposureTime": "0.759969",
        "Binning": "1",
        "CameraIndex": "1",
        "DividedBy2": "0",
        "OperatingMode": "1",
        "MagIndex": "28",
        "LowDoseConSet": "4",
    }
