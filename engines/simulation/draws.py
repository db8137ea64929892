"""Random draws by name, so that switching one subject off leaves every other draw as it was."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Draws:
    """Independent random streams of one seed, each known by its name."""

    seed: int
    family: str = ""
    """Families with the same seed share nothing."""

    def stream(self, name: str) -> np.random.Generator:
        """Return the generator of one subject; the same name gives the same draws again."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.family}/{name}".encode())])


def log_uniform(generator: np.random.Generator, low: float, high: float) -> float:
    """Draw from a distribution that is uniform in the logarithm between `low` and `high`."""
    return math.exp(generator.uniform(math.log(low), math.log(high)))


def chance(generator: np.random.Generator, probability: float) -> bool:
    """Return True with the given probability (0 to 1)."""
    return bool(generator.random() < probability)


def bell(generator: np.random.Generator, low: float, high: float) -> float:
    """Draw from a bell in the logarithm: most within `low` to `high`, some a little outside."""
    middle = 0.5 * (math.log(low) + math.log(high))
    spread = 0.35 * (math.log(high) - math.log(low))
    return math.exp(middle + spread * float(np.clip(generator.standard_normal(), -2.2, 2.2)))


def repeats(generator: np.random.Generator, expected: float) -> int:
    """Draw how often something happens: its whole part, and once more by chance."""
    whole = int(expected)
    return whole + int(chance(generator, expected - whole))
