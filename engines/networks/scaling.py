"""First stage of the graph: from a prepared picture to what the convolutions see."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

GRID_PX = 16
"""Pixels per cell of the coarse grid on which the local background is found."""
BACKGROUND_NM = 300.0
"""Side of the box, applied twice, over which the local background is averaged."""
CONTRAST_UNIT = 0.15
CLAMP = 6.0
CLIPPING_ROUNDS = 4
CLIP_SIGMAS = 3.0
SIGMA_AFTER_CLIPPING = 0.98658
"""Standard deviation of a unit normal that was cut at three sigmas."""
FLATNESS = 1e-5
"""Deviations below this share of the mean are rounding, not signal."""
COUNTS_PER_SIGMA = 2.0
"""A background under so many deviations is no count of electrons; the deviation replaces it."""


class Scaling(nn.Module):
    """Turn picture and valid mask into three channels that no gain changes.

    Input: picture (B, 1, H, W) and valid (B, 1, H, W; 1 where data), float32, H and W multiples
    of 32. Output (B, 3, H, W): contrast against the local background in units of 0.15;
    deviation from the local background in robust standard deviations, which no offset changes
    either; the valid mask. The first says how dark in absolute terms where the values are counts
    of electrons; the second is what is left where they are grey values of unknown offset.
    """

    def __init__(self, pixel_size_angstrom: float) -> None:
        super().__init__()
        cell_nm = GRID_PX * pixel_size_angstrom / 10.0
        self.reach_cells = max(1, round((BACKGROUND_NM / cell_nm - 1.0) / 2.0))

    def forward(self, picture: Tensor, valid: Tensor) -> Tensor:
        """Scale; finite for any finite picture, also a flat one or one without valid pixels."""
        area = valid.sum(dim=(2, 3), keepdim=True).clamp(min=1.0)
        mean = (picture * valid).sum(dim=(2, 3), keepdim=True) / area
        centred = (picture - mean) * valid
        background = self._background(centred, valid)
        residual = (centred - background) * valid
        # every other row and column: a quarter of the work, the same deviation
        offset, sigma = _robust(residual[:, :, ::2, ::2], valid[:, :, ::2, ::2])
        sigma = sigma.clamp(min=1e-12) + FLATNESS * mean.abs()
        level = torch.maximum(background + mean, COUNTS_PER_SIGMA * sigma)
        contrast = residual / level / CONTRAST_UNIT
        deviation = (residual - offset) / sigma
        channels = torch.cat([contrast, deviation], dim=1).clamp(-CLAMP, CLAMP) * valid
        return torch.cat([channels, valid], dim=1)

    def _background(self, centred: Tensor, valid: Tensor) -> Tensor:
        """Average over the valid neighbourhood: (B, 1, H, W)."""
        total, weight = avg_pool2d(centred, GRID_PX), avg_pool2d(valid, GRID_PX)
        for _ in range(2):
            total, weight = self._box(total), self._box(weight)
        smooth: Tensor = interpolate(
            total / weight.clamp(min=1e-6), scale_factor=float(GRID_PX), mode="bilinear"
        )
        return smooth

    def _box(self, grid: Tensor) -> Tensor:
        side = 2 * self.reach_cells + 1
        blurred: Tensor = avg_pool2d(grid, side, stride=1, padding=self.reach_cells)
        return blurred


def _robust(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation that outliers hardly move: rounds of clipping at 3 sigmas."""
    area = valid.sum(dim=(2, 3), keepdim=True).clamp(min=1.0)
    mean = (values * valid).sum(dim=(2, 3), keepdim=True) / area
    sigma = _deviation(values - mean, valid, area)
    for _ in range(CLIPPING_ROUNDS):
        reach = CLIP_SIGMAS * sigma
        inside = valid * ((values - mean).abs() <= reach).to(values.dtype)
        count = inside.sum(dim=(2, 3), keepdim=True).clamp(min=1.0)
        mean = (values * inside).sum(dim=(2, 3), keepdim=True) / count
        sigma = _deviation(values - mean, inside, count) / SIGMA_AFTER_CLIPPING
    return mean, sigma


def _deviation(centred: Tensor, weight: Tensor, area: Tensor) -> Tensor:
    return ((centred.square() * weight).sum(dim=(2, 3), keepdim=True) / area).sqrt()
