"""Late fusion: what neighbouring tilts left behind corrects what is seen in this one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

GROUPS = 8


class TiltMemory(nn.Module):
    """Keeps a few channels of each tilt, and weighs those of its neighbours against its own.

    Ice flashes at one tilt and is gone at the next; membranes, frost and contamination stay. The
    encoder and the decoder run once for each tilt; without neighbours the features pass unchanged,
    so that a first or only tilt is read as well as without any memory.
    """

    def __init__(self, features: int, memory_channels: int) -> None:
        super().__init__()
        self.keep = nn.Conv2d(features, memory_channels, 1)
        # a neighbour lies some pixels off after coarse alignment: compared over a neighbourhood
        self.compare = nn.Sequential(
            nn.Conv2d(features + 2 * memory_channels + 1, features, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, features),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, features, 3, padding=2, dilation=2, bias=False),
            nn.GroupNorm(GROUPS, features),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, features, 1),
        )
        last = self.compare[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def remember(self, features: Tensor) -> Tensor:
        """Give what this tilt leaves to its neighbours: (B, M, h, w)."""
        kept: Tensor = self.keep(features)
        return kept

    def forward(self, features: Tensor, own: Tensor, memory: Tensor, weight: Tensor) -> Tensor:
        """Correct features (B, F, h, w).

        `own` and `memory` (B, M, h, w) are what this tilt leaves and the mean of what its
        neighbours left; `weight` (B, 1, h, w) says where there is any, 0 or 1.
        """
        together = torch.cat([features, own, memory * weight], dim=1)
        first = self.compare[0]
        assert isinstance(first, nn.Conv2d)
        # the odd channel apart: ONNX Runtime convolves multiples of 16 channels a third faster
        many, one = first.weight[:, :-1], first.weight[:, -1:]
        compared = conv2d(together, many, padding=1) + conv2d(weight, one, padding=1)
        corrected: Tensor = features + weight * self.compare[1:](compared)
        return corrected
