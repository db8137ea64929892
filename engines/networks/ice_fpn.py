"""The network: a feature pyramid over a narrow ResNet, from scaled picture to probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import segmentation_models_pytorch as smp  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, softplus

from engines.networks.scaling import Scaling

CHANNELS = (
    "ice_0.06",
    "ice_0.10",
    "ice_0.15",
    "hexagonal",
    "cubic",
    "stacking_disordered",
    "distractor",
    "not_valid",
)
"""What each channel of the output means, in order."""
ICE = slice(0, 3)
PHASES = slice(3, 6)
DISTRACTOR = slice(6, 7)
NOT_VALID = slice(7, 8)
OTHERS = slice(6, 8)
STRIDE = 4
"""Pixels for each pixel of what the decoder gives."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Size of the network; recorded in checkpoints, so that weights find their shape again."""

    encoder: str = "tu-resnet18"
    widths: tuple[int, int, int, int] = (64, 128, 192, 256)
    """Channels of the four stages of the encoder."""
    pyramid_channels: int = 128
    segmentation_channels: int = 64
    """A multiple of 32 (group normalisation)."""
    pixel_size_angstrom: float = 13.5


class SinglePrecisionGroupNorm(nn.Module):
    """Group normalisation that adds up in float32 whatever comes in: half sums overflow."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, features: Tensor) -> Tensor:
        normalised: Tensor = self.norm(features.float())
        return normalised.to(features.dtype)


class IceModel(nn.Module):
    """Everything after the prepared picture: scaling, network, probabilities, area sums."""

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or NetworkSettings()
        self.scaling = Scaling(self.settings.pixel_size_angstrom)
        self.network = smp.FPN(
            encoder_name=self.settings.encoder,
            encoder_weights=None,
            in_channels=3,
            classes=len(CHANNELS),
            decoder_pyramid_channels=self.settings.pyramid_channels,
            decoder_segmentation_channels=self.settings.segmentation_channels,
            upsampling=1,
            channels=self.settings.widths,
        )

    def logits(self, picture: Tensor, valid: Tensor) -> Tensor:
        """Compute logits (B, 8, H, W), float32; the three of ice never rise with the threshold."""
        return enlarge(self.coarse_logits(self.scaling(picture, valid)))

    def coarse_logits(self, scaled: Tensor) -> Tensor:
        """Compute logits at a quarter of the resolution, from the output of `scaling`."""
        raw = self.network(scaled.to(self._dtype())).float()
        lowest = raw[:, 0:1]
        middle = lowest - softplus(raw[:, 1:2])
        highest = middle - softplus(raw[:, 2:3])
        return torch.cat([lowest, middle, highest, raw[:, 3:]], dim=1)

    def forward(self, picture: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Measure a batch.

        Takes picture and valid, (B, 1, H, W) float32, H and W multiples of 32. Returns
        probability (B, 8, H, W), channels as in `CHANNELS` (the three phases add up to one), and
        area (B, 8): the sum of each over the valid pixels, in pixels.
        """
        coarse = self.coarse_logits(self.scaling(picture, valid))
        # softmax at full resolution costs as much as a sixth of all convolutions
        phases = enlarge(coarse[:, PHASES].softmax(1))
        ice, rest = enlarge(coarse[:, ICE]).sigmoid(), enlarge(coarse[:, OTHERS]).sigmoid()
        probability = torch.cat([ice, phases, rest], dim=1)
        return probability, (probability * valid).sum(dim=(2, 3))

    def halve(self) -> IceModel:
        """Turn the convolutions to float16 in place; scaling and normalisation stay float32."""
        self.network.half()
        _guard_norms(self.network)
        return self

    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.network.encoder.parameters()).dtype
        return dtype


def enlarge(coarse: Tensor, factor: int = STRIDE) -> Tensor:
    """Bring the decoder's output to the resolution of the picture, or part of the way."""
    fine: Tensor = interpolate(coarse, scale_factor=float(factor), mode="bilinear")
    return fine


def _guard_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, SinglePrecisionGroupNorm(child))
        else:
            _guard_norms(child)
