"""Rules that turn the readings of a lamella into a verdict: one file for each, chosen by `kind`."""

from __future__ import annotations

from monitor.policies.mean_over_tilts import MeanOverTilts, MeanOverTiltsSettings
from monitor.policies.protocol import Policy

PolicySettings = MeanOverTiltsSettings
"""Becomes a union discriminated by `kind` with the second policy."""

__all__ = ["MeanOverTilts", "MeanOverTiltsSettings", "Policy", "PolicySettings"]
