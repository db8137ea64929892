"""The network: encoder, decoder, memory of neighbouring tilts; from picture to probabilities."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, softplus

from engines.networks.scaling import Scaling
from engines.networks.settings import STRIDE, NetworkSettings
from engines.networks.tilt_memory import TiltMemory

CHANNELS = (
    "ice_0.06",
    "ice_0.10",
    "ice_0.15",
    "hexagonal",
    "cubic",
    "stacking_disordered",
    "distractor",
    "not_valid",
    "contrast",
)
"""What each channel of the output means, in order."""
ICE = slice(0, 3)
PHASES = slice(3, 6)
DISTRACTOR = slice(6, 7)
NOT_VALID = slice(7, 8)
CONTRAST = slice(8, 9)
"""Its sigmoid is the square root of the Bragg contrast."""
OTHERS = slice(6, 8)
FEATURE_DEPTHS = (2, 3, 4, 5)
"""Stages of the encoder whose means say how familiar a picture is (2: a quarter the size)."""


class SinglePrecisionGroupNorm(nn.Module):
    """Group normalisation that adds up in float32 whatever comes in: half sums overflow."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, features: Tensor) -> Tensor:
        normalised: Tensor = self.norm(features.float())
        return normalised.to(features.dtype)


class Sum(nn.Module):
    """Adds the levels of a pyramid; the published decoder lays them one on the other first."""

    def forward(self, levels: list[Tensor]) -> Tensor:
        return sum(levels[1:], start=levels[0])


