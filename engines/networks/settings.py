"""Which network: its shape, as recorded in checkpoints and manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

STRIDE = 4
"""Pixels of the picture for each pixel of what a tilt leaves in memory."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Size of the network; recorded in checkpoints, so that weights find their shape again."""

    decoder: Literal["fpn", "unet"] = "fpn"
    encoder: str = "tu-resnet18"
    """A name of segmentation-models-pytorch; `tu-` means the timm network of that name."""
    widths: tuple[int, ...] = ()
    """Channels of the four stages of a timm ResNet; none: as published."""
    pyramid_channels: int = 128
    segmentation_channels: int = 64
    """Of the feature pyramid; a multiple of 32 (group normalisation)."""
    memory_channels: int = 32
    """What one tilt hands on to its neighbours."""
    pixel_size_angstrom: float = 13.5

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> NetworkSettings:
        """Read settings back from plain lists and numbers."""
        return cls(**{**plain, "widths": tuple(plain["widths"])})


_NARROW = (64, 128, 208, 288)
_SLIM = (32, 96, 192, 288)
VARIANTS = {
    "fpn-resnet18": NetworkSettings(),
    "fpn-resnet18-narrow": NetworkSettings(widths=_NARROW),
    "fpn-resnet18-slim": NetworkSettings(widths=_SLIM, pyramid_channels=96),
    "fpn-resnet34": NetworkSettings(encoder="tu-resnet34"),
    "fpn-resnet34-narrow": NetworkSettings(encoder="tu-resnet34", widths=_NARROW),
    "fpn-resnet50": NetworkSettings(encoder="tu-resnet50"),
    "fpn-densenet121": NetworkSettings(encoder="densenet121"),
    "fpn-mobilenetv3": NetworkSettings(encoder="tu-mobilenetv3_large_100"),
    "fpn-regnety": NetworkSettings(encoder="tu-regnety_004"),
    "fpn-edgenext": NetworkSettings(encoder="tu-edgenext_xx_small"),
    "unet-resnet18": NetworkSettings(decoder="unet"),
    "unet-resnet18-narrow": NetworkSettings(decoder="unet", widths=_NARROW),
    "unet-resnet34": NetworkSettings(decoder="unet", encoder="tu-resnet34"),
    "unet-resnet50": NetworkSettings(decoder="unet", encoder="tu-resnet50"),
    "unet-densenet121": NetworkSettings(decoder="unet", encoder="densenet121"),
    "unet-mobilenetv3": NetworkSettings(decoder="unet", encoder="tu-mobilenetv3_large_100"),
    "unet-regnety": NetworkSettings(decoder="unet", encoder="tu-regnety_004"),
}
"""Networks to choose from by name."""
