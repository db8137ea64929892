"""What training makes small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, smooth_l1_loss
from torch.nn.functional import binary_cross_entropy_with_logits as binary_cross_entropy

from engines.learning.batches import Batch
from engines.learning.shards import PHASE_SHIFT, VALID_BIT
from engines.networks.ice_model import CONTRAST, DISTRACTOR, ICE, NOT_VALID, PHASES

_HUBER = 0.1
"""Error up to which the loss is quadratic; half an even error of a contrast of .05."""


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Weights of the parts of the loss.

    Cross-entropy is proper for areas, Dice sharpens outlines but is biased in volume
    (Bertels et al., arXiv:1911.02278), and the area term holds the proportion.
    """

    ice: tuple[float, float, float] = (0.5, 1.0, 0.5)
    """For the contrast thresholds .06, .10 and .15."""
    dice: float = 0.5
    area: float = 1.0
    phase: float = 0.2
    distractor: float = 0.3
    not_valid: float = 0.3
    contrast: float = 2.0
    """Of the square root of the contrast, whose error is about as large for faint as for strong."""
    doubtful: float = 0.5
    """Weight of pixels over .06 but not over .15 for the headline threshold."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What the logits should say, at their resolution; shares of a pixel count."""

    ice: Tensor
    """(B, 3, h, w) float, at the three thresholds, inside the valid area."""
    phase: Tensor
    """(B, h, w) int64: 0 none, 1 to 3 as in the simulator."""
    distract: Tensor
    """(B, h, w) float."""
    not_valid: Tensor
    """(B, h, w) float: vacuum, or opaque."""
    contrast: Tensor
    """(B, h, w) float: square root of the Bragg contrast."""
    weight: Tensor
    """(B, h, w) float: 1 where there is data."""

    @classmethod
    def of(cls, batch: Batch, step: int) -> Truth:
        """Average the truth of a batch over squares of `step` pixels."""
        maps = torch.cat(
            [
                ice_truth(batch.packed),
                batch.distract.float()[:, None],
                1.0 - specimen(batch.packed)[:, None],
                batch.contrast[:, None],
                batch.valid,
            ],
            dim=1,
        )
        coarse = avg_pool2d(maps, step) if step > 1 else maps
        phase = ((batch.packed[:, ::step, ::step] >> PHASE_SHIFT) & 3).long()
        weight = (coarse[:, 6] > 0.999).float()
        return cls(coarse[:, :3], phase, coarse[:, 3], coarse[:, 4], coarse[:, 5], weight)


def total_loss(
    logits: Tensor, batch: Batch, settings: LossSettings
) -> tuple[Tensor, dict[str, float]]:
    """Add up the parts: the loss and each part as a number, for the log.

    `logits` (B, 9, h, w) float32, as `IceModel.logits` gives them or at a whole fraction of that
    resolution.
    """
    truth = Truth.of(batch, batch.packed.shape[-1] // logits.shape[-1])
    distractor = _entropy(logits[:, DISTRACTOR][:, 0], truth.distract, truth.weight)
    not_valid = _entropy(logits[:, NOT_VALID][:, 0], truth.not_valid, truth.weight)
    parts = {
        "ice": _ice(logits[:, ICE], truth, settings),
        "phase": settings.phase * _phase(logits[:, PHASES], truth),
        "distractor": settings.distractor * distractor,
        "not_valid": settings.not_valid * not_valid,
        "contrast": settings.contrast * _contrast(logits[:, CONTRAST][:, 0], truth),
    }
    total = torch.stack(list(parts.values())).sum()
    return total, {name: float(part.detach()) for name, part in parts.items()}


def specimen(packed: Tensor) -> Tensor:
    """Where electrons come through specimen or support: float, as `packed`."""
    return ((packed & VALID_BIT) > 0).float()


def ice_truth(packed: Tensor) -> Tensor:
    """Labels at the three thresholds, inside the valid area: (B, 3, H, W) float."""
    bits = torch.stack([(packed >> bit) & 1 for bit in range(3)], dim=1).float()
    return bits * specimen(packed)[:, None]


def _ice(logits: Tensor, truth: Truth, settings: LossSettings) -> Tensor:
    doubtful = truth.ice[:, 0] - truth.ice[:, 2]
    parts = []
    for index, share in enumerate(settings.ice):
        z, y, weight = logits[:, index], truth.ice[:, index], truth.weight
        if index == 1:
            weight = weight * (1.0 - (1.0 - settings.doubtful) * doubtful)
        p = z.sigmoid()
        loss = _entropy(z, y, weight) + settings.dice * _dice(p, y, weight)
        parts.append(share * (loss + settings.area * _area(p, y, truth.weight)))
    return torch.stack(parts).sum() / sum(settings.ice)


def _phase(logits: Tensor, truth: Truth) -> Tensor:
    """Cross-entropy among phases, where ice shows and its phase is known."""
    known = truth.weight * truth.ice[:, 0] * (truth.phase > 0).float()
    return _mean(cross_entropy(logits, (truth.phase - 1).clamp(min=0), reduction="none"), known)


def _contrast(logits: Tensor, truth: Truth) -> Tensor:
    """Huber loss of the square root of the contrast, where specimen is."""
    error = smooth_l1_loss(logits.sigmoid(), truth.contrast, reduction="none", beta=_HUBER)
    return _mean(error, truth.weight * (1.0 - truth.not_valid))


def _entropy(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    return _mean(binary_cross_entropy(logits, truth, reduction="none"), weight)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def _dice(probability: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Soft Dice over the batch as a whole, so that pictures without ice do no harm."""
    both = (probability * truth * weight).sum()
    return 1.0 - (2.0 * both + 1.0) / ((probability * weight).sum() + (truth * weight).sum() + 1.0)


def _area(probability: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error of the share of the valid area, picture by picture."""
    area = weight.sum(dim=(1, 2)).clamp(min=1.0)
    return (((probability - truth) * weight).sum(dim=(1, 2)) / area).abs().mean()
