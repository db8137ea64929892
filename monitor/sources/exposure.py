"""What an image and its metadata together say about one exposure."""

from __future__ import annotations

from pathlib import Path

from engines.readers.mrc_header import MrcHeader
from monitor.model import Tilt, TiltId
from monitor.sources.mdoc import MdocSection
from monitor.sources.naming import Place, mdoc_of


def mdoc_path(image: Path) -> Path:
    """Name the metadata file that SerialEM writes for an image."""
    return image.with_name(mdoc_of(image.name))


def exposure_id(place: Place, section: MdocSection) -> TiltId:
    """Identify an exposure by series, angle (to 0.01 degrees) and the microscope's clock.

    Where no usable time was recorded, by what stands in its place or by the movie's name.
    """
    angle = section.tilt_angle_deg
    return TiltId(
        series_key=place.series_key,
        angle_deg=None if angle is None else round(angle, 2) + 0.0,
        acquired_at=section.acquired_at,
        fallback="" if section.acquired_at else section.date_time or section.sub_frame_path,
    )


def tilt_of(
    place: Place,
    tilt_id: TiltId,
    relative: str,
    number: int,
    *,
    angle_deg: float,
    order: int | None,
    acquired_at: str | None,
    said: MdocSection | None,
    header: MrcHeader,
) -> Tilt:
    """Put together what is known of one exposure; `said` is its part of the mdoc, if any."""
    said_pixel_size = said.pixel_spacing_angstrom if said else None
    return Tilt(
        id=tilt_id,
        session=place.session,
        grid=place.grid,
        lamella=place.lamella,
        series=place.series,
        path=relative,
        section=number,
        angle_deg=angle_deg + 0.0,
        order=order,
        acquired_at=acquired_at,
        pixel_size_angstrom=said_pixel_size or header.pixel_size_angstrom,
        exposure_dose_e_per_A2=said.exposure_dose_e_per_A2 if said else None,
        counts_per_electron=said.counts_per_electron if said else None,
    )