class IceModel(nn.Module):
    """Everything after the prepared picture: scaling, network, probabilities, area sums."""

    def __init__(self, settings: NetworkSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or NetworkSettings()
        self.scaling = Scaling(self.settings.pixel_size_angstrom)
        self.network, features, self.stride = _build(self.settings)
        self.memory = TiltMemory(features, self.settings.memory_channels)
        self.norms_frozen = False

    def train(self, mode: bool = True) -> IceModel:
        """Set the mode; frozen statistics stay as they are, whatever the size of a batch."""
        super().train(mode)
        if self.norms_frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def freeze_norms(self) -> IceModel:
        """Use the statistics of pre-training from now on: batches of one cannot move them."""
        self.norms_frozen = True
        return self.train(self.training)

    @property
    def feature_sizes(self) -> tuple[int, ...]:
        """How many features each depth gives."""
        channels = self.network.encoder.out_channels
        return tuple(channels[depth] for depth in FEATURE_DEPTHS)

    def forward(
        self,
        picture: Tensor,
        valid: Tensor,
        memory: Tensor | None = None,
        memory_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Measure a batch.

        Takes picture and valid, (B, 1, H, W) float32, H and W multiples of 32; and of neighbouring
        tilts their mean memory (B, M, H/4, W/4) and where there is any (B, 1, H/4, W/4; 0 or 1).
        Returns probability (B, 9, H, W), channels as in `CHANNELS` (the three phases add up to
        one; the last is the Bragg contrast itself); area (B, 9): the sum of each over the valid
        pixels, in pixels; features (B, F), the means of several depths of the encoder; memory (B,
        M, H/4, W/4) for the neighbours.
        """
        scaled = self.scaling(picture, valid).to(self._dtype())
        stages = self.network.encoder(scaled)
        decoded = self.decode(stages)
        kept = self.memory.remember(self.pooled(decoded))
        if memory is not None and memory_weight is not None:
            decoded = self.corrected(decoded, kept, memory, memory_weight)
        probability = self.probabilities(self.heads(decoded))
        area = (probability * valid).sum(dim=(2, 3))
        return probability, area, features_of(stages), kept.float()

    def decode(self, stages: list[Tensor]) -> Tensor:
        """Run the decoder: features at `stride` pixels of the picture."""
        decoded: Tensor = self.network.decoder(stages)
        return decoded

    def pooled(self, decoded: Tensor) -> Tensor:
        """Bring decoded features to the resolution of the memory."""
        step = STRIDE // self.stride
        return avg_pool2d(decoded, step) if step > 1 else decoded

    def corrected(self, decoded: Tensor, own: Tensor, memory: Tensor, weight: Tensor) -> Tensor:
        """Correct decoded features by the memory of neighbouring tilts."""
        features = self.pooled(decoded)
        better = self.memory(features, own, memory.to(own.dtype), weight.to(own.dtype))
        step = STRIDE // self.stride
        return decoded + enlarge(better - features, step) if step > 1 else better

    def heads(self, decoded: Tensor) -> Tensor:
        """Turn decoded features into logits, float32; those of ice never rise with threshold."""
        raw = self.network.segmentation_head(decoded).float()
        lowest = raw[:, 0:1]
        middle = lowest - softplus(raw[:, 1:2])
        highest = middle - softplus(raw[:, 2:3])
        return torch.cat([lowest, middle, highest, raw[:, 3:]], dim=1)

    def coarse_logits(self, scaled: Tensor) -> Tensor:
        """Compute logits of single tilts at the decoder's resolution, from what `scaling` gives."""
        return self.heads(self.decode(self.network.encoder(scaled.to(self._dtype()))))

    def logits(self, picture: Tensor, valid: Tensor) -> Tensor:
        """Compute logits of single tilts, (B, 9, H, W) float32."""
        return enlarge(self.coarse_logits(self.scaling(picture, valid)), self.stride)

    def probabilities(self, coarse: Tensor) -> Tensor:
        """Turn logits into probabilities and contrast at the resolution of the picture."""
        # softmax at full resolution costs as much as a sixth of all convolutions
        phases = enlarge(coarse[:, PHASES].softmax(1), self.stride)
        ice = enlarge(coarse[:, ICE], self.stride).sigmoid()
        rest = enlarge(coarse[:, OTHERS], self.stride).sigmoid()
        contrast = enlarge(coarse[:, CONTRAST].sigmoid().square(), self.stride)
        return torch.cat([ice, phases, rest, contrast], dim=1)

    def halve(self) -> IceModel:
        """Turn the convolutions to float16 in place; scaling and normalisation stay float32."""
        for part in (self.network, self.memory):
            part.half()
            _guard_norms(part)
        return self

    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.network.encoder.parameters()).dtype
        return dtype


def features_of(stages: list[Tensor]) -> Tensor:
    """Average the stages of the encoder over the picture: (B, F) float32."""
    means = [stages[depth].float().mean(dim=(2, 3)) for depth in FEATURE_DEPTHS]
    return torch.cat(means, dim=1)


def enlarge(coarse: Tensor, factor: int = STRIDE) -> Tensor:
    """Bring the decoder's output to the resolution of the picture, or part of the way."""
    if factor == 1:
        return coarse
    fine: Tensor = interpolate(coarse, scale_factor=float(factor), mode="bilinear")
    return fine


def _build(settings: NetworkSettings) -> tuple[Any, int, int]:
    """Build the network: itself, the channels its decoder gives, and their stride in pixels."""
    given: dict[str, Any] = {"channels": settings.widths} if settings.widths else {}
    common = {
        "encoder_name": settings.encoder,
        "encoder_weights": None,
        "in_channels": 3,
        "classes": len(CHANNELS),
    }
    if settings.decoder == "unet":
        channels = (256, 128, 64, 32, 32)
        unet = smp.Unet(**common, decoder_channels=channels, **given)
        return unet, channels[-1], 1
    fpn = smp.FPN(
        **common,
        decoder_pyramid_channels=settings.pyramid_channels,
        decoder_segmentation_channels=settings.segmentation_channels,
        upsampling=1,
        **given,
    )
    fpn.decoder.merge = Sum()
    return fpn, settings.segmentation_channels, 4


def _guard_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, SinglePrecisionGroupNorm(child))
        else:
            _guard_norms(child)
