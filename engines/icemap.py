"""What is known of the ice in one image: masks, percentage, and why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from numpy import bool_, float32
from numpy.typing import NDArray

from engines.percentage import Evidence


class Flag(StrEnum):
    """What is remarkable about an image (closed list: it becomes a label)."""

    NOT_AN_IMAGE = "not_an_image"
    """Empty, not two-dimensional, or not of real numbers."""
    NOT_FINITE = "not_finite"
    """Next to nothing but NaN and infinity."""
    BLANK = "blank"
    """One value all over."""
    PIXEL_SIZE_UNKNOWN = "pixel_size_unknown"
    PIXEL_SIZE_OUT_OF_RANGE = "pixel_size_out_of_range"
    TOO_SMALL = "too_small"
    FIELD_TOO_WIDE = "field_too_wide"
    """An atlas, a square or a hole map rather than a tilt."""
    NO_SPECIMEN = "no_specimen"
    """Hardly any part of the field holds specimen or support."""
    NO_ELECTRONS = "no_electrons"
    """Next to no counts: closed shutter."""
    NO_STRUCTURE = "no_structure"
    """Nothing but noise: beam without specimen, or closed shutter of a noisy camera."""
    NO_NOISE = "no_noise"
    """Too smooth for electrons: a mask or a drawing."""
    MOSTLY_SATURATED = "mostly_saturated"
    PARTLY_SATURATED = "partly_saturated"
    SMALL_VALID_AREA = "small_valid_area"
    CLIPPED = "clipped"
    """Values pile up at the largest or the smallest: brighter or darker ones were cut."""
    INVERTED = "inverted"
    """Stored with dark and bright exchanged; turned back before it was measured."""
    SCALED_BYTES = "scaled_bytes"
    """Grey values from 0 to 255 whose zero is not that of the electrons."""
    ZERO_UNKNOWN = "zero_unknown"
    """Values of both signs, or below zero: not counts, but what is left of them."""
    DOSE_UNKNOWN = "dose_unknown"
    ANGLE_UNKNOWN = "angle_unknown"
    UNEXPECTED_BRIGHTNESS = "unexpected_brightness"
    """Much brighter or darker than the other tilts of its series say."""
    UNFAMILIAR = "unfamiliar"
    """Unlike what the network learned from; measured with a wider interval."""
    OUT_OF_DOMAIN = "out_of_domain"
    """No picture of a vitrified specimen, or too unlike any that the network learned from."""


AMBER = frozenset(
    {
        Flag.PARTLY_SATURATED,
        Flag.SMALL_VALID_AREA,
        Flag.CLIPPED,
        Flag.INVERTED,
        Flag.SCALED_BYTES,
        Flag.ZERO_UNKNOWN,
        Flag.DOSE_UNKNOWN,
        Flag.ANGLE_UNKNOWN,
        Flag.UNEXPECTED_BRIGHTNESS,
        Flag.UNFAMILIAR,
    }
)
"""Flags that do not keep an image from being measured but widen its interval; others do."""


class Level(StrEnum):
    """How familiar an image is to the network that reads it."""

    GREEN = "green"
    AMBER = "amber"
    """Unfamiliar: a number with a wider interval."""
    RED = "red"
    """No opinion."""


@dataclass(frozen=True, slots=True)
class IceMap:
    """The ice in one image at the working pixel size; arrays have one (rows, columns) shape.

    Where the image could not be measured, `percent` is None, `flags` says why, both masks are
    empty, and the picture is whatever there is to show, at a size of its own.
    """

    picture: NDArray[float32]
    """Mean counts per native pixel; finite."""
    valid: NDArray[bool_]
    """Where electrons come through specimen or support."""
    ice: NDArray[bool_]
    """Ice, inside the valid area."""
    probability: NDArray[float32]
    """Of the ice channel, 0 to 1."""
    pixel_size_angstrom: float | None
    percent: float | None = None
    """Ice in percent of the valid area, calibrated; None where it could not be measured."""
    percent_low: float | None = None
    percent_high: float | None = None
    """Ends of the interval that holds the truth in 90 % of cases."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Share of the ice, 0 to 1: `hexagonal`, `cubic`, `stacking_disordered`; empty without ice."""
    valid_area_percent: float = 0.0
    """Share of the field that is valid; 0 where the image was not looked at that far."""
    flags: tuple[Flag, ...] = ()
    in_domain: bool = False
    area_percent: Mapping[str, float] = field(default_factory=dict)
    """Ice in percent of the valid area by contrast threshold, calibrated: `0.06`..."""
    contrast: NDArray[float32] | None = None
    """Bragg contrast, 0 to 1, where the bundle tells it."""
    features: NDArray[float32] | None = None
    """(features,): what the network saw, for telling whether a picture is familiar."""
    memory_left: NDArray[float32] | None = None
    """(channels, rows / 4, columns / 4), padded: for the neighbouring tilts."""
    domain_score: float | None = None
    """How strange the image is: 0 as most, 1 and more no opinion; None where nothing told it."""
    domain_level: Level = Level.RED
    used_neighbours: bool = False
    """Whether neighbouring tilts had a say."""
    evidence: Evidence | None = None
    """What the percentage was read from; None where the image was not measured."""
